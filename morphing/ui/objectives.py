"""How a run's objectives read: titles, units, and which way is better."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from morphing.runs.objectives import LAYERS, PARAMETERS, THROUGHPUT, TOKENS
from morphing.runs.scales import Bound
from morphing.runs.spec import MEASURES, SPARSITY, RunSpec
from morphing.ui.cards import readable

MEASURE_WORDS = {
    SPARSITY: ("Sparsity", "How little of the base is changed: it keeps more of what it could do."),
    TOKENS: ("Answer length", "Tokens an answer takes on average: long answers cost."),
    THROUGHPUT: ("Throughput", "Tokens a second on this machine; no two timings are the same."),
    PARAMETERS: ("Parameters", "How large the merge is. Only layer paths change it."),
    LAYERS: ("Layers", "How deep the merge is. Only layer paths change it."),
}
"""Title and sentence of every measure."""

_AXES = {
    SPARSITY: "Sparsity (0 is the base)",
    TOKENS: "Answer length (tokens)",
    THROUGHPUT: "Throughput (tokens a second)",
    PARAMETERS: "Parameters (millions)",
}


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
        return _AXES.get(self.name, self.title)

    @property
    def suffix(self) -> str:
        """What follows a number on an axis."""
        return "%" if self.in_percent else ""

    def scaled(self, value: float) -> float:
        """The value in the unit of an axis."""
        if self.in_percent:
            return 100 * value
        return value / 1e6 if self.name == PARAMETERS else value

    def shown(self, value: float) -> str:
        """The value with its unit."""
        if self.in_percent:
            return f"{100 * value:.1f}%"
        if self.is_score:
            return f"{value:.3f}"
        if self.name == SPARSITY:
            return f"{value:.4f}".replace("-", "−")
        if self.name == PARAMETERS:
            return readable(value)
        if self.name == LAYERS:
            return f"{value:g}"
        return f"{value:.1f}" + (" tok/s" if self.name == THROUGHPUT else " tokens")

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
    def of(cls, spec: RunSpec) -> "Objectives":
        """Those of a spec."""
        titles = {name: words[0] for name, words in MEASURE_WORDS.items()}
        raw = set()
        for use in spec.tasks:
            benchmark = use.declaration
            titles[benchmark.name] = benchmark.title or benchmark.name
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
        found = self[on] if on in self else Objective(on, MEASURE_WORDS[on][0])
        return f"{found.title} {bound.limits(found.shown)}"

    def __contains__(self, name: str) -> bool:
        return name in self.names
