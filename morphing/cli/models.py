"""The verbs that make a model: merge, export, push."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morphing.cli.common import AllowCode, RunFolder, allow_code, note, open_run, say, shown
from morphing.errors import MorphingError

if TYPE_CHECKING:
    from morphing.merging.writing.lora import AdapterReport

TrialNumber = Annotated[int, typer.Argument(metavar="TRIAL", help="A completed trial's number.")]
AdapterRank = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="R", help="Write a LoRA adapter of the base, of this rank, not a checkpoint."
    ),
]


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
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a recipe of which anything is noted.")
    ] = False,
) -> None:
    """Make the one merge a recipe says; interrupted, the same command goes on."""
    from morphing.cli.terminal import step_bar
    from morphing.devices import resolve_device
    from morphing.matching.merge import is_solved, merge_solved
    from morphing.merging.merge import merge_adapter, merge_stages, read_merge, refuse_all
    from morphing.merging.models import PLACEMENTS

    wanted = read_merge(recipe, mask_seed)
    if placement not in PLACEMENTS:
        raise MorphingError(
            f"Unknown --placement {placement!r}: choose one of {', '.join(PLACEMENTS)}."
        )
    where = resolve_device(device)
    told = refuse_all if strict else note
    with _going_on(folder), step_bar() as progress:
        if is_solved(wanted):
            if adapter_rank is not None:
                raise MorphingError(
                    f"A {wanted.final.method} merge cannot be written as an adapter: leave"
                    " --adapter-rank out."
                )
            report = None
            merge_solved(wanted.final, folder, where, progress, placement=placement, told=told)
        elif adapter_rank is None:
            report = None
            merge_stages(wanted, folder, where, progress, placement=placement, told=told)
        else:
            report = merge_adapter(
                wanted, folder, adapter_rank, where, progress, placement=placement, told=told
            )
    _say_written("the merge", folder, report)


def export(
    run: RunFolder,
    trial: TrialNumber,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    adapter_rank: AdapterRank = None,
) -> None:
    """Write a trial's model, with its card, as an ordinary checkpoint."""
    from morphing.cli.terminal import step_bar
    from morphing.publishing.publish import write_adapter_export, write_export

    opened = open_run(run)
    with _going_on(folder), step_bar() as progress:
        if adapter_rank is None:
            report = None
            write_export(opened, trial, folder, progress=progress)
        else:
            report = write_adapter_export(opened, trial, folder, adapter_rank, progress=progress)
    _say_written(f"trial {trial}", folder, report)


def push(
    run: RunFolder,
    trial: TrialNumber,
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="For example you/merge.")],
    public: Annotated[bool, typer.Option("--public", help="Default: private.")] = False,
    code: AllowCode = False,
) -> None:
    """Score a trial on the holdout, export it and push it to the Hub with a model card."""
    from morphing.cli.terminal import step_bar
    from morphing.publishing.publish import publish

    allow_code(code)
    opened = open_run(run)
    with step_bar() as progress:
        url = publish(opened, trial, repo_id, private=not public, progress=progress)
    say(f"Pushed trial {trial} to {url}")


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Say how an interrupted export goes on."""
    from morphing.merging.writing.checkpoint_writer import partial_folder

    try:
        yield
    except KeyboardInterrupt:
        kept = partial_folder(folder)
        rest = f"the same command goes on from the finished files in {shown(kept)}"
        say(f"Interrupted; {rest if kept.exists() else 'nothing was written'}.")
        raise typer.Exit(130) from None


def _say_written(what: str, folder: Path, report: AdapterReport | None) -> None:
    if report is None:
        say(f"Wrote {what} to {shown(folder)}")
        return
    from morphing.cli.terminal import print_report

    say(f"Wrote {what} as an adapter to {shown(folder)}")
    print_report(report)
