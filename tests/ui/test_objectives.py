"""Values as people read them."""

from __future__ import annotations

import pytest

from morphing.runs.scales import Bound
from morphing.runs.spec import RunSpec, zoo_spec
from morphing.ui.objectives import Objective, Objectives


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("gsm8k", 0.7254, "72.5%"),
        ("sparsity", -0.23481, "−0.2348"),
        ("gsm8k", -0.0961, "−9.6%"),
        ("parameters", 8.03e9, "8.03B"),
        ("layers", 32.0, "32"),
        ("tokens", 41.234, "41.2 tokens"),
        ("throughput", 812.34, "812.3 tok/s"),
    ],
)
def test_values_have_their_unit(name: str, value: float, text: str) -> None:
    assert Objective(name, name).shown(value) == text


def test_a_runs_objectives_have_titles_and_directions() -> None:
    zoo = zoo_spec().model_dump()
    spec = RunSpec.model_validate({**zoo, "measures": ["tokens", "sparsity"]})
    found = Objectives.of(spec)
    assert found.names == spec.objectives
    assert found["zoo-kanji-numbers"].title == "Japanese numerals"
    assert [each.maximised for each in found.all] == [True, True, True, False, True]
    assert found["tokens"].best([3.0, 2.0]) == 2.0 and found["sparsity"].best([-3, -2]) == -2
    assert [each.name for each in found.scores] == [use.declaration.name for use in spec.tasks]


def test_bits_per_byte_are_no_share() -> None:
    text = {"name": "text", "dataset": "text.jsonl", "kind": "perplexity", "target": "{{ text }}"}
    spec = RunSpec.model_validate({**zoo_spec().model_dump(), "benchmarks": [{"benchmark": text}]})
    found = Objectives.of(spec)["text"]
    assert not found.maximised and found.is_score and found.suffix == ""
    assert (found.shown(0.8731), found.scaled(0.8731)) == ("0.873", 0.8731)


def test_a_constraint_may_be_on_what_is_no_objective() -> None:
    found = Objectives.of(zoo_spec())
    assert found.bound(Bound("parameters", high=9e5)) == "Parameters at most 900k"
    bound = Bound("zoo-kanji-numbers", low=0.5, high=0.75)
    assert found.bound(bound) == "Japanese numerals at least 50.0% and at most 75.0%"
