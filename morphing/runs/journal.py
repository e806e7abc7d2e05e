"""The run's Optuna storage in its folder: an append-only file that survives killed writers.

The file is as Optuna's own journal backend writes it, which can read it too. Ours is there for what
that one cannot do: a lock that dies with its holder, torn lines, and several notes at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState
from pydantic import ValidationError

from morphing.errors import MorphingError
from morphing.runs.attributes import check_attributes
from morphing.runs.files import reason


class Journal(BaseJournalBackend):
    """Notes, one a line, that any number of processes read and append to.

    - The operating system frees the lock of a writer that dies. (Optuna's locks are files that
      outlive a killed process, so the next writer waits for a grace period.)
    - A line that a killed writer left unfinished is left alone by readers, and cut by the next
      writer, whose first line would be joined to it.
    - It waits for the disk where a trial ends and not at every note of it: a trial is a dozen of
      them, which cost a tenth of an evaluation of a small model. Killed processes lose nothing by
      it; a machine that loses power may lose notes of trials in flight, which are tried again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_suffix(".lock"))
        self._read = (0, 0)
        """How many notes were read, and where the next one begins."""
        self._held: list[bytes] | None = None
        """What is written together: as lines, since reading them may change tuples to lists."""
        self._caught_up = False
        if not path.exists():  # looking at a run writes nothing
            path.touch()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The notes from a number on, those included that are held back."""
        number, offset = self._read if self._read[0] <= log_number_from else (0, 0)
        held = self._held
        if held is None or not self._caught_up:
            # In one piece: meanwhile others append, and cut what was torn.
            with self.path.open("rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(max(os.fstat(file.fileno()).st_size - offset, 0)) or b""
            for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
                number, offset = number + 1, offset + len(line)
                if number > log_number_from:
                    yield self._note(line, number)
            self._read = (number, offset)
            self._caught_up = held is not None
        for line in (held or [])[max(log_number_from - number, 0) :]:
            yield json.loads(line)

    def _note(self, line: bytes, number: int) -> dict[str, Any]:
        """A line of the file, checked, so that nothing else looks at what a stranger wrote.

        Raises:
            MorphingError: it is no note; names the line.
        """
        try:
            note = json.loads(line)
            if not isinstance(note, dict):
                raise ValueError("no object")
            check_attributes(note)
        except ValidationError as error:
            raise damaged(self.path, number, reason(error)) from error
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, number, "no whole JSON object") from error
        return note

    def append_logs(self, logs: Sequence[dict[str, Any]]) -> None:
        """Append notes, whole lines, one writer at a time; or hold them back."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        if self._held is not None:
            self._held.extend(lines)
        else:
            with self._lock:
                self._write(lines)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what is noted meanwhile in one go; others wait so long."""
        with self._lock:
            held: list[bytes] = []
            self._held, self._caught_up = held, False
            try:
                yield
            finally:
                self._held = None
                self._write(held)

    def _write(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        with self.path.open("rb+") as file:
            _cut_torn_line(file)
            file.write(b"".join(lines))
            if any(map(_ends_a_trial, lines)):
                file.flush()
                os.fsync(file.fileno())


def _ends_a_trial(line: bytes) -> bool:
    state = json.loads(line).get("state")
    return state is not None and TrialState(state).is_finished()


def _cut_torn_line(file: BinaryIO) -> None:
    """Drop a last line without its end, which was never told; leave the file at its end."""
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.seek(0, os.SEEK_END)


class SharedJournal(JournalStorage):
    """The storage in a journal."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        super().__init__(self._journal)

    def _sync_with_backend(self) -> None:
        read = self._replay_result
        try:
            super()._sync_with_backend()
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            number = read.log_number_read
            read.log_number_read -= 1  # whoever looks again meets the same line
            raise damaged(self._journal.path, number, "no note of a search") from error

    def together(self) -> AbstractContextManager[None]:
        """As :meth:`Journal.together`."""
        return self._journal.together()


def together(storage: BaseStorage) -> AbstractContextManager[None]:
    """Note several things at the price of one, where the storage is a journal. No calls within."""
    return storage.together() if isinstance(storage, SharedJournal) else nullcontext()


def damaged(path: Path, number: int, why: str) -> MorphingError:
    """A line in a journal cannot be read. What comes after it may be about what it says."""
    return MorphingError(
        f"Line {number} of {path} cannot be read ({why}): copy the run again from where it was"
        " made, or keep what is before and after that line with `morphing mend RUN`."
    )


def open_journal(path: Path) -> SharedJournal:
    """The storage in the file ``path``, made if missing; any number of processes may share it.

    Raises:
        MorphingError: ``path`` is no file, or a line in it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise MorphingError(f"{path} is no file: copy the run again from where it was made.")
    return SharedJournal(path.resolve())
