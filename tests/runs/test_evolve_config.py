"""mergekit-evolve's configurations as run specs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from morphing.errors import MorphingError
from morphing.runs.evolve_config import Evolution, Genome, Task, convert, read_search
from morphing.runs.spec import RunSpec, zoo_spec

GENOME = {
    "models": ["zoo:english-math", "zoo:word-games"],
    "merge_method": "dare_ties",
    "base_model": "zoo:base",
}


def made(genome: dict[str, Any] | None = None, **changes: Any) -> tuple[RunSpec, list[str]]:
    data = {"genome": {**GENOME, **(genome or {})}, "tasks": ["gsm8k"], **changes}
    return convert(data, lambda model: 6, "it.yaml")


def test_the_fields_are_mergekits() -> None:
    from mergekit.evo import config, genome

    pairs = (
        (Evolution, config.EvolMergeConfiguration),
        (Genome, genome.ModelGenomeDefinition),
        (Task, config.TaskConfiguration),
    )
    for ours, theirs in pairs:
        assert set(ours.model_fields) == set(theirs.model_fields)
    methods = genome.METHOD_PARAM_MAPS
    for method in methods:
        assert made({"merge_method": method})[0].method == method


def test_a_genome_becomes_a_spec() -> None:
    spec, notes = made(
        {
            "layer_granularity": 2,
            "filters": ["self_attn", "mlp", "input_layernorm", "banana"],
            "allow_negative_weights": True,
            "tokenizer_source": "union",
        },
        tasks=["hellaswag", {"name": "gsm8k", "weight": 2, "metric": "exact_match,strict-match"}],
        limit=50,
        num_fewshot=3,
        random_init=True,
    )
    assert (spec.base, spec.sources) == ("zoo:base", ("zoo:english-math", "zoo:word-games"))
    assert spec.tokenizer_source == "union"
    assert spec.search.sampler == "evolve" and spec.search.evaluations == 100
    assert spec.search.weights == {"hellaswag": 1.0, "gsm8k": 2.0}
    space = spec.search.space
    assert space.layer_groups == 3 and space.module_kinds == ("attention", "mlp", "norms")
    assert space.ranges == {"weight": (-1.0, 1.0)}
    first, second = (use.declaration for use in spec.benchmarks)
    assert (first.task, first.metric, first.few_shot) == ("hellaswag", "acc", 3)
    assert second.metric == "exact_match,strict-match"
    assert [use.samples for use in spec.benchmarks] == [50, 50]
    said = " ".join(notes)
    for word in ("banana", "input_layernorm", "not normalised", "random_init", "100 evaluations"):
        assert word in said


def test_models_layers_and_normalisation_as_they_come() -> None:
    linear, _ = made({"merge_method": "linear", "base_model": None})
    assert linear.base == "zoo:english-math" and len(linear.sources) == 2
    slerp, _ = made({"merge_method": "slerp"})
    assert (slerp.base, slerp.sources) == ("zoo:english-math", ("zoo:word-games",))
    smooth, _ = made({"layer_granularity": 2, "smooth": True})
    assert smooth.search.space.gradient == 3 and smooth.search.space.layer_groups == 1
    assert not any("normalised" in note for note in made({"normalize": False})[1])
    assert made({"models": ["zoo:base", "zoo:word-games"]})[0].sources == ("zoo:word-games",)


@pytest.mark.parametrize(
    ("genome", "changes", "words"),
    [
        ({"merge_method": "della"}, {}, "mergekit-evolve has linear"),
        ({"base_model": None}, {}, "dare_ties needs a genome.base_model"),
        ({"merge_method": "slerp", "models": ["a", "b", "c"]}, {}, "name two models"),
        ({"layer_granularity": 4}, {}, "has 6 layers: choose a divisor"),
        ({"layer_granularty": 4}, {}, "did you mean 'layer_granularity'"),
        ({}, {"tasks": []}, "tasks"),
        ({}, {"tasks": ["gsmk8"]}, "did you mean gsm8k"),
        ({}, {"tasks": [{"name": "gsm8k", "weight": -1}]}, "write 0 or more"),
        ({}, {"tasks": [{"name": "gsm8k", "wieght": 1}]}, "did you mean 'weight'"),
        ({}, {"limit": 0}, "limit"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    genome: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(MorphingError) as refused:
        made(genome, **changes)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_of_either_kind_is_read(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(yaml.safe_dump({"genome": GENOME, "tasks": ["gsm8k"]}))
    assert read_search(file, lambda model: 6)[0].name == "evolve"
    file.write_text(zoo_spec().to_yaml())
    assert read_search(file, lambda model: 6) == (zoo_spec(), [])


@pytest.mark.parametrize("value", [".nan", ".inf", "true", "'0.5'", "heavy"])
@pytest.mark.parametrize("field", ["ranges: {weight: [0, VALUE]}", "fixed: {weight: VALUE}"])
def test_a_space_takes_numbers_only(tmp_path: Path, value: str, field: str) -> None:
    file = tmp_path / "it.yaml"
    text = field.replace("VALUE", value)
    file.write_text(zoo_spec().to_yaml() + f"search: {{space: {{{text}}}}}\n")
    with pytest.raises(MorphingError, match=r"search\.space\.(ranges|fixed)"):
        read_search(file, lambda model: 6)
