"""Programs that try to get out of the sandbox; each time the host is looked at as well."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from morphing.benchmarks.sandbox import run
from morphing.benchmarks.sandbox.run import Execution, Limits, run_program

ALLOW_EVERYTHING = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # a filter of one step
PROJECT = Path(__file__).parents[2]


@pytest.fixture
def marker() -> Iterator[str]:
    """A name that a test's programs take, by which the host knows them; none may survive."""
    name = uuid.uuid4().hex[:12]
    yield name
    assert not surviving(name)


@pytest.fixture
def attempt(sandbox: None, marker: str) -> Callable[..., Execution]:
    """Run a program under the marker's name, with small limits."""

    def attempt(program: str, **limits: float) -> Execution:
        named = f"import ctypes\nctypes.CDLL(None).prctl(15, {marker.encode()!r})\n"
        allowed = Limits(**{"seconds": 20, "cpu_seconds": 2, **limits})  # type: ignore[arg-type]
        return run_program(named + textwrap.dedent(program), allowed)

    return attempt


Attempt = Callable[..., Execution]


def running(name: str) -> list[int]:
    return [
        each.pid
        for each in psutil.process_iter(["name", "status"])
        if each.info["name"] == name and each.info["status"] != psutil.STATUS_ZOMBIE
    ]


def surviving(name: str) -> list[int]:
    """The kernel ends a namespace's processes at once; this gives a slow machine some time."""
    for _ in range(200):
        if not (found := running(name)):
            return []
        time.sleep(0.05)
    return found


def test_a_program_runs(attempt: Attempt) -> None:
    done = attempt(
        """
        import asyncio, dataclasses, math, os, subprocess, sys, threading
        from typing import List

        @dataclasses.dataclass
        class Point:
            x: "List[int]"

        async def one(): return 1
        assert asyncio.run(one()) == 1
        with open("note", "w") as file: file.write("x")
        assert os.getcwd() == "/tmp" and os.listdir() == ["note"]
        thread = threading.Thread(target=print, args=(Point([1]), "\\ud800"))
        thread.start(); thread.join()
        subprocess.run([sys.executable, "-c", "print('child')"], check=True)
        if __name__ == "__main__": input()
        """
    )
    assert done == Execution(True, "", "child\nPoint(x=[1]) \\ud800\n")


def test_random_numbers_and_sets_are_the_same_each_time(attempt: Attempt) -> None:
    program = "import random\nprint(random.random(), {'a', 'b', 'c', 'd', 'e'})"
    assert attempt(program) == attempt(program)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2, 'no'", "AssertionError: no"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("import sys; sys.exit(0)", "it ended before its last line"),
        ("import os; os._exit(0)", "it ended before its last line"),
        ("import os; os.close(1); os.close(2); 1 / 0", "it ended with exit code 1"),
        ("ctypes.string_at(0)", "it ended with exit code 139"),
        ("import atexit; atexit.register(lambda: os._exit(3)); import os", "exit code 3"),
        ("input()", "EOFError"),
        ("import torch", "No module named 'torch'"),
        ("\0", "null bytes"),
        ("(" * 10**6, "SyntaxError"),
    ],
)
def test_a_program_that_does_not_end_well_fails(
    attempt: Attempt, program: str, reason: str
) -> None:
    done = attempt(program)
    assert not done.passed and reason in done.reason


def test_a_fork_bomb(attempt: Attempt) -> None:
    done = attempt(
        """
        import os
        while True:
            try: os.fork()
            except OSError: pass
        """,
        seconds=3,
        cpu_seconds=1,
    )
    assert not done.passed
    assert subprocess.run(["true"]).returncode == 0, "the host can still start processes"


def test_how_many_processes_there_can_be(attempt: Attempt) -> None:
    done = attempt(
        """
        import os, time
        started = 0
        while started < 100:
            try:
                if os.fork() == 0: time.sleep(60)
            except OSError: break
            started += 1
        print(started)
        """
    )
    # Beside the program itself, and the sandbox's first process where it is the same user's.
    assert done.passed and int(done.output) in (Limits().processes - 2, Limits().processes - 1)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output(attempt: Attempt, stream: str) -> None:
    done = attempt(f"import sys\nwhile True: print('x' * 999, file=sys.{stream})")
    assert done.reason == f"it printed more than {2**20} bytes" and len(done.output) == 4000


def test_the_token_and_the_environment(
    attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_" + uuid.uuid4().hex
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setenv("SECRET", secret)
    kept = [tmp_path / "token", Path.home() / f".{secret}"]
    done = Execution(False, "", "")
    try:
        for file in kept:
            file.write_text(secret)
        done = attempt(
            f"""
            import os
            texts = [str(dict(os.environ))]
            environments = ["/proc/self/environ", "/proc/1/environ"]
            for path in {[str(file) for file in kept]!r} + environments:
                try: texts.append(open(path).read())
                except OSError: texts.append("none")
            for folder, folders, files in os.walk("/"):
                folders[:] = [] if folder in ("/lib", "/lib64", "/usr", "/python/lib") else folders
                texts += [f"{{folder}}:{{files}}"]
            print(*texts, sep="\\n")
            """
        )
    finally:
        kept[1].unlink(missing_ok=True)
    assert done.passed and done.output.count("none") == 4
    assert secret not in done.output and str(tmp_path) not in done.output
    assert "HF_TOKEN" not in done.output


def test_no_descriptor_of_the_host_is_open(attempt: Attempt, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        done = attempt(
            """
            import os
            found = []
            for number in range(4096):
                try: os.fstat(number)
                except OSError: continue
                found.append(number)
            print(found)
            """
        )
    # The fourth is the sandbox's own second one of the output.
    assert done.output == "[0, 1, 2, 3]\n"


def test_writing_outside(attempt: Attempt, tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    elsewhere = [Path.home(), PROJECT, Path("/"), Path("/etc"), Path("/usr/lib"), Path("/dev/shm")]
    elsewhere += [Path(os.__file__).parent, Path("/python/lib"), Path("/var/tmp")]
    private = [tmp_path, Path("/tmp")]  # under /tmp a program has a folder of its own
    done = attempt(
        f"""
        import os
        for folder in {[str(folder) for folder in elsewhere + private]!r}:
            try:
                os.makedirs(folder, exist_ok=True)
                with open(folder + "/{name}", "w") as file: file.write("x")
            except OSError: continue
            print(folder)
        """
    )
    assert all(folder.startswith("/tmp") for folder in done.output.split())
    assert not any((folder / name).exists() for folder in elsewhere + private)


@pytest.mark.parametrize("layers", ["both", "namespace"])
def test_sockets(
    attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: str
) -> None:
    if layers == "namespace":  # without the filter
        monkeypatch.setattr(run, "filter_program", lambda: ALLOW_EVERYTHING)
    places: list[tuple[int, object]] = []
    listeners = []
    abstract = f"\0{uuid.uuid4().hex}"
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET, ("0.0.0.0", 0)),
        (socket.AF_UNIX, abstract),
        (socket.AF_UNIX, str(tmp_path / "socket")),
    ):
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen()
        listener.setblocking(False)
        listeners.append(listener)
        places.append((int(family), listener.getsockname()))
    places[2] = (int(socket.AF_UNIX), abstract)
    places += [(int(socket.AF_INET), (mine, places[1][1][1])) for mine in own_addresses()]  # type: ignore[index]
    done = attempt(
        f"""
        import socket
        for family, address in {places!r}:
            try:
                with socket.socket(family) as client:
                    client.settimeout(2)
                    client.connect(address)
                    print("reached", address)
            except OSError as error: print(error)
        """
    )
    assert done.passed and "reached" not in done.output
    assert done.output.count("Operation not permitted") == (len(places) if layers == "both" else 0)
    for listener in listeners:
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.close()


def own_addresses() -> list[str]:
    return [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET
    ]


def test_signals_to_the_host(attempt: Attempt) -> None:
    with subprocess.Popen(["sleep", "600"]) as victim:
        done = attempt(
            f"""
            import os, signal
            hosts = [{victim.pid}, {os.getpid()}, {os.getppid()}]
            for number in [1, os.getppid(), *hosts, *range(3, 2000)]:
                for kill in (os.kill, os.killpg):
                    try: kill(number, signal.SIGKILL)
                    except OSError: pass
            try: os.kill(-1, signal.SIGKILL)
            except OSError: pass
            print("alone")
            """
        )
        alive = victim.poll() is None
        victim.kill()
    assert alive and done.passed and done.output == "alone\n"


@pytest.mark.parametrize("way", ["bytes", "shared", "memfd", "segment", "stack"])
def test_a_memory_bomb(attempt: Attempt, way: str) -> None:
    more = {
        "bytes": "bytearray(2**24)",
        "shared": "mmap.mmap(-1, 2**24)",
        "memfd": "os.write(os.memfd_create('x'), bytes(2**23))",
        "segment": "segment(2**24)",
        "stack": "[thread() for _ in range(100)]",
    }[way]
    done = attempt(
        f"""
        import mmap, os, threading
        def segment(size):
            if ctypes.CDLL(None).shmget(0, size, 0o1600) < 0: raise MemoryError
        def thread():
            threading.stack_size(2**28)
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        held = []
        for _ in range(1000):  # 16 GB
            try: held.append({more})
            except (MemoryError, OSError, RuntimeError): break
        print(len(held))
        """,
        cpu_seconds=5,
    )
    assert done.passed, done.reason
    assert int(done.output) * 2**24 <= Limits().memory


def test_huge_files(attempt: Attempt) -> None:
    done = attempt(
        """
        import os
        errors, written = set(), 0
        for number in range(40):
            with open(str(number), "wb", buffering=0) as file:
                try:
                    while True: written += file.write(bytes(2**20))
                except OSError as error: errors.add(error.strerror)
            assert os.path.getsize(str(number)) <= 2**24
        print(written, *sorted(errors))
        """
    )
    assert done.output == f"{2**26} File too large No space left on device\n"


def test_sleeping_beyond_the_limit(attempt: Attempt, marker: str) -> None:
    seen: set[str] = set()

    def watch(watched: threading.Event) -> None:
        while not watched.wait(0.05):
            for pid in running(marker):
                with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                    seen.add(Path(f"/proc/{pid}/oom_score_adj").read_text().strip())

    for seconds in (1.5, 6.0, 24.0):  # on a loaded machine a program may not begin in the first
        watched = threading.Event()
        watcher = threading.Thread(target=watch, args=(watched,))
        watcher.start()
        try:
            done = attempt("import os, time\nos.fork()\ntime.sleep(600)", seconds=seconds)
        finally:
            watched.set()
            watcher.join()
        assert done == Execution(False, f"it took more than {seconds:g} s", "")
        if seen:
            break
    # So the host can see a program by its marker, and would see survivors; and the kernel, short of
    # memory, would end them before anything else.
    assert seen == {"1000"}


def test_working_beyond_the_limit(attempt: Attempt) -> None:
    done = attempt("import signal\nwhile True: pass", cpu_seconds=1)
    assert done.reason == "it took more than 1 s of processor time"
    ignoring = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert not attempt(ignoring, cpu_seconds=1).passed


def test_other_processes_are_not_to_be_seen(attempt: Attempt) -> None:
    done = attempt(
        f"""
        import os
        for path in ("/proc", "/proc/1/environ", "/proc/{os.getpid()}/environ", "/sys", "/run"):
            print(os.path.exists(path))
        libc = ctypes.CDLL(None)
        os.mkdir("proc")
        print(libc.mount(b"proc", b"/tmp/proc", b"proc", 0, None), os.listdir("proc"))
        print(libc.ptrace(16, {os.getpid()}, 0, 0))
        print(os.getppid(), os.getpid())
        """
    )
    assert done.output.split() == ["False"] * 5 + ["-1", "[]", "-1", "1", "2"]


def test_a_daemon_left_behind(attempt: Attempt, tmp_path: Path) -> None:
    # The marker's fixture looks for it.
    done = attempt(
        """
        import os, signal, time
        if os.fork() == 0:
            os.setsid()
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            if os.fork() == 0:
                for descriptor in (0, 1, 2, 3): os.close(descriptor)
                time.sleep(600)
            os._exit(0)
        os.wait()
        """
    )
    assert done.passed


def test_privileges(attempt: Attempt) -> None:
    done = attempt(
        """
        import os
        libc = ctypes.CDLL(None, use_errno=True)
        sets = (ctypes.c_uint32 * 6)()
        assert libc.capget((ctypes.c_uint32 * 2)(0x20080522, 0), sets) == 0
        effective_and_permitted = [sets[at] for at in (0, 1, 3, 4)]
        print(effective_and_permitted, 0 in os.getresuid() + os.getresgid(), 0 in os.getgroups())
        for call in (os.setuid, os.setgid):
            try: call(0)
            except OSError as error: print("refused")
        for flag in (0x10000000, 0x20000, 0x40000000):  # user, mount and network namespaces
            print(libc.unshare(flag), ctypes.get_errno())
        """
    )
    lines = done.output.splitlines()
    assert lines[0] == "[0, 0, 0, 0] False False"
    assert lines[1:] == ["refused"] * 2 + ["-1 1"] * 3


def test_the_child_dies_with_its_parent(sandbox: None, marker: str) -> None:
    program = f"import ctypes, time; ctypes.CDLL(None).prctl(15, {marker.encode()!r})"
    code = (
        "from morphing.benchmarks.sandbox.run import run_program\n"
        f"run_program({program + '; time.sleep(600)'!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT) as parent:
        for _ in range(600):
            if found := running(marker):
                break
            time.sleep(0.05)
        parent.kill()
    assert found  # and the marker's fixture sees that they are gone
