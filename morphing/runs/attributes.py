"""What a study says of its trials beside their values, checked as it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from morphing.runs.files import Count, Moment, Name, Number, Text
from morphing.runs.recipe_shape import MaskSeed, RecipeConfig
from morphing.runs.trial import Raced, Result


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


class Outcome(UserAttributes):
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
