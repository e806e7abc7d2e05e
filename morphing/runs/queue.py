"""Which trial a worker evaluates next, so that every slot is told exactly once in the end.

A slot is a place in the sequence of recipes a search tries (`search.samplers.history`). Trials are
made waiting, with their worker's id, and become running when a worker takes them. A trial whose
worker died is failed; its slot has no trial then, and whoever finds it so makes another. If several
do at once, the trial with the lowest number has the slot, and the others are failed.

Nothing here depends on who is taken for dead, or when. It rests on three things that the storage
does: only one worker makes a waiting trial run; a trial that has ended never changes its state; and
whoever sees a trial sees all those with lower numbers, since numbers are given one at a time. A
worker takes a trial only where it saw all others before it in the slot failed, which they stay. So
while a trial runs, no other trial of its slot runs or was told, nor will be until this one has
failed; and then its worker can tell nothing of it any more.

That a trial was told is therefore said by its state alone: what else is written of it (attributes)
may be written by a database after the trial was failed. A recipe that could not be scored is
PRUNED, as is one given up early; FAIL says that the worker died.

All of it is worked out anew from the study at every step, so a kill between any two is mended by
the next worker that looks. No step lasts: proposals are made after a trial was taken.
"""

from __future__ import annotations

import logging
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
                holders = _holders(trials, slot)
                following = 1 + max(slot.values(), default=-1)
                chosen = next(
                    (s for s in range(end) if s not in holders or _is_waiting(holders[s])), None
                )
                if chosen is None:
                    return None
                if chosen not in holders:
                    past = [t for t in trials if slot[t.number] == chosen]
                    self._make(chosen if chosen < following else None, past)
                elif self._take(holders[chosen]):
                    trial = holders[chosen]
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

    def fail(self, claim: Claim, why: str) -> bool:
        """Tell the study that the recipe could not be scored; as :meth:`finish`."""
        from optuna.trial import TrialState

        from morphing.search.samplers.history import FAILURE

        return self.finish(claim, TrialState.PRUNED, attributes={FAILURE: why})

    def give_back(self, claim: Claim) -> None:
        """Let another trial take the place of one that was begun and will not be finished."""
        from optuna.trial import TrialState

        self.finish(claim, TrialState.FAIL)

    def _mended(self) -> list[FrozenTrial]:
        """All trials, after those whose worker died and those too many in a slot were failed."""
        from optuna.trial import TrialState

        from morphing.search.samplers.history import slots

        trials = self._study.get_trials(deepcopy=False)
        lost = self._liveness.dead([t for t in trials if t.state == TrialState.RUNNING])
        dead = {trial.number for trial in lost}
        alive = [trial for trial in trials if _is_live(trial) and trial.number not in dead]
        holders = {trial.number for trial in _holders(alive, slots(trials)).values()}
        lost += [t for t in alive if t.number not in holders and not t.state.is_finished()]
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

        from morphing.search.samplers.history import DRAWN, RECIPE, SLOT

        attributes: dict[str, Any] = {WORKER: self._worker}
        system: dict[str, Any] = {}
        if slot is not None:
            attributes[SLOT] = slot
        # What a dead trial proposed is evaluated again, as soon as it is whole: with its recipe.
        whole = [trial for trial in past if RECIPE in trial.user_attrs]
        if whole:
            last = whole[-1]
            known = last.user_attrs
            kept = (RECIPE, MASK_SEED, SEED, DRAWN)
            attributes |= {key: known[key] for key in kept if key in known}
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


def _holders(trials: Sequence[FrozenTrial], slot: Mapping[int, int]) -> dict[int, FrozenTrial]:
    """By slot, the trial that has it: the one that was told, else the first that may still be.

    Args:
        trials: those to choose from.
        slot: of each, by number.
    """
    from morphing.search.samplers.history import is_told

    found: dict[int, FrozenTrial] = {}
    for trial in sorted(filter(_is_live, trials), key=lambda t: (not is_told(t), t.number)):
        found.setdefault(slot[trial.number], trial)
    return found


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
