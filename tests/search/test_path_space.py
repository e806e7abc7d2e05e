"""The space of layer paths against `merging.paths`, which decodes the paper's variables."""

from __future__ import annotations

import numpy as np
import pytest

from morphing.errors import MorphingError
from morphing.merging.paths import initial_slots, path_from_slots
from morphing.search.options import SpaceOptions
from morphing.search.path_space import PathSpace
from morphing.search.samplers.history import from_unit, to_unit

SOURCES = ("zoo:english-math", "stage:ps", "org/numerals@" + "a" * 40)
LLAMA = "LlamaForCausalLM"


def make(architecture: str | None = LLAMA, layers: int = 3, **options: object) -> PathSpace:
    space = SpaceOptions.model_validate({"strategy": "dfs", **options})
    return PathSpace("zoo:base", SOURCES, layers, space, architecture)


@pytest.mark.parametrize("repeats", [1, 2])
def test_points_are_decoded_as_the_papers_variables(repeats: int) -> None:
    space = make(repeats=repeats)
    slots = 9 * repeats
    names = list(space.distributions())
    assert len(names) == 2 * slots and space.slots == slots
    rng = np.random.default_rng(1)
    for _ in range(20):
        indicators = rng.uniform(-1, 1, slots).tolist()
        scales = rng.uniform(0.5, 2, slots).tolist()
        point = dict(zip(names, [*indicators, *scales], strict=True))
        path = path_from_slots(SOURCES, 3, repeats, indicators, scales)
        if len(path.steps) <= space.longest:
            recipe = space.recipe(point)
            recipe.check()
            assert recipe == path.recipe(LLAMA)


def test_names_are_readable() -> None:
    one, two = list(make(repeats=1).distributions()), list(make(repeats=2).distributions())
    assert one[:4] == [
        "english-math.layer.0",
        "english-math.layer.1",
        "english-math.layer.2",
        "ps.layer.0",
    ]
    assert one[9] == "english-math.scale.0"
    assert two[8:10] == ["numerals.layer.2.0", "english-math.layer.0.1"]
    distributions = make(repeats=1).distributions()
    layer, scale = distributions["ps.layer.1"], distributions["ps.scale.1"]
    assert (layer.low, layer.high, layer.log) == (-1, 1, False)
    assert (scale.low, scale.high, scale.log) == (0.5, 2, True)


def test_evolution_begins_at_the_first_sources_own_path() -> None:
    space = make()
    start = space.start()
    slots = {"merge_method": "passthrough"}
    config = space.recipe(start).config
    assert config == slots | {
        "slices": [{"sources": [{"model": SOURCES[0], "layer_range": [0, 3]}]}]
    }
    switches, scales = initial_slots(3, 3, 3)
    assert path_from_slots(SOURCES, 3, 3, switches, scales).recipe(LLAMA).config == config
    # A sixth of the range is one standard deviation from the other side.
    unit = to_unit([start], space.distributions())[0]
    assert set(np.round(np.abs(unit[:27] - 0.5), 12)) == {round(1 / 6, 12)}
    assert from_unit(unit, space.distributions()) == pytest.approx(start)
    # On average as many slots flip as CMA-ES's first population has it.
    flipped = (np.random.default_rng(0).normal(unit[:27], 1 / 6, (4000, 27)) > 0.5) != (
        unit[:27] > 0.5
    )
    assert flipped.mean() == pytest.approx(0.159, abs=0.01)


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_alone_is_a_path(source: str) -> None:
    space = make(repeats=2)
    point = space.alone(source)
    assert point is not None
    slices = space.recipe(point).config["slices"]
    assert slices == [{"sources": [{"model": source, "layer_range": [0, 3]}]}]
    assert space.uniform() is None


def test_without_a_way_to_fold_scales_only_layers_are_searched() -> None:
    for architecture in ("Gemma2ForCausalLM", "UnheardOfForCausalLM", None):
        space = make(architecture)
        assert {name.split(".")[1] for name in space.distributions()} == {"layer"}
        assert space.recipe(space.start()).sources == (SOURCES[0],)


def test_options_apply() -> None:
    space = make(fixed={"scale": 1.0, "ps.layer.*": -1.0}, ranges={"numerals.layer": (0.5, 1)})
    names = space.distributions()
    assert not any(".scale." in name or name.startswith("ps.") for name in names)
    start = space.start()
    assert start["numerals.layer.0.0"] == 0.5
    assert space.recipe(start).sources == (SOURCES[0], SOURCES[2])
    assert space.alone("stage:ps") is None
    assert make(scales=(0.25, 0.5)).start()["ps.scale.0.0"] == 0.5


def test_recipes_name_dtypes_and_vocabulary() -> None:
    space = PathSpace(
        "zoo:base",
        SOURCES,
        3,
        architecture=LLAMA,
        dtype="float32",
        out_dtype="bfloat16",
        tokenizer_source="base",
    )
    config = space.recipe(space.start()).config
    assert config["tokenizer_source"] == "zoo:base"
    assert (config["dtype"], config["out_dtype"]) == ("float32", "bfloat16")


def test_impossible_paths_and_spaces_are_refused() -> None:
    space = make(layers=2)
    empty = dict.fromkeys(space.distributions(), -1.0)
    empty |= {name: 1.0 for name in empty if ".scale." in name}
    with pytest.raises(MorphingError, match="no layers"):
        space.recipe(empty)
    with pytest.raises(MorphingError, match=r"18 layers, and 8 at most.*search\.space\.repeats"):
        space.recipe(dict.fromkeys(space.distributions(), 1.0))
    with pytest.raises(MorphingError, match=r"ps\.layer\.0\.0"):
        space.recipe({name: 1.0 for name in empty if name != "ps.layer.0.0"})
    with pytest.raises(MorphingError, match=r"scale\.0\.0 to 0"):
        make(fixed={"scale": 0.0})
    with pytest.raises(MorphingError, match="named twice"):
        PathSpace("zoo:base", (SOURCES[0], SOURCES[0]), 3)
