"""``python -m morphing`` is the ``morphing`` command.

Everything is imported inside :func:`main`, so that Ctrl-C meanwhile ends in a sentence too.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

_interrupted = False


def main() -> None:
    """Run the command; Ctrl-C at any moment ends it with exit code 130 and a sentence."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
            signal.signal(signal.SIGINT, _interrupt)
        from morphing.cli import main as command

        command()
    except SystemExit as end:
        # Typer ends a command with the cause of its Exit; one that ended itself has told why.
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            _tell()
        elif _interrupted and end.code == 1:  # what the interruption broke was told as an error
            _tell()
            sys.exit(130)
        raise
    except BaseException as error:
        # A library may turn the interruption of its import into an error of its own.
        if not (_interrupted or isinstance(error, KeyboardInterrupt)):
            raise
        _tell()
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def _tell() -> None:
    print("Interrupted before the command was done.", file=sys.stderr)


if __name__ == "__main__":
    main()
