"""The ``morphing`` command: the app's verbs for a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morphing.errors import MorphingError
from morphing.search.samplers import SAMPLERS

if TYPE_CHECKING:
    from morphing.merging.lora import AdapterReport
    from morphing.runs.run import Run

app = typer.Typer(
    help="Search merge recipes for the best trade-offs between fine-tuned models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
StorageUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="A database for the run's study, such as postgresql://user@host/db."
    ),
]
TrialNumber = Annotated[int, typer.Argument(metavar="TRIAL", help="A completed trial's number.")]
AdapterRank = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="R", help="Write a LoRA adapter of the base, of this rank, not a checkpoint."
    ),
]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options before the verb; ``--debug`` is read by :func:`main`."""


@app.command()
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
) -> None:
    """Search merge recipes and print the Pareto front."""
    from morphing.terminal import print_front

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
        opened = _open(run, storage)
        if any(budget.values()):
            opened.set_budget(**budget)
    else:
        opened = _create(spec, run, budget | kept, storage)
        _say(f"Run folder: {_shown(opened.folder)}")
    try:
        _work(opened, workers, storage)
    except KeyboardInterrupt:
        _say(f"Interrupted; {_resume_hint(opened)}")
        raise typer.Exit(130) from None
    status = opened.status()
    if status.state == "stopped":
        _say(f"Stopped; {_resume_hint(opened)}")
    elif status.message:
        _say(f"Finished: {status.message}.")
    print_front(opened)


def _work(run: Run, workers: int, storage: str | None) -> None:
    from morphing.runs.loop import Loop
    from morphing.terminal import search_bar

    with search_bar(run) as changed:
        if workers == 1:
            Loop(run, changed=changed).search()
            return
        from morphing.devices import share_out
        from morphing.runs.workers import work

        work(run, share_out(run.spec.device, workers), storage, changed)


@app.command()
def worker(
    run: RunFolder,
    device: Annotated[
        str | None, typer.Option(help="Other than the run's: auto, cuda, cuda:1, mps or cpu.")
    ] = None,
    storage: StorageUrl = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Join a run: evaluate its recipes beside other workers, from this machine or another.

    The run's folder must be here, shared or as a copy: its spec, samples, references and scales.
    Workers without a shared folder need a run with --storage.
    """
    from morphing.runs.loop import Loop
    from morphing.terminal import search_bar

    opened = _open(run, storage)
    try:
        with nullcontext(_nothing) if quiet else search_bar(opened) as changed:
            Loop(opened, changed=changed, device=device).join()
    except KeyboardInterrupt:
        _say("Interrupted; others go on without this worker.")
        raise typer.Exit(130) from None
    status = opened.status()
    _say(f"This worker is done: the run {opened.name} is {status.state}.")


@app.command()
def front(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="First score every member on the holdout split.")
    ] = False,
) -> None:
    """Print a run's Pareto front."""
    from morphing.runs.workbench import Workbench
    from morphing.terminal import front_data, print_front, step_bar

    opened = _open(run)
    if holdout:
        with step_bar() as progress:
            bench = Workbench(opened, progress=progress)
            bench.reference_results("holdout", progress)
            for number in opened.figures().front:
                bench.holdout_results(number, progress)
    if as_json:
        typer.echo(json.dumps(front_data(opened), ensure_ascii=False, indent=2))
    else:
        print_front(opened)


@app.command()
def merge(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE.yaml", help="A mergekit configuration.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu.")] = "auto",
    mask_seed: Annotated[
        int | None,
        typer.Option(help="Of random masks; default: of morphing.json beside the recipe, or 0."),
    ] = None,
    placement: Annotated[
        str, typer.Option(help="Where models are kept: disk, host, device or auto.")
    ] = "disk",
    adapter_rank: AdapterRank = None,
) -> None:
    """Make the one merge a recipe says; interrupted, the same command goes on."""
    from morphing.devices import resolve_device
    from morphing.merging.merge import merge_adapter, merge_recipe, read_recipe
    from morphing.merging.models import PLACEMENTS
    from morphing.terminal import step_bar

    wanted = read_recipe(recipe, mask_seed)
    if placement not in PLACEMENTS:
        raise MorphingError(
            f"Unknown --placement {placement!r}: choose one of {', '.join(PLACEMENTS)}."
        )
    where = resolve_device(device)
    with _going_on(folder), step_bar() as progress:
        if adapter_rank is None:
            report = None
            merge_recipe(wanted, folder, where, progress, placement=placement)
        else:
            report = merge_adapter(
                wanted, folder, adapter_rank, where, progress, placement=placement
            )
    _say_written("the merge", folder, report)


@app.command()
def export(
    run: RunFolder,
    trial: TrialNumber,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    adapter_rank: AdapterRank = None,
) -> None:
    """Write a trial's model, with its card, as an ordinary checkpoint."""
    from morphing.publishing.publish import write_adapter_export, write_export
    from morphing.terminal import step_bar

    opened = _open(run)
    with _going_on(folder), step_bar() as progress:
        if adapter_rank is None:
            report = None
            write_export(opened, trial, folder, progress=progress)
        else:
            report = write_adapter_export(opened, trial, folder, adapter_rank, progress=progress)
    _say_written(f"trial {trial}", folder, report)


@app.command()
def push(
    run: RunFolder,
    trial: TrialNumber,
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="For example you/merge.")],
    public: Annotated[bool, typer.Option("--public", help="Default: private.")] = False,
) -> None:
    """Score a trial on the holdout, export it and push it to the Hub with a model card."""
    from morphing.publishing.publish import publish
    from morphing.terminal import step_bar

    opened = _open(run)
    with step_bar() as progress:
        url = publish(opened, trial, repo_id, private=not public, progress=progress)
    _say(f"Pushed trial {trial} to {url}")


@app.command()
def pause(run: RunFolder) -> None:
    """Ask a running search to pause."""
    _ask(_open(run), "pause")


@app.command()
def stop(run: RunFolder) -> None:
    """Ask a running search to stop; what is told is kept."""
    _ask(_open(run), "stop")


@app.command()
def resume(run: RunFolder) -> None:
    """Let a paused search go on (a stopped one: `morphing search --run DIR --resume`)."""
    _ask(_open(run), "run")


@app.command()
def job(
    results: Annotated[
        str, typer.Argument(metavar="DATASET_ID", help="Private dataset for the run folder.")
    ],
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC.yaml]", help="Default: the zoo.")
    ] = None,
    image: Annotated[
        str, typer.Option(help="A Docker image or hf.co/spaces/org/name that has Morphing.")
    ] = ...,  # type: ignore[assignment]
    flavor: Annotated[str, typer.Option(help="Hardware, for example a10g-small.")] = "cpu-basic",
    timeout: Annotated[str, typer.Option(help="For example 90m or 4h.")] = "2h",
) -> None:
    """Run a search on hardware rented from the Hub; you pay for it."""
    from morphing.jobs.launch import launch
    from morphing.runs.spec import load_spec, zoo_spec

    asked = load_spec(spec) if spec else zoo_spec()
    started = launch(asked, results, image=image, flavor=flavor, timeout=timeout)
    _say(f"Started the Job {started.url}; its run folder goes to the dataset {results}")


@app.command(name="app")
def app_command(
    port: Annotated[int | None, typer.Option(help="Default: 7860.")] = None,
) -> None:
    """Serve the app."""
    from morphing.ui.app import launch

    launch(port=port)


def main() -> None:
    """Run the command; a failure ends in one sentence, or a traceback with ``--debug``."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    _quiet_libraries(debug)
    try:
        app(args=arguments, prog_name="morphing")
    except MorphingError as error:
        if debug:
            raise
        _fail(str(error))
    except Exception as error:
        if debug:
            raise
        _fail(f"Unexpected {type(error).__name__}: {error} (run with --debug for the traceback)")


def _fail(sentence: str) -> None:
    typer.echo(f"Error: {sentence}", err=True)
    sys.exit(1)


def _nothing() -> None:
    """Progress that is not shown."""


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _quiet_libraries(debug: bool) -> None:
    """Progress bars and notes of the libraries would tear ours apart."""
    import logging
    import os
    import warnings

    if debug:
        return
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("optuna").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def _open(folder: Path, storage: str | None = None) -> Run:
    from morphing.runs.run import Run

    return Run(folder, storage)


def _create(
    spec_path: Path | None, folder: Path | None, changes: dict[str, Any], storage: str | None
) -> Run:
    from morphing.runs.prepare import create_run
    from morphing.runs.run import default_folder
    from morphing.runs.spec import load_spec, parse_spec, zoo_spec
    from morphing.runs.storage import check_storage, keep_elsewhere

    spec = load_spec(spec_path) if spec_path else zoo_spec()
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
    run = create_run(folder or default_folder(spec.name), parsed)
    if storage is not None:
        keep_elsewhere(run.folder, storage)
        return _open(run.folder, storage)
    return run


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Say how an interrupted export goes on."""
    from morphing.merging.checkpoint_writer import partial_folder

    try:
        yield
    except KeyboardInterrupt:
        kept = partial_folder(folder)
        rest = f"the same command goes on from the finished files in {_shown(kept)}"
        _say(f"Interrupted; {rest if kept.exists() else 'nothing was written'}.")
        raise typer.Exit(130) from None


def _say_written(what: str, folder: Path, report: AdapterReport | None) -> None:
    if report is None:
        _say(f"Wrote {what} to {_shown(folder)}")
        return
    from morphing.terminal import print_report

    _say(f"Wrote {what} as an adapter to {_shown(folder)}")
    print_report(report)


def _ask(run: Run, request: str) -> None:
    if not run.status().active:
        raise MorphingError(
            f"Nothing works on the run {run.name} now: `{_resume_command(run)}` goes on with it."
        )
    run.request(request)  # type: ignore[arg-type]


def _shown(path: Path) -> str:
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _resume_command(run: Run) -> str:
    return f"morphing search --run {_shown(run.folder)} --resume"


def _resume_hint(run: Run) -> str:
    return f"`{_resume_command(run)}` goes on from here."
