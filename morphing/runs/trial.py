"""What a run records of one recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from morphing.merging.recipe import Recipe
from morphing.runs.files import FOREIGN, Count, Name, Number, Text

if TYPE_CHECKING:
    from morphing.benchmarks.results import Score


@dataclass(frozen=True)
class Conditions:
    """`benchmarks.results.Conditions` as a run's files have them."""

    __pydantic_config__ = FOREIGN

    device: Name
    dtype: Name
    batch_size: Count | None = None
    rows: Count | None = None
    thinking: Name = "auto"
    versions: Mapping[Name, Name] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A benchmark's score without its outputs: mean, samples, standard error, mean tokens."""

    __pydantic_config__ = FOREIGN

    value: Number
    n: Count
    stderr: Number
    truncated: Count = 0
    tokens: Number | None = None
    """Mean generated tokens an answer; None of a multiple choice."""
    unfinished: Count = 0
    """Samples whose text ended inside a thought, and so is no answer."""
    remarks: tuple[Text, ...] = ()
    """Sentences for whoever reads the score."""
    conditions: Conditions | None = None
    """What the score depends on; None of earlier versions."""

    @classmethod
    def of(cls, score: Score) -> Result:
        """The figures of ``score``."""
        made = score.conditions
        return cls(
            score.value,
            score.n,
            score.stderr,
            score.truncated,
            score.tokens,
            score.unfinished,
            score.remarks,
            None if made is None else Conditions(**vars(made)),
        )


@dataclass(frozen=True)
class Raced:
    """What is known of a recipe that was given up early, from a part of the samples.

    So these values compare with no complete trial's. ``values`` (natural) and their ``variances``
    are in the order of the run's objectives; ``samples`` says how many of each benchmark were
    scored.
    """

    __pydantic_config__ = FOREIGN

    values: tuple[Number, ...]
    variances: tuple[Number, ...]
    samples: Mapping[Name, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One evaluated recipe.

    ``values`` are natural, in the order of the run's objectives; a failed recipe and one that was
    given up early have none. ``constraints`` say by how much each limit is broken: above 0 where
    it is.
    """

    number: int
    params: Mapping[str, float]
    recipe: Recipe
    values: tuple[float, ...] = ()
    results: Mapping[str, Result] | None = None
    seconds: float = 0.0
    times: Mapping[str, float] = field(default_factory=dict)
    """Seconds that proposing, merging and each benchmark took, by name."""
    error: str | None = None
    constraints: tuple[float, ...] = ()
    raced: Raced | None = None
    seed: str | None = None
    """What a recipe that was tried first is called (`seeds.Seed.label`)."""
    drawn: str | None = None
    """Why its parameters were drawn uniformly, where the sampler failed."""

    @property
    def state(self) -> Literal["complete", "failed", "raced"]:
        """Whether the recipe was scored, could not be, or was given up early."""
        if self.raced is not None:
            return "raced"
        return "failed" if self.error else "complete"

    @property
    def feasible(self) -> bool:
        """Whether the recipe keeps all of the run's constraints."""
        return all(broken_by <= 0 for broken_by in self.constraints)
