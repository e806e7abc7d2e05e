"""What the kernels compute, tensor by tensor: against mergekit's own functions and definitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import mergekit.sparsify
import numpy as np
import pytest
import torch
from mergekit.sparsify import RescaleNorm, magnitude
from torch import Tensor

from morphing.merging import hashing, mergekit_methods
from morphing.merging.methods import TASK_VECTORS
from morphing.merging.planning.plan import Input, PlannedTensor
from morphing.merging.recipe import Recipe
from morphing.merging.rows import dare_masks, kernels, runner, segments, ties_ranks
from morphing.merging.rows.kernels import FIXED_POINT, ROW
from morphing.merging.rows.segments import Segment
from tests.merging.checkpoints import CPU, Tensors, engine_of, merged, same, simple_recipe

METHODS = ("linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties")
DENSITIES = (0.0, 1e-9, 0.003, 0.4, 0.999, 1.0)
UNIT = 2.0**-14  # of task vectors: small multiples of it are added to a base without rounding


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def base_like(delta: Tensor, seed: int = 5) -> Tensor:
    return torch.randint(-8, 9, delta.shape, generator=generator(seed)) / 4


def task_vectors(seed: int = 0) -> dict[str, Tensor]:
    """Magnitudes of every kind, in multiples of `UNIT`: one row, many, and ends within a row."""
    random = generator(seed)

    def signs(size: int) -> Tensor:
        return torch.randint(0, 2, (size,), generator=random) * 2 - 1

    def shuffled(size: int) -> Tensor:
        return (torch.randperm(size, generator=random) + 1) * signs(size)

    def whole(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=random)

    def rows(*kinds: str) -> Tensor:
        """Rows of magnitudes above, equal to and below 9: few values, so that tables are exact."""
        bounds = {"large": (10, 20), "equal": (9, 10), "small": (1, 9)}
        return torch.cat([whole(*bounds[kind], ROW) * signs(ROW) for kind in kinds])

    sparse = torch.zeros(3 * ROW, dtype=torch.int64)
    sparse[whole(0, 3 * ROW, 60)] = whole(1, 3, 60)
    vectors = {
        "distinct": shuffled(15_000).view(3, 5000),
        "distinct_in_one_row": shuffled(100),
        "few_values": whole(-3, 4, 5, 4000),
        "equal": 7 * signs(2 * ROW + 5),
        "late_ties": torch.cat([shuffled(ROW), 9 * signs(ROW), shuffled(ROW - 7)]),
        # At a density of 0.4 the last equal one is in a row after, or before, the guessed one.
        "equal_late": rows("large", "large", "small", "small", *["equal"] * 3, "small"),
        "equal_early": rows("equal", "equal", "large", "large", *["small"] * 4),
        "sparse": sparse,
        "zeros": torch.zeros(2, 3000, dtype=torch.int64),
        "single": torch.tensor([3]),
        "scalar": torch.tensor(-2),
    }
    return {name: vector * UNIT for name, vector in vectors.items()}


def model_of(base: Tensors, vectors: Tensors) -> dict[str, Tensor]:
    return {name: base[name] + vectors[name] for name in base}


def trimmed_by_index(delta: Tensor, density: float) -> Tensor:
    """The definition: the k largest, of equal ones the first."""
    flat = delta.reshape(-1)
    count = max(1, int(min(density, 1.0) * len(flat))) if density > 0 else 0
    kept = torch.sort(flat.abs(), descending=True, stable=True).indices[:count]
    result = torch.zeros_like(flat)
    result[kept] = flat[kept]
    return result.view(delta.shape)


@pytest.fixture(params=["exact tables", "sampled tables"])
def tables(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "sampled tables":
        monkeypatch.setattr(ties_ranks, "_FEWEST", 4)
        monkeypatch.setattr(ties_ranks, "_SHARE", 1 << 30)


@pytest.mark.usefixtures("tables")
def test_trimming_keeps_the_k_largest_and_of_equal_ones_the_first(tmp_path: Path) -> None:
    vectors = task_vectors()
    base = {name: base_like(vector) for name, vector in vectors.items()}
    engine = engine_of(tmp_path, base, model_of(base, vectors))
    for density in DENSITIES:
        recipe = simple_recipe("ties", [{"weight": 1.0, "density": density}], normalize=False)
        for name, tensor in merged(engine, recipe).items():
            expected = trimmed_by_index(vectors[name], density)
            assert torch.equal(tensor - base[name], expected), (name, density)


def test_the_definition_of_trimming_is_mergekits() -> None:
    """Where no two magnitudes are equal; mergekit's sort has no order for those that are."""
    for name in ("distinct", "distinct_in_one_row"):
        vector = task_vectors()[name]
        for density in DENSITIES:
            assert torch.equal(trimmed_by_index(vector, density), magnitude(vector, density))


@pytest.mark.usefixtures("tables")
@pytest.mark.filterwarnings("error")
def test_rescaling_restores_the_l1_norm_after_trimming_as_mergekit_does(tmp_path: Path) -> None:
    vectors = task_vectors()
    base = {name: torch.zeros_like(vector) for name, vector in vectors.items()}
    engine = engine_of(tmp_path, base, vectors)
    for density in DENSITIES:
        own = [{"weight": 1.0, "density": density}]
        result = merged(engine, simple_recipe("ties", own, normalize=False, rescale=True))
        for name, tensor in result.items():
            vector = vectors[name]
            kept = trimmed_by_index(vector, density)
            ratio = vector.abs().sum() / kept.abs().sum() if kept.any() else 1.0
            torch.testing.assert_close(tensor, kept * ratio, rtol=1e-5, atol=0)
            if name.startswith("distinct"):
                theirs = magnitude(vector, density, RescaleNorm.l1)
                torch.testing.assert_close(tensor, theirs, rtol=1e-5, atol=0)


@pytest.mark.usefixtures("tables")
def test_every_tensor_and_source_is_trimmed_at_its_own_density(tmp_path: Path) -> None:
    """All in one segment, whose guesses where ties end must be put right row by row."""
    first, second = task_vectors(1), task_vectors(2)
    base = {name: base_like(vector) for name, vector in first.items()}
    engine = engine_of(tmp_path, base, model_of(base, first), model_of(base, second))

    def density(number: int) -> list[dict[str, object]]:
        some = (0.0, 0.1, 0.37, 0.6, 0.93, 1.0)
        filters = [
            {"filter": name, "value": some[(place * number + 1) % len(some)]}
            for place, name in enumerate(first)
        ]
        return [*reversed(filters), {"value": 1.0}]  # "distinct" is in another's name

    def chosen(number: int, name: str) -> float:
        entries = density(number)
        return float(next(e["value"] for e in entries if e.get("filter", "") in name))  # type: ignore[operator, arg-type]

    own = [{"weight": 1.0, "density": density(1)}, {"weight": 0.5, "density": density(2)}]
    both = merged(engine, simple_recipe("ties", own, normalize=False))
    for name, tensor in both.items():
        a = trimmed_by_index(first[name], chosen(1, name))
        b = 0.5 * trimmed_by_index(second[name], chosen(2, name))
        positive = a + b >= 0
        agreeing = [torch.where((part > 0) == positive, part, 0.0) for part in (a, b)]
        assert torch.equal(tensor - base[name], agreeing[0] + agreeing[1]), name


def reference(recipe_engine: object, recipe: object, models: Sequence[Tensors]) -> Tensors:
    """mergekit's own merge of every tensor, with the plan's parameters."""
    places = dict(zip(("base", "one", "two", "three"), models, strict=False))
    return {
        planned.name: mergekit_methods.merge(
            planned, [places[i.model][i.tensor] for i in planned.inputs], recipe.mask_seed
        )
        for planned in recipe_engine.output(recipe).plan.tensors
    }


def random_models(count: int, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    random = generator(3)
    shapes = {"matrix": (3, 2000), "vector": (50,), "large": (2, ROW)}
    base = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    models = [
        {name: tensor + 0.1 * torch.randn(tensor.shape, generator=random) for name, tensor in model}
        for model in [base.items()] * count
    ]
    return [{n: t.to(dtype) for n, t in model.items()} for model in (base, *models)]


def test_every_method_is_mergekits(tmp_path: Path) -> None:
    """DARE at density 1, where mergekit has nothing to draw."""
    models = random_models(3)
    engine = engine_of(tmp_path, *models)
    for method in METHODS:
        density = 1.0 if method.startswith("dare") else 0.4
        weights = (0.7, -0.3, 0.5)
        own = [{"weight": weight, "density": density} for weight in weights]
        for shared in ({}, {"normalize": True}, {"normalize": False, "lambda": 0.8}):
            if method == "slerp":
                recipe = simple_recipe(method, [{}], t=0.3)
            else:
                recipe = simple_recipe(method, own, **shared)
            expected = reference(engine, recipe, models)
            for name, tensor in merged(engine, recipe).items():
                torch.testing.assert_close(tensor, expected[name], rtol=2e-6, atol=3e-7)


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_signs_that_cancel_are_positive_as_in_mergekit(method: str, tmp_path: Path) -> None:
    """Where normalising divides by the weight of whoever was elected."""
    models = [
        {"w": torch.zeros(5)},
        {"w": torch.tensor([2.0, -2, 2, 0, -1])},
        {"w": torch.tensor([-1.0, 1, 1, 0, 0.25])},
    ]
    engine = engine_of(tmp_path, *models)
    recipe = simple_recipe(method, [{"weight": 0.5}, {"weight": 1.0}], normalize=True)
    result = merged(engine, recipe)
    assert result["w"][:2].tolist() == [2.0, 1.0]
    assert same(result, reference(engine, recipe, models))


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("rescale", [True, False])
def test_dare_is_mergekits_when_it_draws_our_masks(
    method: str, rescale: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = random_models(3)
    engine = engine_of(tmp_path, *models)
    densities, weights = (0.2, 0.9, 0.55), (0.7, -0.3, 0.5)
    own = [{"weight": w, "density": d} for w, d in zip(weights, densities, strict=True)]
    recipe = simple_recipe(method, own, seed=11, rescale=rescale)
    planned = engine.output(recipe).plan.tensors
    masks = [
        mask_by_formula(11, place, tensor.name, models[0][tensor.name].shape, density)
        for tensor in planned
        for place, density in enumerate(densities)
    ]
    drawn = iter(masks)
    monkeypatch.setattr(mergekit.sparsify.torch, "bernoulli", lambda chances: next(drawn).float())
    expected = reference(engine, recipe, models)
    assert next(drawn, None) is None
    for name, tensor in merged(engine, recipe).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


def mask_by_formula(
    seed: int, position: int, name: str, shape: torch.Size | tuple[int, ...], density: float
) -> Tensor:
    size = math.prod(shape)
    key = hashing.mask_key(seed, position, name)
    hashed = hashing.hash_indices(torch.arange(size, dtype=torch.int32), 0, [key])[0]
    return ((hashed.double() + 2**31) / 2**32 < density).view(shape)


def mask_engine(folder: Path, shapes: dict[str, tuple[int, ...]], sources: int = 2) -> object:
    """With task vectors of ones, so that what DARE merges is its mask."""
    base = {name: torch.zeros(shape) for name, shape in shapes.items()}
    ones = {name: torch.ones(shape) for name, shape in shapes.items()}
    return engine_of(folder, base, *[ones] * sources)


def masks(engine: object, densities: Sequence[float], seed: int = 0) -> Tensors:
    """The first source's masks, the others weightless."""
    own = [{"weight": float(i == 0), "density": d} for i, d in enumerate(densities)]
    recipe = simple_recipe("dare_linear", own, seed, rescale=False, normalize=False)
    return merged(engine, recipe)


SHAPES = {"a": (10, ROW + 100), "b": (10, ROW + 100), "c": (5000,)}


def test_masks_follow_the_formula_and_nest_as_density_grows(tmp_path: Path) -> None:
    engine = mask_engine(tmp_path, SHAPES, 1)
    previous = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in SHAPES.items()}
    for density in (0.0, 1e-9, 1e-4, 0.1, 0.11, 0.5, 0.9, 1 - 1e-6, 1.0):
        kept = masks(engine, [density], seed=7)
        for name, shape in SHAPES.items():
            assert set(kept[name].unique().tolist()) <= {0.0, 1.0}
            mask = kept[name] == 1
            assert torch.equal(mask, mask_by_formula(7, 0, name, shape, density)), (name, density)
            assert not (previous[name] & ~mask).any()
            previous[name] = mask
    assert all(mask.all() for mask in previous.values())


def test_masks_keep_the_density_and_are_independent(tmp_path: Path) -> None:
    """Of other sources, tensors, seeds, of neighbours in a row, and of the row below."""
    engine = mask_engine(tmp_path, {"a": (20, ROW), "b": (20, ROW)}, 3)
    size = 20 * ROW
    for density in (0.05, 0.3, 0.5, 0.8):
        flat = []
        for place in range(3):
            own = [{"weight": float(i == place), "density": density} for i in range(3)]
            recipe = simple_recipe("dare_linear", own, 0, rescale=False, normalize=False)
            flat += [mask.reshape(-1) for mask in merged(engine, recipe).values()]
        flat += [mask.reshape(-1) for mask in masks(engine, [density], seed=1).values()]
        kept = torch.stack(flat).double()
        error = math.sqrt(density * (1 - density) / size)
        assert (kept.mean(1) - density).abs().max() < 5 * error
        first = kept[0]
        pairs = [kept, torch.stack([first[:-1], first[1:]]), torch.stack([first[:-2], first[2:]])]
        pairs.append(torch.stack([first[:-ROW], first[ROW:]]))
        for pair in pairs:
            correlation = torch.corrcoef(pair) - torch.eye(len(pair))
            assert correlation.abs().max() < 5 / math.sqrt(size)
        # Pairwise independence is not enough where three sources vote.
        together = kept[[0, 2, 4]].prod(0).mean() - density**3
        assert together.abs() < 6 * math.sqrt(density**3 / size)


def test_masks_do_not_depend_on_the_other_sources_blocks_or_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = mask_engine(tmp_path, SHAPES)
    alone = masks(engine, [0.3])
    assert same(masks(engine, [0.3, 0.8]), alone)
    recipe = simple_recipe("dare_linear", [{"weight": 1.0, "density": 0.3}], rescale=False)
    assert same(merged(engine, recipe, ["b"]), {"b": alone["b"]})
    monkeypatch.setattr(runner, "_BLOCK", 3)
    monkeypatch.setattr(segments, "_MOST_ROWS", 1)
    assert same(masks(mask_engine(tmp_path / "again", SHAPES), [0.3]), alone)


def test_hashes_are_the_documented_formula_past_two_to_the_32() -> None:
    key = hashing.mask_key(7, 1, "model.norm.weight")
    assert key.factor % 2 == key.own_factor % 2 == 1
    for start in (0, ROW, 2**31 - 5, 2**32 - 30, 2**32, 3 * 2**32 + 17):
        indices = torch.arange(10, dtype=torch.int32)
        if start < 2**32 < start + 10:
            continue
        hashed = hashing.hash_indices(indices, start, [key])[0].numpy().view(np.uint32)
        assert hashed.tolist() == [formula(key, start + i) for i in range(10)]


def formula(key: hashing.MaskKey, index: int) -> int:
    value = index * key.factor + key.offset + (index >> 32) * 0x9E3779B9
    value %= 2**32
    value = (value ^ (value >> 16)) * 0x7FEB352D % 2**32
    value = (value ^ (value >> 15)) * 0x846CA68B % 2**32
    return (value * key.own_factor + key.own_offset) % 2**32


def made_up_segment(*shapes: tuple[int, ...]) -> Segment:
    tensors = tuple(
        PlannedTensor(
            name=f"w{i}",
            method="dare_ties",
            inputs=(Input("base", f"w{i}"), Input("one", f"w{i}")),
            base=0,
            shared={},
            own=({}, {}),
            positions=(-1, 0),
        )
        for i in range(len(shapes))
    )
    return Segment(tensors, tuple(map(torch.Size, shapes)), torch.float32)


def test_rows_past_two_to_the_32_hash_as_their_elements() -> None:
    rows = 2**32 // ROW
    segment = made_up_segment((5 * ROW,), (2**32 + 2 * ROW,))
    shared = dare_masks.shared_hash_columns(segment, 3, CPU)
    own = dare_masks.own_hash_columns(segment, 1, 3, CPU)
    columns = torch.arange(ROW, dtype=torch.int32)
    for tensor, row in ((0, 0), (0, 4), (1, 0), (1, rows - 1), (1, rows), (1, rows + 1)):
        place = 5 * tensor + row
        factor, offset, own_factor, own_offset = (c[place] for c in (*shared, *own))
        hashed = hashing.finalise(columns * factor + offset) * own_factor + own_offset
        key = hashing.mask_key(3, 0, f"w{tensor}")
        assert torch.equal(hashed, hashing.hash_indices(columns, row * ROW, [key])[0])
        unsigned = hashed[:4].numpy().view(np.uint32).tolist()
        assert unsigned == [formula(key, row * ROW + i) for i in range(4)]


def made_up_rows() -> dict[str, Tensor]:
    """Rows that fixed point could get wrong."""
    normal = torch.randn(ROW, generator=generator(4))
    outlier = torch.full((ROW,), 1e-3)
    outlier[17] = 100.0
    below = math.nextafter(2.0, 0.0)
    return {
        "normal": normal,
        "outlier": outlier,
        "all at the peak": torch.full((ROW,), below),
        "a power of two": torch.full((ROW,), 4.0),
        "tiny": normal * 1e-30,
        "huge": normal * 1e30,
        "zeros": torch.zeros(ROW),
        "subnormal": torch.full((ROW,), 1e-42),
    }


def test_norms_in_fixed_point_are_within_half_a_unit_an_entry() -> None:
    rows = torch.stack(list(made_up_rows().values()))
    base = torch.zeros_like(rows)
    (peaks,) = kernels.row_peaks(base, [rows])
    scales = dare_masks.scale_column(peaks)
    (sums,) = kernels.norms(base, [rows], [scales])
    found = dare_masks.tensor_norms(made_up_segment(*[(ROW,)] * len(rows)), sums, scales)
    for name, row, scale, norm in zip(made_up_rows(), rows, scales, found, strict=True):
        exact = float(row.double().abs().sum())
        if name in ("zeros", "subnormal"):
            assert norm == 0, name
        else:
            assert FIXED_POINT / 2 <= float(row.abs().max()) * float(scale) <= FIXED_POINT
            assert abs(norm - exact) <= 0.5 / float(scale) * ROW, name
    assert math.isclose(found[0], float(rows[0].double().abs().sum()), rel_tol=1e-5)


def test_tensors_that_hardly_differ_are_not_rescaled(tmp_path: Path) -> None:
    """As in mergekit: no norm is restored that is below 1e-7."""
    base = {"w": torch.zeros(2, 2000)}
    engine = engine_of(tmp_path, base, {"w": torch.full((2, 2000), 1e-12)})
    result = merged(engine, simple_recipe("dare_linear", [{"weight": 1.0, "density": 0.5}]))
    assert set(result["w"].unique().tolist()) == {0.0, float(torch.tensor(1e-12))}


@pytest.mark.parametrize("placement", ["device", "disk"])
def test_merging_changes_no_input(placement: str, tmp_path: Path) -> None:
    models = random_models(3)
    engine = engine_of(tmp_path, *models, placement=placement)
    for method in METHODS:
        own = [{"weight": 0.5, "density": 0.5}] * (1 if method == "slerp" else 3)
        shared = {"t": 0.4} if method == "slerp" else {}
        merged(engine, simple_recipe(method, own, **shared))
    stores = engine.stores
    for name, model in zip(("base", "one", "two", "three"), models, strict=True):
        assert same({tensor: stores[name].tensor(tensor) for tensor in model}, model)


def all_methods() -> list[Callable[[str], object]]:
    """A recipe of every method, by the output's dtype."""
    own = [{"weight": w, "density": d} for w, d in ((0.7, 0.3), (-0.3, 0.9), (0.5, 0.6))]

    def made(method: str) -> Callable[[str], object]:
        if method == "slerp":
            return lambda dtype: simple_recipe(method, [{}], dtype=dtype, t=0.3)
        return lambda dtype: simple_recipe(method, own, dtype=dtype)

    return [made(method) for method in METHODS]


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_half_precision_is_merged_in_float32_and_rounded_once(
    stored: torch.dtype, tmp_path: Path
) -> None:
    half = random_models(3, stored)
    wide = [{name: tensor.float() for name, tensor in model.items()} for model in half]
    engine, other = engine_of(tmp_path / "h", *half), engine_of(tmp_path / "w", *wide)
    for recipe in all_methods():
        in_float32 = merged(engine, recipe("float32"))
        assert same(in_float32, merged(other, recipe("float32")))
        name = str(stored).removeprefix("torch.")
        rounded = {name: tensor.to(stored) for name, tensor in in_float32.items()}
        assert same(merged(engine, recipe(name)), rounded)
        assert any(not torch.equal(rounded[n].float(), in_float32[n]) for n in rounded)


def test_integers_side_by_side_pass_through(tmp_path: Path) -> None:
    """Each is a segment of its own; two in a row once were one."""
    model = {"count": torch.arange(5), "counts": torch.arange(7), "w": torch.ones(3)}
    engine = engine_of(tmp_path, model, model)
    for method in ("ties", "linear", "breadcrumbs"):
        result = merged(engine, simple_recipe(method, [{"weight": 1.0, "density": 0.5}]))
        assert torch.equal(result["count"], model["count"])
        assert torch.equal(result["counts"], model["counts"])


@pytest.mark.parametrize("method", TASK_VECTORS)
def test_a_base_to_which_nothing_is_added_stays_as_it_is(method: str, tmp_path: Path) -> None:
    """As in mergekit; also where it is alone in a slice."""
    base = {"layers.0.w": torch.randn(3, 5), "layers.1.w": torch.randn(3, 5)}
    one = {name: tensor + 1 for name, tensor in base.items()}
    engine = engine_of(tmp_path, base, one)
    alone = {"merge_method": method, "base_model": "base", "dtype": "float32"}
    own = {"model": "base", "parameters": {"weight": 0.5, "density": 0.5}}
    assert same(merged(engine, Recipe({**alone, "models": [own]})), base)
    pieces = [
        {"sources": [{"model": "base", "layer_range": [0, 1]}]},
        {"sources": [{"model": name, "layer_range": [1, 2]} for name in ("base", "one")]},
    ]
    parameters = {"weight": 1.0, "density": 1.0, "normalize": False, "rescale": False}
    found = merged(engine, Recipe({**alone, "slices": pieces, "parameters": parameters}))
    assert torch.equal(found["layers.0.w"], base["layers.0.w"])
    torch.testing.assert_close(found["layers.1.w"], one["layers.1.w"])
