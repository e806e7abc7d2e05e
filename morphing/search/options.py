"""What a person may say of a search space, as the run spec has it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Strategy = Literal["ps", "dfs", "ps+dfs"]
"""What is searched: merge parameters (the paper's PS), layer paths (DFS), or first one and then
paths through the best of these merges and the sources (arXiv 2403.13187)."""

Kind = Literal["attention", "mlp", "embeddings", "norms"]
"""What a tensor is part of; the head is an embedding, and a norm inside attention attention."""
Finite = Annotated[float, Field(strict=True)]
"""A number, and neither true nor text that could be read as one."""
LayerRange = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
"""First and last layer, both included."""


class SpaceOptions(BaseModel):
    """The search space: which numbers there are, their ranges, and which depend on others."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    strategy: Strategy = "ps"
    layer_groups: Annotated[int, Field(ge=1)] | Literal["each"] | tuple[LayerRange, ...] = 1
    """So many groups of neighbouring layers, or their ranges, that get numbers of their own;
    ``each``: every layer. With ``module_kinds: [embeddings]`` that is the paper's layer-wise PS."""
    module_kinds: bool | tuple[Kind, ...] = False
    """Which of attention, MLP, embeddings and norms get numbers of their own (true: all); the
    others share one."""
    gradient: Annotated[int, Field(ge=0)] = 0
    """Of a smooth curve over depth, the number of points searched (2 or more); 0: no curve."""
    ranges: dict[str, tuple[Finite, Finite]] = {}
    """Other ranges, by parameter (``weight``) or by a number's whole name or a pattern of it."""
    fixed: dict[str, Finite] = {}
    """Numbers that are not searched, by the same."""
    tied: tuple[str, ...] = ()
    """Parameters (``density``) that have one number for all sources."""
    repeats: Annotated[int, Field(ge=1)] = 3
    """Layer paths: how many times the sources' layers are laid out (the paper's r)."""
    scales: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.5, 2.0)
    """Layer paths: the range of the factors on entering a layer out of order."""
    path_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """``ps+dfs``: the share of the evaluations that goes to paths."""

    @model_validator(mode="after")
    def _consistent(self) -> SpaceOptions:
        if self.gradient == 1:
            raise ValueError("a gradient needs two points or more (0 means none)")
        if self.gradient and self.layer_groups != 1:
            raise ValueError("set layer_groups or gradient, not both")
        if self.scales[0] >= self.scales[1]:
            raise ValueError("scales is a range: the first number must be below the second")
        for name, (low, high) in self.ranges.items():
            if low >= high:
                raise ValueError(f"the range of {name!r} must go from low to high")
        return self


DEFAULTS = SpaceOptions()
"""Merge parameters, one of each a source."""
