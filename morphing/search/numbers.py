"""The numbers of a search space: named, with a range each or a fixed value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from morphing.errors import MorphingError
from morphing.search.options import SpaceOptions

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution


@dataclass(frozen=True)
class SpaceNumber:
    """A number of a space. It is searched, or has a ``value`` and is not."""

    name: str
    """``english-math.weight.0``"""
    parameter: str
    """``weight``"""
    group: str
    """``english-math.weight``: the name without the part of the model it is for."""
    low: float
    high: float
    log: bool
    allowed: tuple[float, float]
    """What recipes may hold."""
    value: float | None = None

    def matches(self, pattern: str) -> bool:
        """Whether a pattern is for this number, by any of its names."""
        return any(fnmatchcase(n, pattern) for n in (self.name, self.group, self.parameter))

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value it takes."""
        return (self.low, self.high) if self.value is None else (self.value, self.value)


def settle(numbers: Iterable[SpaceNumber], options: SpaceOptions) -> tuple[SpaceNumber, ...]:
    """Give numbers the ranges and fixed values of ``options``; the last that matches counts.

    Raises:
        MorphingError: one is outside what recipes may hold, or nothing is left to search.
    """
    settled = tuple(_settle(number, options) for number in numbers)
    if all(number.value is not None for number in settled):
        raise MorphingError(
            "search.space.fixed leaves no number to search: take one out of it, or make this one"
            " merge with `morphing merge RECIPE.yaml OUT`."
        )
    return settled


def _settle(number: SpaceNumber, options: SpaceOptions) -> SpaceNumber:
    ranges = [r for pattern, r in options.ranges.items() if number.matches(pattern)]
    fixed = [value for pattern, value in options.fixed.items() if number.matches(pattern)]
    low, high = number.allowed
    if fixed:
        if not low <= fixed[-1] <= high:
            raise MorphingError(
                f"search.space.fixed sets {number.name} to {fixed[-1]:g}: it must be"
                f" {_between(low, high)}."
            )
        return replace(number, value=float(fixed[-1]))
    if not ranges:
        return number
    least, most = ranges[-1]
    if not low <= least < most <= high:
        raise MorphingError(
            f"search.space.ranges lets {number.name} go from {least:g} to {most:g}: it must stay"
            f" {_between(low, high)}."
        )
    if number.log and least <= 0:
        raise MorphingError(
            f"search.space.ranges lets {number.name} begin at {least:g}: it is searched by its"
            " logarithm and must stay above 0."
        )
    return replace(number, low=float(least), high=float(most))


def _between(low: float, high: float) -> str:
    if high == float("inf"):
        return f"{low:g} or more" if low > float("-inf") else "a number"
    return f"between {low:g} and {high:g}"


def distributions(numbers: Iterable[SpaceNumber]) -> dict[str, FloatDistribution]:
    """The numbers that are searched, by name, as Optuna's distributions."""
    from optuna.distributions import FloatDistribution

    return {
        number.name: FloatDistribution(number.low, number.high, log=number.log)
        for number in numbers
        if number.value is None
    }


def complete(numbers: Sequence[SpaceNumber], params: Mapping[str, float]) -> dict[str, float]:
    """All numbers' values, from those of the numbers that are searched.

    Raises:
        MorphingError: one of these is missing or out of range, or one is not of the space.
    """
    searched = {number.name: number for number in numbers if number.value is None}
    if params.keys() != searched.keys():
        wrong = ", ".join(sorted(params.keys() ^ searched.keys()))
        raise MorphingError(f"These parameters are missing or not of this search: {wrong}.")
    for name, number in searched.items():
        if not number.low <= params[name] <= number.high:
            raise MorphingError(
                f"{name} is {params[name]}: it must be between {number.low:g} and {number.high:g}."
            )
    return {n.name: float(params[n.name] if n.value is None else n.value) for n in numbers}


def point(numbers: Sequence[SpaceNumber], wanted: Mapping[str, float]) -> dict[str, float] | None:
    """The point of the space where every number has its wanted value; None if it has none."""
    for number in numbers:
        low, high = number.bounds
        if not low <= wanted[number.name] <= high:
            return None
    return {number.name: wanted[number.name] for number in numbers if number.value is None}
