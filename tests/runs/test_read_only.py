"""Looking at a run writes nothing: it works on a read-only disk, and leaves the run as it was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from morphing.runs.files import write_atomically
from morphing.runs.leases import is_held
from morphing.runs.run import default_folder
from tests.runs.whole_run import look, make_run

LOOK = """
import errno, sys
from pathlib import Path
from morphing.cli import app
from morphing.errors import mendable
from morphing.ui import session
from morphing.ui.scene import Scene
from tests.runs.whole_run import look

run, out = map(Path, sys.argv[1:])
try:
    (run / "new").touch()
except OSError as error:
    assert error.errno == errno.EROFS
else:
    raise SystemExit("the disk is not read-only")
for words in (["front", run], ["front", run, "--json"], ["export", run, "0", out]):
    app(args=list(map(str, words)), standalone_mode=False)
try:
    app(args=["search", "--run", str(run), "--resume", "--hours", "9"], standalone_mode=False)
except OSError as error:
    assert mendable(error).startswith(f"The disk is read-only ({run}"), error
else:
    raise SystemExit("a run was changed on a read-only disk")
assert session.find_run(run.name) and session.first_run(None) == run.name
scene = Scene.read(run.name, [], 1, None)
assert scene.selection.unscored == ()
assert "Trial 0" in look(run)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("whole") / "run").folder


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.mark.slow
def test_a_run_on_a_read_only_disk_is_shown_and_exported(whole: Path, tmp_path: Path) -> None:
    """A mount that is read-only to root too, which permissions are not."""
    mounts = ["--dev-bind", "/", "/", "--ro-bind", str(whole), str(whole)]
    command = ["bwrap", *mounts, sys.executable, "-c", LOOK, str(whole), str(tmp_path / "out")]
    environment = {**os.environ, "MORPHING_RUNS": str(whole.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_looking_at_a_run_leaves_it_as_it_was(whole: Path) -> None:
    before = contents(whole)
    look(whole)
    assert contents(whole) == before


def test_asking_for_a_lock_makes_none(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "none.lock")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_held_by_its_holder_and_not_by_who_asks(tmp_path: Path) -> None:
    from filelock import FileLock

    path = tmp_path / "held.lock"
    with FileLock(path):
        assert is_held(path) and is_held(path)
    assert not is_held(path) and not is_held(path)


@pytest.mark.parametrize("durable", [True, False])
def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    write = Path.replace if not durable else os.fsync

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((Path, "replace") if write is Path.replace else (os, "fsync")), full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"after", durable)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"before"


def test_runs_that_start_in_the_same_second_have_folders_of_their_own() -> None:
    assert len({default_folder("mine") for _ in range(9)}) == 9
