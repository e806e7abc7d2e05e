"""The model between two stages of a search: the first stage's best merge, kept in the run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from morphing.merging.recipe import Recipe
from morphing.runs.files import write_atomically
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


def stage_folder(run: Run) -> Path:
    """Where ``stage:ps`` is, once it has been written."""
    return run.folder / "stages" / "ps"


def stage_model(run: Run) -> StageModel | None:
    """What ``stage:ps`` is in this run's recipes; None before there is one."""
    path = _path(run)
    if not path.exists():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    recipe = Recipe(data["config"], data["mask_seed"])
    return StageModel(data["trial"], recipe, data.get("digest"))


def record_stage_model(run: Run, model: StageModel) -> None:
    """Keep which trial ``stage:ps`` is and how it is made."""
    config, seed = dict(model.recipe.config), model.recipe.mask_seed
    record = {"trial": model.trial, "config": config, "mask_seed": seed, "digest": model.digest}
    write_atomically(_path(run), json.dumps(record, ensure_ascii=False).encode())


def _path(run: Run) -> Path:
    return run.folder / "stages" / "ps.json"
