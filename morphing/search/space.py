"""The search space of merge parameters: the map between named numbers and recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from morphing.errors import MorphingError
from morphing.merging.method import Parameter, Span
from morphing.merging.methods import METHODS, refusal
from morphing.merging.recipe import Recipe
from morphing.search.numbers import SpaceNumber, complete, distributions, point, settle
from morphing.search.options import DEFAULTS, SpaceOptions
from morphing.search.parts import Parts, cut

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution


@dataclass(frozen=True)
class SearchSpace:
    """All recipes of one method over given sources, as named numbers.

    `merging.methods` says which numbers a method has. Most exist once a source, such as ``weight``
    and ``density``, and are called ``<source>.<parameter>``; numbers that all sources share, such
    as ``select_topk`` of sce, and those that ``options.tied`` ties are called ``<parameter>``.
    (slerp's one source is at t = 1 and the base at t = 0, so its t is the source's.) MM-MO's space
    (arXiv 2407.00487) is dare_ties with the default options. A density of 0 drops that source's
    task vector.

    Where the model is cut into parts (`parts.cut`: layer groups, module kinds, the points of a
    curve over depth) every number exists once a part, whose label ends its name:
    ``english-math.weight.0``, ``english-math.weight.0.attention``. Layer-wise merging as in arXiv
    2403.13187, section 3.1, is ``layer_groups: each`` with ``module_kinds: [embeddings]``.

    ``options.ranges`` and ``options.fixed`` go by patterns (`fnmatch`) of a number's whole name, of
    its name without the part, or of its parameter; the last that matches counts. Naming a parameter
    that is not searched by itself, such as ``lambda``, adds it.

    Raises:
        MorphingError: a method that is unknown or has nothing to search, no sources, one named
            twice or another number of them than the method takes, parts that do not fit ``layers``,
            or a range or fixed value that is outside what mergekit takes.
    """

    method: str
    base: str
    sources: tuple[str, ...]
    layers: int
    options: SpaceOptions = DEFAULTS
    architecture: str | None = None
    """The models' class as ``config.json`` names it, which says how tensors are called."""
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None
    chat_template: str | None = None
    """``base`` or ``union``, where the models' vocabularies differ."""
    mask_seed: int = 0

    def __post_init__(self) -> None:
        if not self.sources:
            raise MorphingError("A search needs at least one source model: name one in `sources`.")
        if len(set(self.sources)) < len(self.sources):
            raise MorphingError("A source model is named twice in `sources`: name each one once.")
        if problem := refusal(self.method, len(self.sources)):
            raise MorphingError(problem)
        self._check_together(self.numbers)

    @cached_property
    def parts(self) -> Parts:
        """The parts of the model that have numbers of their own."""
        return cut(self.options, self.layers, self.architecture)

    @cached_property
    def numbers(self) -> tuple[SpaceNumber, ...]:
        """All numbers, those of a fixed value too."""
        found: dict[str, SpaceNumber] = {}
        for source, number in self._settings():
            for part in self.parts.labels:
                made = self._number(source, number, part)
                found.setdefault(made.name, made)
        return settle(found.values(), self.options)

    def distributions(self) -> dict[str, FloatDistribution]:
        """The numbers that are searched, by name."""
        return distributions(self.numbers)

    def start(self) -> None:
        """Evolution begins in the middle of every range (arXiv 2403.13187: x0 = 0.5)."""

    def recipe(self, params: Mapping[str, float]) -> Recipe:
        """The recipe at a point of the space.

        Raises:
            MorphingError: a parameter of the space is missing or out of range, or one is not of
                the space.
        """
        values = complete(self.numbers, params)
        method = METHODS[self.method]
        shared: dict[str, Any] = dict(method.settings)
        own: dict[str, dict[str, Any]] = {source: {} for source in self.sources}
        for source, number in self._settings():
            of_part = {
                part: values[self._number(source, number, part).name] for part in self.parts.labels
            }
            target = shared if number.shared else own[source]
            target[number.name] = self.parts.setting(of_part)
        config: dict[str, Any] = {"merge_method": self.method}
        config |= {"base_model": self.base} if method.based else {}
        config |= {"parameters": shared} if shared else {}
        config["models"] = [
            {"model": source, "parameters": parameters} if parameters else {"model": source}
            for source, parameters in own.items()
        ]
        config |= finish(
            self.base, self.tokenizer_source, self.dtype, self.out_dtype, self.chat_template
        )
        return Recipe(config, self.mask_seed)

    def alone(self, source: str) -> dict[str, float] | None:
        """The point at which a source counts as it is and the others don't, if there is one."""

        def value(owner: str, span: Span) -> float | None:
            present = owner == source or span.absent is None
            return span.whole if present else span.absent

        return self._point(value)

    def uniform(self) -> dict[str, float] | None:
        """The point at which all K sources count alike, with weights of 1/K, if there is one.

        For methods on task vectors this is the sources' average as far as their signs agree.
        """

        def value(_: str, span: Span) -> float | None:
            return span.whole if span.absent is None else 1 / len(self.sources)

        return self._point(value)

    def knows(self, field: str, pattern: str) -> bool:
        """Whether a name in ``options``' ``ranges``, ``fixed`` or ``tied`` is for a number here."""
        if field == "tied":
            return any(self._ties(pattern, *place) for place in self._places())
        return any(number.matches(pattern) for number in self.numbers)

    def reach(self, source: str, tensor: str) -> dict[str, float]:
        """The numbers that a tensor of ``source`` is scaled by, and their shares in it."""
        shares = self.parts.shares(tensor)
        return {
            self._number(owner, number, part).name: share
            for owner, number in self._settings()
            if owner in (source, "")
            for part, share in shares.items()
        }

    def _settings(self) -> list[tuple[str, Parameter]]:
        """Every parameter with its source, those that are nobody's own last, with no name."""
        method = METHODS[self.method]
        named = [name.partition(".")[0] for name in (*self.options.ranges, *self.options.fixed)]
        numbers = (*method.numbers, *(n for n in method.extras if n.name in named))
        own = [(source, n) for source in self.sources for n in numbers if n.searched.of_source]
        return own + [("", n) for n in numbers if not n.searched.of_source]

    def _places(self) -> list[tuple[Parameter, str]]:
        of_source = dict.fromkeys(
            number for _, number in self._settings() if number.searched.of_source
        )
        return [(number, part) for number in of_source for part in self.parts.labels]

    def _number(self, source: str, number: Parameter, part: str) -> SpaceNumber:
        tied = any(self._ties(pattern, number, part) for pattern in self.options.tied)
        return self._named("" if tied else source, number, part)

    def _ties(self, pattern: str, number: Parameter, part: str) -> bool:
        """Whether a pattern is for a number of any source, or for the one that all would share."""
        if not number.searched.of_source:
            return False
        return any(self._named(s, number, part).matches(pattern) for s in (*self.sources, ""))

    def _named(self, source: str, number: Parameter, part: str) -> SpaceNumber:
        group, span = number.name, number.searched
        if source:
            short = short_names(self.sources)[self.sources.index(source)]
            group = f"{short}.{group}"
        return SpaceNumber(
            name=f"{group}.{part}" if part else group,
            parameter=number.name,
            group=group,
            low=span.low,
            high=span.high,
            log=span.log,
            allowed=number.allowed,
        )

    def _point(self, value: Callable[[str, Span], float | None]) -> dict[str, float] | None:
        wanted: dict[str, float] = {}
        for source, number in self._settings():
            amount = value(source, number.searched)
            for part in self.parts.labels:
                name = self._number(source, number, part).name
                if amount is None or wanted.setdefault(name, amount) != amount:
                    return None
        return point(self.numbers, wanted)

    def _check_together(self, numbers: Sequence[SpaceNumber]) -> None:
        """DELLA keeps entries with probabilities density ± epsilon, which must be possible."""
        if not self.method.startswith("della"):
            return
        bounds = {number.name: number.bounds for number in numbers}
        named = {number.name: number for _, number in self._settings()}
        for source in self.sources:
            for part in self.parts.labels:
                low, high = bounds[self._number(source, named["density"], part).name]
                spread = bounds[self._number(source, named["epsilon"], part).name][1]
                everything_or_nothing = low == high and low in (0.0, 1.0)
                if not everything_or_nothing and not (spread < low and high + spread < 1):
                    raise MorphingError(
                        f"{self.method} needs density - epsilon above 0 and density + epsilon below"
                        f" 1, and search.space lets density go from {low:g} to {high:g} and epsilon"
                        f" to {spread:g}: narrow one of them."
                    )


def finish(
    base: str,
    tokenizer_source: str | None,
    dtype: str | None,
    out_dtype: str | None,
    chat_template: str | None = None,
) -> dict[str, str]:
    """What a recipe says at its end: tokenizer, template and dtypes, as far as they are given."""
    config = {}
    if tokenizer_source:
        # By its name the base is found by methods too that do not merge it.
        config["tokenizer_source"] = base if tokenizer_source == "base" else tokenizer_source
    config |= {"chat_template": chat_template} if chat_template else {}
    config |= {"dtype": dtype} if dtype else {}
    config |= {"out_dtype": out_dtype} if out_dtype else {}
    return config


def short_names(sources: Sequence[str]) -> list[str]:
    """Readable unique names: an id's last part without its revision, ``-2`` and so on if taken."""
    names: list[str] = []
    for source in sources:
        own = source.removeprefix("zoo:").removeprefix("stage:")
        last = own.rstrip("/").rpartition("/")[2].partition("@")[0]
        name, count = last, 1
        while name in names:
            count += 1
            name = f"{last}-{count}"
        names.append(name)
    return names
