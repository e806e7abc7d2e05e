"""Which trials' workers have died: by their leases, or on a database by Optuna's heartbeats."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from morphing.runs.leases import Lease, find_worker, is_alive, is_gone

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

WORKER = "worker"
"""User attribute of a trial: the id of the worker that evaluates it."""

_log = logging.getLogger(__name__)


class Liveness(Protocol):
    """What a queue asks about trials in flight."""

    def hold(self, trial_id: int | None) -> None:
        """Show that this worker evaluates a trial from now on; None: none any more."""
        ...

    def dead(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those of the running trials whose worker died."""
        ...


class LeaseLiveness:
    """By the workers' files in the run's folder, which all workers share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, trial_id: int | None) -> None:
        """The lease says enough."""

    def dead(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Trials of no worker, an unknown one, or one that is not alive."""
        return [trial for trial in running if not self._lives(trial)]

    def _lives(self, trial: FrozenTrial) -> bool:
        worker = find_worker(self._folder, str(trial.user_attrs.get(WORKER)))
        return worker is not None and is_alive(self._folder, worker)


class Heartbeats:
    """By Optuna's heartbeats, which the lease's thread records; and sooner by the files of workers
    that share this folder, where it shows that they are gone.
    """

    def __init__(self, study: Study, lease: Lease) -> None:
        from optuna.storages._heartbeat import BaseHeartbeat

        assert isinstance(study._storage, BaseHeartbeat)
        self._storage = study._storage
        self._study_id = study._study_id
        self._folder = lease.folder
        self._held: int | None = None
        lease.renewals.append(self._renew)

    def hold(self, trial_id: int | None) -> None:
        """Its first heartbeat is recorded before this returns."""
        if trial_id is not None:
            self._storage.record_heartbeat(trial_id)
        self._held = trial_id

    def dead(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Trials whose heartbeat is older than the storage's grace period, or of lost workers."""
        if not running:
            return []
        stale = set(self._storage._get_stale_trial_ids(self._study_id))
        return [trial for trial in running if trial._trial_id in stale or self._is_lost(trial)]

    def _is_lost(self, trial: FrozenTrial) -> bool:
        worker = find_worker(self._folder, str(trial.user_attrs.get(WORKER)))
        return worker is not None and is_gone(self._folder, worker)

    def _renew(self) -> None:
        held = self._held
        if held is None:
            return
        try:
            self._storage.record_heartbeat(held)
        except Exception as error:  # the database may be back before the grace period is over
            _log.warning("The heartbeat of this worker could not be recorded: %s", error)
