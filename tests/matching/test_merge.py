"""Merges that are solved from prompts, from a recipe alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe

PAIRS = {
    "zoo:english-math": "zoo-english-arithmetic",
    "zoo:japanese-numerals": "zoo-kanji-numbers",
    "zoo:word-games": "zoo-word-puzzles",
}


def config(**changes: Any) -> dict[str, Any]:
    models = [
        {
            "model": model,
            "parameters": {"weight": 0.9 if "word" in model else 0.05},
            "prompts": {"from": prompts, "samples": 48},
        }
        for model, prompts in PAIRS.items()
    ]
    return {
        "merge_method": "matched",
        "base_model": "zoo:base",
        "models": models,
        "parameters": {"ridge": 0.001},
        "dtype": "float32",
        **changes,
    }


@pytest.mark.slow
def test_three_specialists_in_one_model_from_some_prompts(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from morphing.benchmarks.benchmark import get_benchmark
    from morphing.benchmarks.data.samples import load_samples
    from morphing.benchmarks.evaluate import evaluate

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config()))
    command = [sys.executable, "-m", "morphing", "merge", str(tmp_path / "recipe.yaml")]
    for name in ("one", "again"):
        done = subprocess.run([*command, str(tmp_path / name)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "again")]
    assert weights[0] == weights[1]
    assert not (tmp_path / "one" / "mergekit_config.yml").exists()
    record = json.loads((tmp_path / "one" / "morphing.json").read_text())["solved"]
    assert [task["texts"] for task in record["tasks"]] == [48, 48, 48]
    assert str(tmp_path) not in (tmp_path / "one" / "morphing.json").read_text()

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    scores = []
    for name in PAIRS.values():
        benchmark = get_benchmark(name)
        samples = load_samples(benchmark, "holdout", 200)
        scores.append(evaluate(model, tokenizer, benchmark, samples).value)
    # The best merge by weights alone has 0.78, from 150 evaluations.
    assert sum(scores) / 3 > 0.84 and min(scores) > 0.75, scores


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base_model": None}, "no base_model, and matched needs one"),
        ({"models": []}, "lists no models for matched"),
        ({"models": [{"model": "a", "parameters": {"weight": 1}}]}, r"models\.0 has no prompts"),
        (
            {"models": [{"model": "a", "parameters": {"weight": [1, 2]}, "prompts": "x"}]},
            r"models\.0\.parameters\.weight must be one number",
        ),
        ({"models": [{"model": "a", "prompts": "x"}]}, r"weight must be one number"),
        (
            {"models": [{"model": "a", "parameters": {"weight": -1}, "prompts": "x"}]},
            r"weight is -1: it must be a number of 0 or more",
        ),
        ({"parameters": {"ridge": float("nan")}}, "ridge is nan"),
        ({"slices": []}, "solves whole models"),
    ],
)
def test_a_recipe_that_cannot_be_solved_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(MorphingError, match=said):
        Recipe(config(**changes)).check()


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (3, "write the name of a benchmark"),
        ({"from": "x", "count": 3}, "unknown key 'count'"),
        ({"samples": 3}, "says not where from"),
        ({"from": "x", "samples": 0}, "give 1 or more"),
    ],
)
def test_prompts_that_are_none_are_refused(prompts: Any, said: str) -> None:
    from morphing.matching.recipe import read_plan

    models = [{"model": "a", "parameters": {"weight": 1.0}, "prompts": prompts}]
    with pytest.raises(MorphingError, match=said):
        read_plan(Recipe(config(models=models)))


def test_two_entries_with_the_same_prompts_are_two_tasks() -> None:
    from morphing.matching.recipe import read_plan

    models = [
        {"model": name, "parameters": {"weight": 1.0}, "prompts": "gsm8k"} for name in ("a", "b")
    ]
    plan = read_plan(Recipe(config(models=models, merge_method="regmean")))
    assert [task.name for task in plan.tasks] == ["gsm8k", "gsm8k (2)"]
    assert plan.settings.streams == "teachers"


def test_mergekit_alone_cannot_run_it_and_no_other_merge_takes_it_for_a_mean() -> None:
    import torch

    from morphing.merging.morph import Morpher
    from morphing.sources.find import download

    recipe = Recipe(config())
    recipe.check()
    assert recipe.remarks == []
    morpher = Morpher(
        download("zoo:base"), [download(name) for name in PAIRS], torch.device("cpu"), torch.float32
    )
    with pytest.raises(MorphingError, match="is solved from prompts"):
        morpher.morph(recipe)


def test_prompts_of_another_method_are_told_to_change_nothing() -> None:
    told = Recipe(config(merge_method="linear", parameters={})).remarks
    assert len([text for text in told if "changes nothing: linear reads no prompts" in text]) == 3
