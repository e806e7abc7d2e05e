"""What the visitor has put together under Compose, and how a click changes it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from morphing.benchmarks.benchmark import Benchmark, catalogue
from morphing.errors import MorphingError
from morphing.merging.methods import refusal
from morphing.runs.measures import LAYERS, MEASURES, PARAMETERS, SPARSITY
from morphing.runs.seeds import SOURCES as SOURCES_FIRST
from morphing.runs.seeds import UNIFORM as AVERAGE_FIRST
from morphing.runs.spec import RunSpec, parse_spec, zoo_spec
from morphing.runs.spec_parts import SOURCES
from morphing.runs.stages import stages
from morphing.search.options import Strategy
from morphing.search.samplers import SAMPLERS
from morphing.sources.find import inspect
from morphing.sources.source import Inspection
from morphing.ui.cache import Cache
from morphing.ui.compose.words import DEFAULT_SAMPLER, DEPTHS, METHODS, STRATEGIES
from morphing.ui.session import check_model
from morphing.zoo import MODELS

Role = Literal["objective", "report"]
"""A benchmark the search optimises, or one only reported on at the end."""

_RETRY_SECONDS = 20
_KEPT_MODELS = 256
_FOUND: Cache[Inspection] = Cache(_KEPT_MODELS)
_TRIED: Cache[Inspection | MorphingError] = Cache(_KEPT_MODELS)


@dataclass(frozen=True)
class Settings:
    """What sliders and switches say."""

    name: str = "zoo"
    evaluations: int = 30
    samples: int = 128
    holdout: int = 500
    device: str = "auto"
    workers: int = 1
    groups: int = 3
    """How many groups of layers, where layers are in groups."""
    points: int = 3
    """Of a smooth curve over depth."""
    repeats: int = 1
    """How many times the sources' layers are laid out for a path."""
    largest: float = 0
    """A merge has at most so many million parameters; 0: any number."""
    sources_first: bool = False
    average_first: bool = False
    racing: bool = False
    hours: float = 0
    stalled: int = 0
    seed: int | None = 0
    dtype: str = "auto"
    unrelated: bool = False


@dataclass(frozen=True)
class Choice:
    """The models, benchmarks and ways of a run to be."""

    base: str
    sources: tuple[str, ...]
    benchmarks: tuple[tuple[str, Role], ...]
    measures: tuple[str, ...] = (SPARSITY,)
    floors: tuple[str, ...] = ()
    """Benchmarks at which a merge may not be worse than any source."""
    strategy: Strategy = "ps"
    depth: str = "alike"
    kinds: bool = False
    """Whether attention, MLP, embeddings and norms have numbers of their own."""
    method: str = "dare_ties"
    sampler: str = DEFAULT_SAMPLER
    own: tuple[Benchmark, ...] = ()
    """Benchmarks that are not in the catalogue."""

    @classmethod
    def zoo(cls) -> Choice:
        """The embedded default."""
        spec = zoo_spec()
        uses: list[tuple[str, Role]] = [
            (use.declaration.name, "objective" if use.objective else "report")
            for use in spec.benchmarks
        ]
        return cls(spec.base, spec.sources, tuple(uses))

    @property
    def known(self) -> dict[str, Benchmark]:
        """The visitor's own benchmarks and the catalogue, by name."""
        return {**{each.name: each for each in self.own}, **catalogue()}

    @property
    def roles(self) -> dict[str, Role]:
        return dict(self.benchmarks)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The benchmarks that are objectives."""
        return tuple(name for name, role in self.benchmarks if role == "objective")

    @property
    def merges_weights(self) -> bool:
        """Whether numbers of a merge method are searched, alone or first."""
        return self.strategy != "dfs"

    @property
    def lays_paths(self) -> bool:
        """Whether layer paths are searched, alone or last."""
        return self.strategy != "ps"

    def after(self, action: str, value: str) -> Choice:
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
        if action in ("objective", "report", "off") and value in self.known:
            roles = {**self.roles, value: action}
            kept = tuple((name, role) for name, role in roles.items() if role != "off")
            return replace(self, benchmarks=kept)  # type: ignore[arg-type]
        if action == "measure" and value in MEASURES:
            return replace(self, measures=_toggled(self.measures, value, tuple(MEASURES)))
        if action == "floor" and value in self.tasks:
            return replace(self, floors=_toggled(self.floors, value, self.tasks))
        offered: dict[str, Mapping[str, Any]] = {
            "method": METHODS,
            "sampler": SAMPLERS,
            "strategy": STRATEGIES,
            "depth": DEPTHS,
        }
        if value in offered.get(action, ()):
            return replace(self, **{action: value})  # type: ignore[arg-type]
        if action == "kinds":
            return replace(self, kinds=value == "apart")
        return self

    def adding(self, benchmark: Benchmark, role: Role) -> Choice:
        """The choice with a benchmark of the visitor's own; one of the same name makes room.

        Raises:
            MorphingError: the catalogue has another of that name.
        """
        shipped = catalogue().get(benchmark.name)
        if shipped is not None and shipped != benchmark:
            raise MorphingError(
                f"The catalogue has a benchmark {benchmark.name!r} already: name yours otherwise."
            )
        others = tuple(each for each in self.own if each.name != benchmark.name)
        own = others if shipped else (*others, benchmark)
        return replace(self, own=own).after(role, benchmark.name)

    @property
    def problem(self) -> str | None:
        """Why this cannot be launched yet, or None."""
        if not self.sources:
            return "Add at least one source model."
        if not self.tasks:
            return "Choose at least one benchmark as an objective."
        fixed = [name for name in (PARAMETERS, LAYERS) if name in self.measures]
        if fixed and not self.lays_paths:
            return (
                f"Every merge of weights has the same {fixed[0]}: search layer paths, or take"
                f" {fixed[0]} out of the objectives."
            )
        return refusal(self.method, len(self.sources)) if self.merges_weights else None

    def spec(self, settings: Settings) -> RunSpec:
        """The run spec.

        Raises:
            MorphingError: something is missing or out of range.
        """
        if self.problem:
            raise MorphingError(self.problem)
        for model in (self.base, *self.sources):
            check_model(model)
        own = {each.name: each for each in self.own}
        benchmarks = [
            {
                "benchmark": own.get(benchmark, benchmark),
                "samples": int(settings.samples),
                "holdout": int(settings.holdout),
                "objective": role == "objective",
            }
            for benchmark, role in self.benchmarks
        ]
        fields = {
            "name": settings.name.strip() or "run",
            "base": self.base,
            "sources": list(self.sources),
            "benchmarks": benchmarks,
            "measures": list(self.measures),
            "constraints": self._constraints(settings),
            "search": {
                "sampler": self.sampler,
                "evaluations": int(settings.evaluations),
                "hours": settings.hours or None,
                "stalled": settings.stalled or None,
                "seed": settings.seed or 0,
                "space": self._space(settings),
                "seeds": _first(settings),
                "racing": settings.racing,
            },
            "device": settings.device,
            "dtype": settings.dtype,
            "allow_unrelated_base": settings.unrelated,
        }
        if self.merges_weights:
            fields["method"] = self.method
        return parse_spec(fields, "These settings")

    def _constraints(self, settings: Settings) -> list[dict[str, Any]]:
        # As good as every source: not below any where more is better, not above any elsewhere.
        limit = {"maximize": "at_least", "minimize": "at_most"}
        kept: list[dict[str, Any]] = [
            {"on": task, limit[self.known[task].direction]: SOURCES}
            for task in self.floors
            if task in self.tasks
        ]
        if settings.largest and self.lays_paths:
            kept.append({"on": PARAMETERS, "at_most": 1e6 * settings.largest})
        return kept

    def _space(self, settings: Settings) -> dict[str, Any]:
        space: dict[str, Any] = {"strategy": self.strategy}
        if self.merges_weights:
            groups = {"groups": int(settings.groups), "each": "each"}
            space["layer_groups"] = groups.get(self.depth, 1)
            space["gradient"] = int(settings.points) if self.depth == "curve" else 0
            space["module_kinds"] = self.kinds
        if self.lays_paths:
            space["repeats"] = int(settings.repeats)
        return space


def _first(settings: Settings) -> list[str]:
    """What the search tries first."""
    wanted = {SOURCES_FIRST: settings.sources_first, AVERAGE_FIRST: settings.average_first}
    return [name for name, is_wanted in wanted.items() if is_wanted]


def count_numbers(choice: Choice, settings: Settings, token: str | None) -> tuple[int, ...]:
    """How many numbers each stage of the search looks for.

    Raises:
        MorphingError: the run cannot be, for example with more groups than layers.
    """
    spec = choice.spec(settings)
    base = inspected(choice.base, token)
    found = stages(spec, base.layers, base.architecture)
    return tuple(len(stage.space.distributions()) for stage in found)


def _toggled(chosen: tuple[str, ...], name: str, order: tuple[str, ...]) -> tuple[str, ...]:
    after = set(chosen) ^ {name}
    return tuple(each for each in order if each in after)


def addable(choice: Choice) -> list[str]:
    """Zoo models that are not chosen yet."""
    names = (f"zoo:{name}" for name in MODELS)
    return [name for name in names if name not in (choice.base, *choice.sources)]


def inspected(name: str, token: str | None) -> Inspection:
    """A model's headers, read once (a revision that moves is pinned at launch).

    Raises:
        MorphingError: as `inspect` does; asked again only after a while, for every redraw asks.
    """
    # What a visitor may see is theirs alone; the token itself is not kept.
    key = name, hashlib.sha256((token or "").encode()).digest()
    now = int(time.monotonic() / _RETRY_SECONDS)

    def found() -> Inspection:
        tried = _TRIED.get(key, now, lambda: _try(name, token))
        if isinstance(tried, MorphingError):
            raise tried
        return tried

    return _FOUND.get(key, _written(name), found)


def _try(name: str, token: str | None) -> Inspection | MorphingError:
    try:
        return inspect(check_model(name), token)
    except MorphingError as error:
        return error


def _written(name: str) -> int:
    """When a model's folder last changed; 0 of one that is no folder here."""
    try:
        return Path(name).expanduser().stat().st_mtime_ns
    except (OSError, ValueError, RuntimeError):
        return 0
