"""Proposals are a function of seed and history; MM-MO learns."""

from __future__ import annotations

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
from morphing.search.samplers.evolve import EvolveSampler
from morphing.search.samplers.history import (
    RACED,
    SLOT,
    VARIANCES,
    Problem,
    from_unit,
    history,
    slot_of,
    to_unit,
)
from morphing.search.samplers.mmmo import MMMOSampler, cross_with_elite
from morphing.search.samplers.qlognehvi import QLogNEHVISampler

SPACE = {f"x{i}": FloatDistribution(0.0, 2.0) for i in range(4)}
OBJECTIVES = ("left", "right", "sparsity")
PROBLEM = Problem(objectives=OBJECTIVES, tasks=("left", "right"))
SLOW = ("mmmo", "qlognehvi")


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
    """One evaluation; a trial is asked for as a run does, so that one put back is taken first."""
    trial = study.ask(fixed_distributions=SPACE)
    if fail:
        trial.set_user_attr("error", "out of memory")
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, score(trial.params))
    return trial.params


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in SAMPLERS]
)
def test_kill_and_resume_between_any_two_trials(name: str, tmp_path: Path) -> None:
    trials, failing = (10 if name in SLOW else 22), (2, 6, 13)

    def sampler() -> optuna.samplers.BaseSampler:
        if name == "mmmo":  # small batches: every reopening computes one again
            return MMMOSampler(5, PROBLEM, n_initial=4, batch_size=3, candidates=3)
        if name == "qlognehvi":
            return QLogNEHVISampler(5, PROBLEM, n_initial=4)
        return make_sampler(name, 5, PROBLEM)

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
            # Its slot is proposed again, by another trial.
            study.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs={SLOT: i}))
        resumed.append(step(reopen(), fail=i in failing))
    assert resumed == expected
    assert len({tuple(params.values()) for params in expected}) == trials
    assert all(0 <= value <= 2 for params in expected for value in params.values())


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds_differ_and_initial_trials_are_shared(name: str) -> None:
    def first(sampler: str, seed: int) -> dict[str, float]:
        return step(new_study(make_sampler(sampler, seed, PROBLEM)))

    assert first(name, 1) == first("random", 1) != first(name, 2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_optimize_with_suggest_and_enqueued_trials(name: str) -> None:
    study = new_study(make_sampler(name, 0, Problem(objectives=("a",))), objectives=1)
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
    assert to_unit([from_unit(point, space)], space)[0] == pytest.approx(point)


def test_cmaes_closes_in_on_an_order_of_magnitude() -> None:
    study = new_study(CMAESSampler(0, Problem(objectives=("a",))), objectives=1)

    def parabola(trial: optuna.Trial) -> float:
        t = trial.suggest_float("t", 1e-5, 1e-1, log=True)
        return -((np.log10(t) + 4) ** 2)

    study.optimize(parabola, n_trials=60)
    assert all(abs(np.log10(trial.params["t"]) + 4) < 0.5 for trial in study.trials[-8:])


def test_unknown_sampler() -> None:
    with pytest.raises(MorphingError, match="no sampler 'magic'"):
        make_sampler("magic", 0)


def test_mmmo_without_anything_to_learn_from_stays_uniform() -> None:
    random = new_study(make_sampler("random", 0, PROBLEM))
    mmmo = new_study(make_sampler("mmmo", 0, PROBLEM))
    for _ in range(12):
        assert step(random, fail=True) == step(mmmo, fail=True)
    flat = new_study(make_sampler("mmmo", 0, PROBLEM))
    for _ in range(12):
        flat.tell(flat.ask(fixed_distributions=SPACE), [1.0, 1.0, 1.0])


def test_mmmo_learns_beside_constant_and_infinite_values() -> None:
    """Constant objectives and infinite scores teach nothing and break nothing; nothing warns."""
    study = new_study(MMMOSampler(0, PROBLEM, n_initial=6, batch_size=2, candidates=3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for i in range(8):
            trial = study.ask(fixed_distributions=SPACE)
            values = score(trial.params)
            study.tell(trial, [float("-inf") if i == 1 else values[0], 0.5, values[2]])
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 8


def test_mmmo_leaves_torch_as_it_was() -> None:
    study = new_study(MMMOSampler(0, PROBLEM, n_initial=4, batch_size=1, candidates=1))
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
        sampler = MMMOSampler(0, PROBLEM, n_initial=6, batch_size=4, candidates=4, fisher=fisher)
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
    """Of noisy trials: the front is drawn first, then the point given that draw."""
    from morphing.search.samplers.ehvi import LogEHVI, draws, jitter, noise_of
    from morphing.search.samplers.surrogate import fit_processes

    rng = np.random.default_rng(objectives)
    x = torch.from_numpy(rng.random((8, 2)))
    z = torch.from_numpy(rng.standard_normal((8, objectives)))
    reference = z.numpy().min(axis=0) - 0.1 * np.ptp(z.numpy(), axis=0)
    model = fit_processes(x, z, torch.full_like(z, 0.2))
    model.covar_module.lengthscale = 0.2  # uncertain enough at the point to improve on z
    point = torch.full((1, 2), 0.5, dtype=torch.float64)
    drawn = draws(model, x, z, point[:0], 4, seed=0)
    counted = torch.ones(8, dtype=torch.bool)
    acquisition = LogEHVI(model, x, drawn, jitter(drawn[0]), torch.from_numpy(reference), counted)
    with torch.no_grad():
        improvement = float(acquisition(point[None]).exp())
        mean, deviation = (part.numpy() for part in acquisition.posterior(point))
    gains = []
    for number, front in enumerate(drawn.numpy()):
        normals = rng.standard_normal((400, objectives))
        for row in mean[:, 0, number] + deviation[:, 0] * normals:
            gains.append(
                hypervolume(np.vstack([front.T, row]), reference) - hypervolume(front.T, reference)
            )
    error = np.std(gains) / len(gains) ** 0.5
    assert improvement == pytest.approx(np.mean(gains), abs=4 * error)
    # BoTorch's own posterior of the noiseless values, given the noisy ones.
    with torch.no_grad():
        expected = model.posterior(point)
        noisy = LogEHVI(
            model, x, z.T[None], noise_of(model, 8), torch.from_numpy(reference), counted
        )
        mean, deviation = noisy.posterior(point)
    assert mean.ravel().numpy() == pytest.approx(expected.mean.ravel().numpy(), abs=1e-6)
    spread = expected.variance.sqrt().ravel().numpy()
    assert deviation.ravel().numpy() == pytest.approx(spread, abs=1e-4)


def test_draws_have_the_posteriors_mean_and_spread() -> None:
    from morphing.search.samplers.ehvi import draws
    from morphing.search.samplers.surrogate import fit_processes

    rng = np.random.default_rng(0)
    x, new = torch.from_numpy(rng.random((10, 2))), torch.from_numpy(rng.random((2, 2)))
    z = torch.from_numpy(rng.standard_normal((10, 2)))
    model = fit_processes(x, z, torch.full_like(z, 0.3))
    drawn = draws(model, x, z, new, 4096, seed=0)
    with torch.no_grad():
        posterior = model.posterior(torch.cat([x, new]))
    assert drawn.shape == (4096, 2, 12)
    assert torch.allclose(drawn.mean(0).T, posterior.mean, atol=0.02)
    assert torch.allclose(drawn.std(0).T, posterior.variance.sqrt(), rtol=0.05, atol=0.01)


def test_log_excess_is_right_and_smooth_everywhere() -> None:
    from morphing.search.samplers.ehvi import _log_excess

    u = torch.tensor([-1e12, -1e4 - 1, -1e4 + 1, -30.0, -5.0, -1.0, 0.0, 2.0, 1e6])
    u = u.to(torch.float64).requires_grad_()
    values = _log_excess(u)
    (slope,) = torch.autograd.grad(values.sum(), u)
    values = values.detach()
    assert torch.isfinite(values).all() and torch.isfinite(slope).all()
    assert (slope > 0).all()
    # log(phi(u) + u Phi(u)), worked out to 60 digits
    known = {3: -457.724653761, 4: -16.744301163, 5: -2.485121026, 6: -0.918938533, 7: 0.697383546}
    for place, value in known.items():
        assert float(values[place]) == pytest.approx(value, abs=2e-9)


def test_cmaes_closes_in_on_the_best_task_sum() -> None:
    """The two peaks' sum is best at 1 in every coordinate; sparsity has no say."""
    study = new_study(CMAESSampler(0, PROBLEM))
    points = np.array([list(step(study).values()) for _ in range(80)])
    distance = np.abs(points - 1.0).max(axis=1)
    assert distance[-20:].mean() < 0.5 * distance[:20].mean()


def test_nsga2_breeds_from_the_last_generation() -> None:
    study = new_study(make_sampler("nsga2", 0, PROBLEM))
    points = [step(study, fail=i == 3) for i in range(16)]
    initial = {value for params in points[:11] for value in params.values()}
    children = [value in initial for params in points[11:] for value in params.values()]
    assert 0.5 < np.mean(children) < 1.0


@pytest.mark.slow
def test_mmmo_beats_random() -> None:
    reference = np.array([-9.0, -9.0, -8.0])

    def volume(name: str, seed: int) -> float:
        study = new_study(make_sampler(name, seed, PROBLEM))
        for _ in range(30):
            step(study)
        return hypervolume(np.array([trial.values for trial in study.trials]), reference)

    gains = [volume("mmmo", seed) - volume("random", seed) for seed in range(3)]
    assert np.mean(gains) > 0 and min(gains) > 0


def ask_in(study: optuna.Study) -> optuna.Trial:
    return study.ask(fixed_distributions=SPACE)


def test_slots_do_not_depend_on_who_died() -> None:
    study = new_study(make_sampler("random", 0, PROBLEM))
    first, second, third = (ask_in(study) for _ in range(3))
    study.tell(second, state=TrialState.FAIL)  # died: no reason given
    study.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs={SLOT: 1}))
    again = ask_in(study)
    later = ask_in(study)
    frozen = study.get_trials(deepcopy=False)
    assert [slot_of(study, frozen[t.number]) for t in (first, third, again, later)] == [0, 2, 1, 3]
    assert again.params == second.params
    for trial in (later, again, third, first):
        study.tell(trial, score(trial.params))
    told = [trial.number for trial in history(study)]
    assert told == [first.number, again.number, third.number, later.number]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in SAMPLERS]
)
def test_many_may_ask_at_once(name: str) -> None:
    """Trials still running count: whoever asks next is not told to do the same."""
    problem = Problem(objectives=OBJECTIVES, tasks=("left", "right"), space=SPACE)
    study = new_study(make_sampler(name, 0, problem))
    for _ in range(11):
        step(study)
    asked = [ask_in(study) for _ in range(4)]
    points = np.array([[trial.params[name] for name in SPACE] for trial in asked])
    apart = np.abs(points[:, None] - points).max(axis=2)
    assert (apart[np.triu_indices(4, 1)] > 1e-3).all()
    for trial in reversed(asked):
        study.tell(trial, score(trial.params))


def test_minimised_objectives_are_searched_the_same() -> None:
    """Negated values and directions give the same proposals."""
    problem = Problem(objectives=OBJECTIVES, tasks=("left", "right"), space=SPACE)
    up = new_study(QLogNEHVISampler(0, problem, n_initial=6))
    down = optuna.create_study(
        directions=["minimize", "maximize", "minimize"],
        sampler=QLogNEHVISampler(0, problem, n_initial=6),
    )
    for _ in range(8):
        params = step(up)
        trial = ask_in(down)
        assert trial.params == pytest.approx(params, abs=1e-9)
        left, right, price = score(trial.params)
        down.tell(trial, [-left, right, -price])


def test_known_noise_and_trials_given_up_early() -> None:
    """A lucky score known to be noisy moves the proposal less than an exact one."""
    problem = Problem(objectives=("a", "b"), tasks=("a", "b"), space=SPACE)

    def after(lucky: float) -> np.ndarray:
        study = new_study(QLogNEHVISampler(0, problem, n_initial=6), objectives=2)
        for i in range(6):
            trial = ask_in(study)
            values = score(trial.params)[:2]
            noise = 1e-6
            if i == 3:
                values, noise = [value + 3 for value in values], lucky
                at = np.array([trial.params[name] for name in SPACE])
            trial.set_user_attr(VARIANCES, [noise, noise])
            study.tell(trial, values)
        early = ask_in(study)
        partial = {"values": score(early.params)[:2], "variances": [0.1, 0.1], "samples": {}}
        early.set_user_attr(RACED, partial)
        study.tell(early, state=TrialState.PRUNED)
        assert len(history(study)) == 7
        proposal = ask_in(study).params
        return np.abs(np.array([proposal[name] for name in SPACE]) - at).max()

    assert after(lucky=1e-6) < after(lucky=100.0)


def test_relevant_parameters_get_shorter_lengthscales() -> None:
    from morphing.search.samplers.surrogate import fit_processes, relevance_of

    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((6, 4)))
    z = torch.from_numpy(rng.standard_normal((6, 2)))
    relevance = relevance_of(SPACE, {"x0": 4.0, "x1": 1.0, "x2": 0.0})
    assert relevance is not None
    assert relevance == pytest.approx([4.0, 1.0, 2.0, 2.0])
    prior = fit_processes(x, z, None, relevance).covar_module.lengthscale_prior
    located = prior.loc.exp()
    assert float(located[1] / located[0]) == pytest.approx(4.0)
    assert relevance_of(SPACE, None) is None and relevance_of(SPACE, {"x0": 0.0}) is None


def test_path_searches_begin_at_their_start() -> None:
    start = {"x0": 1.9, "x1": 0.1, "x2": 1.0, "x3": 1.0}
    problem = Problem(objectives=("a",), space=SPACE, start=start, budget=60)
    for name in ("random", "evolve", "nsga2", "qlognehvi"):
        study = new_study(make_sampler(name, 0, problem), objectives=1)
        points = np.array([list(ask_in(study).params.values()) for _ in range(8)])
        assert points[:, 0].mean() > 1.3 and points[:, 1].mean() < 0.7
    assert EvolveSampler(0, problem).population(48) == 4 + int(3 * np.log(48))
    assert EvolveSampler(0, Problem(start=start, budget=5000)).population(48) == 128
    assert EvolveSampler(0, Problem(start=start)).population(48) == 128
    assert EvolveSampler(0).population(24) == CMAESSampler(0).population(24) == 13


def test_weights_are_of_normalised_objectives() -> None:
    signs = np.array([1.0, -1.0])
    problem = Problem(
        objectives=("score", "tokens"),
        tasks=("score",),
        reference=(0.0, 50.0),
        ideal=(0.5, 10.0),
        weights={"score": 1.0, "tokens": 2.0},
    )
    assert problem.cost_weights(signs) == pytest.approx([2.0, 0.05])
    assert Problem(objectives=("score", "tokens"), tasks=("score",)).cost_weights(
        signs
    ) == pytest.approx([1.0, 0.0])
    with pytest.raises(ValueError, match="unknown"):
        Problem(objectives=("score",), weights={"scor": 1.0}).cost_weights(signs[:1])


def test_constraints_rank_last() -> None:
    """NSGA-II and CMA-ES keep away from what breaks a constraint, however well it scores."""
    for name in ("nsga2", "evolve"):
        problem = Problem(objectives=("a",), space=SPACE)
        study = new_study(make_sampler(name, 0, problem), objectives=1)
        for _ in range(60):
            trial = ask_in(study)
            trial.set_constraint("small", trial.params["x0"] - 1.0)
            study.tell(trial, sum(trial.params.values()))
        kept = [trial.params["x0"] <= 1.0 for trial in study.trials]
        assert np.mean(kept[-20:]) > 0.6


def test_every_sampler_of_the_table_is_a_class_of_the_module_with_its_name() -> None:
    for name, sampler in SAMPLERS.items():
        made = make_sampler(name, 0)
        assert (sampler.name, type(made).__name__) == (name, sampler.class_name)
        assert type(made).__module__ == f"morphing.search.samplers.{name}"
        assert sampler.title and sampler.sentence.endswith(".")


def test_a_kernel_of_another_form_than_the_acquisitions_is_refused() -> None:
    import torch
    from botorch.models import SingleTaskGP
    from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel

    from morphing.search.samplers.ehvi import hyperparameters
    from morphing.search.samplers.surrogate import fit_processes

    x = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    y = (x - 0.3).square()
    assert hyperparameters(fit_processes(x, y))[0].shape == (1, 1, 1)
    for kernel in (RBFKernel(), MaternKernel(nu=1.5), ScaleKernel(MaternKernel(nu=2.5))):
        with pytest.raises(TypeError, match="Matern 5/2"):
            hyperparameters(SingleTaskGP(x, y, covar_module=kernel, outcome_transform=None))
