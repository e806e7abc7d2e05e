"""Run a program that a model wrote where it can harm nothing: bubblewrap, limits and a filter.

A program gets a Python with its standard library, an empty folder in memory and nothing else: no
network, no other processes, no files of this machine, no environment, no privileges. What it
leaves behind is gone with it.
"""

from __future__ import annotations

import os
import secrets
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from morphing.benchmarks.sandbox.filter import filter_program
from morphing.errors import MorphingError

ENVIRONMENT = {
    "HOME": "/tmp",
    "PATH": "/python/bin",
    "LD_LIBRARY_PATH": "/python/lib",
    # The same order of sets in every run, and any text printable.
    "PYTHONHASHSEED": "0",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
    "PYTHONUTF8": "1",
}
_STARTUP = 60.0  # seconds; a busy machine is no reason to fail a program
_SHOWN = 4000  # characters of output that are kept
_TIMED_OUT = 128 + 24  # as bwrap reports SIGXCPU


@dataclass(frozen=True)
class Limits:
    """What a program may use. Beyond a limit a call of its fails, or it is ended."""

    seconds: float = 60.0
    """From its first line to its end, waiting included."""
    cpu_seconds: int = 5
    """Of each of its processes."""
    memory: int = 512 * 2**20
    """Bytes of address space of each of its processes."""
    processes: int = 8
    """Threads too; two are the sandbox's first process and the program itself."""
    file_bytes: int = 16 * 2**20
    """Of one file."""
    folder_bytes: int = 64 * 2**20
    """Of its folder, which lies in memory."""
    output_bytes: int = 2**20
    """Of standard output and error together."""


LIMITS = Limits()


@dataclass(frozen=True)
class Execution:
    """How a program ended.

    ``passed``: it ran to its last line and ended without an error. ``reason`` says why it did not.
    ``output`` is the end of what it printed, errors included.
    """

    passed: bool
    reason: str
    output: str


class SandboxError(MorphingError):
    """The sandbox does not start; ``said`` is the reason it gave."""

    def __init__(self, said: str) -> None:
        super().__init__(f"The sandbox for programs that a model writes does not start: {said}.")
        self.said = said


def bwrap() -> str:
    """Where bubblewrap is.

    Raises:
        MorphingError: it is not installed.
    """
    if path := shutil.which("bwrap"):
        return path
    raise MorphingError(
        "Programs that a model writes run only in a sandbox, and on this system files, processes"
        " and the network can't be isolated, for bubblewrap (bwrap) is missing: install the"
        " package bubblewrap."
    )


def run_program(program: str, limits: Limits = LIMITS) -> Execution:
    """Run a Python program, as a module named ``program``, in a sandbox of its own.

    A program that ends itself before its last line (``sys.exit``) has not passed, whatever its exit
    code: it may have left out its tests. That is told by a mark printed after the last line, which
    the program cannot guess; one that looks for it in its own process (``sys._getframe``) can find
    and print it, and so pass without its tests. Random numbers and the order of sets are fixed.

    Raises:
        SandboxError: the sandbox does not start.
    """
    mark = secrets.token_hex(16)
    with tempfile.TemporaryFile() as source, _filter_to_read() as filter_fd:
        source.write(program.encode(errors="replace"))
        source.seek(0)
        process = subprocess.Popen(
            _command(limits, mark, filter_fd),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={},
            pass_fds=[filter_fd],
            start_new_session=True,
        )
    try:
        output, stopped = _watch(process, f"{mark}\n".encode(), limits)
    finally:
        # Its death is the death of the first process in its namespace, and so of all of them.
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    before, begun, text = output.decode(errors="replace").partition(f"{mark}\n")
    if not begun:
        said = before.strip().splitlines() or [stopped or f"exit code {process.returncode}"]
        raise SandboxError(said[-1])
    text, ended, after = text.partition(f"{mark}\n")
    passed = bool(ended) and process.returncode == 0 and not stopped
    text += after
    why = "" if passed else stopped or _reason(process.returncode, text, limits)
    return Execution(passed, why, text[-_SHOWN:])


def _reason(code: int, text: str, limits: Limits) -> str:
    if code == 0:
        return "it ended before its last line"
    if code == _TIMED_OUT:
        return f"it took more than {limits.cpu_seconds} s of processor time"
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else f"it ended with exit code {code}"


def _watch(process: subprocess.Popen[bytes], mark: bytes, limits: Limits) -> tuple[bytearray, str]:
    """What the program printed, marks included, and why it must be stopped, if it must."""
    assert process.stdout is not None
    output, begun = bytearray(), False
    deadline = time.monotonic() + _STARTUP
    late = "it took too long to start"
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(deadline - time.monotonic()):
            chunk = os.read(process.stdout.fileno(), 2**16)
            output += chunk
            if not begun and mark in output:
                begun, deadline = True, time.monotonic() + limits.seconds
                late = f"it took more than {limits.seconds:g} s"
            if len(output) > limits.output_bytes:
                return output, f"it printed more than {limits.output_bytes} bytes"
            if not chunk:
                break
            if time.monotonic() > deadline:
                return output, late
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return output, late
    return output, ""


@contextmanager
def _filter_to_read() -> Iterator[int]:
    """A descriptor from which bwrap reads the filter of system calls."""
    reading, writing = os.pipe()
    try:
        with open(writing, "wb") as pipe:
            pipe.write(filter_program() or b"")
        yield reading
    finally:
        os.close(reading)


def _command(limits: Limits, mark: str, filter_fd: int) -> list[str]:
    root = os.geteuid() == 0
    stranger = _stranger() if root else 0
    inside = Path(__file__).with_name("inside.py").read_text(encoding="utf-8")
    bounds = (limits.cpu_seconds, limits.memory, limits.processes, limits.file_bytes)
    return [
        # Short of memory, the kernel shall end the program and not what holds the model.
        *("/bin/sh", "-c", '{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null; exec "$@"', "sh"),
        bwrap(),
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
        "--unshare-cgroup-try",
        # Root needs no user namespace and leaves root inside; anybody else can't do without.
        *(_DROPPING_ROOT if root else ["--unshare-user"]),
        *("--die-with-parent", "--new-session", "--clearenv"),
        *(word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)),
        *(
            "--dir",
            "/dev",
            "--dir",
            "/python",
            "--dir",
            "/python/bin",
            *_python(),
            *_system_libraries(),
        ),
        *("--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"),
        *("--perms", "1777", "--size", str(limits.folder_bytes), "--tmpfs", "/tmp"),
        *("--remount-ro", "/", "--chdir", "/tmp", "--seccomp", str(filter_fd), "--"),
        *("/python/bin/python3", "-s", "-S", "-P", "-B", "-c", inside, mark),
        *map(str, (stranger, *bounds)),
    ]


_DROPPING_ROOT = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]


def _stranger() -> int:
    """A user that nobody else is, so that the limit on its processes counts this program's only."""
    inside, _, count = map(int, Path("/proc/self/uid_map").read_text().splitlines()[-1].split())
    return inside + count - 2 - secrets.randbelow(min(count // 2, 2**20))


def _python() -> list[str]:
    """The Python that runs this, without any package installed into it, as ``/python``."""
    library = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}"
    binds = ["--ro-bind", os.path.realpath(sys.executable), "/python/bin/python3"]
    for folder in sorted({"lib", sys.platlibdir}):
        binds += ["--ro-bind", f"{sys.base_prefix}/{folder}", f"/python/{folder}"]
    packages = library / "site-packages"
    if (sys.base_prefix / packages).is_dir():
        binds += ["--tmpfs", f"/python/{packages}", "--remount-ro", f"/python/{packages}"]
    return binds


def _system_libraries() -> list[str]:
    folders = [path for path in ("/usr/lib", "/usr/lib64", "/lib", "/lib64") if Path(path).is_dir()]
    return [word for path in folders for word in ("--ro-bind", path, path)]
