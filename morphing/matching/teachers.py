"""Sources as teachers: their parameters as the loaded model holds them, a layer at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe


class SourceTeacher:
    """A source of a `Morpher`, read from wherever it is placed: device, host memory or disk.

    Adapters are applied, vocabularies aligned and stacked experts stacked as in any merge.

    Args:
        morpher: with a loaded model of the merge's shape, see `Morpher.morph`.
        alone: the recipe that is the source as it is, in the merge's vocabulary.

    Raises:
        MorphingError: the source is not resident, or its tensors do not fit together.
    """

    def __init__(self, morpher: Morpher, alone: Recipe) -> None:
        self._engine = morpher.engine
        self._recipe = alone
        self._output = self._engine.output(alone)
        self._links = morpher.links
        self._state = {name: p.detach() for name, p in morpher.model.named_parameters()}
        self._tensors: dict[str, set[str]] = defaultdict(set)
        for tensor, links in self._links.items():
            for one in links:
                self._tensors[one.parameter].add(tensor)

    def __call__(self, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Parameters by their names in the model, in its dtype and on its device."""
        asked = set(names)
        tensors = {tensor for name in asked for tensor in self._tensors[name]}
        found: dict[str, Tensor] = {}
        for merged in self._engine.merge(self._recipe, self._output, tensors):
            for tensor, value in merged.tensors():
                for one in self._links[tensor]:
                    if one.parameter not in asked:
                        continue
                    like = self._state[one.parameter]
                    part = value if one.source is None else one.source.of(value)
                    if one.part is None:
                        found[one.parameter] = part.to(like)
                    else:
                        whole = found.setdefault(one.parameter, torch.empty_like(like))
                        one.part.of(whole).copy_(part)
        return found
