"""The model between two stages of a search: the first stage's best merge, kept in the run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from morphing.merging.recipe import Recipe
from morphing.runs.files import FOREIGN, Count, Name, read_json, write_atomically
from morphing.runs.recipe_shape import MaskSeed, RecipeConfig
from morphing.runs.run import Run

STAGE_MODEL = "stage:ps"
"""What recipes of a second stage call the best merge of the first."""


@dataclass(frozen=True)
class StageModel:
    """The first stage's best merge: the trial that found it, and how it is made."""

    trial: int
    recipe: Recipe
    digest: str | None = None
    """Of its files' content (`sources.content`), once they are written."""


@dataclass(frozen=True)
class _Kept:
    """A stage's model as its file says it."""

    __pydantic_config__ = FOREIGN

    trial: Count
    config: RecipeConfig
    mask_seed: MaskSeed
    digest: Name | None = None


def stage_folder(run: Run) -> Path:
    """The folder of the model ``stage:ps``, which exists once the model has been written."""
    return run.folder / "stages" / "ps"


def stage_model(run: Run) -> StageModel | None:
    """The model that this run's recipes call ``stage:ps``; None before the first stage has ended.

    Raises:
        MorphingError: ``stages/ps.json`` is damaged.
    """
    path = _path(run)
    if not path.exists():
        return None
    mend = "copy it again from where the run was made"
    kept = read_json(path, TypeAdapter(_Kept), mend)
    return StageModel(kept.trial, Recipe(kept.config, kept.mask_seed), kept.digest)


def record_stage_model(run: Run, model: StageModel) -> None:
    """Write ``stages/ps.json``: which trial found ``stage:ps``, and the recipe it is made by."""
    config, seed = dict(model.recipe.config), model.recipe.mask_seed
    kept = _Kept(model.trial, config, seed, model.digest)
    write_atomically(_path(run), json.dumps(asdict(kept), ensure_ascii=False).encode())


def _path(run: Run) -> Path:
    return run.folder / "stages" / "ps.json"
