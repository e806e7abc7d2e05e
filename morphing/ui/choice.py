"""What the visitor has put together under Compose, and how a click changes it."""

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from morphing.benchmarks.benchmark import catalogue
from morphing.errors import MorphingError
from morphing.runs.spec import RunSpec, parse_spec, zoo_spec
from morphing.search.ranges import refusal
from morphing.sources.source import Inspection, inspect
from morphing.ui.session import check_model
from morphing.zoo import MODELS

Role = Literal["objective", "report"]
"""A benchmark the search maximises, or one only reported on at the end."""

_RETRY_SECONDS = 20
METHODS = {
    "dare_ties": ("DARE-TIES", "Drops random changes, settles sign conflicts. The usual choice."),
    "dare_linear": ("DARE linear", "Drops random changes and adds up what is left."),
    "ties": ("TIES", "Keeps each source's largest changes and settles sign conflicts."),
    "task_arithmetic": ("Task arithmetic", "Adds the sources' changes to the base, weighted."),
    "linear": ("Linear", "A weighted average of the sources' weights."),
    "slerp": ("SLERP", "Goes from the base to one source along the sphere. One source only."),
    "della": ("DELLA", "Like DARE-TIES, but drops small changes more often than large ones."),
    "della_linear": ("DELLA linear", "Like DELLA, and adds up what is left, conflicts and all."),
    "breadcrumbs": ("Breadcrumbs", "Drops each source's smallest changes and its outliers."),
    "breadcrumbs_ties": ("Breadcrumbs TIES", "Like Breadcrumbs, and settles sign conflicts."),
    "sce": ("SCE", "Keeps the entries in which the sources differ most. Two sources or more."),
    "ram": ("RAM", "Averages what sources changed together, keeps what one alone did."),
    "ramplus_tl": ("RAM+", "Like RAM, but strengthens what one source alone changed. Two or more."),
    "multislerp": ("Multi-SLERP", "A mean of the sources' directions from the base. Two or more."),
    "nuslerp": ("NuSLERP", "Goes from one source to another along the sphere. Two sources."),
    "nearswap": ("NearSwap", "Takes a source's weights where they are near. One source only."),
    "passthrough": ("Passthrough", "Scales a source's weights as they are. One source only."),
}
METHOD_GROUPS = {
    "Drop what changed little": ("della", "della_linear", "breadcrumbs", "breadcrumbs_ties"),
    "Compare what the sources changed": ("sce", "ram", "ramplus_tl"),
    "Turn towards the sources": ("multislerp", "nuslerp"),
    "Work on a single source": ("nearswap", "passthrough"),
}
"""The methods that are shown on demand; the others are the usual ones."""
SAMPLERS = {
    "mmmo": ("MM-MO", "Bayesian optimisation made for merging; best with a small budget."),
    "nsga2": ("NSGA-II", "Evolution over a population; pays off from some hundred evaluations."),
    "cmaes": ("CMA-ES", "Evolution towards the best weighted sum of all objectives."),
    "random": ("Random", "Uniform draws: the baseline to beat."),
}
ZOO_MODELS = {
    "zoo:base": "What the three specialists grew from",
    "zoo:english-math": "Arithmetic, asked in English",
    "zoo:japanese-numerals": "Reads and writes Japanese numerals",
    "zoo:word-games": "Puzzles with the letters of words",
}


@dataclass(frozen=True)
class Choice:
    """The models, benchmarks and ways of a run to be."""

    base: str
    sources: tuple[str, ...]
    benchmarks: tuple[tuple[str, Role], ...]
    method: str = "dare_ties"
    sampler: str = "mmmo"
    sparsity: bool = True

    @classmethod
    def zoo(cls) -> "Choice":
        """The embedded default."""
        spec = zoo_spec()
        uses: list[tuple[str, Role]] = [
            (use.declaration.name, "objective" if use.objective else "report")
            for use in spec.benchmarks
        ]
        return cls(spec.base, spec.sources, tuple(uses))

    @property
    def roles(self) -> dict[str, Role]:
        return dict(self.benchmarks)

    def after(self, action: str, value: str) -> "Choice":
        """The choice after a click on a card."""
        if action == "remove":
            return replace(self, sources=tuple(name for name in self.sources if name != value))
        if action == "clear":
            return replace(self, sources=())
        if action == "add" and value not in (self.base, *self.sources):
            return replace(self, sources=(*self.sources, value))
        if action == "base":
            return replace(
                self, base=value, sources=tuple(name for name in self.sources if name != value)
            )
        if action in ("objective", "report", "off") and value in catalogue():
            roles = {**self.roles, value: action}
            kept = tuple((name, role) for name, role in roles.items() if role != "off")
            return replace(self, benchmarks=kept)  # type: ignore[arg-type]
        if action == "method" and value in METHODS:
            return replace(self, method=value)
        if action == "sampler" and value in SAMPLERS:
            return replace(self, sampler=value)
        if action == "sparsity":
            return replace(self, sparsity=not self.sparsity)
        return self

    @property
    def problem(self) -> str | None:
        """Why this cannot be launched yet, or None."""
        if not self.sources:
            return "Add at least one source model."
        if "objective" not in self.roles.values():
            return "Choose at least one benchmark as an objective."
        return refusal(self.method, len(self.sources))

    def spec(self, name: str, samples: int, holdout: int, **options: Any) -> RunSpec:
        """The run spec. ``options`` are further fields of the spec.

        Raises:
            MorphingError: something is missing or out of range.
        """
        if self.problem:
            raise MorphingError(self.problem)
        for model in (self.base, *self.sources):
            check_model(model)
        benchmarks = [
            {
                "benchmark": benchmark,
                "samples": samples,
                "holdout": holdout,
                "objective": role == "objective",
            }
            for benchmark, role in self.benchmarks
        ]
        fields = {
            "name": name or "run",
            "base": self.base,
            "sources": list(self.sources),
            "method": self.method,
            "benchmarks": benchmarks,
            "sparsity": self.sparsity,
            **options,
        }
        fields["search"] = {"sampler": self.sampler, **options["search"]}
        return parse_spec(fields, "These settings")


def addable(choice: Choice) -> list[str]:
    """Zoo models that are not chosen yet."""
    names = (f"zoo:{name}" for name in MODELS)
    return [name for name in names if name not in (choice.base, *choice.sources)]


def inspected(name: str, token: str | None) -> Inspection:
    """A model's headers, read once a process (a revision that moves is pinned at launch).

    Raises:
        MorphingError: as `inspect` does; asked again only after a while, for every redraw asks.
    """
    found = _tried(name, token, int(time.monotonic() / _RETRY_SECONDS))
    if isinstance(found, MorphingError):
        raise found
    return found


@lru_cache(maxsize=128)
def _tried(name: str, token: str | None, _when: int) -> Inspection | MorphingError:
    try:
        return _read(name, token)
    except MorphingError as error:
        return error


@lru_cache(maxsize=128)
def _read(name: str, token: str | None) -> Inspection:
    return inspect(check_model(name), token)
