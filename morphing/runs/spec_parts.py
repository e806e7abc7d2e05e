"""The parts of a run spec: benchmarks, measures, constraints and how to search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from morphing.benchmarks.benchmark import Benchmark, get_benchmark, parse_benchmark
from morphing.benchmarks.engine.thinking import Thinking
from morphing.errors import MorphingError
from morphing.runs.measures import MEASURES, Direction
from morphing.search.options import SpaceOptions
from morphing.search.samplers import SAMPLERS
from morphing.sources.names import model_name

SOURCES = "sources"
"""In a constraint: each of the sources."""
SEEDS = (SOURCES, "uniform")
"""Names of seeds: each source alone, and the equal average of all."""


class SpecModel(BaseModel):
    """A part of a spec: frozen, and without fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BenchmarkUse(SpecModel):
    """A benchmark in a run, and how many samples of each split it may use."""

    benchmark: str | Benchmark
    samples: Annotated[int, Field(ge=1)] = 100
    holdout: Annotated[int, Field(ge=1)] = 500
    objective: bool = True
    """False: scored on the holdout only, for the report; the search never sees it."""
    direction: Direction | None = None
    """By default the metric's own: lower is better for bits per byte, higher for most."""
    reference: float | None = None
    """The score hypervolume counts from; by default a little below the worst of the sources."""
    thinking: Thinking | None = None
    """Whether models think before they answer; by default as the benchmark says."""

    @field_validator("benchmark", mode="before")
    @classmethod
    def _declared(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        try:
            return parse_benchmark(value, repr(value.get("name", "it")))
        except MorphingError as error:
            raise ValueError(str(error).removesuffix(".")) from error

    @property
    def declaration(self) -> Benchmark:
        """The benchmark itself, looked up in the catalogue where only its name is given.

        Raises:
            MorphingError: there is none of that name, or it can't be asked of models that think.
        """
        found = get_benchmark(self.benchmark) if isinstance(self.benchmark, str) else self.benchmark
        return found if self.thinking is None else found.with_thinking(self.thinking)


class MeasureUse(SpecModel):
    """An objective that is no benchmark's score."""

    measure: str
    direction: Direction | None = None
    """By default the measure's own (`runs.measures`)."""
    reference: float | None = None
    """The value hypervolume counts from; by default a little worse than all sources."""

    @field_validator("measure")
    @classmethod
    def _known_measure(cls, value: str) -> str:
        if value not in MEASURES:
            raise ValueError(f"unknown measure {value!r}: choose one of {', '.join(MEASURES)}")
        return value


def plain_model_name(value: Any) -> Any:
    """A model's name as the run writes it, from one of the ways in which people write it.

    Raises:
        ValueError: it is no model's name.
    """
    try:
        return model_name(value) if isinstance(value, str) else value
    except MorphingError as error:
        raise ValueError(str(error)) from error


class Constraint(SpecModel):
    """A bound that recipes must keep to be on the front."""

    on: str
    """A benchmark that is an objective, or a measure."""
    at_least: float | str | None = None
    """A number, or the name of a model of the run for that model's value, or ``sources`` for the
    value of each source."""
    at_most: float | str | None = None

    @field_validator("at_least", "at_most", mode="before")
    @classmethod
    def _as_people_type_it(cls, value: Any) -> Any:
        return plain_model_name(value)

    @model_validator(mode="after")
    def _bounded(self) -> Constraint:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a constraint needs at_least or at_most")
        return self


class SearchOptions(SpecModel):
    """How the search space is searched, and for how long."""

    sampler: str = "qlognehvi"
    evaluations: Annotated[int, Field(ge=1)] = 30
    hours: Annotated[float, Field(gt=0)] | None = None
    """The search also ends after so many hours of work, counted over resumes, without pauses."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """The search also ends after so many hours of all its workers together."""
    stalled: Annotated[int, Field(ge=1)] | None = None
    """The search also ends after so many evaluations in a row that add no hypervolume."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    space: SpaceOptions = SpaceOptions()
    seeds: tuple[str | dict[str, Any], ...] = ()
    """Recipes to try first: ``sources`` (each alone), ``uniform`` (their equal average), the path
    of a mergekit YAML, or its contents."""
    weights: dict[str, float] = {}
    """For samplers that follow a single number, the weights of the objectives, each on its scale;
    by default 1 for every benchmark."""
    racing: bool = False
    """Whether recipes that a part of the samples shows to be dominated are given up early."""

    @field_validator("sampler")
    @classmethod
    def _known_sampler(cls, value: str) -> str:
        if value not in SAMPLERS:
            raise ValueError(f"unknown sampler {value!r}: choose one of {', '.join(SAMPLERS)}")
        return value
