"""One recipe, evaluated: morphed, scored, and its objectives' values."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.measures import EXACT, measured
from morphing.runs.objectives import best_of, finite, values_by_name, variances
from morphing.runs.progress import Progress, quiet
from morphing.runs.racing import Racer, is_beaten
from morphing.runs.run import Run
from morphing.runs.scales import scales
from morphing.runs.spec import RunSpec
from morphing.runs.trial import Result, Trial
from morphing.runs.workbench import Workbench, join

if TYPE_CHECKING:
    from morphing.benchmarks.results import Output, Score

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What came of scoring a recipe."""

    values: tuple[float, ...]
    """Natural values in the order of the run's objectives."""
    variances: tuple[float, ...]
    """The values' known variances (`objectives.variances`)."""
    constraints: tuple[float, ...] = ()
    """By how much the recipe breaks each limit: above 0 where the limit is broken."""
    results: Mapping[str, Result] = field(default_factory=dict)
    outputs: Mapping[str, tuple[Output, ...]] = field(default_factory=dict)
    raced: bool = False
    """Whether the recipe was given up early. Then ``values`` and ``variances`` are of the samples
    that were scored, and there are no results, outputs and constraints, since these are of all."""
    samples: Mapping[str, int] = field(default_factory=dict)
    """How many samples of each benchmark were scored."""
    times: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Seconds that merging and each benchmark took."""


def evaluate_recipe(
    run: Run,
    workbench: Workbench,
    recipe: Recipe,
    rivals: Sequence[Trial] = (),
    progress: Progress = quiet,
) -> Evaluation:
    """Score a recipe on the search split.

    With ``spec.search.racing`` the recipe is given up after the first part of the samples if a
    member of the rivals' front beats it there (`runs.racing`); otherwise the rest is scored too.
    Every score of such a run is joined from these two parts, because greedy answers may depend, by
    the rounding of sums, on what else is in a batch: so all recipes have the same batches.

    Args:
        run: base and sources must have been scored (`Workbench.reference_results`).
        workbench: where to do it.
        recipe: what to score.
        rivals: complete trials of the run, for racing alone.
        progress: called between batches.

    Raises:
        MorphingError: the recipe cannot be merged, or a value of it is not finite.
    """
    spec, fixed = run.spec, scales(run)
    start = time.perf_counter()
    distance = workbench.morph(recipe)
    merging = time.perf_counter() - start
    if not math.isfinite(distance):
        raise MorphingError(
            f"The recipe's distance from the base is {distance}, which is not finite: its weights"
            " may have overflowed."
        )
    model = workbench.morpher.model
    if spec.search.racing:
        scores = workbench.score("search", progress, "first")
        known = _known(spec, scores, measured(model, distance, scores))
        if _is_given_up(run, workbench, scores, known, rivals):
            return Evaluation(
                values=_values(spec, known),
                variances=variances(spec, scores),
                raced=True,
                samples={name: score.n for name, score in scores.items()},
                times=_times(merging, scores),
            )
        scores = join(scores, workbench.score("search", progress, "rest"))
    else:
        scores = workbench.score("search", progress)
    known = _known(spec, scores, measured(model, distance, scores))
    return Evaluation(
        values=_values(spec, known),
        variances=variances(spec, scores),
        constraints=fixed.slacks(known),
        results={name: Result.of(score) for name, score in scores.items()},
        outputs={name: score.outputs for name, score in scores.items()},
        samples={name: score.n for name, score in scores.items()},
        times=_times(merging, scores),
    )


def _times(merging: float, scores: Mapping[str, Score]) -> dict[str, float]:
    return {"merging": merging, **{name: score.seconds for name, score in scores.items()}}


def _known(
    spec: RunSpec, scores: Mapping[str, Score], measured: Mapping[str, float]
) -> dict[str, float]:
    """Natural values by name of all that objectives and constraints may be about."""
    return finite(spec, values_by_name(scores, measured), "The recipe")


def _values(spec: RunSpec, known: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(known[name] for name in spec.objectives)


def _is_given_up(
    run: Run,
    workbench: Workbench,
    scores: Mapping[str, Score],
    known: Mapping[str, float],
    rivals: Sequence[Trial],
) -> bool:
    """Whether a member of the rivals' front beats a recipe scored on the first part."""
    spec = run.spec
    if all(score.n == workbench.sample_count(name) for name, score in scores.items()):
        return False  # nothing is left to save
    racer = Racer(
        scores={name: {o.id: o.score for o in score.outputs} for name, score in scores.items()},
        tokens={
            name: {o.id: o.tokens for o in score.outputs}
            for name, score in scores.items()
            if score.tokens is not None
        },
        exact={name: known[name] for name in EXACT if name in known},
    )
    directions = dict(zip(spec.objectives, spec.directions, strict=True))
    front = best_of(spec, rivals)
    found = (_rival(run, trial) for trial in front)
    return any(rival is not None and is_beaten(racer, rival, directions) for rival in found)


def _rival(run: Run, trial: Trial) -> Racer | None:
    """A trial as a rival; None where its outputs are not here, but where its worker ran."""
    try:
        outputs = run.outputs(trial.number)
    except MorphingError as error:
        _log.info("Trial %d is no rival: %s", trial.number, error)
        return None
    return Racer(
        scores={name: {row["id"]: row["score"] for row in rows} for name, rows in outputs.items()},
        tokens={name: {row["id"]: row["tokens"] for row in rows} for name, rows in outputs.items()},
        exact=dict(zip(run.spec.objectives, trial.values, strict=True)),
    )
