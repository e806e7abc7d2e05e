"""A recipe's parameters for each tensor, resolved by mergekit's own reader."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.sources.metadata import layer_index


@dataclass(frozen=True)
class TensorParameters:
    """What a recipe says about one tensor."""

    shared: Mapping[str, Any]
    """``t``, ``normalize``, ``lambda``, ``rescale``, ...: defaults filled in."""
    own: tuple[Mapping[str, Any], ...]
    """``weight``, ``density``, ...: one mapping an input, in the order of ``recipe.inputs``."""


def resolve(recipe: Recipe, tensors: Iterable[str], layers: int) -> dict[str, TensorParameters]:
    """Resolve filters, gradients over depth, and defaults, tensor by tensor.

    As mergekit does for ``models``: a model's own setting goes before the recipe's, a gradient runs
    over the layers, and tensors outside the layers take its first value.

    Raises:
        MorphingError: the recipe is malformed, or lacks a parameter for some tensor.
    """
    from mergekit import merge_methods
    from mergekit.common import ModelReference
    from mergekit.parameter_resolver import resolve_parameters

    configuration = recipe.check()
    spec = merge_methods.get(recipe.method).spec
    entries = configuration.models or []
    settings = {entry.model: entry.parameters for entry in entries}
    references: list[ModelReference] = [entry.model for entry in entries]
    base = configuration.base_model
    if base is not None and base not in settings:
        references.append(base)
    resolved = {}
    for tensor in tensors:
        try:
            shared, own = resolve_parameters(
                spec,
                tensor_name=tensor,
                inputs=dict.fromkeys(references, tensor),
                sources=lambda model: (settings.get(model), configuration.parameters),
                base_model=base,
                t=_depth(tensor, layers),
            )
        except (RuntimeError, ValueError) as error:
            problem = " ".join(str(error).split())
            raise MorphingError(f"The recipe's parameters do not resolve: {problem}.") from error
        resolved[tensor] = TensorParameters(shared, tuple(own[r] for r in references))
        if recipe.method == "linear" and shared["normalize"]:
            _check_weights(tensor, [own[r]["weight"] for r in references])
    return resolved


def _check_weights(tensor: str, weights: list[float]) -> None:
    if sum(weights) == 0:
        raise MorphingError(
            f"The recipe's weights for {tensor} sum to zero, so they cannot be normalised: change a"
            " weight or set normalize: false."
        )


def _depth(tensor: str, layers: int) -> float:
    """Where a gradient is read, in [0, 1]: mergekit's ``t`` of the tensor's layer."""
    index = layer_index(tensor)
    if index is None:
        return 0.0
    return index / (layers - 1) if layers > 1 else 1.0
