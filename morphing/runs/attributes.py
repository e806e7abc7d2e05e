"""What a study says of its trials beside their values, checked as it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.files import Count, Moment, Name, Number, Text, reason
from morphing.runs.recipe_shape import MaskSeed, RecipeConfig
from morphing.runs.spec import RunSpec
from morphing.runs.trial import Raced, Result, Trial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class _Attributes(BaseModel):
    """Attributes of other tools, such as Optuna's samplers', are theirs to read."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class UserAttributes(_Attributes):
    """A trial's user attributes; all are optional, since they come one after the other."""

    recipe: RecipeConfig = Field(default_factory=dict)
    mask_seed: MaskSeed = 0
    results: Mapping[Name, Result] = Field(default_factory=dict)
    seconds: Moment = 0.0
    times: Mapping[Name, Moment] = Field(default_factory=dict)
    failure: Text | None = None
    error: Text | None = None
    drawn: Text | None = None
    raced: Raced | None = None
    seed: Name | None = None
    slot: Count | None = None
    variances: tuple[Number, ...] | None = None
    worker: Name | None = None


class SystemAttributes(_Attributes):
    """A trial's system attributes that this package reads."""

    constraints: tuple[Number, ...] = ()
    fixed_params: Mapping[Name, Number] = Field(default_factory=dict)


class _Outcome(UserAttributes):
    """A trial that was told, whole."""

    params: Mapping[Name, Number]
    values: tuple[Number, ...]
    constraints: tuple[Number, ...]


def check_attributes(note: Mapping[str, Any]) -> None:
    """Check what a note of a journal says of a trial's attributes.

    Raises:
        pydantic.ValidationError: one that this package reads has another shape.
    """
    for key in ("user_attr", "user_attrs"):
        if key in note:
            UserAttributes.model_validate(note[key])
    for key in ("system_attr", "system_attrs"):
        if key in note:
            SystemAttributes.model_validate(note[key])


def told_trial(trial: FrozenTrial, place: Path, spec: RunSpec) -> Trial:
    """A trial that was told, checked.

    Args:
        trial: the study's.
        place: the run's folder, for messages.
        spec: the run's.

    Raises:
        MorphingError: its attributes or values have another shape than the run's.
    """
    from morphing.search.samplers.history import failure_of

    failure = failure_of(trial)
    told = {
        **trial.user_attrs,
        "failure": failure,
        "params": trial.params,
        "values": trial.values or (),
        "constraints": tuple(trial.constraints.values()),
    }
    try:
        outcome = _Outcome.model_validate(told)
    except ValidationError as error:
        raise _unusable(trial, place, reason(error)) from error
    made = Trial(
        number=trial.number,
        params=outcome.params,
        # A point of the space that is no recipe (a path that is too long) has none.
        recipe=Recipe(outcome.recipe, outcome.mask_seed),
        values=outcome.values,
        results=outcome.results,
        seconds=outcome.seconds,
        times=outcome.times,
        error=outcome.failure,
        drawn=outcome.drawn,
        constraints=outcome.constraints,
        raced=outcome.raced,
        seed=outcome.seed,
    )
    state = "failed" if failure is not None else _STATES[trial.state.name]
    if problem := _problem(made, state, spec):
        raise _unusable(trial, place, problem)
    return made


_STATES = {"COMPLETE": "complete", "PRUNED": "raced"}
"""What a trial that was told and did not fail is called, by Optuna's name of its state."""


def _problem(trial: Trial, state: str, spec: RunSpec) -> str:
    """What does not go together in a trial; nothing where all does."""
    tasks, wanted = {use.declaration.name for use in spec.tasks}, len(spec.objectives)
    given = trial.raced.values if trial.raced else trial.values
    if trial.state != state:
        return f"its attributes are of a {trial.state} trial, and it is {state}"
    if state != "failed" and len(given) != wanted:
        return f"{len(given)} values for {wanted} objectives"
    if state == "complete" and "merge_method" not in trial.recipe.config:
        return "no whole recipe"
    if trial.results and not tasks <= trial.results.keys():
        return "results of other benchmarks"
    return ""


def _unusable(trial: FrozenTrial, place: Path, why: str) -> MorphingError:
    return MorphingError(
        f"Trial {trial.number} of the study of {place} cannot be used ({why}): copy the run again"
        " from where it was made."
    )
