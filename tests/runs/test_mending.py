"""A journal with broken lines inside keeps what is before and after them."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from morphing.errors import MorphingError
from morphing.runs.leases import Lease
from morphing.runs.liveness import LeaseLiveness
from morphing.runs.mending import mend
from morphing.runs.queue import MASK_SEED, Queue
from morphing.runs.run import Run
from morphing.runs.spec import zoo_spec
from morphing.search.samplers.history import RECIPE, slots

TOLD = 5
RECIPE_OF = {"merge_method": "linear"}


def work(run: Run) -> None:
    """Evaluate what is left, so that a trial's values say which slot it has."""
    with Lease(run.folder) as lease:
        queue = Queue(run.study, lease.id, LeaseLiveness(run.folder))
        while (claim := queue.claim(TOLD)) is not None:
            trial = optuna.Trial(run.study, claim.trial_id)
            trial.suggest_float("x", 0, 1)
            trial.set_user_attr(MASK_SEED, 0)
            trial.set_user_attr(RECIPE, RECIPE_OF)
            values = [float(claim.slot)] * len(run.spec.objectives)
            queue.finish(claim, TrialState.COMPLETE, values, {"seconds": 1.0})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Run.create(tmp_path_factory.mktemp("mending") / "run", zoo_spec())
    run.study.sampler = optuna.samplers.RandomSampler(seed=0)
    work(run)
    assert len(run.trials()) == TOLD
    return run.folder


def kept(run: Run) -> dict[int, tuple[float, ...]]:
    """Values by slot of what was told."""
    slot = slots(run.study.get_trials())
    return {slot[trial.number]: trial.values for trial in run.trials()}


def line_count(folder: Path) -> int:
    return len((folder / "journal.log").read_bytes().splitlines())


@pytest.mark.parametrize("way", ["cut", "garbage", "zeros", "blank", "other", "inserted"])
def test_any_broken_line_costs_one_trial_at_most(whole: Path, tmp_path: Path, way: str) -> None:
    """The others keep their slots and values; the run then goes on to its end."""
    before = kept(Run(whole))
    for number in range(line_count(whole)):
        folder = tmp_path / f"run-{number}"
        shutil.copytree(whole, folder)
        journal = folder / "journal.log"
        lines = journal.read_bytes().splitlines(keepends=True)
        line = lines[number]
        if way == "inserted":
            lines.insert(number, b'{"op_code":99}\n')
        else:
            lines[number] = {
                "cut": line[: len(line) // 2] + b"\n",
                "garbage": b"\xff" + line[40:],
                "zeros": bytes(len(line) - 1) + b"\n",
                "blank": b"\n",
                "other": b'{"op_code":99,"worker_id":"x"}\n',
            }[way]
        journal.write_bytes(b"".join(lines))
        with pytest.raises(MorphingError, match=rf"Line {number + 1} of .* `morphing mend RUN`"):
            Run(folder).trials()
        run = Run(folder)
        done = mend(run)
        assert done is not None and done.lines == (number + 1,)
        assert done.kept.read_bytes() == b"".join(lines)
        after = kept(run)
        assert after.items() <= before.items()
        assert len(after) >= TOLD - (way != "inserted")
        run.study.sampler = optuna.samplers.RandomSampler(seed=1)
        work(run)
        assert {s: v[0] for s, v in kept(run).items()} == {s: float(s) for s in range(TOLD)}
        assert mend(Run(folder)) is None


def test_a_run_at_work_is_left_alone(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    with Lease(folder), pytest.raises(MorphingError, match="morphing stop"):
        mend(Run(folder))
