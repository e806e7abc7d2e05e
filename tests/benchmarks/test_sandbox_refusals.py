"""Where programs are refused, and what is said of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from morphing.benchmarks.sandbox import check
from morphing.benchmarks.sandbox.check import check_sandbox, code_allowed, require_code
from morphing.benchmarks.sandbox.filter import filter_program
from morphing.benchmarks.sandbox.run import Limits, run_program
from morphing.errors import MorphingError

LAST_MOUNT = "at = words.index('--chdir') - 2; words[at:at]"


def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "check_sandbox", check_sandbox.__wrapped__)


def test_code_is_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MORPHING_ALLOW_CODE", raising=False)
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert not code_allowed()
    with pytest.raises(MorphingError, match=r"'toy' runs programs .* off: allow it with --allow-c"):
        require_code("toy")
    monkeypatch.setenv("SPACE_ID", "someone/space")
    with pytest.raises(MorphingError, match=r"the Space's owner can set the variable MORPHING_ALL"):
        require_code("toy")
    monkeypatch.setenv("MORPHING_ALLOW_CODE", "1")
    assert code_allowed()


def test_without_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uncached(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MORPHING_ALLOW_CODE", "1")
    missing = r"files, processes and the network can't be isolated, for bubblewrap .* is missing"
    with pytest.raises(MorphingError, match=missing):
        require_code("toy")
    with pytest.raises(MorphingError, match=missing):
        run_program("pass")


def test_on_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    uncached(monkeypatch)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(MorphingError, match="on this system darwin has none of its isolation"):
        check.check_sandbox()


def test_on_another_processor(sandbox: None, monkeypatch: pytest.MonkeyPatch) -> None:
    uncached(monkeypatch)
    assert filter_program("riscv64") is None and filter_program("aarch64") != filter_program()
    monkeypatch.setattr(check, "filter_program", lambda: None)
    with pytest.raises(MorphingError, match=r"system calls of \w+ processors can't be filtered"):
        check.check_sandbox()


def wrapped(folder: Path, edit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``bwrap`` that changes its ``words`` before it calls the real one."""
    uncached(monkeypatch)
    real = shutil.which("bwrap")
    script = f"#!{sys.executable}\nimport os, sys\nwords = sys.argv[1:]\n{edit}\n"
    (folder / "bwrap").write_text(script + f"os.execv({real!r}, ['bwrap', *words])\n")
    (folder / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_where_namespaces_are_forbidden(
    sandbox: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped(
        tmp_path,
        "if '--unshare-net' in words: sys.exit('bwrap: no network namespaces')",
        monkeypatch,
    )
    with pytest.raises(
        MorphingError,
        match=r"bubblewrap can't isolate the network \(bwrap: no network namespaces\): allow user",
    ):
        check.check_sandbox()


@pytest.mark.parametrize(
    ("edit", "lacks"),
    [
        ("words.remove('--unshare-pid')", "processes of its own"),
        (f"{LAST_MOUNT} = ['--perms', '1777', '--tmpfs', '/dev']", "a read-only system"),
        (
            f"home = os.path.expanduser('~'); {LAST_MOUNT} = ['--ro-bind', home, home]",
            "hidden files",
        ),
        ("at = words.index('--size'); words[at+1] = str(2**30)", "a limit on its folder"),
        ("words[-2:] = ['1000', words[-1]]", "a limit on processes"),
        ("words[-3] = str(2**34)", "a limit on memory"),
        ("words[-4] = '1000'", "a limit on processor time"),
        *([("words[-5] = '0'", "an unprivileged user")] if os.geteuid() == 0 else []),
    ],
)
def test_a_sandbox_with_a_hole_is_refused(
    sandbox: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    edit: str,
    lacks: str,
) -> None:
    wrapped(tmp_path, edit, monkeypatch)
    # One endless program is enough, and none of them takes the limit's own time.
    slow = {"a limit on processor time": check._ENDLESS["a limit on processor time"]}
    kept = slow if lacks in slow else {}
    if kept:
        program, limits, reason = slow[lacks]
        kept = {lacks: (program, Limits(seconds=3, cpu_seconds=limits.cpu_seconds), reason)}
    monkeypatch.setattr(check, "_ENDLESS", kept)
    with pytest.raises(MorphingError, match=f"it lacks {lacks}"):
        check.check_sandbox()


def test_the_probe_passes_in_the_sandbox(sandbox: None) -> None:
    probe = check._probe()
    assert probe.passed and json.loads(probe.output) == []
