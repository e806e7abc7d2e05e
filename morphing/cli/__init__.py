"""The ``morphing`` command: the app's verbs for a terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from morphing import __version__
from morphing.cli.common import fail
from morphing.cli.models import export, merge, push
from morphing.cli.runs import front, mend, pause, resume, search, stop, worker
from morphing.cli.scores import benchmarks, evaluate
from morphing.cli.services import app_command, job
from morphing.errors import mendable
from morphing.inert import make_logs_inert

app = typer.Typer(
    help="Search merge recipes for the best trade-offs between fine-tuned models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"morphing {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options before the verb; ``--debug`` is read by :func:`main`."""


for verb in (
    search,
    worker,
    front,
    evaluate,
    benchmarks,
    merge,
    export,
    push,
    pause,
    stop,
    resume,
    mend,
    job,
):
    app.command()(verb)
app.command(name="app")(app_command)


def main() -> None:
    """Run the command; a failure ends in one sentence, or a traceback with ``--debug``."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    _quiet_libraries(debug)
    make_logs_inert()
    try:
        app(args=arguments, prog_name="morphing")
    except Exception as error:
        if debug or _is_interruption(error):
            raise
        unforeseen = f"Unexpected {type(error).__name__}: {error}"
        fail(mendable(error) or f"{unforeseen} (run with --debug for the traceback)")


def _is_interruption(error: BaseException) -> bool:
    """Whether Ctrl-C is behind an error: a library may make its own of an import's interruption."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__cause__ or seen.__context__
    return seen is not None


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
