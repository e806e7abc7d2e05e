"""The search space: the map between named parameters and recipes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from optuna.distributions import FloatDistribution

from morphing.errors import MorphingError
from morphing.merging.recipe import METHODS, Recipe

_PARAMETERS = {
    "linear": ("weight",),
    "slerp": ("t",),
    "task_arithmetic": ("weight",),
    "ties": ("weight", "density"),
    "dare_linear": ("weight", "density"),
    "dare_ties": ("weight", "density"),
}


@dataclass(frozen=True)
class SearchSpace:
    """All recipes of one method over given sources, as named numbers in [0, 1].

    Every source has the numbers its method takes: ``weight`` (linear, task_arithmetic), ``weight``
    and ``density`` (ties, dare_linear, dare_ties), or ``t`` (slerp, whose one source is at t = 1
    and the base at t = 0). MM-MO's space (arXiv 2407.00487) is dare_ties with one layer group. A
    density of 0 drops that source's task vector.

    With several layer groups every number exists once per group, over ``layers`` split into
    contiguous groups; the embeddings go with the first group, the final norm and the head with
    the last, so that a group's tensors are neighbours in depth.

    Two choices where mergekit leaves one:

    - Methods on task vectors say ``normalize: false``, as MM-MO does. Normalising (mergekit's
      default for TIES) divides by the sum of weights, so weights would only mean proportions and
      how far to go from the base could not be searched.
    - ``linear`` averages the sources without the base, normalised, so its weights are proportions;
      they begin at 0.01 since all of them at 0 would divide by zero.

    Raises:
        MorphingError: an unknown method, no sources or one named twice, several sources for
            slerp, or layer groups outside 1 to ``layers``.
    """

    method: str
    base: str
    sources: tuple[str, ...]
    layers: int
    layer_groups: int = 1
    dtype: str | None = None
    out_dtype: str | None = None
    mask_seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise MorphingError(
                f"There is no merge method '{self.method}' to search: choose one of"
                f" {', '.join(METHODS)}."
            )
        if not self.sources:
            raise MorphingError("A search needs at least one source model: name one in `sources`.")
        if len(set(self.sources)) < len(self.sources):
            raise MorphingError("A source model is named twice in `sources`: name each one once.")
        if self.method == "slerp" and len(self.sources) != 1:
            raise MorphingError(
                f"slerp merges exactly one source with the base, and `sources` names"
                f" {len(self.sources)}: keep one or choose another method."
            )
        if not 1 <= self.layer_groups <= self.layers:
            raise MorphingError(
                f"layer_groups is {self.layer_groups} and the models have {self.layers} layers:"
                f" set it between 1 and {self.layers}."
            )

    def distributions(self) -> dict[str, FloatDistribution]:
        """The named parameters: ``<source>.<parameter>``, and ``.<group>`` with several groups."""
        low = 0.01 if self.method == "linear" else 0.0
        return {
            name: FloatDistribution(low, 1.0)
            for source in short_names(self.sources)
            for parameter in _PARAMETERS[self.method]
            for name in self._group_names(source, parameter)
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

        models = [
            {
                "model": source,
                "parameters": {
                    parameter: self._setting(
                        [params[n] for n in self._group_names(name, parameter)]
                    )
                    for parameter in _PARAMETERS[self.method]
                },
            }
            for source, name in zip(self.sources, short_names(self.sources), strict=True)
        ]
        config: dict[str, Any] = {"merge_method": self.method}
        if self.method == "slerp":
            # mergekit reads t for the whole merge, not from one of the two models.
            config |= {"base_model": self.base, "parameters": models[0].pop("parameters")}
        elif self.method == "linear":
            config |= {"parameters": {"normalize": True}}
        else:
            config |= {"base_model": self.base, "parameters": {"normalize": False}}
        config["models"] = models
        config |= {"dtype": self.dtype} if self.dtype else {}
        config |= {"out_dtype": self.out_dtype} if self.out_dtype else {}
        return Recipe(config, self.mask_seed)

    def _group_names(self, source: str, parameter: str) -> list[str]:
        name = f"{source}.{parameter}"
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
