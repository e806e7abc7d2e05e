"""The front on the holdout: how good its members are on samples the search never saw, and how sure.

A search looks many times at the same samples and keeps what did best on them, so its own scores
flatter what it keeps. Here the front is scored again on the holdout, with intervals from a
bootstrap over samples (Efron 1979; percentile intervals). Every draw takes the same samples for all
models, so differences between two models are paired.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
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

    Where all samples agree, as when every answer is right, so do all draws, and the interval has no
    width; that says that no sample differed, not that none could.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimates:
    """Scores by benchmark, natural, and the mean of the objectives' that are shares of 1.

    Shares and bits per byte have no common mean, nor have scores that are better when they are
    higher and those that are better when lower (`objectives.averaged`): it is None where none has.
    """

    scores: Mapping[str, Interval]
    mean: Interval | None


@dataclass(frozen=True)
class Standing:
    """A model on the holdout: a member of the search's front, the base or a source.

    ``against`` are its estimates less another model's, paired, by that model's name: of the base,
    of each source, and of the ``knee``. ``optimism`` is by how much the objectives' scores that are
    shares are better on the search split than on the holdout. ``values`` are the objectives',
    natural, on the holdout. ``merit`` is the mean or, where there is none, the first objective's
    value, more being better. ``on_front``: no other member is better there (False for base and
    sources).
    """

    name: str
    """``trial 12``, or a model's name."""
    trial: int | None
    estimates: Estimates
    against: Mapping[str, Estimates]
    optimism: Mapping[str, float]
    values: tuple[float, ...]
    merit: float
    on_front: bool = False


@dataclass(frozen=True)
class Selection:
    """The front's members and the models they were merged from, on the holdout.

    ``hypervolume`` is of the members' holdout values, on the run's scales; None where these are not
    fixed. ``unscored`` are members that have not been scored there.
    """

    members: tuple[Standing, ...]
    models: tuple[Standing, ...]
    hypervolume: float | None
    unscored: tuple[int, ...] = ()
    draws: int = DRAWS

    @property
    def optimism(self) -> float | None:
        """Mean over members and objectives' shares of what the search split flatters them by."""
        return _mean_optimism(self.members)

    @property
    def models_optimism(self) -> float | None:
        """The same of base and sources, which nothing was chosen by: how the splits differ."""
        return _mean_optimism(self.models)

    def of_trial(self, number: int) -> Standing | None:
        """A member's standing."""
        return next((member for member in self.members if member.trial == number), None)

    def best_of(self, names: Collection[str]) -> Standing | None:
        """The best of base and sources of such names."""
        known = (model for model in self.models if model.name in names)
        return max(known, key=attrgetter("merit"), default=None)

    @property
    def ranked(self) -> list[Standing]:
        """The members, the best first."""
        return sorted(self.members, key=attrgetter("merit"), reverse=True)


def _mean_optimism(standings: Sequence[Standing]) -> float | None:
    known = [value for standing in standings for value in standing.optimism.values()]
    return float(np.mean(known)) if known else None


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
    """The selection of what has been scored on the holdout with per-sample outputs, as far as it
    has; None where no trial has. Nothing is scored here (`Workbench.holdout_results` does).

    ``trials`` are taken for the front's members; by default those of the search's front.
    """
    figures = figures_of(run)
    wanted = figures.front if trials is None else tuple(trials)
    members = [found for number in wanted if (found := _trial(run, number)) is not None]
    if not members:
        return None
    models = list(_models(run))
    everyone = (*members, *models)
    shared = _shared_samples(everyone)
    drawn = _draws(everyone, shared)
    shares = averaged(run.spec)
    estimates = {who.name: _estimates(drawn[who.name], shares) for who in everyone}
    knee = f"trial {figures.knee}"
    rivals = {model.name: model.name for model in models}
    if knee in drawn:
        rivals["knee"] = knee

    values = np.array([_values(run, member) for member in members])
    on_front = pareto.front(values * signs(run.spec))
    scales = fixed_scales(run)
    normal = scales.normalise(values) if scales else None

    def standing(who: _Scored, on_front: bool) -> Standing:
        own, natural = drawn[who.name], _values(run, who)
        mean = estimates[who.name].mean
        return Standing(
            name=who.name,
            trial=who.trial,
            estimates=estimates[who.name],
            against={
                label: _estimates({b: own[b] - drawn[name][b] for b in own}, shares)
                for label, name in rivals.items()
                if name != who.name
            },
            optimism={
                task: who.search[task] - who.record.results[task].value
                for task in shares
                if task in who.search
            },
            values=natural,
            merit=mean.value if mean else float(signs(run.spec)[0] * natural[0]),
            on_front=on_front,
        )

    return Selection(
        members=tuple(
            standing(who, bool(best)) for who, best in zip(members, on_front, strict=True)
        ),
        models=tuple(standing(who, False) for who in models),
        hypervolume=(
            None if normal is None else pareto.hypervolume(normal, np.zeros(normal.shape[1]))
        ),
        unscored=tuple(n for n in wanted if n not in {member.trial for member in members}),
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
        MorphingError: of a benchmark there are none.
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


def _draws(
    everyone: Sequence[_Scored], shared: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, np.ndarray]]:
    """By model and benchmark, (1 + DRAWS,): the mean over the samples, then over each draw of them.

    Benchmarks are drawn by their names, so the intervals of one do not depend on the others.
    """
    found: dict[str, dict[str, np.ndarray]] = {who.name: {} for who in everyone}
    for benchmark, ids in shared.items():
        scores = np.array([[who.samples[benchmark][id] for id in ids] for who in everyone])
        means = bootstrap_means(scores, seed=zlib.crc32(benchmark.encode()))
        for who, row in zip(everyone, means, strict=True):
            found[who.name][benchmark] = row
    return found


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
