"""Sources and datasets pulled by id, a winner pushed and loaded back by id."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from morphing.benchmarks.benchmark import get_benchmark
from morphing.benchmarks.data.samples import load_samples
from morphing.benchmarks.evaluate import evaluate
from morphing.runs.run import Run
from tests.hub.server import RunningHub

pytestmark = pytest.mark.slow

SOURCES = ["morphing-zoo/english-math", "morphing-zoo/japanese-numerals"]


def hub_spec(**changes: object) -> dict[str, object]:
    """The zoo as if it were any model and dataset on the Hub."""
    benchmarks = []
    for name in ("english-arithmetic", "kanji-numbers"):
        declaration = get_benchmark(f"zoo-{name}").model_dump(mode="json")
        declaration |= {"dataset": f"morphing-zoo/{name}"}
        benchmarks.append({"benchmark": declaration, "samples": 12, "holdout": 20})
    return {
        "name": "hub",
        "base": "morphing-zoo/base",
        "sources": SOURCES,
        "benchmarks": benchmarks,
        "search": {"sampler": "random", "evaluations": 3},
        "device": "cpu",
    } | changes


def command(
    hub: RunningHub, *arguments: object, token: str | None = "hf_alice"
) -> subprocess.CompletedProcess[str]:
    environment = hub.environ() | ({"HF_TOKEN": token} if token else {})
    return subprocess.run(
        [sys.executable, "-m", "morphing", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def write(tmp_path: Path, spec: dict[str, object]) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec, allow_unicode=True))
    return path


def test_pull_search_push_load(hub: RunningHub, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = command(hub, "search", write(tmp_path, hub_spec()), "--run", folder)
    assert done.returncode == 0, done.stderr
    run = Run(folder)
    for name in (run.spec.base, *run.spec.sources):
        assert len(name.partition("@")[2]) == 40, f"{name} is not pinned"
    for use in run.spec.benchmarks:
        assert len(use.declaration.revision or "") == 40

    number = json.loads(command(hub, "front", folder, "--json").stdout)["knee"]
    refused = command(hub, "push", folder, number, "bob/merge")
    assert refused.returncode == 1 and len(refused.stderr.strip().splitlines()) == 1
    nobody = command(hub, "push", folder, number, "alice/merge", token=None)
    assert nobody.returncode == 1 and "log" in nobody.stderr.lower()

    done = command(hub, "push", folder, number, "alice/merge")
    assert done.returncode == 0, done.stderr
    assert "alice/merge" in done.stderr
    assert "hf_alice" not in "".join(p.read_text(errors="replace") for p in folder.rglob("*.*ml"))

    from huggingface_hub import HfApi, ModelCard

    info = HfApi().model_info("alice/merge", token="hf_alice")
    assert info.private
    card = ModelCard.load("alice/merge", token="hf_alice")
    assert card.data.base_model_relation == "merge"
    assert set(card.data.base_model) == {"morphing-zoo/base", *SOURCES}
    assert "holdout" in card.text and "mergekit_config.yml" in {s.rfilename for s in info.siblings}

    model = AutoModelForCausalLM.from_pretrained("alice/merge", token="hf_alice")
    tokenizer = AutoTokenizer.from_pretrained("alice/merge", token="hf_alice")
    trial = run.trial(number)
    assert trial.results is not None
    for use in run.spec.benchmarks:
        benchmark = use.declaration
        samples = load_samples(benchmark, "search", use.samples)
        assert evaluate(model, tokenizer, benchmark, samples).value == (
            trial.results[benchmark.name].value
        )


def test_a_gated_source(hub: RunningHub, tmp_path: Path) -> None:
    hub.settings["models/" + SOURCES[0]] = {"gated": True, "granted": ["alice"]}
    path = write(tmp_path, hub_spec())
    for token in (None, "hf_bob"):
        done = command(hub, "search", path, "--run", tmp_path / "run", token=token)
        assert done.returncode == 1 and "gated" in done.stderr and SOURCES[0] in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sources": ["morphing-zoo/none"]}, ["morphing-zoo/none"]),
        ({"sources": [SOURCES[0] + "@v9"]}, ["v9"]),
        (
            {"benchmarks": [{"benchmark": "rotten-tomatoes"}], "base": "morphing-zoo/none"},
            ["morphing-zoo/none"],
        ),
    ],
)
def test_unknown_ids(
    hub: RunningHub, tmp_path: Path, changes: dict[str, object], words: list[str]
) -> None:
    done = command(hub, "search", write(tmp_path, hub_spec(**changes)), "--run", tmp_path / "run")
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr


def test_a_dataset_without_the_columns_named(hub: RunningHub, tmp_path: Path) -> None:
    spec = hub_spec()
    spec["benchmarks"][0]["benchmark"]["prompt"] = "{{ query }}"  # type: ignore[index]
    done = command(hub, "search", write(tmp_path, spec), "--run", tmp_path / "run")
    assert done.returncode == 1 and "query" in done.stderr and "question" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_hub_away_after_the_first_load(hub: RunningHub, tmp_path: Path) -> None:
    """A run that was pinned and downloaded goes on without a network."""
    folder = tmp_path / "run"
    done = command(hub, "search", write(tmp_path, hub_spec()), "--run", folder)
    assert done.returncode == 0, done.stderr
    away = hub.environ() | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    resume = ["-m", "morphing", "search", "--run", folder, "--resume", "--evaluations", "4"]
    done = subprocess.run(
        [sys.executable, *resume], env=away, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(Run(folder).trials()) == 4
