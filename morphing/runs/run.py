"""A run's folder: its spec, its trials, where it stands, and requests to it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.journal import cut_torn_line, open_journal
from morphing.runs.spec import RunSpec, load_spec
from morphing.runs.trial import Result, Trial, read_outputs, write_atomically
from morphing.search import pareto

if TYPE_CHECKING:
    import optuna

State = Literal["new", "preparing", "running", "paused", "stopped", "finished", "failed"]
Request = Literal["run", "pause", "stop"]
Part = Literal["search", "holdout"]

_RESULTS = TypeAdapter(dict[str, Result])
_STUDY = "search"


@dataclass(frozen=True)
class Status:
    """Where a run stands. Times are seconds since the epoch, durations seconds."""

    state: State = "new"
    message: str = ""
    done: int = 0
    total: int = 0
    step: str = ""
    """What is being done at this moment, for example the benchmark being scored."""
    step_done: int = 0
    step_total: int = 0
    seconds_left: float | None = None
    updated: float = 0.0

    @property
    def active(self) -> bool:
        """Whether a process works on the run."""
        return self.state in ("preparing", "running", "paused")


class Run:
    """A search on disk. Any number of readers, one writer at a time (see :meth:`writing`).

    ``docs/architecture.md`` lists the files.
    """

    def __init__(self, folder: Path) -> None:
        """Open the run in ``folder``.

        Raises:
            MorphingError: there is no run in ``folder``, or its spec is damaged.
        """
        self.folder = folder.resolve()
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

    def set_evaluations(self, evaluations: int) -> None:
        """Change how many evaluations are asked for in all."""
        search = self.spec.search.model_copy(update={"evaluations": evaluations})
        spec = self.spec.model_copy(update={"search": search})
        write_atomically(self.folder / "spec.yaml", spec.to_yaml().encode())
        self.__dict__.pop("spec", None)

    # --- the study -------------------------------------------------------------------------

    @cached_property
    def study(self) -> optuna.Study:
        """The Optuna study, made if missing. Its journal is read again at every use."""
        import optuna

        # It would announce every study it opens, between the lines of our own output.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=open_journal(self.folder / "journal.log"),
            study_name=_STUDY,
            directions=["maximize"] * len(self.spec.objectives),
            load_if_exists=True,
        )
        if not study.metric_names:
            study.set_metric_names(list(self.spec.objectives))
        return study

    def trials(self) -> list[Trial]:
        """The trials that were told, in order; those cut short by a kill or a stop are not."""
        if not (self.folder / "journal.log").exists():
            return []
        return [_trial(t) for t in self.study.get_trials(deepcopy=False) if _told(t)]

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

    # --- figures ---------------------------------------------------------------------------

    def figures(self) -> Figures:
        """Front, knee and hypervolume of the trials so far."""
        trials = self.complete()
        if not trials:
            return Figures((), (), None, ())
        values = np.array([trial.values for trial in trials])
        on_front = pareto.front(values)
        members = [trial for trial, chosen in zip(trials, on_front, strict=True) if chosen]
        at_knee = pareto.knee(values[on_front])
        history = pareto.hypervolume_history(values, pareto.reference_point(values))
        return Figures(
            tuple(trials),
            tuple(trial.number for trial in members),
            None if at_knee is None else members[at_knee].number,
            tuple(history),
        )

    # --- scores outside the search -----------------------------------------------------------

    def reference_scores(self, part: Part) -> dict[str, dict[str, Result]]:
        """Results of the base and the sources by model name, as far as they were scored."""
        folder = self.folder / "references" / part
        return {
            data["model"]: _RESULTS.validate_python(data["results"])
            for data in map(_read_json, sorted(folder.glob("*.json")))
        }

    def save_reference(self, part: Part, model: str, results: Mapping[str, Result]) -> None:
        """Record the base's or a source's results."""
        models = (self.spec.base, *self.spec.sources)
        path = self.folder / "references" / part / f"{models.index(model):02d}.json"
        _write_json(path, {"model": model, "results": _plain(results)})

    def holdout(self, number: int) -> dict[str, Result] | None:
        """A trial's results on the holdout, or None where it was not scored there yet."""
        path = self.folder / "holdout" / f"{number:05d}.json"
        return _RESULTS.validate_python(_read_json(path)) if path.exists() else None

    def save_holdout(self, number: int, results: Mapping[str, Result]) -> None:
        """Record a trial's results on the holdout."""
        _write_json(self.folder / "holdout" / f"{number:05d}.json", _plain(results))

    def outputs_path(self, number: int) -> Path:
        """Where a trial's per-sample outputs lie."""
        return self.folder / "outputs" / f"{number:05d}.jsonl.gz"

    def outputs(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """A trial's per-sample outputs by benchmark."""
        return read_outputs(self.outputs_path(number))

    # --- one writer, and what is asked of it ---------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run as its one writer; mends what a killed one left behind.

        Raises:
            MorphingError: another process works on this run.
        """
        lock = FileLock(self.folder / "run.lock")
        try:
            lock.acquire(timeout=2)
        except Timeout as error:
            raise MorphingError(
                f"The run {self.name} is being worked on by another process:"
                " stop that one first, or watch it in the app."
            ) from error
        try:
            cut_torn_line(self.folder / "journal.log")
            yield
        finally:
            lock.release()

    def _held(self) -> bool:
        lock = FileLock(self.folder / "run.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def status(self) -> Status:
        """Where the run stands; a process that vanished shows as ``stopped``."""
        path = self.folder / "status.json"
        if not path.exists():
            return Status(total=self.spec.search.evaluations)
        status = Status(**_read_json(path))
        if status.active and not self._held():
            status = Status(**{**asdict(status), "state": "stopped", "message": "interrupted"})
        return status

    def save_status(self, **changes: Any) -> None:
        """Change fields of the status (the writer's)."""
        path = self.folder / "status.json"
        known = {field.name for field in fields(Status)}
        before = _read_json(path) if path.exists() else {}
        unknown = set(changes) - known
        if unknown:
            raise TypeError(f"no status field {unknown}")
        _write_json(path, {**before, **changes, "updated": time.time()}, durable=False)

    def request(self, request: Request) -> None:
        """Ask the writer to go on, to pause or to stop; it looks between batches of samples."""
        write_atomically(self.folder / "control", request.encode())

    def requested(self) -> Request:
        """What was last asked."""
        path = self.folder / "control"
        asked = path.read_text() if path.exists() else "run"
        return "pause" if asked == "pause" else "stop" if asked == "stop" else "run"


@dataclass(frozen=True)
class Figures:
    """A run's figures: trials in order, numbers of the front, of its knee, hypervolume by trial."""

    trials: tuple[Trial, ...]
    front: tuple[int, ...]
    knee: int | None
    hypervolume: tuple[float, ...]


def list_runs(root: Path) -> list[Run]:
    """The runs in ``root``, the newest first."""
    specs = root.glob("*/spec.yaml") if root.is_dir() else ()
    return [Run(path.parent) for path in sorted(specs, key=_modified, reverse=True)]


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _told(trial: optuna.trial.FrozenTrial) -> bool:
    return trial.state.is_finished() and (trial.values is not None or "error" in trial.user_attrs)


def _trial(trial: optuna.trial.FrozenTrial) -> Trial:
    attrs = trial.user_attrs
    return Trial(
        number=trial.number,
        params=trial.params,
        recipe=Recipe(attrs["recipe"], attrs["mask_seed"]),
        values=tuple(trial.values or ()),
        results=_RESULTS.validate_python(attrs.get("results", {})),
        seconds=attrs.get("seconds", 0.0),
        error=attrs.get("error"),
    )


def _plain(results: Mapping[str, Result]) -> dict[str, Any]:
    return {name: asdict(result) for name, result in results.items()}


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, data: Any, durable: bool = True) -> None:
    write_atomically(path, json.dumps(data, ensure_ascii=False).encode(), durable)


def runs_root() -> Path:
    """Where runs are kept: ``MORPHING_RUNS``, else ``runs`` in the working folder."""
    return Path(os.environ.get("MORPHING_RUNS", "runs"))


def default_folder(name: str) -> Path:
    """A new folder's path for a run called ``name``: its name and the time."""
    return runs_root() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
