"""The search space: the map between named parameters and recipes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from optuna.distributions import FloatDistribution

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.search.ranges import METHODS, Number, refusal


@dataclass(frozen=True)
class SearchSpace:
    """All recipes of one method over given sources, as named numbers.

    `ranges.METHODS` says which numbers a method has. Most exist once a source, such as ``weight``
    and ``density``, and are called ``<source>.<parameter>``; numbers that all sources share, such
    as ``select_topk`` of sce, are called ``<parameter>``. (slerp's one source is at t = 1 and the
    base at t = 0, so its t is the source's.) MM-MO's space (arXiv 2407.00487) is dare_ties with one
    layer group. A density of 0 drops that source's task vector.

    With several layer groups every number exists once per group, over ``layers`` split into
    contiguous groups; the embeddings go with the first group, the final norm and the head with
    the last, so that a group's tensors are neighbours in depth.

    Raises:
        MorphingError: a method that is unknown or has nothing to search, no sources, one named
            twice or another number of them than the method takes, or layer groups outside 1 to
            ``layers``.
    """

    method: str
    base: str
    sources: tuple[str, ...]
    layers: int
    layer_groups: int = 1
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None
    """``base`` or ``union``, where the models' vocabularies differ."""
    mask_seed: int = 0

    def __post_init__(self) -> None:
        if not self.sources:
            raise MorphingError("A search needs at least one source model: name one in `sources`.")
        if len(set(self.sources)) < len(self.sources):
            raise MorphingError("A source model is named twice in `sources`: name each one once.")
        if problem := refusal(self.method, len(self.sources)):
            raise MorphingError(problem)
        if not 1 <= self.layer_groups <= self.layers:
            raise MorphingError(
                f"layer_groups is {self.layer_groups} and the models have {self.layers} layers:"
                f" set it between 1 and {self.layers}."
            )

    def distributions(self) -> dict[str, FloatDistribution]:
        """The named numbers, with ``.<group>`` at the end of the name with several groups."""
        return {
            name: FloatDistribution(number.low, number.high, log=number.log)
            for source, number in self._numbers()
            for name in self._group_names(source, number)
        }

    def recipe(self, params: Mapping[str, float]) -> Recipe:
        """The recipe at a point of the space.

        Raises:
            MorphingError: a parameter of the space is missing or out of range, or one is not of
                the space.
        """
        distributions = self.distributions()
        if params.keys() != distributions.keys():
            wrong = ", ".join(sorted(params.keys() ^ distributions.keys()))
            raise MorphingError(f"These parameters are missing or not of this search: {wrong}.")
        for name, distribution in distributions.items():
            if not distribution.low <= params[name] <= distribution.high:
                raise MorphingError(
                    f"{name} is {params[name]}: it must be between {distribution.low:g} and"
                    f" {distribution.high:g}."
                )

        method = METHODS[self.method]
        shared: dict[str, Any] = dict(method.settings)
        own: dict[str, dict[str, Any]] = {source: {} for source in self.sources}
        for source, number in self._numbers():
            values = [params[name] for name in self._group_names(source, number)]
            target = shared if number.shared else own[source]
            target[number.parameter] = self._setting(values)
        config: dict[str, Any] = {"merge_method": self.method}
        config |= {"base_model": self.base} if method.based else {}
        config |= {"parameters": shared} if shared else {}
        config["models"] = [
            {"model": source, "parameters": parameters} if parameters else {"model": source}
            for source, parameters in own.items()
        ]
        if self.tokenizer_source:
            # By its name the base is found by methods too that do not merge it.
            own_name = self.base if self.tokenizer_source == "base" else self.tokenizer_source
            config["tokenizer_source"] = own_name
        config |= {"dtype": self.dtype} if self.dtype else {}
        config |= {"out_dtype": self.out_dtype} if self.out_dtype else {}
        return Recipe(config, self.mask_seed)

    def _numbers(self) -> list[tuple[str, Number]]:
        """Every number with its source, those that are nobody's own last, with no name."""
        numbers = METHODS[self.method].numbers
        own = [(source, n) for source in self.sources for n in numbers if n.of_source]
        return own + [("", n) for n in numbers if not n.of_source]

    def _group_names(self, source: str, number: Number) -> list[str]:
        name = number.parameter
        if number.of_source:
            short = short_names(self.sources)[self.sources.index(source)]
            name = f"{short}.{name}"
        if self.layer_groups == 1:
            return [name]
        return [f"{name}.{group}" for group in range(self.layer_groups)]

    def _setting(self, values: Sequence[float]) -> float | list[dict[str, Any]]:
        """One value per group as a mergekit setting: a scalar, or entries by tensor name.

        mergekit takes the first entry whose filter is a part of the tensor's name. The last entry
        has no filter: it takes the last group's layers and whatever else is left.
        """
        values = [float(value) for value in values]
        if len(values) == 1:
            return values[0]
        edges = [group * self.layers // self.layer_groups for group in range(self.layer_groups)]
        entries: list[dict[str, Any]] = [{"filter": "embed_tokens", "value": values[0]}]
        for value, (start, end) in zip(values, pairwise(edges), strict=False):
            entries += [{"filter": f"layers.{i}.", "value": value} for i in range(start, end)]
        return [*entries, {"value": values[-1]}]


def short_names(sources: Sequence[str]) -> list[str]:
    """Readable unique names: an id's last part without its revision, ``-2`` and so on if taken."""
    names: list[str] = []
    for source in sources:
        last = source.removeprefix("zoo:").rstrip("/").rpartition("/")[2].partition("@")[0]
        name, count = last, 1
        while name in names:
            count += 1
            name = f"{last}-{count}"
        names.append(name)
    return names
