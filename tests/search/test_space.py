"""The search space against mergekit's own schema and its reader of settings."""

from typing import Any

import pytest

from morphing.errors import MorphingError
from morphing.merging.recipe import METHODS as KNOWN
from morphing.merging.recipe import Recipe
from morphing.search.ranges import METHODS, SEARCHABLE, refusal
from morphing.search.space import SearchSpace, short_names

SOURCES = ("zoo:english-math", "org/numerals@" + "a" * 40)


def make(method: str, **changes: Any) -> SearchSpace:
    sources = SOURCES[: METHODS[method].most]
    return SearchSpace(method, "zoo:base", **{"sources": sources, "layers": 4, **changes})


def edges(space: SearchSpace) -> list[dict[str, float]]:
    """The lowest point, the highest, and the two with every other number lowest."""
    ranges = [(name, (d.low, d.high)) for name, d in space.distributions().items()]
    return [
        {name: pair[pick(place)] for place, (name, pair) in enumerate(ranges)}
        for pick in (lambda _: 0, lambda _: 1, lambda i: i % 2, lambda i: 1 - i % 2)
    ]


def test_every_method_is_in_the_table() -> None:
    assert set(METHODS) == set(KNOWN)
    assert set(METHODS) - set(SEARCHABLE) == {"karcher", "model_stock", "arcee_fusion"}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("method", SEARCHABLE)
def test_recipes_pass_mergekits_schema(method: str, groups: int) -> None:
    space = make(method, layer_groups=groups, mask_seed=3)
    for point in edges(space):
        recipe = space.recipe(point)
        recipe.check()
        assert (recipe.method, recipe.sources) == (method, space.sources)
        assert recipe.mask_seed == 3
        assert recipe.base == (None if method in ("linear", "passthrough") else "zoo:base")


@pytest.mark.parametrize("method", SEARCHABLE)
def test_mergekit_reads_every_number_where_the_recipe_puts_it(method: str) -> None:
    """mergekit passes over a parameter it does not know, so a misspelt one would go unseen."""
    from mergekit import merge_methods
    from mergekit.parameter_resolver import resolve_parameters

    space = make(method)
    point = edges(space)[1]
    configuration = space.recipe(point).check()
    entries = {entry.model: entry.parameters for entry in configuration.models}
    shared, own = resolve_parameters(
        merge_methods.get(method).spec,
        tensor_name="model.layers.0.mlp.up_proj.weight",
        inputs=dict.fromkeys(entries, "model.layers.0.mlp.up_proj.weight"),
        sources=lambda model: (entries.get(model), configuration.parameters),
        base_model=configuration.base_model,
    )
    for number in METHODS[method].numbers:
        places = [shared] if number.shared else list(own.values())
        assert [place[number.parameter] for place in places] == [number.high] * len(places)
    for setting, value in METHODS[method].settings.items():
        assert shared[setting] == value


@pytest.mark.parametrize("method", SEARCHABLE)
def test_how_many_sources_as_mergekit_has_it(method: str) -> None:
    """Where one source is mergekit's but not ours, a number of the search would change nothing."""
    for count in (1, 2, 3, 4):
        sources = tuple(f"org/{i}" for i in range(count))
        config = {
            "merge_method": method,
            "models": [{"model": source} for source in sources],
            **({"base_model": "zoo:base"} if METHODS[method].based else {}),
        }
        try:
            Recipe(config).check()
            accepted = True
        except MorphingError:
            accepted = False
        ours = method in ("multislerp", "sce", "ramplus_tl") and count == 1
        assert (refusal(method, count) is None) == (accepted and not ours)


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_dellas_probabilities_are_possible_everywhere(method: str) -> None:
    for point in edges(make(method)):
        for source in ("english-math", "numerals"):
            density, epsilon = point[f"{source}.density"], point[f"{source}.epsilon"]
            assert density - epsilon > 0 and density + epsilon < 1


def test_shared_numbers_have_no_source() -> None:
    space = make("ramplus_tl", layer_groups=2)
    names = ["r.0", "r.1", "alpha.0", "alpha.1", "epsilon.0", "epsilon.1"]
    assert list(space.distributions()) == names
    values = dict(zip(names, (0.1, 0.2, 0.3, 0.4, 1e-4, 1e-3), strict=True))
    config = space.recipe(values).config
    assert [entry["value"] for entry in config["parameters"]["r"]] == [0.1, 0.1, 0.1, 0.2]
    assert config["models"] == [{"model": source} for source in SOURCES]
    assert list(make("nearswap").distributions()) == ["t"]
    assert make("nearswap").distributions()["t"].log


def test_dare_ties_is_mm_mos_space() -> None:
    space = SearchSpace("dare_ties", "zoo:base", SOURCES, layers=4, dtype="float32")
    assert list(space.distributions()) == [
        "english-math.weight",
        "english-math.density",
        "numerals.weight",
        "numerals.density",
    ]
    assert all((d.low, d.high) == (0, 1) for d in space.distributions().values())
    values = dict(zip(space.distributions(), (0.1, 0.2, 0.3, 0.4), strict=True))
    assert space.recipe(values).config == {
        "merge_method": "dare_ties",
        "base_model": "zoo:base",
        "parameters": {"normalize": False},
        "models": [
            {"model": SOURCES[0], "parameters": {"weight": 0.1, "density": 0.2}},
            {"model": SOURCES[1], "parameters": {"weight": 0.3, "density": 0.4}},
        ],
        "dtype": "float32",
    }


def test_linear_weights_cannot_all_be_zero() -> None:
    space = SearchSpace("linear", "zoo:base", SOURCES, layers=4)
    lowest = {name: d.low for name, d in space.distributions().items()}
    assert sum(lowest.values()) > 0
    assert space.recipe(lowest).config["parameters"] == {"normalize": True}


@pytest.mark.parametrize(
    ("layers", "groups", "of_layer"),
    [(4, 2, [0, 0, 1, 1]), (5, 2, [0, 0, 1, 1, 1]), (3, 3, [0, 1, 2]), (12, 1, [0] * 12)],
)
def test_groups_as_mergekit_reads_them(layers: int, groups: int, of_layer: list[int]) -> None:
    from mergekit.config import evaluate_setting

    space = SearchSpace("task_arithmetic", "zoo:base", SOURCES[:1], layers, groups)
    names = list(space.distributions())
    values = {name: (i + 1) / 16 for i, name in enumerate(names)}
    setting = space.recipe(values).check().models[0].parameters["weight"]

    def group(tensor: str) -> int:
        return round(evaluate_setting(tensor, setting, validate=float) * 16) - 1

    assert [group(f"model.layers.{i}.mlp.up_proj.weight") for i in range(layers)] == of_layer
    assert group("model.embed_tokens.weight") == 0
    assert group("model.norm.weight") == group("lm_head.weight") == groups - 1


def test_short_names_are_readable_and_unique() -> None:
    sources = ["zoo:base", "a/base@" + "b" * 40, "/home/me@work/base/", "x/base-2", "x/Qwen2.5-7B"]
    assert short_names(sources) == ["base", "base-2", "base-3", "base-2-2", "Qwen2.5-7B"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "soup"}, "no merge method 'soup'"),
        ({"sources": ()}, "at least one source"),
        ({"sources": ("a/b", "a/b")}, "named twice"),
        ({"method": "slerp"}, "exactly one source with the base"),
        ({"method": "nuslerp", "sources": SOURCES[:1]}, "exactly 2 sources"),
        ({"method": "sce", "sources": SOURCES[:1]}, "at least 2 sources"),
        ({"method": "passthrough"}, "exactly one source without a base"),
        ({"method": "karcher"}, "no numbers to search.*morphing merge RECIPE.yaml OUT"),
        ({"layer_groups": 0}, "between 1 and 4"),
        ({"layer_groups": 5}, "between 1 and 4"),
    ],
)
def test_impossible_spaces_are_refused(changes: dict, said: str) -> None:
    arguments = {"method": "ties", "base": "zoo:base", "sources": SOURCES, "layers": 4}
    with pytest.raises(MorphingError, match=said):
        SearchSpace(**{**arguments, **changes})


def test_points_outside_the_space_are_refused() -> None:
    space = SearchSpace("slerp", "zoo:base", SOURCES[:1], layers=4)
    with pytest.raises(MorphingError, match=r"english-math\.t is 1\.5"):
        space.recipe({"english-math.t": 1.5})
    with pytest.raises(MorphingError, match="is nan"):
        space.recipe({"english-math.t": float("nan")})
    with pytest.raises(MorphingError, match=r"english-math\.t, t"):
        space.recipe({"t": 0.5})
