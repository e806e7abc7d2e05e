"""Mend a run's journal that has broken lines inside: keep what is before and after them.

Notes name a trial by how many were made before it, so a line cannot always just be left out: the
note that made a trial is replaced by one of a trial whose worker died. A trial of which another
note is lost does not count any more. The slots of both are evaluated again when the run goes on.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages.journal._storage import JournalStorageReplayResult

from morphing.errors import MorphingError
from morphing.runs.attributes import check_attributes, told_trial
from morphing.runs.files import write_atomically
from morphing.runs.leases import live_workers
from morphing.runs.run import Run
from morphing.runs.spec import RunSpec
from morphing.runs.storage import JOURNAL, JOURNAL_STUDY, open_study

_CREATE_STUDY, _CREATE_TRIAL, _TELL = 0, 4, 6
"""Optuna's numbers for the notes that make a study, make a trial and change a trial's state."""
_OPERATIONS = range(11)
_FAIL = 3
_WORKER = "mended"
_BROKEN = (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What Optuna or JSON raise for a line that is no note."""
_OPERATION = re.compile(rb'"op_code"\s*:\s*(\d+)')
_TRIAL = re.compile(rb'"trial_id"\s*:\s*(\d+)')


@dataclass(frozen=True)
class Mended:
    """What was done: the numbers of the broken lines, and where the journal is kept as it was."""

    lines: tuple[int, ...]
    kept: Path


class _Notes:
    """A journal's notes in order, None where a line is left out."""

    def __init__(self, study: dict[str, Any]) -> None:
        self.lost: set[int] = set()
        """Trials of which a note is lost."""
        self._study = study
        self._notes: list[dict[str, Any] | None] = []
        self._replay = JournalStorageReplayResult(_WORKER)
        self._made, self._named = 0, -1
        """Trials made so far, and the highest that a note named."""
        self._doubtful: list[int] = []
        """Places of broken lines that may have made a trial."""

    def add(self, line: bytes) -> bool:
        """Add a line; False if it is broken."""
        try:
            note = json.loads(line)
            check_attributes(note)
            self._replay.apply_logs([note])
        except _BROKEN:
            self._add_broken(line)
            return False
        self._named = max(self._named, note.get("trial_id", -1))
        # A trial that was not made yet must have been made by a line that is broken.
        while self._doubtful and self._named >= self._made:
            self._make_dead_trial(self._doubtful.pop())
        self._made += note["op_code"] == _CREATE_TRIAL
        self._notes.append(note)
        return True

    def _add_broken(self, line: bytes) -> None:
        operation, trial = _OPERATION.search(line), _TRIAL.search(line)
        known = None if operation is None else int(operation[1])
        if not self._notes:
            self._notes.append(self._study)
            self._replay.apply_logs([self._study])
            return
        if known == _CREATE_TRIAL or known not in _OPERATIONS:
            self._doubtful.append(len(self._notes))
        if trial is not None:
            self.lost.add(int(trial[1]))
        self._notes.append(None)

    def _make_dead_trial(self, place: int) -> None:
        self._notes[place] = _dead_trial()
        self._made += 1

    def lines(self) -> bytes:
        """The journal, in which trials of which a note is lost are failed where they were told."""
        kept = [self._without_loss(note) for note in self._notes if note is not None]
        return b"".join(json.dumps(note, separators=(",", ":")).encode() + b"\n" for note in kept)

    def _without_loss(self, note: dict[str, Any]) -> dict[str, Any]:
        told = note.get("op_code") == _TELL and "datetime_complete" in note
        if told and note.get("trial_id") in self.lost:
            return {**note, "state": _FAIL, "values": None}
        return note


def mend(run: Run) -> Mended | None:
    """Mend a run's journal, and keep it as it was beside it; None where no line is broken.

    Raises:
        MorphingError: somebody works on the run, its study is in a database, or the journal cannot
            be read even so.
    """
    path = run.folder / JOURNAL
    if not path.is_file():
        raise MorphingError(f"The run {run.name} has no {JOURNAL} in its folder: nothing to mend.")
    with run.writing():
        if live_workers(run.folder):
            raise MorphingError(f"Workers are at the run {run.name}: `morphing stop` it first.")
        data = path.read_bytes()
        lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
        broken, notes = _read(lines, _study_note(run.spec))
        if not broken:
            return None
        kept = path.with_name(f"{JOURNAL}.broken-{time.strftime('%Y%m%d-%H%M%S')}")
        write_atomically(kept, data)
        try:
            write_atomically(path, notes.lines())
            while (useless := _useless(run)) is not None:
                notes.lost.add(useless)
                write_atomically(path, notes.lines())
        except BaseException:
            write_atomically(path, data)
            raise
    return Mended(tuple(broken), kept)


def _read(lines: Sequence[bytes], study: dict[str, Any]) -> tuple[list[int], _Notes]:
    notes = _Notes(study)
    return [number for number, line in enumerate(lines, 1) if not notes.add(line)], notes


def _useless(run: Run) -> int | None:
    """The id of a trial that was told and lacks what it must have; None where all are whole.

    Raises:
        MorphingError: the study cannot be read at all.
    """
    from morphing.search.samplers.history import history

    study = open_study(run.folder, run.spec.directions, run.spec.objectives)
    for trial in history(study):
        try:
            told_trial(trial, run.folder, run.spec)
        except MorphingError:
            return int(trial._trial_id)
    return None


def _study_note(spec: RunSpec) -> dict[str, Any]:
    """The first note of a run's journal."""
    return {
        "op_code": _CREATE_STUDY,
        "worker_id": _WORKER,
        "study_name": JOURNAL_STUDY,
        "directions": [2 if way == "maximize" else 1 for way in spec.directions],
    }


def _dead_trial() -> dict[str, Any]:
    """The note of a trial whose worker died before it did anything."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    return {
        "op_code": _CREATE_TRIAL,
        "worker_id": _WORKER,
        "study_id": 0,
        "state": _FAIL,
        "value": None,
        "values": None,
        "datetime_start": moment,
        "datetime_complete": moment,
        "distributions": {},
        "params": {},
        "user_attrs": {},
        "system_attrs": {},
        "intermediate_values": {},
    }
