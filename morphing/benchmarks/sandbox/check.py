"""Whether programs of others may run here, and whether this system can isolate them: tried, not
assumed."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from morphing.benchmarks.sandbox.filter import filter_program
from morphing.benchmarks.sandbox.run import (
    ENVIRONMENT,
    LIMITS,
    Execution,
    SandboxError,
    bwrap,
    run_program,
)
from morphing.errors import MorphingError
from morphing.visitors import is_public, on_space

# Each isolation alone, so that an error can name the one that is missing.
_ISOLATIONS = {
    "files": [],
    "processes": ["--unshare-pid"],
    "the network": ["--unshare-net"],
    "shared memory": ["--unshare-ipc"],
}
_ENDLESS = {
    "a time limit": ("import time\ntime.sleep(60)", replace(LIMITS, seconds=0.5), "0.5 s"),
    "a limit on processor time": ("while 1: pass", replace(LIMITS, cpu_seconds=1), "processor"),
    "a limit on output": ("while 1: print('endless')", LIMITS, "printed"),
}


def code_allowed() -> bool:
    """Whether code of others may run: ``MORPHING_ALLOW_CODE=1`` is set.

    That is programs that a model wrote, which run in the sandbox, and Python that comes with a
    metric or a task of lm-evaluation-harness, which does not. Off by default everywhere. Where
    others reach the app the variable is its owner's to set, not a visitor's.
    """
    return os.environ.get("MORPHING_ALLOW_CODE") == "1"


def ask_leave(what: str) -> None:
    """Check that code of others may run here; ``what`` says who would run which.

    Raises:
        MorphingError: it is not switched on.
    """
    if code_allowed():
        return
    mend = "allow it with --allow-code or the environment variable MORPHING_ALLOW_CODE=1"
    if on_space():
        mend = "the Space's owner can set the variable MORPHING_ALLOW_CODE=1 in its settings"
    elif is_public():
        mend = "the owner of this page can allow it with --allow-code where it is served"
    raise MorphingError(f"{what}, which is off: {mend}.")


def require_code(benchmark: str) -> None:
    """Check that programs of a benchmark may run here, and can.

    Raises:
        MorphingError: it is not switched on, or this system can't isolate them.
    """
    ask_leave(f"Benchmark {benchmark!r} runs programs that the model writes")
    check_sandbox()


@functools.cache
def check_sandbox() -> None:
    """Let a program try all that the sandbox must prevent; once a process, in about 2 seconds.

    Raises:
        MorphingError: the system is not Linux, bubblewrap is missing or can't isolate something
            here, or something was not prevented; it says which.
    """
    if sys.platform != "linux":
        raise _refusal(f"{sys.platform} has none of its isolation", "use Linux")
    bwrap()
    if filter_program() is None:
        raise _refusal(
            f"system calls of {os.uname().machine} processors can't be filtered",
            "use an x86_64 or aarch64 machine",
        )
    try:
        missing = _not_prevented()
    except SandboxError as error:
        absent = [name for name, options in _ISOLATIONS.items() if not _isolates(options)]
        raise _refusal(
            f"bubblewrap can't isolate {', '.join(absent) or 'the program'} ({error.said})",
            "allow user namespaces on this system (in a container its host must), and have"
            " bubblewrap 0.8 or newer",
        ) from error
    if missing:
        raise _refusal(f"it lacks {', '.join(missing)}", "use another system for this benchmark")


def _refusal(reason: str, mend: str) -> MorphingError:
    return MorphingError(
        f"Programs that a model writes run only in a sandbox, and on this system {reason}: {mend}."
    )


def _isolates(options: list[str]) -> bool:
    command = [bwrap(), "--bind", "/", "/", *options, "true"]
    return subprocess.run(command, capture_output=True).returncode == 0


def _not_prevented() -> list[str]:
    """What a program could do or use, by the name of what should have prevented it."""
    with ThreadPoolExecutor() as pool:
        ends = {name: pool.submit(run_program, *run[:2]) for name, run in _ENDLESS.items()}
        probe = _probe()
    try:
        found: list[str] = json.loads(probe.output)
    except ValueError as error:
        raise SandboxError(probe.reason or probe.output) from error
    return found + [
        name for name, end in ends.items() if _ENDLESS[name][2] not in end.result().reason
    ]


def _probe() -> Execution:
    from huggingface_hub import constants

    code = Path(__file__).with_name("probe.py").read_text(encoding="utf-8")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        tempfile.NamedTemporaryFile() as file,
    ):
        homes = {str(Path.home())} - {"/", "/tmp"}
        seen = {
            **asdict(LIMITS),
            "port": listener.getsockname()[1],
            "paths": [*homes, constants.HF_TOKEN_PATH, file.name],
            "environment": [*ENVIRONMENT, "PWD", "LC_CTYPE"],
        }
        return run_program(f"{code}\nprobe({seen!r})\n")
