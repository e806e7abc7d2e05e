"""The command line answers with sentences, never with tracebacks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from morphing import __version__, zoo
from morphing.benchmarks.benchmark import get_benchmark, read_benchmark
from morphing.benchmarks.data.samples import load_samples
from morphing.runs.outputs import read_outputs


def morphing(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "morphing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)


def spec(**changes: object) -> dict[str, object]:
    return {
        "base": "zoo:base",
        "sources": ["zoo:english-math", "zoo:japanese-numerals"],
        "benchmarks": [{"benchmark": "zoo-english-arithmetic", "samples": 8, "holdout": 8}],
        "search": {"sampler": "random", "evaluations": 2},
    } | changes


def test_help_lists_the_verbs_and_the_version_is_told() -> None:
    done = morphing("--help")
    assert done.returncode == 0
    for verb in ("search", "worker", "front", "evaluate", "benchmarks", "merge", "push", "app"):
        assert verb in done.stdout
    assert morphing("--version").stdout == f"morphing {__version__}\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sources": ["zoo:english-maths"]}, "english-maths"),
        ({"sources": ["nobody/nothing"]}, "nobody/nothing"),
        ({"sources": ["./no-such-folder"]}, "no-such-folder"),
        ({"device": "cuda"}, "cuda"),
        ({"method": "slerp"}, "slerp"),
        ({"benchmarks": ["gsm8"]}, "gsm8k"),
        ({"search": {"space": {"layer_groups": 99}}}, "99"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_bad_specs(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    if changes.get("device") == "cuda":
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("CUDA is usable here")
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec(**changes)))
    done = morphing("search", path, "--run", tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--space", "psdfs"], "ps+dfs"),
        (["--layer-groups", "all"], "layer_groups"),
        (["--sampler", "qehvi"], "qlognehvi"),
        (["--storage", "runs.db"], "no database URL"),
        (["--space", "dfs"], "evolve"),
    ],
)
def test_bad_options(tmp_path: Path, options: list[str], words: str) -> None:
    done = morphing("search", "--run", tmp_path / "run", *options)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in morphing("front", tmp_path, "--debug").stderr


def test_no_such_run(tmp_path: Path) -> None:
    for verb in (["front"], ["pause"], ["stop"]):
        done = morphing(*verb, tmp_path / "none")
        assert done.returncode == 1 and "no run" in done.stderr
    done = morphing("export", tmp_path / "none", 3, tmp_path / "out")
    assert done.returncode == 1 and "no run" in done.stderr


def test_resume_needs_a_run() -> None:
    done = morphing("search", "--resume")
    assert done.returncode == 1 and "--run" in done.stderr


def test_a_search_says_what_it_contaminates(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = [json.dumps({"question": f"{n} + 1", "answer": str(n + 1)}) for n in range(8)]
    (tmp_path / "data" / "test.jsonl").write_text("\n".join(rows))
    use = {
        "benchmark": {
            "name": "sums",
            "dataset": str(tmp_path / "data"),
            "kind": "generation",
            "prompt": "{{ question }}",
            "target": "{{ answer }}",
            "max_new_tokens": 2,
        },
        "samples": 2,
        "holdout": 2,
    }
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec(benchmarks=[use]) | {"search": {"sampler": "random"}}))
    done = morphing("search", path, "--run", tmp_path / "run", "--evaluations", 1)
    assert done.returncode == 0, done.stderr
    for shown in (done.stderr, done.stdout):
        assert "sums halves a split" in shown


def test_the_catalogue_and_one_of_it_as_a_file(tmp_path: Path) -> None:
    done = morphing("benchmarks")
    assert done.returncode == 0 and "rotten-tomatoes" in done.stdout
    (gsm8k,) = (line for line in done.stdout.splitlines() if "│ gsm8k " in line)
    assert "test, half" in gsm8k and "◐" in gsm8k

    shown = morphing("benchmarks", "zoo-word-puzzles")
    assert shown.returncode == 0 and shown.stdout.count("# Sort ") == 3
    path = tmp_path / "mine.yaml"
    path.write_text(shown.stdout)
    assert read_benchmark(path) == get_benchmark("zoo-word-puzzles")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-b", "gsm8"], "gsm8k"),
        (["-b", "zoo-word-puzzles", "-b", "zoo-word-puzzles"], "twice"),
        (["-b", "zoo-word-puzzles", "--outputs", "answers.csv"], ".jsonl"),
        (["-b", "zoo-word-puzzles", "--base", "zoo:base"], "leave out the base"),
        (["-b", "humaneval"], "--allow-code"),
        (["-b", "zoo:word-puzzles"], "--yes"),
    ],
)
def test_bad_evaluations(options: list[str], words: str) -> None:
    done = morphing("evaluate", "zoo:base", *options)
    assert done.returncode == 1 and words in done.stderr.strip().splitlines()[-1], done.stderr
    assert done.stderr.count("Error: ") == 1 and "Traceback" not in done.stderr
    assert not done.stdout


def test_a_model_is_scored_by_itself(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl.gz"
    asked = ["-b", "zoo-english-arithmetic", "-b", "zoo:word-puzzles", "--yes", "--samples", 24]
    done = morphing("evaluate", "zoo:english-math", *asked, "--json", "--outputs", out)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert (data["model"], data["base"], data["part"]) == ("zoo:english-math", None, "holdout")
    assert set(data["versions"]) >= {"morphing", "torch", "transformers"}
    score = data["scores"]["zoo-english-arithmetic"]
    outputs = read_outputs(out)
    answers = outputs["zoo-english-arithmetic"]
    assert score["rows"] == [row["id"] for row in answers]
    assert len(answers) == score["n"] == 24
    assert score["score"] == sum(row["score"] for row in answers) / 24 > 0.5
    assert 0 < score["stderr"] < 0.1 and score["truncated"] == 0 and score["seconds"] > 0
    drawn = load_samples(get_benchmark("zoo-english-arithmetic"), "holdout", 24)
    assert score["rows"] == [sample.id for sample in drawn]
    assert data["scores"]["zoo-word-puzzles"]["n"] == 24

    told = morphing("evaluate", "zoo:english-math", *asked[:2], "--samples", 24)
    assert told.returncode == 0, told.stderr
    (row,) = (line for line in told.stdout.splitlines() if "zoo-english-arithmetic" in line)
    assert f"{100 * score['score']:.1f}%" in row and f"{100 * score['stderr']:.1f}" in row


def test_cut_prompts_are_counted_and_bits_are_no_percent(tmp_path: Path) -> None:
    rows = [{"question": "1 + 1 = " * 200, "answer": "2"}] * 8
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shared = {"dataset": "long.jsonl", "prompt": "{{ question }}"}
    kinds = {
        "asked": {"kind": "generation", "target": "{{ answer }}", "max_new_tokens": 2},
        "text": {"kind": "perplexity", "prompt": "", "target": "1 + 1 = {{ answer }}"},
    }
    for name, fields in kinds.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"name": name} | shared | fields))
    named = ["-b", "asked.yaml", "-b", "text.yaml", "--outputs", "answers.jsonl"]
    done = morphing("evaluate", "zoo:base", *named, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (asked,) = (line for line in done.stdout.splitlines() if "│ asked " in line)
    (text,) = (line for line in done.stdout.splitlines() if "│ text " in line)
    assert [cell.strip() for cell in asked.split("│")][5:7] == ["4", "4"]
    assert "%" in asked and "%" not in text and "bits_per_byte" in text
    assert "4 prompts were longer" in done.stdout
    written = (tmp_path / "answers.jsonl").read_text().split("\n")
    assert [json.loads(line)["benchmark"] for line in written] == ["asked"] * 4 + ["text"] * 4


@pytest.mark.slow
def test_a_recipe_of_mergekits_runs_as_it_is(tmp_path: Path) -> None:
    """With models by relative paths, and the seed of what was exported with it."""
    shutil.copytree(zoo.model_folder("word-games"), tmp_path / "games")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for out, options in {"one": [], "two": ["--mask-seed", "7", "--device", "cpu"]}.items():
        done = morphing("merge", "recipe.yaml", out, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip().endswith(f"Wrote the merge to {out}")
    weights = {n: (tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "two")}
    assert weights["one"] != weights["two"]
    done = morphing("merge", "two/mergekit_config.yml", "three", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "three" / "model.safetensors").read_bytes() == weights["two"]

    done = morphing("merge", "recipe.yaml", "lora", "--adapter-rank", 8, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "lora" / "adapter_report.json").read_text())
    assert f"It misses {100 * report['error']:.2g} %" in done.stdout
    assert max(report["tensors"], key=lambda n: report["tensors"][n]["error"]) in done.stdout
    assert f"{len(report['whole'])} tensors" in done.stdout


RECIPE = """
merge_method: dare_linear
base_model: zoo:base
models:
- model: zoo:english-math
  parameters: {weight: 0.6, density: [0.4, 0.9]}
- model: ./games
  parameters: {weight: 0.4, density: 0.5}
"""


@pytest.mark.slow
def test_search_front_export(tmp_path: Path) -> None:
    path, folder = tmp_path / "spec.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(spec()))
    done = morphing("search", path, "--run", folder)
    assert done.returncode == 0, done.stderr
    assert "on the front of 2 evaluations" in done.stdout

    again = morphing("search", path, "--run", folder)
    assert again.returncode == 1 and "--resume" in again.stderr

    data = json.loads(morphing("front", folder, "--json").stdout)
    assert data["evaluations"] == 2
    assert data["front"] and data["knee"] in [member["trial"] for member in data["front"]]
    assert set(data["references"]["search"]) == set(spec()["sources"]) | {"zoo:base"}  # type: ignore[call-overload]

    out = tmp_path / "out"
    number = data["front"][0]["trial"]
    assert morphing("export", folder, number, out).returncode == 0
    for name in ("model.safetensors", "mergekit_config.yml", "README.md", "tokenizer.json"):
        assert (out / name).is_file()
    repeated = morphing("export", folder, number, out)
    assert repeated.returncode == 1 and "out" in repeated.stderr
    adapter = tmp_path / "adapter"
    told = morphing("export", folder, number, adapter, "--adapter-rank", 4)
    assert told.returncode == 0, told.stderr
    error = json.loads((adapter / "adapter_report.json").read_text())["error"]
    assert f"misses {100 * error:.2g} %" in told.stdout
    assert f"It misses {100 * error:.2g} %" in (adapter / "README.md").read_text()
    unknown = morphing("export", folder, 77, tmp_path / "other")
    assert unknown.returncode == 1 and "77" in unknown.stderr
