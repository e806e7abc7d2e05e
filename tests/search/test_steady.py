"""A sampler's numerical failure costs a proposal, not the search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from botorch.exceptions.errors import OptimizationGradientError
from linear_operator.utils.errors import NanError, NotPSDError
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState, create_trial

from morphing.errors import MorphingError
from morphing.search.samplers import SAMPLERS, make_sampler
from morphing.search.samplers.history import DRAWN, RECIPE, SLOT, HistorySampler
from morphing.search.samplers.steady import SteadySampler

SEED = 5
FAILURES = [
    NotPSDError("not positive definite after repeatedly adding jitter"),
    NanError("cholesky: 3 of 9 elements are NaN"),
    OptimizationGradientError("1 element(s) of the gradient are NaN", current_x=np.zeros(1)),
    np.linalg.LinAlgError("Singular matrix"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] not enough memory"),
    ZeroDivisionError("division by zero"),
    AssertionError(),
]


class Failing(HistorySampler):
    """Fails in one of its methods, from the second slot on."""

    def __init__(self, where: str, error: Exception) -> None:
        super().__init__(SEED)
        self._error = error
        setattr(self, where, self._fail)

    def _fail(self, *_: object) -> Any:
        raise self._error


def study_with(sampler: optuna.samplers.BaseSampler, told: int = 0) -> optuna.Study:
    study = optuna.create_study(directions=["maximize"] * 2, sampler=sampler)
    for at in range(told):
        drawn = np.random.default_rng(at).random(2)
        study.add_trial(
            create_trial(
                values=[drawn[0], -drawn[1]],
                params={"x": drawn[0], "y": drawn[1]},
                distributions={n: optuna.distributions.FloatDistribution(0, 1) for n in "xy"},
            )
        )
    return study


def asked(study: optuna.Study) -> optuna.trial.FrozenTrial:
    trial = study.ask()
    for name in ("x", "y"):
        trial.suggest_float(name, 0, 1)
    return study.trials[-1]


def uniform(slot: int) -> dict[str, float]:
    """What random search tries in a slot."""
    return asked(study_with(HistorySampler(SEED), told=slot)).params


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "where", ["infer_relative_search_space", "sample_relative", "sample_independent"]
)
def test_the_uniform_draw_of_the_slot_takes_its_place(where: str, error: Exception) -> None:
    """The same one at every resume, and the trial says why."""
    for _ in range(2):
        trial = asked(study_with(SteadySampler(Failing(where, error), SEED), told=3))
        assert trial.params == uniform(3)
        assert trial.user_attrs[DRAWN].startswith(type(error).__name__)


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_sampler_goes_on_after_a_failure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And learns again in the next slot: only the trial for which it failed is drawn."""
    steady = SteadySampler(make_sampler(name, SEED), SEED)
    study = study_with(steady, told=12)
    with monkeypatch.context() as broken:
        broken.setattr(steady._sampler, "sample_relative", Failing("x", FAILURES[0])._fail)
        failed = asked(study)
    assert failed.params == uniform(12) and DRAWN in failed.user_attrs
    study.tell(failed.number, [0.5, -0.5])
    following = asked(study)
    assert DRAWN not in following.user_attrs
    alone = study_with(make_sampler(name, SEED), told=12)
    alone.add_trial(study.trials[12])
    assert following.params == asked(alone).params


@pytest.mark.parametrize(
    "error",
    [
        MorphingError("The disk is full."),
        OSError("stale file handle"),
        StorageInternalError("the server is gone"),
        UpdateFinishedTrialError("trial 3 has ended"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_failures_of_what_is_around_it_are_met(error: Exception) -> None:
    study = study_with(SteadySampler(Failing("sample_relative", error), SEED))
    with pytest.raises(type(error)):
        asked(study)


@pytest.mark.parametrize(
    "given",
    [
        lambda study: study.enqueue_trial({"x": 0.25, "y": 0.75}),
        lambda study: study.add_trial(
            create_trial(state=TrialState.WAITING, user_attrs={RECIPE: {"slices": []}, SLOT: 0})
        ),
    ],
    ids=["a seed in the space", "a seed outside it"],
)
def test_a_seed_is_tried_as_it_is(given: Callable[[optuna.Study], None]) -> None:
    study = study_with(SteadySampler(Failing("sample_relative", FAILURES[0]), SEED))
    given(study)
    trial = study.ask()
    assert trial.relative_params == {}
    if "fixed_params" in study.trials[0].system_attrs:
        assert trial.suggest_float("x", 0, 1) == 0.25
    assert DRAWN not in study.trials[0].user_attrs
