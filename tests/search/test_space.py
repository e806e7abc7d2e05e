"""The search space against mergekit's own schema and its reader of settings."""

import pytest

from morphing.errors import MorphingError
from morphing.merging.recipe import METHODS
from morphing.search.space import SearchSpace, short_names

SOURCES = ("zoo:english-math", "org/numerals@" + "a" * 40)


def middle(space: SearchSpace) -> dict[str, float]:
    return {name: 0.5 for name in space.distributions()}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_recipes_pass_mergekits_schema(method: str, groups: int) -> None:
    sources = SOURCES[:1] if method == "slerp" else SOURCES
    space = SearchSpace(method, "zoo:base", sources, layers=4, layer_groups=groups, mask_seed=3)
    recipe = space.recipe(middle(space))
    recipe.check()
    assert (recipe.method, recipe.sources, recipe.mask_seed) == (method, sources, 3)
    assert recipe.base == (None if method == "linear" else "zoo:base")


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
        ({"method": "slerp"}, "exactly one source"),
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
