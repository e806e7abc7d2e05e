"""Facts of an imaginary run over real ids, and a tiny export."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from morphing import zoo
from morphing.merging.recipe import Recipe
from morphing.publishing.facts import CardFacts, ScoreLine

GSM8K, MAWPS = "openai/gsm8k", "morphing-testbed/mawps"
BASE = f"acme/base@{'a' * 40}"
SOURCES = (f"bob/math@{'b' * 40}", "zoo:japanese-numerals", "/home/me/models/mine")


def line(benchmark: str, dataset: str, part: str, value: float) -> ScoreLine:
    return ScoreLine(
        benchmark=benchmark,
        title=benchmark.upper(),
        dataset=dataset,
        revision="c" * 40 if "/" in dataset else None,
        part=part,
        split="train" if part == "search" else "test",
        metric="exact_match",
        value=value,
        n=100 if part == "search" else 500,
        stderr=0.0123,
    )


@pytest.fixture
def facts() -> CardFacts:
    recipe = Recipe(
        {
            "merge_method": "dare_ties",
            "base_model": BASE,
            "models": [
                {"model": name, "parameters": {"weight": 0.5, "density": 0.7}} for name in SOURCES
            ],
            "dtype": "float32",
        },
        mask_seed=7,
    )
    search = (line("gsm8k", GSM8K, "search", 0.625), line("numerals", "zoo:n", "search", 0.5))
    holdout = (line("gsm8k", GSM8K, "holdout", 0.4321), line("numerals", "zoo:n", "holdout", 0.25))
    references = {name: (line("gsm8k", GSM8K, "holdout", 0.1),) for name in (BASE, *SOURCES)}
    return CardFacts(
        title="math-merge",
        base=BASE,
        sources=SOURCES,
        recipe=recipe,
        search=search,
        holdout=holdout,
        reference_search={},
        reference_holdout=references,
        run={
            "sampler": "mmmo",
            "space": "ps",
            "evaluations": 30,
            "failed": 0,
            "raced": 0,
            "seed": 3,
            "trial": 12,
            "front": 6,
            "on_front": True,
        },
        version="0.1.0",
        licenses=dict.fromkeys((BASE, *SOURCES), "apache-2.0"),
    )


@pytest.fixture
def renamed(facts: CardFacts) -> CardFacts:
    """The same facts with every name a stranger may choose turned hostile."""
    evil = "x](https://evil) <script>alert(1)</script>\n---\n# `pwned` | y"
    lines = tuple(dataclasses.replace(entry, title=evil, benchmark=evil) for entry in facts.holdout)
    return dataclasses.replace(
        facts, title=evil, sources=(evil, *facts.sources[1:]), holdout=lines, search=()
    )


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an export leaves: a checkpoint, the recipe with this machine's paths, and our mark."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("export") / "trial-12"
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    models = f"[{{model: /home/me/models/mine}}, {{model: {zoo.model_folder('base')}}}]"
    (folder / "mergekit_config.yml").write_text(f"merge_method: linear\nmodels: {models}\n")
    (folder / "morphing.json").write_text('{"mask_seed": 7}\n')
    return folder
