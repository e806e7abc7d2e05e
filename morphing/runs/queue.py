"""Which trial a worker evaluates next, so that every slot is evaluated exactly once in the end.

A slot is a place in the sequence of recipes a search tries (`search.samplers.history`). Trials are
made waiting, with their worker's id, and become running when a worker takes them, which the storage
lets only one do. A trial whose worker died is failed, which the storage lets only one do too; its
slot has no trial then, and whoever finds it so makes another. If two do at once, the trial with the
lower number stays: numbers are in the order in which trials came to be, so that whoever made the
higher one sees the lower one and takes back its own before anybody runs it.

All of it is worked out anew from the study at every step, so a kill between any two is mended by
the next worker that looks. No step lasts: proposals are made after a trial was taken.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from morphing.runs.journal import together
from morphing.runs.liveness import WORKER, Liveness

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

FIXED = "fixed_params"
"""Optuna's system attribute of a trial whose parameters are given."""
SEED = "seed"
"""User attribute of a trial that is a seed of the search: the seed's label."""
MASK_SEED = "mask_seed"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """A trial that this worker evaluates, and only this one."""

    number: int
    trial_id: int
    slot: int
    given: bool
    """Whether its parameters or its recipe are given, as a dead worker's are."""


class Queue:
    """A study's slots, as one worker takes and finishes them.

    Args:
        study: all workers'.
        worker: this one's id.
        liveness: which trials' workers died.

    On a journal a look is one step, while other workers wait. On a database looks are as safe, but
    workers may get into each other's way and look again.
    """

    def __init__(self, study: Study, worker: str, liveness: Liveness) -> None:
        self._study = study
        self._storage = study._storage
        self._worker = worker
        self._liveness = liveness

    def told(self, end: int) -> int:
        """How many of the slots before ``end`` are told."""
        from morphing.search.samplers.history import is_told, slots

        trials = self._study.get_trials(deepcopy=False)
        slot = slots(trials)
        return len({slot[t.number] for t in trials if is_told(t)} & set(range(end)))

    def claim(self, end: int) -> Claim | None:
        """Take the first slot before ``end`` that nobody works on.

        None where there is none: all are told, or others work on them.
        """
        from morphing.search.samplers.history import slots

        with together(self._storage):
            while True:
                trials = self._mended()
                slot = slots(trials)
                live = {slot[t.number]: t for t in trials if _is_live(t)}
                following = 1 + max(slot.values(), default=-1)
                chosen = next(
                    (s for s in range(end) if s not in live or _is_waiting(live[s])), None
                )
                if chosen is None:
                    return None
                if chosen not in live:
                    past = [t for t in trials if slot[t.number] == chosen]
                    self._make(chosen if chosen < following else None, past)
                elif self._take(live[chosen]):
                    trial = live[chosen]
                    return Claim(trial.number, trial._trial_id, chosen, _is_given(trial))

    def finish(
        self,
        claim: Claim,
        state: TrialState,
        values: Sequence[float] | None = None,
        attributes: Mapping[str, Any] | None = None,
        constraints: Sequence[float] = (),
    ) -> bool:
        """Tell the study what came out.

        False if the trial is no longer this worker's: it was taken for dead, and what it found is
        dropped.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        storage, trial_id = self._storage, claim.trial_id
        found = None if values is None else [float(value) for value in values]
        try:
            with together(storage):
                for key, value in (attributes or {}).items():
                    storage.set_trial_user_attr(trial_id, key, value)
                if constraints:
                    storage.set_trial_system_attr(trial_id, "constraints", list(constraints))
                storage.set_trial_state_values(trial_id, state, found)
        except UpdateFinishedTrialError:
            _log.info("The result of trial %d comes too late and is dropped.", claim.number)
            return False
        finally:
            self._liveness.hold(None)
        return True

    def give_back(self, claim: Claim) -> None:
        """Let another trial take the place of one that was begun and will not be finished."""
        from optuna.trial import TrialState

        self.finish(claim, TrialState.FAIL)

    def _mended(self) -> list[FrozenTrial]:
        """All trials, with at most one alive in each slot and no dead one running."""
        from optuna.trial import TrialState

        from morphing.search.samplers.history import is_told, slots

        trials = self._study.get_trials(deepcopy=False)
        lost = self._liveness.dead([t for t in trials if t.state == TrialState.RUNNING])
        dead = {t.number for t in lost}
        slot = slots(trials)
        alive = defaultdict(list)
        for trial in trials:
            if _is_live(trial) and trial.number not in dead:
                alive[slot[trial.number]].append(trial)
        for same in alive.values():
            kept = min(same, key=lambda t: (not is_told(t), t.number))
            lost += [t for t in same if t is not kept and not is_told(t)]
        for trial in lost:
            self._fail(trial)
        return self._study.get_trials(deepcopy=False) if lost else trials

    def _fail(self, trial: FrozenTrial) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return  # another worker was first, or the trial was told after all
        _log.info("Trial %d is given up: its worker died, or its slot is taken.", trial.number)

    def _make(self, slot: int | None, past: Sequence[FrozenTrial]) -> None:
        """Make a waiting trial: in a slot whose trials (``past``) died, or in the next new one."""
        from optuna.trial import TrialState, create_trial

        from morphing.search.samplers.history import RECIPE, SLOT

        attributes: dict[str, Any] = {WORKER: self._worker}
        system: dict[str, Any] = {}
        if slot is not None:
            attributes[SLOT] = slot
        # What a dead trial proposed is evaluated again, as soon as it is whole: with its recipe.
        whole = [trial for trial in past if RECIPE in trial.user_attrs]
        if whole:
            last = whole[-1]
            known = last.user_attrs
            attributes |= {key: known[key] for key in (RECIPE, MASK_SEED, SEED) if key in known}
            if params := last.params or last.system_attrs.get(FIXED):
                system[FIXED] = dict(params)
        self._study.add_trial(
            create_trial(state=TrialState.WAITING, user_attrs=attributes, system_attrs=system)
        )

    def _take(self, trial: FrozenTrial) -> bool:
        """Whether this worker is the one that makes a waiting trial run."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        self._liveness.hold(trial._trial_id)
        try:
            taken = self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            if taken and trial.user_attrs.get(WORKER) != self._worker:
                self._storage.set_trial_user_attr(trial._trial_id, WORKER, self._worker)
        except UpdateFinishedTrialError:
            taken = False
        if not taken:
            self._liveness.hold(None)
        return taken


def _is_live(trial: FrozenTrial) -> bool:
    """Whether a trial is told or may still be."""
    from morphing.search.samplers.history import is_told

    return is_told(trial) or not trial.state.is_finished()


def _is_waiting(trial: FrozenTrial) -> bool:
    from optuna.trial import TrialState

    return trial.state == TrialState.WAITING


def _is_given(trial: FrozenTrial) -> bool:
    from morphing.search.samplers.history import RECIPE

    return FIXED in trial.system_attrs or RECIPE in trial.user_attrs
