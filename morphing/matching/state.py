"""What is known while a merge is matched: settings, tasks on their way through the layers, a
report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from morphing.matching.decoder import Call
from morphing.matching.statistics import Moments, wide
from morphing.matching.tasks import Batch, Task

Streams = Literal["both", "teachers", "merge"]
"""Whose inputs a map reads and whose its target is made from: matched, RegMean, RegMean++."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """How a merge is matched.

    Args:
        shares: p_t of each task by its name; they are made to sum to 1, and tasks at 0 are left
        out. ridge: how strongly weights are held at the teachers' mean, as a share of the mean
        square of
            the inputs.
        streams: "both" is matched, "teachers" RegMean, "merge" RegMean++.
        most_tokens: of a task; None takes all.
        seed: of which texts are taken where there are more.
    """

    shares: Mapping[str, float]
    ridge: float = 1e-2
    streams: Streams = "both"
    most_tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Residual:
    """How far a map's output is from its target on one task: |X^W' - Y|^2 / |Y|^2."""

    layer: int
    map: str
    task: str
    error: float


@dataclass
class Report:
    """What happened while a merge was matched."""

    residuals: list[Residual] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """Whole sentences: ridges that were raised, maps that were not solved."""
    tokens: Mapping[str, int] = field(default_factory=dict)
    """Tokens used, by task."""


Teacher = Callable[[Sequence[str]], Mapping[str, Tensor]]
"""Gives parameters of a teacher by their names in the model, in the model's dtype, on its device.

Asked for one layer's at a time, so that no more of a teacher has to be in memory.
"""


@dataclass
class Stream:
    """One batch of a task: its hidden states in the teacher and in the merge."""

    batch: Batch
    calls: Sequence[Call]
    taught: Tensor
    own: Tensor


@dataclass
class Pupil:
    """One task on its way through the layers."""

    task: Task
    share: float
    streams: list[Stream]
    around: dict[str, Tensor]


SAMPLE = 256
"""Tokens of a task on which residuals are measured."""


_WIDEST_DOUBLE = 8192
"""Inputs wider than this have their sums in float32: a float64 matrix of 11,008 takes 969 MB."""


def moments_for(inputs: Tensor) -> Moments:
    """Empty sums for inputs (n, width) like these."""
    width = inputs.shape[1]
    dtype = torch.float64 if width <= _WIDEST_DOUBLE else torch.float32
    return Moments(width, inputs.device, dtype)


def weighted_mean(parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """sum_t w_t T_t in float32, exact where all are equal or one has all the weight.

    Computed as the first plus the others' differences from it, in the order of their names.
    """
    names = sorted(name for name in parts if weights[name] > 0)
    total = sum(weights[name] for name in names)
    first = wide(parts[names[0]])
    mean = first.clone()
    for name in names[1:]:
        mean += weights[name] / total * (wide(parts[name]) - first)
    return mean


def put_out(inputs: Tensor, weight: Tensor, bias: bool) -> Tensor:
    """What a map puts out for inputs (n, in): (n, out), at least float32."""
    if not bias:
        return wide(inputs) @ weight.T
    return wide(inputs) @ weight[:, :-1].T + weight[:, -1]
