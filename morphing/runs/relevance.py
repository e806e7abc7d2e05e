"""How much each number of a search space changes the model."""

from __future__ import annotations

import json
import math
from typing import Annotated

from pydantic import Field, TypeAdapter

from morphing.errors import MorphingError
from morphing.runs.files import Name, Number, read_json, write_atomically
from morphing.runs.stages import Space
from morphing.runs.workbench import Workbench
from morphing.search.space import SearchSpace

_KEPT = TypeAdapter(dict[Name, Annotated[Number, Field(ge=0)]])
_MEND = "delete it, and the search works it out again"


def relevance_of(workbench: Workbench, space: Space) -> dict[str, float]:
    """How much each number of a space of merge parameters changes the model, by its name.

    The L2 norm of those task vectors' tensors that the number scales; of a curve's point, weighted
    with its share in each. Empty where the model is not cut into parts, since a source's norm alone
    says nothing of its worth, and for layer paths. Worked out once and kept in the run.

    Raises:
        MorphingError: what is kept is something else.
    """
    if not isinstance(space, SearchSpace) or len(space.parts.labels) == 1:
        return {}
    path = workbench.run.folder / "relevance.json"
    squares = dict.fromkeys(space.distributions(), 0.0)
    if path.exists():
        kept = read_json(path, _KEPT, _MEND)
        if kept.keys() != squares.keys():
            raise MorphingError(f"{path} is about other numbers than this search's: {_MEND}.")
        return kept
    for source in space.sources:
        norms = workbench.morpher.engine.change_norms(source, space.base)
        for tensor, norm in sorted(norms.items()):
            for name, share in space.reach(source, tensor).items():
                if name in squares:
                    squares[name] += (share * norm) ** 2
    changes = {name: math.sqrt(square) for name, square in squares.items()}
    write_atomically(path, json.dumps(changes).encode())
    return changes
