"""The search space against mergekit's own schema and its reader of settings."""

from __future__ import annotations

from typing import Any

import pytest

from morphing.errors import MorphingError
from morphing.merging.methods import METHODS, SEARCHABLE, refusal
from morphing.merging.recipe import Recipe
from morphing.search.options import SpaceOptions
from morphing.search.space import SearchSpace, short_names

SOURCES = ("zoo:english-math", "org/numerals@" + "a" * 40)


def make(method: str, mask_seed: int = 0, layers: int = 4, **options: Any) -> SearchSpace:
    sources = SOURCES[: METHODS[method].most]
    space = SpaceOptions(**options)
    return SearchSpace(method, "zoo:base", sources, layers, space, mask_seed=mask_seed)


def edges(space: SearchSpace) -> list[dict[str, float]]:
    """The lowest point, the highest, and the two with every other number lowest."""
    ranges = [(name, (d.low, d.high)) for name, d in space.distributions().items()]
    return [
        {name: pair[pick(place)] for place, (name, pair) in enumerate(ranges)}
        for pick in (lambda _: 0, lambda _: 1, lambda i: i % 2, lambda i: 1 - i % 2)
    ]


def test_what_has_nothing_to_search_is_three_methods_and_those_that_are_solved() -> None:
    solved = {name for name, method in METHODS.items() if method.solved}
    assert set(METHODS) - set(SEARCHABLE) - solved == {"karcher", "model_stock", "arcee_fusion"}
    assert solved == {"matched", "regmean", "regmean_plus_plus"}


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
        assert [place[number.name] for place in places] == [number.searched.high] * len(places)
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

    options = SpaceOptions(layer_groups=groups)
    space = SearchSpace("task_arithmetic", "zoo:base", SOURCES[:1], layers, options)
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
        ({"options": SpaceOptions(layer_groups=5)}, "between 1 and 4"),
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


def test_ranges_go_by_whole_name_group_parameter_and_pattern() -> None:
    space = make(
        "ties",
        layer_groups=2,
        ranges={
            "weight": (-1, 2),
            "numerals.weight": (0, 3),
            "numerals.weight.1": (0, 4),
            "*.density.0": (0.2, 0.5),
        },
    )
    bounds = {name: (d.low, d.high) for name, d in space.distributions().items()}
    assert bounds == {
        "english-math.weight.0": (-1, 2),
        "english-math.weight.1": (-1, 2),
        "english-math.density.0": (0.2, 0.5),
        "english-math.density.1": (0, 1),
        "numerals.weight.0": (0, 3),
        "numerals.weight.1": (0, 4),
        "numerals.density.0": (0.2, 0.5),
        "numerals.density.1": (0, 1),
    }


def test_fixed_numbers_are_in_the_recipe_and_not_searched() -> None:
    space = make("ties", fixed={"density": 0.3, "numerals.density": 0.8})
    assert list(space.distributions()) == ["english-math.weight", "numerals.weight"]
    models = space.recipe({"english-math.weight": 0.1, "numerals.weight": 0.2}).config["models"]
    assert [entry["parameters"] for entry in models] == [
        {"weight": 0.1, "density": 0.3},
        {"weight": 0.2, "density": 0.8},
    ]


@pytest.mark.parametrize("pattern", ["density", "dens*", "numerals.density"])
def test_tied_numbers_go_to_every_source(pattern: str) -> None:
    space = make("ties", layer_groups=2, tied=(pattern,))
    names = list(space.distributions())
    assert names == [
        "english-math.weight.0",
        "english-math.weight.1",
        "density.0",
        "density.1",
        "numerals.weight.0",
        "numerals.weight.1",
    ]
    models = space.recipe({name: i / 8 for i, name in enumerate(names)}).check().models
    assert models[0].parameters["density"] == models[1].parameters["density"]
    assert models[0].parameters["weight"] != models[1].parameters["weight"]


def test_numbers_can_be_tied_in_a_part_of_the_model() -> None:
    space = make("task_arithmetic", module_kinds=("embeddings",), tied=("*.embeddings",))
    assert list(space.distributions()) == [
        "english-math.weight.rest",
        "weight.embeddings",
        "numerals.weight.rest",
    ]


def test_naming_a_parameter_that_is_not_usual_adds_it() -> None:
    from mergekit.config import evaluate_setting

    assert "lambda" not in make("dare_ties").distributions()
    space = make("dare_ties", layer_groups=2, ranges={"lambda": (0.5, 1.5)}, fixed={"lambda.0": 1})
    assert space.distributions()["lambda.1"].high == 1.5
    point = dict.fromkeys(space.distributions(), 0.75)
    setting = space.recipe(point).check().parameters["lambda"]
    assert evaluate_setting("model.layers.0.x", setting, validate=float) == 1.0
    assert evaluate_setting("model.layers.3.x", setting, validate=float) == 0.75
    for method in SEARCHABLE:  # mergekit says which methods have it
        from mergekit import merge_methods

        has = any(p.name == "lambda" for p in merge_methods.get(method).spec.parameters)
        names = [number.name for number in make(method, fixed={"lambda": 1.0}).numbers]
        assert ("lambda" in names) == has


def test_layer_wise_space_of_the_paper() -> None:
    """One number a layer, and the embeddings' and the head's own (arXiv 2403.13187)."""
    from mergekit.config import evaluate_setting

    space = make("dare_ties", layer_groups="each", module_kinds=("embeddings",))
    assert len(space.distributions()) == 2 * 2 * (4 + 1)
    names = list(space.distributions())
    values = {name: i / 64 for i, name in enumerate(names)}
    setting = space.recipe(values).check().models[1].parameters["weight"]

    def of(tensor: str) -> str:
        return names[round(evaluate_setting(tensor, setting, validate=float) * 64)]

    for layer in range(4):
        assert of(f"model.layers.{layer}.self_attn.q_proj.weight") == f"numerals.weight.{layer}"
        assert of(f"model.layers.{layer}.input_layernorm.weight") == f"numerals.weight.{layer}"
    for tensor in ("model.embed_tokens.weight", "lm_head.weight"):
        assert of(tensor) == "numerals.weight.embeddings"
    assert of("model.norm.weight") == "numerals.weight.3"


@pytest.mark.parametrize("method", SEARCHABLE)
def test_a_source_alone_is_the_point_where_mergekit_returns_it(method: str) -> None:
    """Where the space says it has such a point, merging there gives the source, or their mean."""
    import torch
    from mergekit.merge_methods.api import merge_tensors

    space = make(method, ranges={"weight": (0, 2)} if method == "linear" else {})
    point = space.alone(space.sources[-1])
    expressible = {"linear", "slerp", "passthrough", "task_arithmetic", "ties", "dare_linear"}
    expressible |= {"dare_ties", "breadcrumbs", "breadcrumbs_ties"}
    assert (point is not None) == (method in expressible)
    assert (space.uniform() is not None) == (method in expressible)
    for chosen in (point, space.uniform()):
        if chosen is None:
            continue
        torch.manual_seed(0)
        base = torch.randn(64)
        tensors = {"zoo:base": base}
        # Changes of one sign, which sign consensus leaves alone.
        tensors |= {source: base + torch.rand(64) for source in space.sources}
        recipe = space.recipe(chosen)
        if not METHODS[method].based:
            tensors.pop("zoo:base")
        own = {entry["model"]: entry.get("parameters", {}) for entry in recipe.config["models"]}
        names = [number.name for number in METHODS[method].numbers if not number.shared]
        parameters = {n: {s: own[s][n] for s in space.sources} for n in names}
        merged = merge_tensors(
            list(tensors.values()),
            method,
            ids=list(tensors),
            base_index=0 if METHODS[method].based else None,
            parameters={**parameters, **recipe.config.get("parameters", {})},
        )
        wanted = tensors[space.sources[-1]]
        if chosen is not point:
            wanted = torch.stack([tensors[source] for source in space.sources]).mean(0)
        assert torch.allclose(merged, wanted, atol=1e-6)


def test_fixed_and_tied_numbers_bound_what_can_be_expressed() -> None:
    assert make("ties", fixed={"density": 1.0}).alone(SOURCES[0]) == {
        "english-math.weight": 1.0,
        "numerals.weight": 0.0,
    }
    assert make("ties", fixed={"density": 0.5}).alone(SOURCES[0]) is None
    assert make("ties", tied=("weight",)).alone(SOURCES[0]) is None
    assert make("ties", tied=("weight",)).uniform() is not None
    assert make("ties", ranges={"weight": (0, 0.4)}).uniform() is None


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("ties", {"ranges": {"density": (0, 1.5)}}, r"english-math\.density go from 0 to 1\.5"),
        ("ties", {"fixed": {"density": -0.1}}, r"english-math\.density to -0\.1.*between 0 and 1"),
        ("ties", {"fixed": {"*": 0.5}}, "no number to search"),
        ("nearswap", {"ranges": {"t": (0, 1)}}, "by its logarithm"),
        ("nearswap", {"fixed": {"t": -1}}, "0 or more"),
        ("della", {"ranges": {"density": (0.1, 0.9)}}, r"density go from 0\.1 to 0\.9"),
        ("della", {"fixed": {"epsilon": 0.2}}, r"and epsilon to 0\.2"),
        ("ties", {"gradient": 5}, "gradient is 5 and the models have 4 layers"),
        ("ties", {"layer_groups": ((0, 1), (3, 3))}, "3 to 3 where one from layer 2 is due"),
        ("ties", {"layer_groups": ((0, 2), (2, 3))}, "2 to 3 where one from layer 3 is due"),
        ("ties", {"layer_groups": ((0, 2),)}, "end at layer 2 and the models' last layer is 3"),
        ("ties", {"layer_groups": ((0, 9),)}, "end at layer 9 and the models' last layer is 3"),
    ],
)
def test_impossible_options_are_refused(method: str, options: dict, said: str) -> None:
    with pytest.raises(MorphingError, match=said):
        make(method, **options)


def test_della_keeps_everything_where_that_is_fixed() -> None:
    assert make("della", fixed={"density": 1.0}).alone(SOURCES[0]) is not None
