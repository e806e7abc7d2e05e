"""The front on the holdout: how good its members are on samples that the search never saw.

A search looks many times at the same samples and keeps what did best on them, so its own scores
flatter what it keeps. Here the front is scored again on the holdout, with intervals from a
bootstrap over samples (Efron 1979; percentile intervals). Every draw takes the same samples for all
models, so differences between two models are paired.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from morphing.errors import MorphingError
from morphing.runs.figures import figures_of
from morphing.runs.objectives import averaged, signs
from morphing.runs.records import Record
from morphing.runs.scales import fixed_scales
from morphing.search import pareto

if TYPE_CHECKING:
    from morphing.runs.run import Run

DRAWS = 2000
LEVEL = 0.95

_BLOCK = 500
_PERCENT = (100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2)


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % percentile bootstrap interval.

    Where all samples have the same score, as when every answer is right, all draws have the same
    mean and the interval has no width. That says that no sample differed, not that none could.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimates:
    """Scores by benchmark, natural, and the mean over those of them that have a common mean.

    These are the objectives' scores that are shares of 1 and better when higher
    (`objectives.averaged`); where there are none, ``mean`` is None.
    """

    scores: Mapping[str, Interval]
    mean: Interval | None


@dataclass(frozen=True)
class Standing:
    """A model on the holdout: a member of the search's front, the base or a source."""

    name: str
    """``trial 12``, or a model's name."""
    trial: int | None
    """The trial's number; None for the base and the sources."""
    estimates: Estimates
    against: Mapping[str, Estimates]
    """The model's estimates less another model's, sample by sample, by that other model's name:
    the base, each source, and the ``knee``."""
    optimism: Mapping[str, float]
    """By how much each score that counts for the mean is better on the search split than here."""
    values: tuple[float, ...]
    """The objectives' values on the holdout, natural."""
    merit: float
    """What models are ranked by, more being better: the mean score or, where there is none, the
    first objective's value."""
    on_front: bool = False
    """Whether no other member dominates it on the holdout; False for the base and the sources."""


@dataclass(frozen=True)
class Selection:
    """The front's members and the models they were merged from, on the holdout.

    ``hypervolume`` is that of the members' values on the holdout, on the run's scales; None before
    these are fixed. ``unscored`` are the members that have not been scored on the holdout yet.
    """

    members: tuple[Standing, ...]
    models: tuple[Standing, ...]
    hypervolume: float | None
    unscored: tuple[int, ...] = ()
    draws: int = DRAWS

    @property
    def optimism(self) -> float | None:
        """By how much the members' scores are better on the search split, on average."""
        return _mean_optimism(self.members)

    @property
    def models_optimism(self) -> float | None:
        """The same of base and sources. Since no search chose them, it says how much easier the
        search split's samples are.
        """
        return _mean_optimism(self.models)

    def of_trial(self, number: int) -> Standing | None:
        """The standing of a trial, if it is a member."""
        return next((member for member in self.members if member.trial == number), None)

    def best_of(self, names: Collection[str]) -> Standing | None:
        """The best of the base and the sources that have one of these names."""
        named = (model for model in self.models if model.name in names)
        return max(named, key=attrgetter("merit"), default=None)

    @property
    def ranked(self) -> list[Standing]:
        """The members, the best first."""
        return sorted(self.members, key=attrgetter("merit"), reverse=True)


def _mean_optimism(standings: Sequence[Standing]) -> float | None:
    values = [value for standing in standings for value in standing.optimism.values()]
    return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class _Scored:
    """A model's record on the holdout with a score per sample, and its scores in the search."""

    name: str
    trial: int | None
    record: Record
    samples: Mapping[str, Mapping[str, float]]
    search: Mapping[str, float]

    def covers(self, run: Run) -> bool:
        """Whether there are samples of every benchmark and a value of every objective."""
        benchmarks = {use.declaration.name for use in run.spec.benchmarks}
        return benchmarks <= self.samples.keys() and self.record.values.keys() >= set(
            run.spec.objectives
        )


def selection(run: Run, trials: Sequence[int] | None = None) -> Selection | None:
    """How the front does on the holdout, from what has been scored there so far.

    Nothing is scored here; `Workbench.holdout_results` does that. Members that were not scored yet,
    or whose answers are not in this copy of the run, are among the ``unscored``.

    Args:
        run: with its base and sources, as far as they were scored on the holdout.
        trials: to be taken for the front's members; by default the search's front.

    Returns:
        None where no member has been scored.

    Raises:
        MorphingError: a record is damaged, or the models share no sample of a benchmark.
    """
    figures = figures_of(run)
    wanted = figures.front if trials is None else tuple(trials)
    members = [scored for number in wanted if (scored := _trial(run, number)) is not None]
    if not members:
        return None
    models = list(_models(run))
    drawn = _draws((*members, *models))
    rivals = {model.name: model.name for model in models}
    if (knee := f"trial {figures.knee}") in drawn:
        rivals["knee"] = knee
    standings = {
        scored.name: _standing(run, scored, drawn, rivals) for scored in (*members, *models)
    }
    values = np.array([standings[member.name].values for member in members])
    undominated = pareto.front(values * signs(run.spec))
    scales = fixed_scales(run)
    volume = None
    if scales is not None:
        normal = scales.normalise(values)
        volume = pareto.hypervolume(normal, np.zeros(normal.shape[1]))
    return Selection(
        members=tuple(
            replace(standings[member.name], on_front=bool(is_front))
            for member, is_front in zip(members, undominated, strict=True)
        ),
        models=tuple(standings[model.name] for model in models),
        hypervolume=volume,
        unscored=tuple(n for n in wanted if n not in {member.trial for member in members}),
    )


def _standing(
    run: Run,
    scored: _Scored,
    drawn: Mapping[str, Mapping[str, np.ndarray]],
    rivals: Mapping[str, str],
) -> Standing:
    """A model's standing; ``rivals`` names the models to compare it with, by their labels."""
    averages = averaged(run.spec)
    own, values = drawn[scored.name], _values(run, scored)
    estimates = _estimates(own, averages)
    mean = estimates.mean
    return Standing(
        name=scored.name,
        trial=scored.trial,
        estimates=estimates,
        against={
            label: _estimates({name: own[name] - drawn[rival][name] for name in own}, averages)
            for label, rival in rivals.items()
            if rival != scored.name
        },
        optimism={
            task: scored.search[task] - scored.record.results[task].value
            for task in averages
            if task in scored.search
        },
        values=values,
        merit=mean.value if mean else float(signs(run.spec)[0] * values[0]),
    )


def _trial(run: Run, number: int) -> _Scored | None:
    samples = _scores(run.holdout_outputs(number))
    if not samples:
        return None
    results = run.trial(number).results or {}
    search = {name: result.value for name, result in results.items()}
    scored = _Scored(f"trial {number}", number, run.holdout_record(number), samples, search)
    return scored if scored.covers(run) else None


def _models(run: Run) -> Iterator[_Scored]:
    search = run.reference_scores("search")
    for name, record in run.references("holdout").items():
        samples = _scores(run.reference_outputs("holdout", name))
        known = {task: result.value for task, result in search.get(name, {}).items()}
        scored = _Scored(name, None, record, samples, known)
        if scored.covers(run):
            yield scored


def _scores(outputs: Mapping[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    return {name: {row["id"]: row["score"] for row in rows} for name, rows in outputs.items()}


def _values(run: Run, who: _Scored) -> tuple[float, ...]:
    return tuple(who.record.values[name] for name in run.spec.objectives)


def _shared_samples(everyone: Sequence[_Scored]) -> dict[str, list[str]]:
    """Ids by benchmark of the samples that all were scored on, in the first one's order.

    Raises:
        MorphingError: there are none of a benchmark.
    """
    shared = {
        name: [id for id in samples if all(id in who.samples.get(name, {}) for who in everyone)]
        for name, samples in everyone[0].samples.items()
    }
    if empty := [name for name, ids in shared.items() if not ids]:
        raise MorphingError(
            f"The models scored on the holdout of {empty[0]} share no sample of it: delete the"
            " run's holdout and references/holdout, and score the front again."
        )
    return shared


def _draws(everyone: Sequence[_Scored]) -> dict[str, dict[str, np.ndarray]]:
    """By model and benchmark, (1 + DRAWS,): the mean over the samples, then over each draw of them.

    A benchmark's draws follow from its name, so that they do not depend on other benchmarks.
    """
    means_of: dict[str, dict[str, np.ndarray]] = {who.name: {} for who in everyone}
    for benchmark, ids in _shared_samples(everyone).items():
        scores = np.array([[who.samples[benchmark][id] for id in ids] for who in everyone])
        means = bootstrap_means(scores, seed=zlib.crc32(benchmark.encode()))
        for who, row in zip(everyone, means, strict=True):
            means_of[who.name][benchmark] = row
    return means_of


def bootstrap_means(scores: np.ndarray, seed: int, draws: int = DRAWS) -> np.ndarray:
    """Means over samples, (models, 1 + draws), of ``scores`` (models, n): first of the samples as
    they are, then of draws of n with replacement, the same for all models.
    """
    n = scores.shape[1]
    generator = np.random.default_rng(seed)
    means = [scores.mean(axis=1, keepdims=True)]
    for start in range(0, draws, _BLOCK):
        rows = np.arange(min(_BLOCK, draws - start))[:, None]
        chosen = generator.integers(0, n, (len(rows), n)) + n * rows
        counts = np.bincount(chosen.ravel(), minlength=n * len(rows)).reshape(len(rows), n)
        means.append(scores @ counts.T / n)
    return np.concatenate(means, axis=1)


def interval(means: np.ndarray) -> Interval:
    """From a mean and its draws, (1 + draws,)."""
    low, high = np.percentile(means[1:], _PERCENT)
    return Interval(float(means[0]), float(low), float(high))


def _estimates(draws: Mapping[str, np.ndarray], shares: Sequence[str]) -> Estimates:
    mean = interval(np.mean([draws[name] for name in shares], axis=0)) if shares else None
    return Estimates({name: interval(row) for name, row in draws.items()}, mean)
