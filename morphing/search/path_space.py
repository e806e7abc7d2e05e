"""The search space of layer paths (arXiv 2403.13187, section 3.2)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import inf
from typing import TYPE_CHECKING

from morphing.errors import MorphingError
from morphing.merging.paths import WRITERS, initial_slots, path_from_slots
from morphing.merging.recipe import Recipe
from morphing.search.numbers import SpaceNumber, complete, distributions, point, settle
from morphing.search.options import DEFAULTS, SpaceOptions
from morphing.search.space import finish, short_names

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution

LONGEST = 4
"""A path of more than so many times a model's layers is not tried: such a model answers nothing,
and the time and the memory it takes grow with its layers."""

_START = 1 / 3


@dataclass(frozen=True)
class PathSpace:
    """All paths over the layers of given sources, as named numbers.

    The slots are all layers of all sources in order, the whole laid out ``options.repeats`` times.
    Slot ``<source>.layer.<layer>`` is on the path iff its number, in [-1, 1], is above 0. Where the
    layer follows one that is not its own predecessor, the residual stream that enters it is
    multiplied by ``<source>.scale.<layer>``. With several repeats the number of the repeat follows,
    from 0: ``english-math.layer.3.1``. ``options.ranges`` and ``fixed`` apply as in `SearchSpace`
    (``fixed: {scale: 1}`` searches paths alone).

    Evolution begins at the first source's own path, its slots at 1/3 and the others at -1/3, so
    that at a standard deviation of a sixth of the range a sample differs from it in every sixth
    slot.

    Where the scales cannot be folded into an architecture's weights (`paths.writers_of`) there are
    none to search, and all are 1.

    Raises:
        MorphingError: there is no source or one is named twice, or a range or fixed value is
            impossible.
    """

    base: str
    sources: tuple[str, ...]
    layers: int
    options: SpaceOptions = DEFAULTS
    architecture: str | None = None
    """The models' class as ``config.json`` names it."""
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None
    chat_template: str | None = None
    """``base`` or ``union``, where the models' vocabularies differ."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise MorphingError("A search needs at least one source model: name one in `sources`.")
        if len(set(self.sources)) < len(self.sources):
            raise MorphingError("A source model is named twice in `sources`: name each one once.")
        _ = self.numbers

    @property
    def slots(self) -> int:
        """How many layers there are to choose from."""
        return len(self.sources) * self.layers * self.options.repeats

    @property
    def longest(self) -> int:
        """How many layers a path may have."""
        return LONGEST * self.layers

    @cached_property
    def numbers(self) -> tuple[SpaceNumber, ...]:
        """All numbers, those of a fixed value too."""
        return settle((*self._indicators, *self._scales), self.options)

    def distributions(self) -> dict[str, FloatDistribution]:
        """The numbers that are searched, by name."""
        return distributions(self.numbers)

    def start(self) -> dict[str, float]:
        """The first source's own path, as near as ranges and fixed values let it be."""
        wanted = self._own_path(self.sources[0])
        return {
            number.name: min(max(wanted[number.name], number.low), number.high)
            for number in self.numbers
            if number.value is None
        }

    def recipe(self, params: Mapping[str, float]) -> Recipe:
        """The recipe at a point of the space.

        Raises:
            MorphingError: a parameter of the space is missing or out of range, or one is not of
                the space; or the path has no layers, more than `longest`, or scales that multiply
                to a number that cannot be written.
        """
        values = complete(self.numbers, params)
        indicators = [values[number.name] for number in self._indicators]
        scales = [values[n.name] for n in self._scales] or [1.0] * len(indicators)
        path = path_from_slots(self.sources, self.layers, self.options.repeats, indicators, scales)
        if len(path.steps) > self.longest:
            raise MorphingError(
                f"The path has {len(path.steps)} layers, and {self.longest} at most are tried,"
                f" {LONGEST} times those of a source: switch some off, or lower"
                " search.space.repeats."
            )
        written = path.recipe(self.architecture or "").config
        end = finish(
            self.base, self.tokenizer_source, self.dtype, self.out_dtype, self.chat_template
        )
        return Recipe({**written, **end})

    def alone(self, source: str) -> dict[str, float] | None:
        """The point that is a source's own path; None if there is none."""
        return point(self.numbers, self._own_path(source))

    def uniform(self) -> None:
        """No path is an average."""

    def knows(self, field: str, pattern: str) -> bool:
        """Whether a name in ``options.ranges`` or ``fixed`` is for a number of this space."""
        return field != "tied" and any(number.matches(pattern) for number in self.numbers)

    def _own_path(self, source: str) -> dict[str, float]:
        """Every number's value at the path that is ``source``, in its first repeat."""
        first = self.sources.index(source) * self.layers
        switches, scales = initial_slots(len(self.sources), self.layers, self.options.repeats)
        turned = (*switches[len(switches) - first :], *switches[: len(switches) - first])
        wanted = {n.name: _START * on for n, on in zip(self._indicators, turned, strict=True)}
        return wanted | {number.name: 1.0 for number, _ in zip(self._scales, scales, strict=False)}

    @cached_property
    def _indicators(self) -> tuple[SpaceNumber, ...]:
        return self._per_slot("layer", -1.0, 1.0, log=False, allowed=(-inf, inf))

    @cached_property
    def _scales(self) -> tuple[SpaceNumber, ...]:
        if self.architecture not in WRITERS:
            return ()
        low, high = self.options.scales
        return self._per_slot("scale", low, high, log=True, allowed=(sys.float_info.min, inf))

    def _per_slot(
        self, parameter: str, low: float, high: float, log: bool, allowed: tuple[float, float]
    ) -> tuple[SpaceNumber, ...]:
        repeats = self.options.repeats
        slots = product(range(repeats), short_names(self.sources), range(self.layers))
        return tuple(
            SpaceNumber(
                name=f"{source}.{parameter}.{layer}" + (f".{repeat}" if repeats > 1 else ""),
                parameter=parameter,
                group=f"{source}.{parameter}",
                low=low,
                high=high,
                log=log,
                allowed=allowed,
            )
            for repeat, source, layer in slots
        )
