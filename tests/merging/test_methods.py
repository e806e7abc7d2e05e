"""Methods without a kernel of ours against mergekit's own run on the same tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from mergekit import merge_methods
from mergekit.merge_methods.api import merge_state_dicts
from mergekit.merge_methods.base import ParameterScope
from torch import Tensor

from morphing.errors import MorphingError
from morphing.merging.mergekit_methods import merge
from morphing.merging.planning.plan import Input, PlannedTensor
from tests.merging.comparing import StableSorts

NAME = "model.layers.1.mlp.up_proj.weight"
OWN = {
    "weight": (0.7, -0.3, 0.5),
    "density": (0.4, 0.9, 1.0),
    "gamma": (0.02, 0.0, 0.1),
    "epsilon": (0.1, 0.05, 0.2),
    "scale": (0.8,),
}
"""Values of the inputs that are not the base."""

CASES: list[tuple[str, int, int | None, dict[str, Any]]] = [
    # method, inputs, place of the base, shared parameters
    ("nuslerp", 2, None, {}),
    ("nuslerp", 3, 0, {}),
    ("nuslerp", 3, 1, {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    ("multislerp", 3, None, {}),
    ("multislerp", 4, 3, {"normalize_weights": False}),
    ("karcher", 3, None, {}),
    ("karcher", 3, 0, {"max_iter": 3}),
    ("breadcrumbs", 4, 0, {}),
    ("breadcrumbs", 3, 1, {"normalize": True, "rescale": True, "lambda": 0.6}),
    ("breadcrumbs_ties", 4, 3, {"normalize": True, "int8_mask": True}),
    ("sce", 4, 2, {"select_topk": 0.3}),
    ("sce", 3, 0, {}),
    ("model_stock", 4, 3, {}),
    ("model_stock", 3, 0, {"filter_wise": True}),
    ("nearswap", 2, 1, {"t": 0.02}),
    ("arcee_fusion", 2, 0, {}),
    ("ram", 4, 1, {"epsilon": 0.01}),
    ("ramplus_tl", 4, 0, {"r": 0.5, "alpha": 0.7, "epsilon": 0.03}),
    ("passthrough", 1, None, {}),
]
IDS = [f"{method}-{count}-{base}" for method, count, base, _ in CASES]


def planned(
    method: str,
    count: int,
    base: int | None,
    shared: Mapping[str, Any] | None = None,
    own: Mapping[str, Sequence[Any]] = OWN,
) -> PlannedTensor:
    """As a plan has it: defaults filled in, no value of the base's where it takes none."""
    spec = merge_methods.get(method).spec
    values = {p.name: p.default for p in spec.shared_parameters} | dict(shared or {})
    sources = [place for place in range(count) if place != base]
    mappings: list[dict[str, Any]] = [{} for _ in range(count)]
    for parameter in spec.input_parameters:
        for order, place in enumerate(sources):
            mappings[place][parameter.name] = own[parameter.name][order]
        if base is not None and parameter.scope == ParameterScope.INPUT:
            mappings[base][parameter.name] = 1.0
    return PlannedTensor(
        name=NAME,
        method=method,
        inputs=tuple(Input(f"model-{place}", NAME) for place in range(count)),
        base=base,
        shared=values,
        own=tuple(mappings),
        positions=tuple(-1 if p == base else sources.index(p) for p in range(count)),
    )


def family(
    count: int, shape: Sequence[int] = (24, 40), dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    origin = torch.randn(*shape, generator=generator)
    steps = torch.randn(count, *shape, generator=generator)
    return [(origin + 0.1 * step).to(dtype) for step in steps]


def by_mergekit(plan: PlannedTensor, inputs: Sequence[Tensor], out: torch.dtype) -> Tensor:
    """By model names and whole state dictionaries, as its users would."""
    names = [item.model for item in plan.inputs]
    parameters = dict(plan.shared)
    for name in set().union(*plan.own):
        parameters[name] = {
            model: own[name] for model, own in zip(names, plan.own, strict=True) if name in own
        }
    with StableSorts():  # of equal magnitudes mergekit takes any, we the first by index
        merged = merge_state_dicts(
            {model: {NAME: tensor} for model, tensor in zip(names, inputs, strict=True)},
            plan.method,
            parameters=parameters,
            base=None if plan.base is None else names[plan.base],
            dtype=torch.float32,
            out_dtype=out,
        )
    return merged[NAME]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("method", "count", "base", "shared"), CASES, ids=IDS)
def test_results_are_mergekits(
    method: str, count: int, base: int | None, shared: dict[str, Any], dtype: torch.dtype
) -> None:
    plan = planned(method, count, base, shared)
    for shape in ((24, 40), (40,), (3, 8, 5)):
        inputs = family(count, shape, dtype)
        copies = [tensor.clone() for tensor in inputs]
        result = merge(plan, inputs, 0)
        assert result.dtype == torch.float32 and result.shape == shape
        assert torch.equal(result.to(dtype), by_mergekit(plan, inputs, dtype))
        result.fill_(7)  # no input shares the result's memory
        assert all(map(torch.equal, inputs, copies))


def test_every_method_of_mergekits_is_covered() -> None:
    known = {method.spec.name for method in merge_methods.registry.registered_methods()}
    kernels = {"linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties"}
    assert known == {method for method, *_ in CASES} | kernels | {"della", "della_linear"}


def test_mixed_dtypes_are_computed_in_float32() -> None:
    plan = planned("nearswap", 2, 0, {"t": 0.02})
    one, two = family(2)
    half = two.bfloat16()
    assert torch.equal(merge(plan, [one, half], 0), merge(plan, [one, half.float()], 0))


@pytest.mark.parametrize("method", ["della", "della_linear"])
@pytest.mark.parametrize("normalize", [False, True])
def test_della_that_draws_nothing_is_mergekits(method: str, normalize: bool) -> None:
    shared = {"normalize": normalize, "lambda": 0.6, "int8_mask": True}
    own = OWN | {"density": (1.0, 0.0, 1.5)}
    for base in (0, 2):
        for dtype in (torch.float32, torch.bfloat16):
            plan, inputs = planned(method, 4, base, shared, own), family(4, dtype=dtype)
            expected = by_mergekit(plan, inputs, torch.float32)
            torch.testing.assert_close(merge(plan, inputs, 0), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_della_in_distribution_is_mergekits(method: str) -> None:
    """Mean and variance of every entry over 400 draws of each; five standard errors."""
    plan, inputs = planned(method, 3, 0, {}, OWN | {"density": (0.4, 0.7)}), family(3, (8, 32))
    ours = torch.stack([merge(plan, inputs, seed) for seed in range(400)]) - inputs[0]
    torch.manual_seed(0)
    theirs = torch.stack([by_mergekit(plan, inputs, torch.float32) for _ in range(400)]) - inputs[0]
    error = ((ours.var(0) + theirs.var(0)) / 400).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= 5 * error).all()
    gap = (ours.var(0) - theirs.var(0)).flatten()
    assert gap.mean().abs() <= 5 * gap.std() / gap.numel() ** 0.5
    assert ours.var(0).mean() > 0


def test_dellas_masks_go_by_the_sources_place_in_the_recipe() -> None:
    """So a tensor that one model lacks has the same masks of the others."""
    whole = planned("della_linear", 3, 0, {}, OWN | {"density": (0.5, 0.5), "weight": (0.0, 1.0)})
    inputs = family(3)
    alone = PlannedTensor(
        name=NAME,
        method=whole.method,
        inputs=(whole.inputs[2], whole.inputs[0]),
        base=1,
        shared=whole.shared,
        own=(whole.own[2], whole.own[0]),
        positions=(whole.positions[2], -1),
    )
    assert torch.equal(merge(whole, inputs, 5), merge(alone, [inputs[2], inputs[0]], 5))
    assert not torch.equal(merge(whole, inputs, 5), merge(whole, inputs, 6))


def test_a_large_arcee_fusion_depends_on_the_mask_seed_alone() -> None:
    """mergekit samples the entries of a tensor of more than a million."""
    plan, inputs = planned("arcee_fusion", 2, 0), family(2, (1100, 1000))
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(merge(plan, inputs, 3))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)
    other = merge(plan, inputs, 4)
    assert 0 < int((other != results[0]).sum()) < 0.001 * other.numel()


@pytest.mark.parametrize(("method", "count", "base", "shared"), CASES, ids=IDS)
@pytest.mark.parametrize("shape", [(1,), (4, 1), (3, 6), ()], ids=str)
def test_degenerate_inputs_give_finite_results(
    method: str, count: int, base: int | None, shared: dict[str, Any], shape: tuple[int, ...]
) -> None:
    plan = planned(method, count, base, shared)
    ones = torch.ones(shape)
    zeros = torch.zeros(shape)
    for inputs in (
        [zeros] * count,
        [ones] * count,
        [zeros, *[ones] * (count - 1)],
        [*[ones] * (count - 1), zeros],
        [ones * (-1) ** i for i in range(count)],
        [1e-12 * ones * i for i in range(count)],
    ):
        assert merge(plan, inputs, 0).isfinite().all()  # merge itself looks, and would refuse


@pytest.mark.parametrize("case", [case for case in CASES if case[2] is not None], ids=str)
def test_a_tensor_that_no_source_changes_stays_as_it_is(case: Any) -> None:
    """Adapters leave many tensors as they were; mergekit's multislerp refuses three such."""
    method, count, base, shared = case
    tensor = family(1)[0]
    result = merge(planned(method, count, base, shared), [tensor] * count, 0)
    torch.testing.assert_close(result, tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("plan", "inputs", "said"),
    [
        (
            planned("della", 3, 0, {}, OWN | {"density": (0.9, 0.9), "epsilon": (0.15, 0.1)}),
            family(3),
            "density is 0.9 and its epsilon 0.15: choose them",
        ),
        (planned("della", 2, None), family(2), "it needs a base"),
        (planned("sce", 2, None), family(2), "requires a base"),
        (planned("model_stock", 2, 0), family(2), "at least 3 inputs"),
        (planned("nearswap", 2, 0, {"t": 0.1}), [*family(1), *family(1, (2, 3))], "size mismatch"),
        (planned("multislerp", 3, 0), [*family(2), *family(1, (2, 3))], "size mismatch"),
        (
            planned("multislerp", 3, None, {}, {"weight": (1.0, 1.0, 1.0)}),
            [torch.eye(3)[0], -torch.eye(3)[0], torch.zeros(3)],
            "weighted sum of the input tensors is zero",
        ),
        (
            planned("multislerp", 3, 0, {}, {"weight": (0.5, -0.5)}),
            family(3),
            "multislerp gives NaN or infinity",
        ),
        (planned("sce", 3, 0), [x * 1e20 for x in family(3)], "sce gives NaN or infinity"),
    ],
)
def test_what_cannot_be_merged_is_said_in_one_sentence(
    plan: PlannedTensor, inputs: list[Tensor], said: str
) -> None:
    with pytest.raises(MorphingError, match=said) as error:
        merge(plan, inputs, 0)
    sentence = str(error.value)
    assert NAME in sentence and "\n" not in sentence
    assert sentence.endswith(".") and ". " not in sentence
