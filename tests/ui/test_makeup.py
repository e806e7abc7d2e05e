"""What a trial is made of: bars for weights, blocks for layers, words for anything else."""

from __future__ import annotations

from morphing.merging.paths import LayerPath, Step
from morphing.merging.recipe import Recipe
from morphing.runs.spec import zoo_spec
from morphing.runs.stage_model import STAGE_MODEL
from morphing.runs.trial import Trial
from morphing.ui.watch.makeup import make_up, numbers, spark

SPEC = zoo_spec()
TIES = Recipe({"merge_method": "ties", "models": [{"model": "zoo:english-math"}]})


def test_numbers_go_by_source_and_parameter() -> None:
    params = {
        "english-math.weight.0.attention": 0.1,
        "english-math.weight.1": 0.3,
        "word-games.weight": 0.5,
        "density": 0.7,
    }
    assert numbers(params, SPEC) == {
        ("english-math", "weight"): {"0.attention": 0.1, "1": 0.3},
        ("word-games", "weight"): {"": 0.5},
        ("", "density"): {"": 0.7},
    }


def test_many_numbers_of_one_kind_are_one_line() -> None:
    params = {f"english-math.weight.{layer}": layer / 32 for layer in range(32)}
    html = make_up(Trial(0, params, TIES), SPEC)
    assert html.count("<dt>") == 1 and html.count("<i ") == 32
    assert spark(Trial(0, params, TIES), SPEC).count("<i ") == 1


def test_a_path_is_told_in_a_line_and_a_block_a_layer() -> None:
    steps = (Step("zoo:english-math", 0), Step("zoo:english-math", 1), Step(STAGE_MODEL, 2, 1.25))
    path = LayerPath(steps).recipe("LlamaForCausalLM")
    indicators = {f"english-math.layer.{layer}": 0.3 for layer in range(48)}
    html = make_up(Trial(0, indicators, path), SPEC)
    assert "english-math 0–1 · best merge 2 ×1.25" in html
    assert "48" not in html and "3 layers" in html
    assert spark(Trial(0, indicators, path), SPEC).count("<i ") == 3


def test_a_recipe_from_outside_the_space_names_its_models() -> None:
    html = make_up(Trial(0, {}, TIES, seed="recipe-1"), SPEC)
    assert "english-math" in html and "outside" in html
    assert spark(Trial(0, {}, TIES), SPEC) == ""
