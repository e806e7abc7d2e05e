"""How a run's objectives read: titles, units, and which way is better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from morphing.inert import one_line
from morphing.runs.measures import MEASURES
from morphing.runs.objectives import shown_score
from morphing.runs.scales import Bound
from morphing.runs.spec import RunSpec


@dataclass(frozen=True)
class Objective:
    """An objective of a run as people read it. Values given are natural."""

    name: str
    title: str
    maximised: bool = True
    share: bool = True
    """Of a score: whether it is a share of 1, shown in percent; bits per byte are none."""

    @property
    def is_score(self) -> bool:
        """Whether it is a benchmark's score."""
        return self.name not in MEASURES

    @property
    def in_percent(self) -> bool:
        """Whether it is shown in percent."""
        return self.is_score and self.share

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↑" if self.maximised else "↓"

    @property
    def axis_title(self) -> str:
        """Its title beside an axis, which carries the unit."""
        return self.title if self.is_score else MEASURES[self.name].axis

    @property
    def suffix(self) -> str:
        """What follows a number on an axis."""
        return "%" if self.in_percent else ""

    def scaled(self, value: float) -> float:
        """The value in the unit of an axis."""
        if self.in_percent:
            return 100 * value
        return value if self.is_score else value / MEASURES[self.name].axis_unit

    def shown(self, value: float) -> str:
        """The value with its unit."""
        if self.is_score:
            return shown_score(value, self.share)
        return MEASURES[self.name].shown(value)

    def merit(self, value: float) -> float:
        """More is better."""
        return value if self.maximised else -value

    def best(self, values: Iterable[float]) -> float:
        """The best of some values."""
        return max(values, key=self.merit)


@dataclass(frozen=True)
class Objectives:
    """The objectives of a run, in its order."""

    all: tuple[Objective, ...]

    @classmethod
    def of(cls, spec: RunSpec) -> Objectives:
        """Those of a spec."""
        titles = {name: measure.title for name, measure in MEASURES.items()}
        raw = set()
        for use in spec.tasks:
            benchmark = use.declaration
            titles[benchmark.name] = one_line(benchmark.title or benchmark.name)
            if not benchmark.share:
                raw.add(benchmark.name)
        pairs = zip(spec.objectives, spec.directions, strict=True)
        return cls(
            tuple(
                Objective(name, titles[name], way == "maximize", name not in raw)
                for name, way in pairs
            )
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(objective.name for objective in self.all)

    @cached_property
    def scores(self) -> tuple[Objective, ...]:
        """Those that are benchmarks' scores."""
        return tuple(objective for objective in self.all if objective.is_score)

    def __getitem__(self, name: str) -> Objective:
        return self.all[self.names.index(name)]

    def bound(self, bound: Bound) -> str:
        """A constraint, which may be on a measure that is no objective."""
        on = bound.on
        found = self[on] if on in self else Objective(on, MEASURES[on].title)
        return f"{found.title} {bound.limits(found.shown)}"

    def __contains__(self, name: str) -> bool:
        return name in self.names
