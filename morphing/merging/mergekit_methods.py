"""Every merge method that has no kernel of ours, for one tensor at a time.

mergekit's own code merges, through its public in-memory API. DELLA is ours (`della.py`), because
mergekit draws its masks anew at each call, and what was evaluated must be what is exported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from morphing.errors import MorphingError
from morphing.merging.della import della
from morphing.merging.hashing import mask_key

if TYPE_CHECKING:
    from morphing.merging.planning.plan import PlannedTensor

_DELLA = {"della": True, "della_linear": False}
"""DELLA's variants, and whether sources must agree in sign."""


def merge(planned: PlannedTensor, inputs: Sequence[Tensor], mask_seed: int) -> Tensor:
    """One merged tensor: a function of its arguments alone, safe to call from several threads.

    Args:
        planned: method, parameters and names.
        inputs: in the order of ``planned.inputs``, of one shape and device, any float dtypes.
        mask_seed: of DELLA's masks and of what a mergekit method draws at random.

    Returns:
        float32 of the inputs' shape and device, in memory of its own.

    Raises:
        MorphingError: the method refuses these inputs or parameters, or gives NaN or infinity.
    """
    run = _della if planned.method in _DELLA else _mergekit
    with torch.no_grad():
        result = run(planned, inputs, mask_seed)
        # A finite sum, one fast pass, proves every entry finite; the converse needs a look at each.
        if not math.isfinite(result.sum()) and not bool(torch.isfinite(result).all()):
            raise MorphingError(
                f"{planned.method} gives NaN or infinity for {planned.name}: change its parameters"
                " for this tensor, or choose another method."
            )
        return result


def _della(planned: PlannedTensor, inputs: Sequence[Tensor], mask_seed: int) -> Tensor:
    if planned.base is None:
        raise _refusal(planned, "it needs a base")
    places = [place for place in range(len(inputs)) if place != planned.base]
    own = {
        name: [planned.own[place][name] for place in places]
        for name in ("weight", "density", "epsilon")
    }
    if not places:
        return inputs[planned.base].to(torch.float32, copy=True)
    try:
        return della(
            inputs[planned.base],
            [inputs[place] for place in places],
            own["weight"],
            own["density"],
            own["epsilon"],
            [mask_key(mask_seed, planned.positions[place], planned.name) for place in places],
            consensus=_DELLA[planned.method],
            normalize=planned.shared["normalize"],
            rescale=planned.shared["rescale"],
            factor=planned.shared["lambda"],
        )
    except MorphingError as error:
        raise MorphingError(f"{planned.name}: {error}") from error


def _mergekit(planned: PlannedTensor, inputs: Sequence[Tensor], mask_seed: int) -> Tensor:
    from mergekit import merge_methods
    from mergekit.merge_methods.api import merge_tensors
    from mergekit.merge_methods.base import ParameterScope

    try:
        method = merge_methods.get(planned.method)
        parameters: dict[str, Any] = dict(planned.shared)
        for parameter in method.spec.input_parameters:
            # By place, which is the inputs' id: a base has no value for some parameters.
            parameters[parameter.name] = {
                place: planned.own[place][parameter.name]
                for place in range(len(inputs))
                if place != planned.base or parameter.scope == ParameterScope.INPUT
            }
        with _Determined(mask_seed, planned.name):
            result: Tensor = merge_tensors(
                inputs,
                method,
                parameters=parameters,
                base_index=planned.base,
                name=planned.name,
                dtype=torch.float32,
                out_dtype=torch.float32,
            )
    except torch.OutOfMemoryError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if planned.method == "multislerp" and _unmoved(inputs, planned.base):
            # mergekit refuses three and more vectors of length zero, for want of a direction, but
            # adapters leave many tensors as they were: there is nothing to merge.
            return inputs[0].to(torch.float32, copy=True)
        raise _refusal(planned, " ".join(str(error).split(". ")[0].split())) from error
    shared = any(result.data_ptr() == tensor.data_ptr() for tensor in inputs)
    return result.clone() if shared else result


def _unmoved(inputs: Sequence[Tensor], base: int | None) -> bool:
    """Whether every input equals the base or, without one, zero."""
    origin = torch.zeros_like(inputs[0]).float() if base is None else inputs[base].float()
    return all(torch.equal(tensor.float(), origin) for tensor in inputs)


def _refusal(planned: PlannedTensor, problem: str) -> MorphingError:
    return MorphingError(
        f"{planned.name} cannot be merged with {planned.method}"
        f" ({problem.rstrip('.') or 'no reason given'}): change the recipe's parameters for this"
        " tensor, or choose another method."
    )


class _Determined(TorchFunctionMode):
    """Inside it what torch draws at random or leaves open depends on this merge alone.

    arcee_fusion estimates quantiles of large tensors from a random sample, by ``torch.randint``,
    which here draws from a generator of its own. Seeding torch's global generator instead would not
    do: all threads share it. breadcrumbs and sce choose by sorting magnitudes, where the task
    vectors of half-precision models have many equal ones: here the order of the index decides, not
    the processor's vector instructions.
    """

    def __init__(self, seed: int, tensor: str) -> None:
        super().__init__()
        _, _, low, high = mask_key(seed, -1, tensor)  # -1: no source's masks have this key
        self._generator = torch.Generator().manual_seed(high << 32 | low)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in (torch.argsort, torch.sort):
            return func(*args, **options | {"stable": True})
        if func is torch.topk:
            return _topk(*args, **options)
        if func is not torch.randint:
            return func(*args, **options)
        # On the CPU, so that the sample is the same whatever the device.
        device = options.pop("device", "cpu")
        return func(*args, **options, generator=self._generator).to(device)


def _topk(flat: Tensor, k: int, largest: bool) -> tuple[Tensor, Tensor]:
    """``torch.topk`` of a vector: its largest entries, of equal ones the first, in any order."""
    assert largest and flat.ndim == 1
    values, indices = torch.topk(flat, k)
    threshold = values[-1]
    above = indices[values > threshold]
    equal = (flat == threshold).nonzero().view(-1)[: k - len(above)]
    chosen = torch.cat([above, equal])
    return flat[chosen], chosen
