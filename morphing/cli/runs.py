"""The verbs of a run: search, worker, front, pause, stop, resume."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morphing.cli.common import (
    AllowCode,
    RunFolder,
    StorageUrl,
    allow_code,
    note,
    open_run,
    say,
    show,
    shown,
)
from morphing.errors import MorphingError
from morphing.search.samplers import SAMPLERS

if TYPE_CHECKING:
    from morphing.runs.run import Run
    from morphing.runs.spec import RunSpec


def search(
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC.yaml]", help="What to search; default: the zoo.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; default: under runs/.")
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(min=1, help="How many recipes to evaluate in all.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(min=0, help="End after so many hours of work, too.")
    ] = None,
    stalled: Annotated[
        int | None,
        typer.Option(min=1, help="End after so many evaluations without hypervolume, too."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"One of {', '.join(SAMPLERS)}.")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="ps (merge parameters), dfs (layer paths) or ps+dfs."),
    ] = None,
    layer_groups: Annotated[
        str | None,
        typer.Option(metavar="N", help="Groups of layers with parameters of their own, or `each`."),
    ] = None,
    racing: Annotated[
        bool | None,
        typer.Option("--racing/--no-racing", help="Give up early what is clearly dominated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of sampler and masks.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda, mps or cpu.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes that evaluate recipes side by side.")
    ] = 1,
    storage: StorageUrl = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")] = False,
    code: AllowCode = False,
) -> None:
    """Search merge recipes and print the Pareto front."""
    from morphing.benchmarks.find import CONTAMINATION
    from morphing.cli.terminal import print_front
    from morphing.runs.conditions import conditions_here, conditions_of, mixed

    allow_code(code)
    budget: dict[str, Any] = {"evaluations": evaluations, "hours": hours, "stalled": stalled}
    kept: dict[str, Any] = {
        "sampler": sampler,
        "seed": seed,
        "racing": racing,
        "space": space,
        "layer_groups": layer_groups,
        "device": device,
    }
    if resume:
        if run is None or spec or any(value is not None for value in kept.values()):
            raise MorphingError(
                "--resume goes with --run DIR and, if you like, --evaluations, --hours, --stalled,"
                " --workers and --storage: the run keeps the rest of its spec."
            )
        opened = open_run(run, storage)
        if any(budget.values()):
            opened.set_budget(**budget)
        if told := mixed([*conditions_of(opened), conditions_here(opened)]):
            say(told)
    else:
        opened = _create(spec, run, budget | kept, storage)
        say(f"Run folder: {shown(opened.folder)}")
        for use in opened.spec.tasks:
            if use.declaration.contaminates:
                say(f"{use.declaration.name} {CONTAMINATION}")
    try:
        _work(opened, workers, storage)
    except KeyboardInterrupt:
        say(f"Interrupted; {_resume_hint(opened)}")
        raise typer.Exit(130) from None
    status = opened.status()
    if status.state == "stopped":
        say(f"Stopped; {_resume_hint(opened)}")
    elif status.message:
        say(f"Finished: {status.message}.")
    print_front(opened)


def _work(run: Run, workers: int, storage: str | None) -> None:
    from morphing.cli.terminal import search_bar
    from morphing.runs.loop import Loop

    with search_bar(run) as changed:
        if workers == 1:
            Loop(run, changed=changed).search()
            return
        from morphing.devices import share_out
        from morphing.runs.workers import work

        work(run, share_out(run.spec.device, workers), storage, changed)


def worker(
    run: RunFolder,
    device: Annotated[
        str | None, typer.Option(help="Other than the run's: auto, cuda, cuda:1, mps or cpu.")
    ] = None,
    storage: StorageUrl = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    code: AllowCode = False,
) -> None:
    """Join a run: evaluate its recipes beside other workers, from this machine or another.

    The run's folder must be here, shared or as a copy: its spec, samples, references and scales.
    Workers without a shared folder need a run with --storage.
    """
    from morphing.cli.terminal import search_bar
    from morphing.runs.loop import Loop

    allow_code(code)
    opened = open_run(run, storage)
    try:
        with nullcontext(_nothing) if quiet else search_bar(opened) as changed:
            Loop(opened, changed=changed, device=device).join()
    except KeyboardInterrupt:
        say("Interrupted; others go on without this worker.")
        raise typer.Exit(130) from None
    status = opened.status()
    say(f"This worker is done: the run {opened.name} is {status.state}.")


def front(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="First score every member on the holdout split.")
    ] = False,
    code: AllowCode = False,
) -> None:
    """Print a run's Pareto front."""
    from morphing.cli.terminal import front_data, print_front, step_bar
    from morphing.runs.figures import figures_of
    from morphing.runs.holdout import own_workbench, score_holdout

    allow_code(code)
    opened = open_run(run)
    if holdout:
        with step_bar() as progress:
            own = own_workbench(opened, progress=progress)
            score_holdout(opened, figures_of(opened).front, own, progress)
    if as_json:
        show(json.dumps(front_data(opened), ensure_ascii=False, indent=2))
    else:
        print_front(opened)


def pause(run: RunFolder) -> None:
    """Ask a running search to pause."""
    _ask(open_run(run), "pause")


def stop(run: RunFolder) -> None:
    """Ask a running search to stop; what is told is kept."""
    _ask(open_run(run), "stop")


def resume(run: RunFolder) -> None:
    """Let a paused search go on (a stopped one: `morphing search --run DIR --resume`)."""
    _ask(open_run(run), "run")


def mend(run: RunFolder) -> None:
    """Mend a run whose journal has broken lines: keep what is before and after them."""
    from morphing.runs.mending import mend as mend_journal

    opened = open_run(run)
    done = mend_journal(opened)
    if done is None:
        say("No line of the journal is broken: nothing was changed.")
        return
    numbers = ", ".join(map(str, done.lines))
    say(
        f"Left out what was broken (line {numbers}); the journal as it was is {shown(done.kept)}."
        f" Trials of which a note was lost are evaluated again: {_resume_hint(opened)}"
    )


def _nothing() -> None:
    """Progress that is not shown."""


def _read(path: Path) -> RunSpec:
    from morphing.runs.evolve_config import read_search
    from morphing.sources.find import inspect

    spec, remarks = read_search(path, lambda model: inspect(model).layers)
    if remarks:
        say(f"{path} is a configuration of mergekit-evolve, searched as this run spec:")
        say(spec.to_yaml())
        note(remarks)
    return spec


def _create(
    spec_path: Path | None, folder: Path | None, changes: dict[str, Any], storage: str | None
) -> Run:
    from morphing.cli.terminal import step_bar
    from morphing.runs.prepare import create_run
    from morphing.runs.run import default_folder
    from morphing.runs.spec import parse_spec, zoo_spec
    from morphing.runs.storage import check_storage, keep_elsewhere

    spec = _read(spec_path) if spec_path else zoo_spec()
    given = {name: value for name, value in changes.items() if value is not None}
    data = spec.model_dump()
    if "device" in given:
        data["device"] = given.pop("device")
    if "space" in given:
        data["search"]["space"]["strategy"] = given.pop("space")
    if "layer_groups" in given:
        groups = str(given.pop("layer_groups"))
        data["search"]["space"]["layer_groups"] = int(groups) if groups.isdecimal() else groups
    data["search"].update(given)
    parsed = parse_spec(data, "The command line")
    if storage is not None:
        check_storage(storage)
    told: list[str] = []
    with step_bar() as progress:
        folder = folder or default_folder(spec.name)
        run = create_run(folder, parsed, progress=progress, told=told.append)
    for sentence in told:
        say(sentence)
    if storage is not None:
        keep_elsewhere(run.folder, storage)
        return open_run(run.folder, storage)
    return run


def _ask(run: Run, request: str) -> None:
    if not run.status().active:
        raise MorphingError(
            f"Nothing works on the run {run.name} now: `{_resume_command(run)}` goes on with it."
        )
    run.request(request)  # type: ignore[arg-type]


def _resume_command(run: Run) -> str:
    return f"morphing search --run {quote(shown(run.folder))} --resume"


def _resume_hint(run: Run) -> str:
    return f"`{_resume_command(run)}` goes on from here."
