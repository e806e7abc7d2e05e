"""What the verbs share: their commonest arguments, and how they speak."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morphing.inert import one_line, visible

if TYPE_CHECKING:
    from morphing.runs.run import Run

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
StorageUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="A database for the run's study, such as postgresql://user@host/db."
    ),
]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Let benchmarks run code that models wrote, in a sandbox."),
]


def allow_code(allowed: bool) -> None:
    """Heed ``--allow-code``, for this process and those it starts."""
    if allowed:
        os.environ["MORPHING_ALLOW_CODE"] = "1"


def say(text: str) -> None:
    """Tell the person, beside what the command prints."""
    typer.echo(visible(text, lines=True), err=True)


def note(remarks: Sequence[str]) -> None:
    """Tell the person what may not be as it was meant."""
    for remark in remarks:
        say(f"Note: {one_line(remark)}")


def show(text: str) -> None:
    """Print a part of what the command is asked for."""
    typer.echo(visible(text, lines=True))


def fail(sentence: str) -> None:
    """End with one sentence."""
    typer.echo(f"Error: {one_line(sentence)}", err=True)
    sys.exit(1)


def open_run(folder: Path, storage: str | None = None) -> Run:
    """The run in a folder.

    Raises:
        MorphingError: it is none.
    """
    from morphing.runs.run import Run

    return Run(folder, storage)


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
