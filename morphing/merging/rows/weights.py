"""What the inputs of a segment are multiplied with, tensor by tensor, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from morphing.merging.rows.segments import Segment

Values = NDArray[np.float64]
"""One number a tensor."""

_PARALLEL = 0.9995  # a greater cosine is interpolated linearly, as in mergekit


def sum_weights(segment: Segment) -> list[Values]:
    """Weights of every input where the output is their weighted sum.

    Task arithmetic is one: base + sum of w (source - base) = (1 - sum of w) base + sum of w source,
    which leaves the base or a lone source exactly as it is at weights 0 and 1.
    """
    places = range(len(segment.tensors[0].inputs))
    if segment.method == "passthrough":
        scales = [tensor.own[0].get("scale") for tensor in segment.tensors]
        return [np.array([1.0 if scale is None else scale for scale in scales])]
    if segment.method == "linear":
        weights = [np.array(segment.own("weight", place)) for place in places]
        total = np.sum(weights, axis=0)
        return [weight / total for weight in weights] if segment.shared["normalize"] else weights
    own = {place: np.array(segment.own("weight", place)) for place in segment.others}
    scale = factor(segment, np.sum(list(own.values()), axis=0))
    scaled = {place: weight * scale for place, weight in own.items()}
    rest = 1.0 - np.sum(list(scaled.values()), axis=0)
    return [scaled.get(place, rest) for place in places]


def arc_weights(segment: Segment, products: Values) -> list[Values]:
    """Weights of base and source on the arc between them (slerp).

    Args:
        segment: of two inputs, the base among them.
        products: sums of squares of base and source and of their products, (3, tensors).
    """
    squares_base, squares_other, dots = products
    norms = [np.where(n > 1e-8, n, 1.0) for n in (np.sqrt(squares_base), np.sqrt(squares_other))]
    cosine = np.clip(dots / (norms[0] * norms[1]), -1.0, 1.0)
    t = np.array(segment.all_shared("t"))
    parallel = np.abs(cosine) > _PARALLEL
    angle = np.arccos(np.where(parallel, 0.0, cosine))
    base = np.where(parallel, 1 - t, np.sin((1 - t) * angle) / np.sin(angle))
    other = np.where(parallel, t, np.sin(t * angle) / np.sin(angle))
    return [base, other] if segment.base == 0 else [other, base]


def factor(segment: Segment, total: Values) -> Values:
    """``lambda``, over the sum of weights where the recipe normalises."""
    own = np.array(segment.all_shared("lambda"))
    if not segment.shared["normalize"]:
        return own
    return own / np.where(np.abs(total) < 1e-8, 1.0, total)
