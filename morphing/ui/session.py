"""Which run a visitor sees, whose token they act with, and the one workbench of this process."""

import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import gradio as gr

from morphing.benchmarks.benchmark import catalogue
from morphing.benchmarks.data.files import DATA_SUFFIXES, data_stem, data_suffix
from morphing.errors import MorphingError
from morphing.runs.figures import Figures, figures_of
from morphing.runs.leases import read_workers
from morphing.runs.progress import Progress
from morphing.runs.records import Record
from morphing.runs.run import Run, default_folder, list_runs, runs_root
from morphing.runs.selection import Selection
from morphing.runs.selection import selection as select
from morphing.runs.stage_model import stage_folder
from morphing.runs.workbench import Workbench

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_PUBLIC_MODEL = re.compile(r"zoo:[\w-]+|[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", re.ASCII)
_PUBLIC_DATASET = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?<!\.yaml)(?<!\.yml)", re.ASCII)
_TASK = re.compile(r"lm_eval:[\w.-]+(?<!\.yaml)(?<!\.yml)(#[\w,.-]+)?", re.ASCII)
_SHOWN_RUNS = 30
_TOGETHER_SECONDS = 15.0
Held = tuple[str, ...]
"""Names of the files of what has been scored on the holdout."""


def on_space() -> bool:
    """Whether the app serves strangers: a Space, where visitors have logins of their own."""
    return bool(os.environ.get("SPACE_ID"))


def find_run(name: str | None) -> Run | None:
    """The run called ``name``: a folder in the root and nothing outside it."""
    if not name or not _NAME.fullmatch(name):
        return None
    folder = runs_root().resolve() / name
    if folder.is_symlink() or not (folder / "spec.yaml").is_file():
        return None
    return _open_run(folder, (folder / "spec.yaml").stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _open_run(folder: Path, _written: int) -> Run:
    return Run(folder)


def first_run(asked: str | None) -> str:
    """The run to show on arrival: the one in the address, else the active or newest one.

    On a Space a visitor without a run in the address sees none: runs are others' business.
    """
    if run := find_run(asked):
        return run.name
    runs = [] if on_space() else list_runs(runs_root())
    active = [run for run in runs[:_SHOWN_RUNS] if _is_active(run)]
    return next((run.name for run in (*active, *runs)), "")


def _is_active(run: Run) -> bool:
    """Whether anybody works on a run; a damaged one says what is wrong when it is looked at."""
    try:
        return run.status().active
    except MorphingError:
        return False


def recent_runs(own: list[str], current: str) -> list[str]:
    """Names for the run picker, the newest first."""
    names = own[::-1] if on_space() else [run.name for run in list_runs(runs_root())]
    if current and current not in names:
        names.insert(0, current)
    return names[:_SHOWN_RUNS]


def new_folder(name: str) -> Path:
    """A folder for a new run; on a Space its name cannot be guessed, for the name is the key."""
    folder = default_folder(name)
    return folder.with_name(f"{folder.name}-{secrets.token_hex(8)}") if on_space() else folder


def token_of(login: gr.OAuthToken | None) -> str | None:
    """The visitor's own token on a Space; elsewhere None, for which the libraries take the login
    stored on the machine."""
    return login.token if login and on_space() else None


def check_model(name: str) -> str:
    """The name, unless a stranger names a folder of this machine.

    Raises:
        MorphingError: on a Space, for anything but a zoo model or a Hub id.
    """
    if on_space() and (not _PUBLIC_MODEL.fullmatch(name) or Path(name).exists()):
        raise MorphingError(f"{name!r} is no model on the Hub: write its id as org/name.")
    return name


def check_dataset(name: str) -> str:
    """The name, unless a stranger names a file of this machine.

    Raises:
        MorphingError: on a Space, for anything but a dataset on the Hub, a task of lm-eval, a
            benchmark of the catalogue or an uploaded file.
    """
    if not on_space() or name in catalogue() or _TASK.fullmatch(name):
        return name
    if _is_upload(Path(name)):
        return name
    if not _PUBLIC_DATASET.fullmatch(name) or Path(name).exists():
        raise MorphingError(f"{name!r} is no dataset on the Hub: write its id as org/name.")
    return name


def _is_upload(path: Path) -> bool:
    """Whether a path is that of an uploaded file, as `keep_upload` made it, and of no folder."""
    return path.parent.parent == uploads_root() and path.is_file() and path.resolve() == path


def uploads_root() -> Path:
    """Where uploaded data files are kept, for as long as runs may need them."""
    return runs_root().resolve() / ".datasets"


def keep_upload(file: Path) -> Path:
    """A copy of an uploaded file that stays; the same content is kept once.

    Raises:
        MorphingError: it is no data file.
    """
    suffix = data_suffix(file)
    if suffix is None:
        raise MorphingError(f"{file.name} is none of {', '.join(DATA_SUFFIXES)}: convert it first.")
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    stem = re.sub(r"[^\w-]+", "-", data_stem(file), flags=re.ASCII).strip("-")[:60] or "data"
    kept = uploads_root() / digest[:32] / f"{stem}{suffix}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f".{kept.name}.{secrets.token_hex(4)}")
        shutil.copyfile(file, partial)
        partial.replace(kept)
    return kept


def user_name(login: gr.OAuthToken | None) -> str | None:
    """Who is logged in: the visitor on a Space, the machine's user elsewhere; None: nobody."""
    from huggingface_hub import get_token, whoami

    token = token_of(login) if on_space() else get_token()
    if not token:
        return None
    try:
        return str(whoami(token, cache=True)["name"])
    except Exception:
        # Offline or a token that was withdrawn: what needs a login says so itself.
        return None


@lru_cache(maxsize=8)
def _figures(run: Run, done: int, trace: int) -> Figures:
    return figures_of(run)


def figures(run: Run, done: int) -> Figures:
    """The run's figures, computed anew only when trials were told."""
    journal = run.folder / "journal.log"
    return _figures(run, done, journal.stat().st_size if journal.exists() else 0)


def seconds_per_trial(base: str, tasks: set[str], samples: int) -> float | None:
    """What a trial took in the newest run with the same base, objectives and samples, if any."""
    for name in recent_runs([], "")[:5]:
        run = find_run(name)
        if run is None or run.spec.base.partition("@")[0] != base:
            continue
        same = {use.declaration.name for use in run.spec.tasks} == tasks
        if (
            same
            and run.spec.tasks[0].samples == samples
            and (trials := figures(run, run.status().done).trials)
        ):
            return sum(trial.seconds for trial in trials) / len(trials)
    return None


@lru_cache(maxsize=8)
def _references(run: Run, scored: tuple[str, ...]) -> dict[str, Record]:
    return run.references("search")


def references(run: Run) -> dict[str, Record]:
    """What is known of base and sources on the search split, read anew only when it is more."""
    return _references(run, _records(run.folder / "references" / "search"))


def held(run: Run) -> Held:
    """What of a run has been scored on the holdout."""
    folders = run.folder / "holdout", run.folder / "references" / "holdout"
    return tuple(f"{folder.parent.name}/{name}" for folder in folders for name in _records(folder))


def _records(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.glob("*.json")))


@lru_cache(maxsize=8)
def _selection(run: Run, front: tuple[int, ...], held: Held) -> Selection | None:
    return select(run)


def selection(run: Run, figures: Figures, held: Held) -> Selection | None:
    """The front on the holdout, worked out anew only when more of it was scored."""
    return _selection(run, figures.front, held) if held else None


def last_workers(run: Run) -> int:
    """How many workers were at the run when it ended: as many go on with it."""
    ends = [worker.spans[-1][1] for worker in read_workers(run.folder)]
    return max(sum(max(ends) - end < _TOGETHER_SECONDS for end in ends), 1) if ends else 1


class Bench:
    """The models of one run in memory, for one task at a time: two would fight over the weights."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workbench: Workbench | None = None

    @contextmanager
    def use(self, run: Run, token: str | None, progress: Progress) -> Iterator[Workbench]:
        """The workbench of ``run``, loaded if it was another's; waits for its turn."""
        while not self._lock.acquire(timeout=0.5):
            progress("waiting: the models are busy with another request", 0, 1)
        try:
            if self._workbench is None or self._workbench.run is not run:
                self._workbench = None
                self._workbench = Workbench(run, token, progress)
            bench, self._workbench = self._workbench, None  # lost if it is left half loaded
            if stage_folder(run).exists():
                bench.add_stage_model(progress)
            bench.check_models()
            self._workbench = bench
            yield bench
        finally:
            self._lock.release()


BENCH = Bench()
