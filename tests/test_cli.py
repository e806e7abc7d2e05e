"""The command line answers with sentences, never with tracebacks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml


def morphing(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "morphing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def spec(**changes: object) -> dict[str, object]:
    return {
        "base": "zoo:base",
        "sources": ["zoo:english-math", "zoo:japanese-numerals"],
        "benchmarks": [{"benchmark": "zoo-english-arithmetic", "samples": 8, "holdout": 8}],
        "search": {"sampler": "random", "evaluations": 2},
    } | changes


def test_help_lists_the_verbs() -> None:
    done = morphing("--help")
    assert done.returncode == 0
    for verb in ("search", "front", "export", "push", "app"):
        assert verb in done.stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sources": ["zoo:english-maths"]}, "english-maths"),
        ({"sources": ["nobody/nothing"]}, "nobody/nothing"),
        ({"sources": ["./no-such-folder"]}, "no-such-folder"),
        ({"device": "cuda"}, "cuda"),
        ({"method": "slerp"}, "slerp"),
        ({"benchmarks": ["gsm8"]}, "gsm8k"),
        ({"search": {"layer_groups": 99}}, "99"),
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


@pytest.mark.slow
def test_search_front_export(tmp_path: Path) -> None:
    path, folder = tmp_path / "spec.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(spec()))
    done = morphing("search", path, "--run", folder)
    assert done.returncode == 0, done.stderr
    assert "on the front of 2 trials" in done.stdout

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
    unknown = morphing("export", folder, 77, tmp_path / "other")
    assert unknown.returncode == 1 and "77" in unknown.stderr
