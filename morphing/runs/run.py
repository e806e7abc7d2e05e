"""A run's folder: its spec, its trials, where it stands, and requests to it."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from morphing.errors import MorphingError
from morphing.runs.attributes import told_trial
from morphing.runs.files import write_atomically
from morphing.runs.leases import is_held, live_workers
from morphing.runs.outputs import Row, read_outputs
from morphing.runs.records import Record, outputs_beside, read_record
from morphing.runs.spec import RunSpec, load_spec, parse_spec, with_evaluations
from morphing.runs.status import Status, read_status
from morphing.runs.storage import JOURNAL, open_study, place_of, plain_failures
from morphing.runs.trial import Result, Trial

if TYPE_CHECKING:
    import optuna

Request = Literal["run", "pause", "stop"]
Part = Literal["search", "holdout"]

REQUEST = "request"
"""User attribute of a study in a database: what was last asked of all workers, and when."""


class Run:
    """A search on disk. Any number of readers and of workers, and one ``morphing search``.

    ``docs/architecture.md`` lists the files.
    """

    def __init__(self, folder: Path, storage: str | None = None) -> None:
        """Open the run in ``folder``.

        Args:
            folder: the run's.
            storage: the URL of a run's storage again, where its password is not known otherwise.

        Raises:
            MorphingError: there is no run in ``folder``, or its spec is damaged.
        """
        self.folder = folder.resolve()
        self._storage = storage
        self._told: dict[int, Trial] = {}
        if not (self.folder / "spec.yaml").is_file():
            raise MorphingError(
                f"There is no run in {folder}: give a folder made by `morphing search`."
            )

    @classmethod
    def create(cls, folder: Path, spec: RunSpec) -> Run:
        """Make a run folder from a pinned spec.

        Raises:
            MorphingError: the folder holds something already, or cannot be written.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            mend = (
                "add --resume to go on with it"
                if (folder / "spec.yaml").is_file()
                else "choose another folder"
            )
            raise MorphingError(f"{folder} is not empty: {mend}.")
        try:
            write_atomically(folder / "spec.yaml", spec.to_yaml().encode())
        except OSError as error:
            raise MorphingError(
                f"The run folder {folder} cannot be written ({error.strerror}): choose another."
            ) from error
        return cls(folder)

    @property
    def name(self) -> str:
        """The folder's name, which is how the app's address names a run."""
        return self.folder.name

    @cached_property
    def spec(self) -> RunSpec:
        """The pinned spec."""
        return load_spec(self.folder / "spec.yaml")

    def set_budget(
        self,
        evaluations: int | None = None,
        hours: float | None = None,
        stalled: int | None = None,
    ) -> None:
        """Change when the search ends; what is None stays."""
        spec = with_evaluations(self.spec, evaluations) if evaluations else self.spec
        changes = {"hours": hours, "stalled": stalled}
        given = {name: value for name, value in changes.items() if value is not None}
        spec = spec.model_copy(update={"search": spec.search.model_copy(update=given)})
        spec = parse_spec(spec.model_dump(), "The command line")
        write_atomically(self.folder / "spec.yaml", spec.to_yaml().encode())
        self.__dict__.pop("spec", None)

    # --- the study -------------------------------------------------------------------------

    @cached_property
    def study(self) -> optuna.Study:
        """The Optuna study, made if missing. Its storage is read again at every use.

        Raises:
            MorphingError: the storage cannot be opened.
        """
        return open_study(self.folder, self.spec.directions, self.spec.objectives, self._storage)

    def trials(self) -> list[Trial]:
        """The trials that were told, one a slot, in the order of slots.

        Raises:
            MorphingError: the study cannot be read, or a trial in it is damaged.
        """
        if place_of(self.folder) is None and not (self.folder / JOURNAL).exists():
            return []
        told = _history(self.study)
        for trial in told:  # what was told does not change any more
            if trial.number not in self._told:
                self._told[trial.number] = told_trial(trial, self.folder, self.spec)
        return [self._told[trial.number] for trial in told]

    def trial(self, number: int) -> Trial:
        """One completed trial.

        Raises:
            MorphingError: there is no such completed trial.
        """
        for trial in self.trials():
            if trial.number == number and trial.state == "complete":
                return trial
        raise MorphingError(
            f"The run {self.name} has no completed trial {number}: `morphing front` lists them."
        )

    def complete(self) -> list[Trial]:
        """The completed trials, in order."""
        return [trial for trial in self.trials() if trial.state == "complete"]

    # --- scores outside the search -----------------------------------------------------------

    def references(self, part: Part) -> dict[str, Record]:
        """The records of the base and the sources that were scored, by model name.

        Raises:
            MorphingError: a record is damaged, or lacks a benchmark.
        """
        uses = self.spec.tasks if part == "search" else self.spec.benchmarks
        names = [use.declaration.name for use in uses]
        models = (self.spec.base, *self.spec.sources)
        paths = ((model, self.reference_path(part, model)) for model in models)
        return {model: read_record(path, names) for model, path in paths if path.exists()}

    def reference_scores(self, part: Part) -> dict[str, Mapping[str, Result]]:
        """The results of the base and the sources that were scored, by model name."""
        return {model: record.results for model, record in self.references(part).items()}

    def reference_values(self) -> dict[str, dict[str, float]]:
        """Natural values on the search split of base and sources, by model and by name, for the
        run's scales; a model that an earlier version scored, without its measures, is left out.
        """
        found = self.references("search").items()
        return {model: record.values for model, record in found if record.measures}

    def reference_path(self, part: Part, model: str) -> Path:
        """Where the base's or a source's record lies."""
        place = (self.spec.base, *self.spec.sources).index(model)
        return self.folder / "references" / part / f"{place:02d}.json"

    def holdout(self, number: int) -> Mapping[str, Result] | None:
        """A trial's results on the holdout, or None where it was not scored there yet."""
        path = self.holdout_path(number)
        return self.holdout_record(number).results if path.exists() else None

    def holdout_record(self, number: int) -> Record:
        """A trial's results and measures on the holdout.

        Raises:
            MorphingError: there are none, or the record is damaged.
        """
        names = [use.declaration.name for use in self.spec.benchmarks]
        return read_record(self.holdout_path(number), names)

    def holdout_path(self, number: int) -> Path:
        """Where a trial's record on the holdout lies."""
        return self.folder / "holdout" / f"{number:05d}.json"

    def holdout_outputs(self, number: int) -> dict[str, list[Row]]:
        """A trial's per-sample outputs on the holdout by benchmark; none of earlier versions."""
        return _outputs(outputs_beside(self.holdout_path(number)))

    def reference_outputs(self, part: Part, model: str) -> dict[str, list[Row]]:
        """The base's or a source's per-sample outputs by benchmark; none of earlier versions."""
        return _outputs(outputs_beside(self.reference_path(part, model)))

    def outputs_path(self, number: int) -> Path:
        """Where a trial's per-sample outputs lie."""
        return self.folder / "outputs" / f"{number:05d}.jsonl.gz"

    def outputs(self, number: int) -> dict[str, list[Row]]:
        """A trial's per-sample outputs by benchmark.

        Raises:
            MorphingError: they are not in this copy of the run, or damaged.
        """
        return read_outputs(self.outputs_path(number))

    # --- one writer, and what is asked of it ---------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run's lock, which its one search has; workers that join do without.

        Raises:
            MorphingError: another search works on this run.
        """
        lock = FileLock(self.folder / "run.lock")
        try:
            lock.acquire(timeout=2)
        except Timeout as error:
            raise MorphingError(
                f"The run {self.name} is being worked on by another process:"
                f" `morphing worker {self.folder}` joins it, `morphing stop` ends it."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def status(self) -> Status:
        """Where the run stands: ``stopped`` if all who worked on it have died."""
        status = self._saved_status()
        if workers := live_workers(self.folder):
            return status.with_workers(tuple(workers))
        if status.active and not is_held(self.folder / "run.lock"):
            return replace(status, state="stopped", message="interrupted")
        return status

    def _saved_status(self) -> Status:
        """What was last saved. A damaged file must hide no run: it says so, and is saved anew."""
        path = self.folder / "status.json"
        if not path.exists():
            return Status(total=self.spec.search.evaluations)
        try:
            return read_status(path)
        except MorphingError as error:
            total = self.spec.search.evaluations
            return Status(state="stopped", message=str(error), done=len(self.trials()), total=total)

    def save_status(self, **changes: Any) -> None:
        """Change fields of what the status says of the run as a whole."""
        path = self.folder / "status.json"
        known = {field.name for field in fields(Status)} - {"workers"}
        unknown = set(changes) - known
        if unknown:
            raise TypeError(f"no status field {unknown}")
        with FileLock(self.folder / "status.lock"):  # workers change different fields at once
            before = asdict(self._saved_status())
            del before["workers"]
            _write_json(path, {**before, **changes, "updated": time.time()}, durable=False)

    def request(self, request: Request) -> None:
        """Ask all workers to go on, to pause or to stop; they look between batches of samples.

        Where the study is in a database, workers with another copy of the folder hear of it too.
        """
        self.note_request(request)
        if place_of(self.folder) is not None:
            with plain_failures():
                self.study.set_user_attr(REQUEST, [request, time.time()])

    def note_request(self, request: Request) -> None:
        """Ask the workers that share this folder."""
        write_atomically(self.folder / "control", request.encode())

    def requested(self) -> Request:
        """What was last asked."""
        path = self.folder / "control"
        asked = path.read_bytes() if path.is_file() else b"run"
        return "pause" if asked == b"pause" else "stop" if asked == b"stop" else "run"


def list_runs(root: Path) -> list[Run]:
    """The runs in ``root``, the newest first."""
    specs = root.glob("*/spec.yaml") if root.is_dir() else ()
    return [Run(path.parent) for path in sorted(specs, key=_modified, reverse=True)]


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _history(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    from morphing.search.samplers.history import history

    return history(study)


def _outputs(path: Path) -> dict[str, list[Row]]:
    return read_outputs(path) if path.exists() else {}


def _write_json(path: Path, data: Any, durable: bool = True) -> None:
    # A message may quote half of a character, which no file takes.
    write_atomically(path, json.dumps(data, ensure_ascii=False).encode(errors="replace"), durable)


def runs_root() -> Path:
    """Where runs are kept: ``MORPHING_RUNS``, else ``runs`` in the working folder."""
    return Path(os.environ.get("MORPHING_RUNS", "runs"))


def default_folder(name: str) -> Path:
    """A new folder's path for a run called ``name``: its name, the time, and some digits by which
    two runs that start in the same second differ.
    """
    return runs_root() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
