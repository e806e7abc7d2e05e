"""What must hold for every recipe: ends, orders, nested masks, and morphs that forget the past."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from morphing.merging.engine import Engine
from morphing.merging.models import open_models, place_models
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.merging.workers import Workers
from morphing.sources.source import Source
from tests.merging.checkpoints import CPU, NAMES, engine_of, merged, same, simple_recipe
from tests.merging.tiny import METHODS

DELTA_METHODS = ("task_arithmetic", "ties", "dare_linear", "dare_ties")
SHAPES = {"matrix": (60, 90), "vector": (33,), "scalar": ()}
EPS = torch.finfo(torch.float32).eps

quick = settings(max_examples=25, deadline=None, derandomize=True)
densities = st.one_of(st.sampled_from([0.0, 1e-9, 0.5, 1.0]), st.floats(0, 1))
weights = st.floats(-2, 2, width=32)
eighths = st.integers(-16, 16).map(lambda number: number / 8)
"""Weights that coarse numbers are multiplied by without rounding."""
seeds = st.integers(0, 2**31)


@st.composite
def shared(draw: Callable[..., Any], method: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {"normalize": draw(st.booleans())}
    chosen["lambda"] = draw(st.sampled_from([1.0, 0.25, -1.5]))
    if method in ("ties", "dare_linear", "dare_ties"):
        chosen["rescale"] = draw(st.booleans())
    return chosen


def engine_over(make: Callable[[tuple[int, ...]], Tensor], path: Any, count: int = 3) -> Engine:
    models = [{name: make(shape) for name, shape in SHAPES.items()} for _ in range(count + 1)]
    return engine_of(path, *models)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A base and three sources of random numbers."""
    random = torch.Generator().manual_seed(0)
    return engine_over(
        lambda shape: torch.randn(shape, generator=random), tmp_path_factory.mktemp("engine")
    )


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Small multiples of 1/16, whose sums and products with eighths are exact in any order."""
    random = torch.Generator().manual_seed(1)
    return engine_over(
        lambda shape: torch.randint(-32, 33, shape, generator=random) / 16,
        tmp_path_factory.mktemp("coarse"),
    )


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Task vectors of ones, and of distinct magnitudes, so that what is kept can be told."""
    zeros = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    ones = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    random = torch.Generator().manual_seed(2)
    few = {n: torch.randint(1, 9, s, generator=random).float() for n, s in SHAPES.items()}
    return engine_of(tmp_path_factory.mktemp("counting"), zeros, ones, few)


def held(engine: Engine, model: str) -> dict[str, Tensor]:
    return {name: engine.stores[model].tensor(name) for name in SHAPES}


@quick
@given(st.data(), st.sampled_from(DELTA_METHODS), seeds)
def test_weights_of_zero_leave_the_base(
    engine: Engine, data: st.DataObject, method: str, seed: int
) -> None:
    own = [{"weight": 0.0, "density": data.draw(densities)} for _ in range(3)]
    recipe = simple_recipe(method, own, seed, **data.draw(shared(method)))
    assert same(merged(engine, recipe), held(engine, "base"))


@quick
@given(st.sampled_from(("linear", *DELTA_METHODS)), st.booleans(), st.booleans(), seeds)
def test_one_source_whole_is_that_source(
    engine: Engine, method: str, normalize: bool, rescale: bool, seed: int
) -> None:
    chosen = {"normalize": normalize}
    if method not in ("linear", "task_arithmetic"):
        chosen["rescale"] = rescale
    own = [{"weight": 1.0, "density": 1.0}]
    result = merged(engine, simple_recipe(method, own, seed, **chosen))
    base, source = held(engine, "base"), held(engine, "one")
    if method in ("linear", "task_arithmetic"):
        assert same(result, source)
        return
    for name, tensor in result.items():
        # The task vector is rounded once, and once more when it is added to the base.
        bound = EPS / 2 * ((source[name] - base[name]).abs() + source[name].abs()) * 1.001
        assert (tensor.double() - source[name].double()).abs().le(bound).all()


@quick
@given(
    st.sampled_from(("linear", "task_arithmetic", "ties")),
    st.permutations(range(3)),
    st.lists(st.tuples(eighths, densities), min_size=3, max_size=3),
)
def test_the_order_of_sources_is_of_no_account(
    coarse: Engine, method: str, order: list[int], drawn: list[tuple[float, float]]
) -> None:
    own = [{"weight": weight, "density": density} for weight, density in drawn]
    recipe = simple_recipe(method, own, normalize=False)
    models = [recipe.config["models"][place] for place in order]
    assert same(merged(coarse, recipe), merged(coarse, Recipe({**recipe.config, "models": models})))


@quick
@given(st.sampled_from(("dare_linear", "dare_ties")), st.floats(0.2, 0.8), seeds)
def test_masks_go_by_the_place_of_a_source(
    coarse: Engine, method: str, density: float, seed: int
) -> None:
    """So the order of different sources counts, unless nothing is dropped."""
    for dropping in (density, 1.0):
        own = [{"weight": weight, "density": dropping} for weight in (0.5, 0.75)]
        recipe = simple_recipe(method, own, seed, normalize=False, rescale=False)
        models = list(reversed(recipe.config["models"]))
        swapped = Recipe({**recipe.config, "models": models}, seed)
        alike = same(merged(coarse, recipe), merged(coarse, swapped))
        assert alike == (dropping == 1.0)


@quick
@given(
    st.sampled_from(("dare_linear", "dare_ties", "ties")),
    st.sampled_from(("one", "two")),
    st.lists(densities, min_size=2, max_size=4).map(sorted),
    seeds,
)
def test_what_is_kept_grows_with_density(
    counting: Engine, method: str, source: str, growing: list[float], seed: int
) -> None:
    previous = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in SHAPES.items()}
    for density in growing:
        models = [{"model": source, "parameters": {"weight": 1.0, "density": density}}]
        config = {"merge_method": method, "base_model": "base", "models": models}
        config |= {"dtype": "float32", "parameters": {"rescale": False, "normalize": False}}
        for name, tensor in merged(counting, Recipe(config, seed)).items():
            kept = tensor != 0
            assert torch.equal(tensor, held(counting, source)[name] * kept)
            assert not (previous[name] & ~kept).any()
            if method == "ties":
                size = kept.numel()
                expected = max(1, int(min(density, 1) * size)) if density > 0 else 0
                assert kept.sum() == expected
            previous[name] = kept


@quick
@given(st.sampled_from(NAMES[1:]), st.floats(0, 1))
def test_slerp_ends_in_its_models(engine: Engine, other: str, t: float) -> None:
    def arc(t: float) -> dict[str, Tensor]:
        models = [{"model": other}]
        config = {"merge_method": "slerp", "base_model": "base", "models": models}
        return merged(engine, Recipe({**config, "dtype": "float32", "parameters": {"t": t}}))

    assert same(arc(0.0), held(engine, "base"))
    assert same(arc(1.0), held(engine, other))
    one, two = (held(engine, name)["matrix"].double() for name in ("base", other))
    angle = torch.arccos((one * two).sum() / (one.norm() * two.norm()))
    expected = (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * two) / torch.sin(angle)
    torch.testing.assert_close(arc(t)["matrix"].double(), expected, rtol=0, atol=2e-6)


@quick
@given(st.lists(st.floats(0.125, 4, width=32), min_size=3, max_size=3), st.integers(-3, 3))
def test_only_the_ratio_of_normalised_weights_counts(
    engine: Engine, drawn: list[float], power: int
) -> None:
    def averaged(factor: float) -> dict[str, Tensor]:
        own = [{"weight": weight * factor} for weight in drawn]
        return merged(engine, simple_recipe("linear", own, normalize=True))

    assert same(averaged(1.0), averaged(2.0**power))


@st.composite
def any_recipe(draw: Callable[..., Any], names: list[str]) -> Recipe:
    """Of any method with kernels, and one without; of some or all of the sources."""
    method = draw(st.sampled_from((*METHODS, "breadcrumbs")))
    chosen = (
        names[1:2]
        if method == "slerp"
        else draw(st.permutations(names[1:]))[: draw(st.integers(1, 3))]
    )
    gradient = st.lists(st.floats(0.1, 1), min_size=1, max_size=3)
    models: list[dict[str, Any]] = []
    for name in chosen:
        own = {"weight": draw(gradient), "density": draw(gradient)}
        models.append({"model": name, "parameters": {} if method == "slerp" else own})
    parameters = {"t": draw(gradient)} if method == "slerp" else {}
    if method not in ("slerp", "linear"):
        parameters = draw(shared(method if method != "breadcrumbs" else "linear"))
    config = {"merge_method": method, "models": models, "parameters": parameters}
    config["dtype"] = draw(st.sampled_from(["float32", "bfloat16"]))
    if method != "linear":
        config["base_model"] = names[0]
    return Recipe(config, draw(seeds))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.data())
def test_a_morph_forgets_the_morphs_before(
    morpher: Morpher, family: list[Source], data: st.DataObject
) -> None:
    recipes = st.lists(any_recipe([source.name for source in family]), min_size=2, max_size=5)
    *before, last = data.draw(recipes)
    for recipe in before:
        morpher.morph(recipe)
    distance = morpher.morph(last)
    fresh = fresh_engine(family)
    expected = merged(fresh, last)
    state = morpher.model.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor.to(state[name].dtype)), name
    again = dict(morpher.tensors(last))
    assert same(again, expected)
    assert morpher.morph(last) == distance


def fresh_engine(family: list[Source]) -> Engine:
    opened = open_models({source.name: (source, None) for source in family})
    return Engine(opened, place_models(opened, CPU, "disk"), CPU, Workers(1), False)


def test_a_recipe_of_finite_parameters_gives_finite_weights(engine: Engine) -> None:
    """Weights that cancel, and densities that keep one entry."""

    @quick
    @given(st.sampled_from(DELTA_METHODS), weights, densities, st.booleans())
    def check(method: str, weight: float, density: float, normalize: bool) -> None:
        assume(abs(weight) > 1e-30)
        own = [{"weight": weight, "density": density}, {"weight": -weight, "density": density}]
        result = merged(engine, simple_recipe(method, own, normalize=normalize))
        assert all(tensor.isfinite().all() for tensor in result.values())

    check()
