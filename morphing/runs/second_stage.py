"""Between the two stages of a search: the best merge of the first becomes a source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.progress import Progress
from morphing.runs.run import Run
from morphing.runs.scales import scales
from morphing.runs.stage_model import StageModel, record_stage_model, stage_folder, stage_model
from morphing.runs.stages import Stage
from morphing.runs.workbench import Workbench
from morphing.sources.content import digest

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def open_stage(run: Run, stage: Stage, workbench: Workbench, progress: Progress) -> None:
    """Prepare a stage in this process; call it once every slot of the stage before has been told.

    Before the second stage of ``ps+dfs``, the best merge of the first stage is written to
    ``stages/ps`` in the run by the first process that comes here, and each process's workbench
    loads it as one more source. The best is the one with the largest weighted sum of the
    objectives, which is also what the sampler ``evolve`` follows. Other stages need nothing.

    Raises:
        MorphingError: no recipe of the first stage could be scored, the disk is full, or the
            memory is too small for one more model.
    """
    if stage.name != "dfs" or stage.first_slot == 0:
        return
    if not _is_whole(run):
        (run.folder / "stages").mkdir(exist_ok=True)
        with FileLock(run.folder / "stages" / "lock"):
            if not _is_whole(run):
                _write_stage_model(run, stage.first_slot, workbench, progress)
    workbench.add_stage_model(progress)


def _is_whole(run: Run) -> bool:
    """Whether the model is written and the digest of its files is recorded."""
    known = stage_model(run)
    return known is not None and known.digest is not None and stage_folder(run).exists()


def _write_stage_model(run: Run, end_slot: int, workbench: Workbench, progress: Progress) -> None:
    known = stage_model(run)
    if known is None or not stage_folder(run).exists():
        best = best_merge(run, end_slot)
        recipe = Recipe(best.user_attrs["recipe"], best.user_attrs["mask_seed"])
        known = StageModel(best.number, recipe)
        record_stage_model(run, known)
        workbench.write(recipe, stage_folder(run), progress)
    record_stage_model(run, replace(known, digest=digest(stage_folder(run))))


def best_merge(run: Run, end_slot: int) -> FrozenTrial:
    """The complete trial before a slot with the largest weighted sum of the objectives.

    Trials that keep the constraints come before all others; where none does, those come first that
    break them by the least in sum.

    Raises:
        MorphingError: no trial before the slot is complete.
    """
    import optuna

    from morphing.search.samplers.history import Problem, history, signs, slots

    study = run.study
    slot = slots(study.get_trials(deepcopy=False))
    complete = [
        trial
        for trial in history(study)
        if trial.state == optuna.trial.TrialState.COMPLETE and slot[trial.number] < end_slot
    ]
    if not complete:
        raise MorphingError(
            "No merge of the first stage (ps) could be scored, so there is none to lay paths"
            " through: read why its trials failed, and mend that."
        )
    spec, sign, measures = run.spec, signs(study), scales(run)
    problem = Problem(
        objectives=spec.objectives,
        tasks=tuple(use.declaration.name for use in spec.tasks),
        weights=spec.search.weights or None,
        reference=measures.reference,
        ideal=measures.ideal,
    )
    weights = problem.cost_weights(sign)

    def merit(trial: FrozenTrial) -> tuple[float, float]:
        broken = sum(max(0.0, by) for by in trial.system_attrs.get("constraints", ()))
        return -broken, float(np.dot(weights, sign * np.array(trial.values)))

    return max(complete, key=merit)
