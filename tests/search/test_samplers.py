"""Proposals are a function of seed and history; MM-MO learns."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from morphing.errors import MorphingError
from morphing.search.pareto import hypervolume
from morphing.search.samplers import SAMPLERS, make_sampler
from morphing.search.samplers.cmaes import CMAESSampler
from morphing.search.samplers.history import from_unit, to_unit
from morphing.search.samplers.mmmo import MMMOSampler, cross_with_elite

SPACE = {f"x{i}": FloatDistribution(0.0, 2.0) for i in range(4)}
OBJECTIVES = ("left", "right", "sparsity")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


def score(params: dict[str, float]) -> list[float]:
    """Two peaks and a price: a front between (0.5, ...) and (1.5, ...)."""
    x = np.array([params[name] for name in SPACE])
    return [-float(((x - 0.5) ** 2).sum()), -float(((x - 1.5) ** 2).sum()), -float(x.sum())]


def new_study(sampler: optuna.samplers.BaseSampler, objectives: int = 3) -> optuna.Study:
    return optuna.create_study(directions=["maximize"] * objectives, sampler=sampler)


def step(study: optuna.Study, fail: bool = False) -> dict[str, float]:
    trial = study.ask(fixed_distributions=SPACE)
    if fail:
        trial.set_user_attr("error", "out of memory")
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, score(trial.params))
    return trial.params


@pytest.mark.parametrize(
    "name", [pytest.param("mmmo", marks=pytest.mark.slow), "nsga2", "cmaes", "random"]
)
def test_kill_and_resume_between_any_two_trials(name: str, tmp_path: Path) -> None:
    trials, failing = (10 if name == "mmmo" else 22), (2, 6, 13)

    def sampler() -> optuna.samplers.BaseSampler:
        if name == "mmmo":  # small batches: every reopening computes one again
            return MMMOSampler(5, OBJECTIVES, n_initial=4, batch_size=3, candidates=3)
        return make_sampler(name, 5, objectives=OBJECTIVES)

    straight = new_study(sampler())
    expected = [step(straight, fail=i in failing) for i in range(trials)]

    def reopen() -> optuna.Study:
        storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
        return optuna.create_study(
            storage=storage,
            study_name="run",
            directions=["maximize"] * 3,
            sampler=sampler(),
            load_if_exists=True,
        )

    resumed = []
    for i in range(trials):
        if i % 3 == 0:
            study = reopen()
            killed = study.ask(fixed_distributions=SPACE)
            study = reopen()
            study.tell(killed.number, state=TrialState.FAIL)
            assert killed.params == expected[i]
        resumed.append(step(reopen(), fail=i in failing))
    assert resumed == expected
    assert len({tuple(params.values()) for params in expected}) == trials
    assert all(0 <= value <= 2 for params in expected for value in params.values())


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds_differ_and_initial_trials_are_shared(name: str) -> None:
    def first(sampler: str, seed: int) -> dict[str, float]:
        return step(new_study(make_sampler(sampler, seed, objectives=OBJECTIVES)))

    assert first(name, 1) == first("random", 1) != first(name, 2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_optimize_with_suggest_and_enqueued_trials(name: str) -> None:
    study = new_study(make_sampler(name, 0, objectives=("a",)), objectives=1)
    study.enqueue_trial({"t": 0.25})

    def parabola(trial: optuna.Trial) -> float:
        return -((trial.suggest_float("t", 0, 1) - 0.7) ** 2)

    study.optimize(parabola, n_trials=16)
    assert study.trials[0].params == {"t": 0.25}
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_logarithmic_ranges_are_scaled_by_the_logarithm() -> None:
    space = {"t": FloatDistribution(1e-5, 1e-1, log=True), "x": FloatDistribution(0.0, 2.0)}
    assert from_unit(np.array([0.5, 0.5]), space) == pytest.approx({"t": 1e-3, "x": 1.0})
    assert from_unit(np.array([0.0, 0.0]), space) == {"t": 1e-5, "x": 0.0}
    assert from_unit(np.array([1.0, 1.0]), space) == {"t": 1e-1, "x": 2.0}
    point = np.array([0.3, 0.7])
    trial = optuna.create_trial(
        params=from_unit(point, space), distributions=space, values=[0.0, 0.0]
    )
    assert to_unit([trial], space)[0] == pytest.approx(point)


def test_cmaes_closes_in_on_an_order_of_magnitude() -> None:
    study = new_study(CMAESSampler(0, ("a",)), objectives=1)

    def parabola(trial: optuna.Trial) -> float:
        t = trial.suggest_float("t", 1e-5, 1e-1, log=True)
        return -((np.log10(t) + 4) ** 2)

    study.optimize(parabola, n_trials=60)
    assert all(abs(np.log10(trial.params["t"]) + 4) < 0.5 for trial in study.trials[-8:])


def test_unknown_sampler() -> None:
    with pytest.raises(MorphingError, match="no sampler 'magic'"):
        make_sampler("magic", 0, objectives=OBJECTIVES)


def test_mmmo_without_anything_to_learn_from_stays_uniform() -> None:
    random = new_study(make_sampler("random", 0, objectives=OBJECTIVES))
    mmmo = new_study(make_sampler("mmmo", 0, objectives=OBJECTIVES))
    for _ in range(12):
        assert step(random, fail=True) == step(mmmo, fail=True)
    flat = new_study(make_sampler("mmmo", 0, objectives=OBJECTIVES))
    for _ in range(12):
        flat.tell(flat.ask(fixed_distributions=SPACE), [1.0, 1.0, 1.0])


def test_mmmo_learns_beside_constant_and_infinite_values() -> None:
    """Constant objectives and infinite scores teach nothing and break nothing; nothing warns."""
    study = new_study(MMMOSampler(0, OBJECTIVES, n_initial=6, batch_size=2, candidates=3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for i in range(8):
            trial = study.ask(fixed_distributions=SPACE)
            values = score(trial.params)
            study.tell(trial, [float("-inf") if i == 1 else values[0], 0.5, values[2]])
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 8


def test_mmmo_leaves_torch_as_it_was() -> None:
    study = new_study(MMMOSampler(0, OBJECTIVES, n_initial=4, batch_size=1, candidates=1))
    for _ in range(4):
        step(study)
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    step(study)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_fisher_keeps_the_least_informed_candidates() -> None:
    """Lowest, highest and no screening order one and the same candidates."""

    def batch(fisher: str) -> list[tuple[float, ...]]:
        sampler = MMMOSampler(0, OBJECTIVES, n_initial=6, batch_size=4, candidates=4, fisher=fisher)
        study = new_study(sampler)
        return [tuple(step(study).values()) for _ in range(10)][6:]

    lowest, highest, unscreened = batch("lowest"), batch("highest"), batch("none")
    assert lowest == highest[::-1] != unscreened
    assert sorted(lowest) == sorted(unscreened)


def test_cross_with_elite() -> None:
    rng = np.random.default_rng(0)
    # Elite points that agree: every mutant is that point.
    crossed = cross_with_elite(np.zeros((200, 4)), np.full((5, 4), 0.25), rng)
    assert set(np.unique(crossed)) == {0.0, 0.25}
    assert (crossed > 0).any(axis=1).all()
    assert 0.5 < (crossed > 0).mean() < 0.75  # 0.5, and one at least
    wide = cross_with_elite(
        np.full((200, 4), 0.5), np.array([[0.0] * 4, [1.0] * 4, [1.0] * 4]), rng
    )
    assert wide.min() == 0.0 and wide.max() == 1.0
    few = np.full((2, 4), 0.5)
    assert cross_with_elite(few, np.zeros((2, 4)), rng) is few


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_expected_improvement_equals_monte_carlo(objectives: int) -> None:
    from botorch.models import SingleTaskGP

    from morphing.search.samplers.ehvi import ExpectedHypervolumeImprovement

    rng = np.random.default_rng(objectives)
    x, z = rng.random((8, 2)), rng.standard_normal((8, objectives))
    reference = z.min(axis=0) - 0.1 * np.ptp(z, axis=0)
    with warnings.catch_warnings(action="ignore"):  # these values are not z-scored
        model = SingleTaskGP(torch.from_numpy(x), torch.from_numpy(z), outcome_transform=None)
    model.covar_module.lengthscale = 0.2  # uncertain enough at the point to improve on z
    model.eval()
    point = torch.full((1, 1, 2), 0.5, dtype=torch.float64)
    with torch.no_grad():
        improvement = ExpectedHypervolumeImprovement(
            model, torch.from_numpy(z), torch.from_numpy(reference)
        )(point).item()
        posterior = model.posterior(point)
    deviation = posterior.variance.sqrt().numpy().ravel()
    draws = posterior.mean.numpy().ravel() + deviation * rng.standard_normal((500, objectives))
    gains = [hypervolume(np.vstack([z, draw]), reference) for draw in draws]
    gains = np.array(gains) - hypervolume(z, reference)
    assert improvement == pytest.approx(gains.mean(), abs=4 * gains.std() / len(gains) ** 0.5)


def test_cmaes_closes_in_on_the_best_task_sum() -> None:
    """The two peaks' sum is best at 1 in every coordinate; sparsity has no say."""
    study = new_study(CMAESSampler(0, OBJECTIVES))
    points = np.array([list(step(study).values()) for _ in range(80)])
    distance = np.abs(points - 1.0).max(axis=1)
    assert distance[-20:].mean() < 0.5 * distance[:20].mean()


def test_nsga2_breeds_from_the_last_generation() -> None:
    study = new_study(make_sampler("nsga2", 0, objectives=OBJECTIVES))
    points = [step(study, fail=i == 3) for i in range(16)]
    initial = {value for params in points[:11] for value in params.values()}
    children = [value in initial for params in points[11:] for value in params.values()]
    assert 0.5 < np.mean(children) < 1.0


@pytest.mark.slow
def test_mmmo_beats_random() -> None:
    reference = np.array([-9.0, -9.0, -8.0])

    def volume(name: str, seed: int) -> float:
        study = new_study(make_sampler(name, seed, objectives=OBJECTIVES))
        for _ in range(30):
            step(study)
        return hypervolume(np.array([trial.values for trial in study.trials]), reference)

    gains = [volume("mmmo", seed) - volume("random", seed) for seed in range(3)]
    assert np.mean(gains) > 0 and min(gains) > 0
