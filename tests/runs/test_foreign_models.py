"""Files of a run that are read when its models are at work, or its study elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from morphing.errors import MorphingError
from morphing.runs.prepare import create_run
from morphing.runs.relevance import relevance_of
from morphing.runs.run import Run
from morphing.runs.spec import RunSpec, parse_spec
from morphing.runs.stages import stages
from morphing.runs.storage import keep_elsewhere, place_of
from morphing.runs.workbench import Workbench

FAULTS = (
    b"",
    b"[]",
    b"7",
    b'"<img src=x>"',
    b"<img src=x>",
    b"\xff\xfe{",
    b'{"zoo": NaN}',
    b'{"zoo": 1e999}',
    b'{"samples": []}',
    b"[" * 100_000,
)


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    fields = {
        "base": "zoo:base",
        "sources": ["zoo:english-math", "zoo:word-games"],
        "benchmarks": [{"benchmark": "zoo-english-arithmetic", "samples": 4, "holdout": 4}],
        "device": "cpu",
        "search": {"sampler": "random", "evaluations": 2, "space": {"layer_groups": 2}},
    }
    return Workbench(create_run(tmp_path_factory.mktemp("models") / "run", parse_spec(fields)))


def refusals(path: Path, faults: Iterator[bytes], read: Any) -> None:
    """Each fault is one sentence that names the file; what was there before is read again."""
    before, known = path.read_bytes(), read()
    for fault in faults:
        path.write_bytes(fault)
        with pytest.raises(MorphingError) as refused:
            read()
        text = str(refused.value)
        assert str(path) in text and text.endswith(".") and "\n" not in text and "<img" not in text
    path.write_bytes(before)
    assert read() == known
    if isinstance(data := json.loads(before), dict):
        for key in data:
            path.write_text(json.dumps({name: data[name] for name in data if name != key}))
            with pytest.raises(MorphingError):
                read()
    path.write_bytes(before)


def test_samples_that_are_none_are_refused_and_drawn_again(workbench: Workbench) -> None:
    (use,) = workbench.run.spec.benchmarks
    drawn = workbench._load_samples(use, "search")
    path = workbench.run.folder / "samples" / "search" / "zoo-english-arithmetic.json"
    data = json.loads(path.read_text())
    row = data["samples"][0]
    changes: list[dict[str, Any]] = [
        {"target": 9},
        {"target": -1},
        {"target": None},
        {"prompt": {}},
        {"id": 7},
        {"choices": "no"},
    ]
    broken = (json.dumps({**data, "samples": [{**row, **change}]}) for change in changes)
    refusals(
        path,
        iter([*FAULTS, *(text.encode() for text in broken)]),
        lambda: workbench._load_samples(use, "search"),
    )
    path.unlink()  # as the sentence says
    assert workbench._load_samples(use, "search") == drawn


def test_norms_that_are_none_are_refused_and_worked_out_again(workbench: Workbench) -> None:
    (stage,) = stages(workbench.run.spec, workbench.layers, workbench.architecture)
    known = relevance_of(workbench, stage.space)
    path = workbench.run.folder / "relevance.json"
    first = next(iter(known))
    others = ({**known, "new": 1.0}, {**known, first: -1.0}, {**known, first: "<img>"})
    broken = (json.dumps(other).encode() for other in others)
    refusals(path, iter([*FAULTS, *broken]), lambda: relevance_of(workbench, stage.space))
    path.unlink()
    assert relevance_of(workbench, stage.space) == known


def test_a_place_that_is_none_is_refused(workbench: Workbench, tmp_path: Path) -> None:
    shutil.copyfile(workbench.run.folder / "spec.yaml", tmp_path / "spec.yaml")
    keep_elsewhere(tmp_path, "postgresql://me:secret@db.example.org/merges")
    assert "secret" not in (tmp_path / "storage.json").read_text()
    more = (b'{"url": 7, "study": "a"}', b'{"url": "no url", "study": "a"}')
    refusals(tmp_path / "storage.json", iter(FAULTS), lambda: place_of(tmp_path))
    for text in more:
        (tmp_path / "storage.json").write_bytes(text)
        with pytest.raises(MorphingError):
            Run(tmp_path).trials()


def test_looking_at_a_strangers_run_makes_no_database(small_spec: RunSpec, tmp_path: Path) -> None:
    """A run's folder says where its study is: a path on this machine, perhaps."""
    run = Run.create(tmp_path / "run", small_spec)
    victim = tmp_path / "elsewhere" / "victim.db"
    victim.parent.mkdir()
    (run.folder / "storage.json").write_text(
        json.dumps({"url": f"sqlite:///{victim}", "study": "search"})
    )
    with pytest.raises(MorphingError, match=r"victim\.db is not there"):
        run.trials()
    assert list(victim.parent.iterdir()) == []
    victim.write_text("mine")
    with pytest.raises(MorphingError, match="cannot be used"):
        Run(run.folder).trials()
    assert victim.read_text() == "mine"
