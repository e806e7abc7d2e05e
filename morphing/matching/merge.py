"""One solved merge from a recipe alone: teachers asked, layers solved, the model written."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from morphing.errors import MorphingError
from morphing.matching.solve import about, solve
from morphing.merging.merge import Progress, Told, megabytes, tell_nobody
from morphing.merging.merge_stages import MergeStages
from morphing.merging.methods import METHODS
from morphing.merging.models import Placement
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.merging.writing.checkpoint import export_held
from morphing.merging.writing.checkpoint_writer import check_target
from morphing.sources.content import with_digest
from morphing.sources.find import download, inspect
from morphing.sources.source import Source
from morphing.sources.weights import torch_dtype


def is_solved(stages: MergeStages) -> bool:
    """Whether a merge is solved from prompts.

    Raises:
        MorphingError: one of several stages is, which cannot be.
    """
    solved = [METHODS[each.method].solved for each in (*stages.earlier.values(), stages.final)]
    if any(solved) and stages.earlier:
        raise MorphingError(
            "A merge in several stages cannot be solved from prompts: write the solved one as a"
            " recipe of its own, and name its folder as a model in the others."
        )
    return solved[-1]


def merge_solved(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    progress: Progress,
    token: str | None = None,
    placement: Placement = "auto",
    told: Told = tell_nobody,
) -> None:
    """Make the one merge that a recipe of a solved method says, and write it.

    Args:
        recipe: of ``matched``, ``regmean`` or ``regmean_plus_plus``; models are Hub ids, folders,
            the zoo's, or adapters on the recipe's base.
        folder: absent or empty.
        device: where teachers answer and layers are solved.
        progress: called with each step.
        token: for the Hub.
        placement: where models are kept.
        told: called with what a person would want to know.

    Raises:
        MorphingError: the recipe, a model, prompts or the folder is not usable.
    """
    check_target(folder.resolve())  # before anything is downloaded
    if recipe.remarks:
        told(recipe.remarks)
    assert recipe.base is not None  # `check_recipe` asks for one
    base, *others = (
        _fetched(name, progress, token) for name in dict.fromkeys((recipe.base, *recipe.sources))
    )
    names = {
        name: source.name
        for name, source in zip(
            dict.fromkeys((recipe.base, *recipe.sources)), (base, *others), strict=True
        )
    }
    recipe = recipe.with_names(lambda name: names.get(name, name))
    morpher = Morpher(base, others, device, _dtype(recipe, base), placement)
    solved = solve(morpher, recipe, progress, token)
    if solved.report.remarks:
        told(solved.report.remarks)
    export_held(
        morpher.engine,
        recipe,
        morpher.held,
        folder,
        partial(megabytes, progress, "writing"),
        {"solved": about(solved)},
    )


def _fetched(name: str, progress: Progress, token: str | None) -> Source:
    progress(f"getting {name}", 0, 0)
    shown = partial(megabytes, progress, f"downloading {name}")
    return with_digest(download(name, token, shown))


def _dtype(recipe: Recipe, base: Source) -> torch.dtype:
    """The recipe's ``out_dtype`` or ``dtype``, else what most of the base is stored in."""
    named = recipe.config.get("out_dtype") or recipe.config.get("dtype")
    if named:
        found: torch.dtype = getattr(torch, named)
        return found
    infos = inspect(str(base.folder)).tensors.values()
    dtypes = [torch_dtype(info) for info in infos]
    floats = [dtype for dtype in dtypes if dtype.is_floating_point]
    return max(set(floats), key=floats.count, default=torch.float32)
