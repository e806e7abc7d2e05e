"""The stages of a search: which recipes are looked for in which slots.

Most searches have one stage. With the strategy ``ps+dfs`` the first slots look for merge parameters
and the rest for layer paths through the best merge of the first stage and the sources (arXiv
2403.13187, section 3.3). That merge is written into the run as a model of its own, which recipes
call ``stage:ps``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from filelock import FileLock

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.spec import RunSpec
from morphing.runs.trial import write_atomically
from morphing.search.path_space import PathSpace
from morphing.search.samplers import SAMPLERS
from morphing.search.space import SearchSpace

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution
    from optuna.trial import FrozenTrial

    from morphing.runs.run import Run
    from morphing.runs.workbench import Progress, Workbench

STAGE_MODEL = "stage:ps"
"""What recipes of a second stage call the best merge of the first."""


class Space(Protocol):
    """A map between named numbers and recipes."""

    def distributions(self) -> dict[str, FloatDistribution]:
        """The numbers that are searched, by name."""
        ...

    def recipe(self, params: Mapping[str, float]) -> Recipe:
        """The recipe at a point; raises MorphingError where there is none."""
        ...

    def start(self) -> dict[str, float] | None:
        """Where evolution begins; None: in the middle of every range."""
        ...

    def alone(self, source: str) -> dict[str, float] | None:
        """The point that is one source as it is, where the space has it."""
        ...

    def uniform(self) -> dict[str, float] | None:
        """The point at which all sources count alike, where the space has it."""
        ...

    def knows(self, field: str, pattern: str) -> bool:
        """Whether a name in the options' ``ranges``, ``fixed`` or ``tied`` is for a number here."""
        ...


@dataclass(frozen=True)
class Stage:
    """A part of a search, over slots ``first_slot`` to ``end_slot`` (not included)."""

    name: str
    """``ps`` (merge parameters) or ``dfs`` (layer paths)."""
    space: Space
    first_slot: int
    end_slot: int


def stages(spec: RunSpec, layers: int, architecture: str | None) -> tuple[Stage, ...]:
    """The stages of a pinned spec, in order.

    Args:
        spec: the run's.
        layers: how many layers each model has.
        architecture: the models' class, as ``config.json`` names it.

    Raises:
        MorphingError: the space cannot be, for example with more layer groups than layers or with a
            range for a number it has not; ``ps+dfs`` has fewer than two evaluations; or the sampler
            would try nothing but paths that are too long.
    """
    options, total = spec.search.space, spec.search.evaluations
    boundary = {"ps": total, "dfs": 0, "ps+dfs": first_evaluations(spec)}[options.strategy]
    found: list[Stage] = []
    if options.strategy != "dfs":
        merges = SearchSpace(
            method=spec.method,
            base=spec.base,
            sources=spec.sources,
            layers=layers,
            options=options,
            architecture=architecture,
            dtype="float32",
            out_dtype=spec.dtype,
            tokenizer_source=spec.tokenizer_source,
            mask_seed=spec.search.seed,
        )
        found.append(Stage("ps", merges, 0, boundary))
    if options.strategy != "ps":
        paths = PathSpace(
            base=spec.base,
            sources=(*((STAGE_MODEL,) if found else ()), *spec.sources),
            layers=layers,
            options=options,
            architecture=architecture,
            dtype="float32",
            out_dtype=spec.dtype,
            tokenizer_source=spec.tokenizer_source,
        )
        _check_lengths(paths, spec.search.sampler)
        found.append(Stage("dfs", paths, boundary, total))
    _check_patterns(spec, [stage.space for stage in found])
    return tuple(found)


def first_evaluations(spec: RunSpec) -> int:
    """Of a ``ps+dfs`` search, how many evaluations go to merge parameters: at least one each.

    Raises:
        MorphingError: there are fewer than two.
    """
    total = spec.search.evaluations
    if spec.search.space.strategy == "ps+dfs" and total < 2:
        raise MorphingError(
            "search.evaluations is 1 and ps+dfs searches twice: set it to 2 or more."
        )
    return min(max(total - round(spec.search.space.path_share * total), 1), max(total - 1, 1))


def with_evaluations(spec: RunSpec, evaluations: int) -> RunSpec:
    """The spec with another budget; what changes is the last stage's part of it.

    The first stage of ``ps+dfs`` keeps its slots, since what it found may be in use.
    """
    search = spec.search.model_copy(update={"evaluations": evaluations})
    if search.space.strategy == "ps+dfs" and evaluations > (first := first_evaluations(spec)):
        share = 1 - first / evaluations
        space = search.space.model_copy(update={"path_share": share})
        search = search.model_copy(update={"space": space})
    return spec.model_copy(update={"search": search})


def _check_patterns(spec: RunSpec, spaces: list[Space]) -> None:
    """Refuse a name in ranges, fixed or tied that is for nothing: it is a slip of the pen."""
    options = spec.search.space
    for field in ("ranges", "fixed", "tied"):
        for pattern in getattr(options, field):
            if not any(space.knows(field, pattern) for space in spaces):
                names = [name for space in spaces for name in space.distributions()]
                shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
                raise MorphingError(
                    f"search.space.{field} names {pattern!r}, which is none of this search's"
                    f" numbers ({shown}) and no parameter of them: correct it or leave it out."
                )


def _check_lengths(space: PathSpace, sampler: str) -> None:
    """Samplers that look everywhere, and not about the start alone, switch every other slot on."""
    usual = space.slots // 2
    if SAMPLERS[sampler].everywhere and usual >= space.longest:
        raise MorphingError(
            f"The sampler {sampler} tries paths of about {usual} layers, of {space.slots} slots,"
            f" and {space.longest} at most are tried: lower search.space.repeats, or choose the"
            " sampler evolve or nsga2, which begin at the first source's own path."
        )


# --- the model between two stages ------------------------------------------------------------


@dataclass(frozen=True)
class StageModel:
    """The first stage's best merge: the trial that found it, and how it is made."""

    trial: int
    recipe: Recipe


def stage_folder(run: Run) -> Path:
    """Where ``stage:ps`` is, once it has been written."""
    return run.folder / "stages" / "ps"


def stage_model(run: Run) -> StageModel | None:
    """What ``stage:ps`` is in this run's recipes; None before there is one."""
    path = _record(run)
    if not path.exists():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    return StageModel(data["trial"], Recipe(data["config"], data["mask_seed"]))


def open_stage(run: Run, stage: Stage, workbench: Workbench, progress: Progress) -> None:
    """What must happen before a stage's first trial, and again in every process that works on it.

    For the second stage of ``ps+dfs``: the first stage's best merge, by the weighted sum that
    ``evolve`` follows, is written to ``stages/ps`` in the run, whole and once, and the workbench
    gets it as a source. Call it when every slot of the stage before has been told; in other cases
    it does nothing, at no cost.

    Raises:
        MorphingError: no recipe of the first stage could be scored, the disk is full, or there is
            no memory for one model more.
    """
    if stage.name != "dfs" or stage.first_slot == 0:
        return
    if not stage_folder(run).exists():
        (run.folder / "stages").mkdir(exist_ok=True)
        with FileLock(run.folder / "stages" / "lock"):
            if not stage_folder(run).exists():
                _write_stage_model(run, stage.first_slot, workbench, progress)
    workbench.add_stage_model(progress)


def _write_stage_model(run: Run, end_slot: int, workbench: Workbench, progress: Progress) -> None:
    best = best_merge(run, end_slot)
    config, seed = best.user_attrs["recipe"], best.user_attrs["mask_seed"]
    record = {"trial": best.number, "config": config, "mask_seed": seed}
    write_atomically(_record(run), json.dumps(record, ensure_ascii=False).encode())
    workbench.write(Recipe(config, seed), stage_folder(run), progress)


def best_merge(run: Run, end_slot: int) -> FrozenTrial:
    """The best complete trial before a slot, by the weighted sum of the objectives.

    Of those that keep the constraints if any does, else of those that break them least.

    Raises:
        MorphingError: none is complete.
    """
    import optuna

    from morphing.runs.objectives import scales
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


def _record(run: Run) -> Path:
    return run.folder / "stages" / "ps.json"
