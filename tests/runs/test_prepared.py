"""What a run's trials have in common is done once."""

from __future__ import annotations

from pathlib import Path

import pytest

from morphing.benchmarks import evaluate as module
from morphing.runs.plain_recipes import alone
from morphing.runs.prepare import create_run
from morphing.runs.spec import RunSpec, parse_spec
from morphing.runs.workbench import Workbench


def test_samples_are_tokenized_once_a_run(
    small_spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small_spec.model_dump()
    data["search"] |= {"racing": True}
    run = create_run(tmp_path / "run", parse_spec(data))
    bench = Workbench(run)
    prepare, made = module.prepare, []

    def counted(tokenizer: object, benchmark: object, samples: object) -> object:
        made.append(benchmark)
        return prepare(tokenizer, benchmark, samples)

    monkeypatch.setattr(module, "prepare", counted)
    bench.morph(alone(run.spec.base, run.spec))
    base = bench.score("search")
    parts = len(made)
    assert parts >= len(run.spec.tasks)
    bench.morph(alone(run.spec.sources[0], run.spec))
    assert bench.score("search") != base
    bench.morph(alone(run.spec.base, run.spec))
    assert bench.score("search") == base
    assert len(made) == parts
