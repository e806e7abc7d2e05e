"""Workers that the system kills are started again, the last one too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from morphing.errors import MorphingError
from morphing.runs import workers
from morphing.runs.run import Run
from morphing.runs.spec import zoo_spec
from morphing.runs.workers import work

SCRIPT = """
import os, sys
from pathlib import Path
folder, device = Path(sys.argv[1]), sys.argv[3]
path = folder / f"starts-{device}"
starts = len(path.read_text()) if path.exists() else 0
path.write_text("x" * (starts + 1))
ends = ENDS[device]
if starts < len(ends):
    os.kill(os.getpid(), ends[starts])
(folder / "status.json").write_text('{"state": "finished"}')
"""
KILL, CRASH = 9, 11


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", zoo_spec())


def starts(run: Run, device: str) -> int:
    return len((run.folder / f"starts-{device}").read_text())


def play(monkeypatch: pytest.MonkeyPatch, ends: dict[str, list[int]]) -> None:
    """Workers are ended by these signals, one after the other, and then finish the run."""
    script = SCRIPT.replace("ENDS", repr(ends))
    monkeypatch.setattr(workers, "_COMMAND", (sys.executable, "-c", script))


@pytest.mark.parametrize(
    "ends",
    [
        {"one": [KILL]},
        {"one": [KILL, CRASH, KILL]},
        {"one": [], "two": [KILL, KILL]},
        {"one": [KILL], "two": [KILL]},  # all at once, as when memory runs out
    ],
)
def test_killed_workers_are_started_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, ends: dict[str, list[int]]
) -> None:
    play(monkeypatch, ends)
    drawn = []

    def draw() -> None:
        drawn.append(1)
        raise ValueError("closing tag '[/INST]' doesn't match any open tag")

    work(run, list(ends), changed=draw)
    assert {device: starts(run, device) for device in ends} == {
        device: len(signals) + 1 for device, signals in ends.items()
    }
    assert run.status().state == "finished" and drawn


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ({"one": [KILL] * 9}, "by SIGKILL 4 times, which"),
        ({"one": [KILL] * 9, "two": [KILL] * 9}, "by SIGKILL 8 times, which"),
        ({"one": [CRASH, KILL, KILL, KILL]}, "by SIGSEGV once and SIGKILL 3 times, which"),
    ],
)
def test_workers_that_are_killed_again_and_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, ends: dict[str, list[int]], words: str
) -> None:
    play(monkeypatch, ends)
    with pytest.raises(MorphingError, match=words):
        work(run, list(ends))
    assert all(starts(run, device) == 4 for device in ends)
    assert run.status().state == "failed" and words in run.status().message
