"""What is said of a merge method: its parameters, what they may be, and how they are searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import Any, Literal

Range = tuple[float, float]
"""The least and the greatest value, both allowed."""
Kind = Literal["number", "whole number", "switch"]
Group = Literal["", "changes", "compare", "directions", "single", "solved"]

ANY: Range = (-inf, inf)
POSITIVE: Range = (0.0, inf)
SHARE: Range = (0.0, 1.0)


@dataclass(frozen=True)
class Span:
    """How a parameter is searched."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    of_source: bool = True
    """Whether every source has a number of its own; otherwise one number goes for all."""
    usual: bool = True
    """Whether it is searched without being named in ``search.space``."""
    whole: float | None = None
    """The value at which its source counts as it is, if there is one."""
    absent: float | None = None
    """The value at which its source does not count; None where another number decides that."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method, as recipes write it."""

    name: str
    allowed: Range = ANY
    """The values that mean something."""
    kind: Kind = "number"
    default: float | bool | None = None
    """What counts where a recipe says nothing; None where the parameter has no default."""
    required: bool = False
    shared: bool = False
    """Read from the whole recipe or slice; otherwise also from each model's entry."""
    span: Span | None = None
    """None: it cannot be searched."""

    @property
    def searched(self) -> Span:
        """The span of a parameter that is known to be searched."""
        assert self.span is not None
        return self.span


@dataclass(frozen=True)
class Method:
    """A merge method."""

    name: str
    """As recipes write it."""
    title: str
    sentence: str
    """What it does, for somebody who chooses among methods."""
    parameters: tuple[Parameter, ...] = ()
    based: bool = True
    """Whether the search gives it the base."""
    fewest: int = 1
    most: int | None = None
    """How many sources the search gives it, the base not counted."""
    fast: bool = False
    """Whether it has a kernel of our own (`rows.kernels`)."""
    weighs_base: bool = False
    """Whether the base may be listed with parameters of its own; otherwise they change nothing."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the recipes of a search say besides the numbers."""
    group: Group = ""
    """Where the app shows it: at once, or among others of its kind."""
    reference: str = ""
    """Where it is described."""
    others: tuple[str, ...] = ()
    """Other names that people know it by."""
    solved: bool = False
    """Whether it is solved from what the models compute on prompts (`morphing.matching`), and is
    not a sum over their weights. mergekit knows no such method."""

    @cached_property
    def by_name(self) -> Mapping[str, Parameter]:
        """The parameters by name."""
        return {parameter.name: parameter for parameter in self.parameters}

    @property
    def numbers(self) -> tuple[Parameter, ...]:
        """The parameters that are searched."""
        return tuple(p for p in self.parameters if p.span is not None and p.span.usual)

    @property
    def extras(self) -> tuple[Parameter, ...]:
        """The parameters that are searched only where the search space names them."""
        return tuple(p for p in self.parameters if p.span is not None and not p.span.usual)
