"""Which run a visitor sees, what they may name, and whose token they act with."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path

import gradio as gr

from morphing.benchmarks.benchmark import catalogue
from morphing.errors import MorphingError
from morphing.hub_names import is_published
from morphing.runs.budget import seconds_per_trial
from morphing.runs.figures import Figures, figures_of
from morphing.runs.leases import read_workers
from morphing.runs.records import Record
from morphing.runs.run import Run, default_folder, list_runs, runs_root
from morphing.runs.selection import Selection
from morphing.runs.selection import selection as select
from morphing.ui.cache import Cache
from morphing.ui.quotas import is_active, uploads_root
from morphing.visitors import is_public, on_space

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_ZOO_MODEL = re.compile(r"zoo:[\w-]+", re.ASCII)
_TASK = re.compile(r"lm_eval:[\w.-]+(?<!\.yaml)(?<!\.yml)(#[\w,.-]+)?", re.ASCII)
_SHOWN_RUNS = 30
_LONGEST_NAME = 96
"""Characters that the Hub takes."""
_TOGETHER_SECONDS = 15.0
_PACED_RUNS = 5
_KEPT_RUNS = 64
"""As many runs as are looked at at once are not read again each second."""
Held = tuple[str, ...]
"""Names of the files of what has been scored on the holdout."""


_RUNS: Cache[Run] = Cache(_KEPT_RUNS)
_FIGURES: Cache[Figures] = Cache(_KEPT_RUNS)
_REFERENCES: Cache[dict[str, Record]] = Cache(_KEPT_RUNS)
_SELECTIONS: Cache[Selection | None] = Cache(_KEPT_RUNS)


def find_run(name: str | None) -> Run | None:
    """The run called ``name``: a folder in the root and nothing outside it."""
    if not name or not _NAME.fullmatch(name):
        return None
    folder = runs_root().resolve() / name
    if folder.is_symlink() or not (folder / "spec.yaml").is_file():
        return None
    return _RUNS.get(folder, (folder / "spec.yaml").stat().st_mtime_ns, lambda: Run(folder))


def first_run(asked: str | None) -> str:
    """The run to show on arrival: the one in the address, else the active or newest one.

    Where others reach the app, a visitor without a run in the address sees none: runs are others'
    business.
    """
    if run := find_run(asked):
        return run.name
    runs = [] if is_public() else list_runs(runs_root())
    active = [run for run in runs[:_SHOWN_RUNS] if is_active(run)]
    return next((run.name for run in (*active, *runs)), "")


def recent_runs(own: list[str], current: str) -> list[str]:
    """Names for the run picker, the newest first."""
    names = own[::-1] if is_public() else [run.name for run in list_runs(runs_root())]
    if current and current not in names:
        names.insert(0, current)
    return names[:_SHOWN_RUNS]


def new_folder(name: str) -> Path:
    """A folder for a new run; where others reach the app its name cannot be guessed, for the name
    is the key to the run."""
    folder = default_folder(name)
    return folder.with_name(f"{folder.name}-{secrets.token_hex(8)}") if is_public() else folder


def public_name(run: Run, number: int) -> str:
    """What a trial is called on the Hub unless its owner says otherwise; at most 96 characters.

    A run's folder is its key where others reach the app, so that there the name is made of the
    spec's and of a digest, from which the key cannot be found.
    """
    digest = hashlib.sha256(run.name.encode()).hexdigest()[:6]
    named = f"{run.spec.name}-{digest}" if is_public() else run.name
    plain = re.sub(r"[^A-Za-z0-9._]+|[.-]{2,}", "-", named).strip("-._") or "merge"
    return f"{plain[: _LONGEST_NAME - len(f'-{number}')].rstrip('-._')}-{number}"


def token_of(login: gr.OAuthToken | None) -> str | None:
    """The visitor's own token on a Space; elsewhere None, for which the libraries take the login
    stored on the machine, or none where others reach the app.

    Gradio has logins of visitors on a Space alone; elsewhere it shows the machine's as theirs.
    """
    return login.token if login and on_space() else None


def check_model(name: str) -> str:
    """The name, unless a stranger names a folder of this machine.

    Raises:
        MorphingError: where others reach the app, for anything but a zoo model or a Hub id.
    """
    named = is_published(name) or _ZOO_MODEL.fullmatch(name) is not None
    if is_public() and (not named or Path(name).exists()):
        raise MorphingError(f"{name!r} is no model on the Hub: write its id as org/name.")
    return name


def check_dataset(name: str) -> str:
    """The name, unless a stranger names a file of this machine.

    Raises:
        MorphingError: where others reach the app, for anything but a dataset on the Hub, a task of
            lm-eval, a benchmark of the catalogue or an uploaded file.
    """
    if not is_public() or name in catalogue() or _TASK.fullmatch(name):
        return name
    if _is_upload(Path(name)):
        return name
    named = is_published(name) and "@" not in name and not name.endswith((".yaml", ".yml"))
    if not named or Path(name).exists():
        raise MorphingError(f"{name!r} is no dataset on the Hub: write its id as org/name.")
    return name


def _is_upload(path: Path) -> bool:
    """Whether a path is that of an uploaded file, as `keep_upload` made it, and of no folder."""
    return path.parent.parent == uploads_root() and path.is_file() and path.resolve() == path


def user_name(login: gr.OAuthToken | None) -> str | None:
    """Who is logged in: the visitor where others reach the app, the machine's user elsewhere."""
    from huggingface_hub import get_token, whoami

    token = token_of(login) if is_public() else get_token()
    if not token:
        return None
    try:
        return str(whoami(token, cache=True)["name"])
    except Exception:
        # Offline or a token that was withdrawn: what needs a login says so itself.
        return None


def figures(run: Run, done: int) -> Figures:
    """The run's figures, computed anew only when trials were told."""
    journal = run.folder / "journal.log"
    trace = journal.stat().st_size if journal.exists() else 0
    return _FIGURES.get(run.folder, (run, done, trace), lambda: figures_of(run))


def pace(base: str, tasks: set[str], samples: int) -> float | None:
    """What a trial took in the newest run with the same base, objectives and samples, if any."""
    runs = filter(None, map(find_run, recent_runs([], "")[:_PACED_RUNS]))
    known = ((run.spec, figures(run, run.status().done).trials) for run in runs)
    return seconds_per_trial(known, base, tasks, samples)


def references(run: Run) -> dict[str, Record]:
    """What is known of base and sources on the search split, read anew only when it is more."""
    folder = run.folder / "references" / "search"
    written = tuple((name, (folder / name).stat().st_mtime_ns) for name in _records(folder))
    return _REFERENCES.get(run.folder, (run, written), lambda: run.references("search"))


def held(run: Run) -> Held:
    """What of a run has been scored on the holdout."""
    folders = run.folder / "holdout", run.folder / "references" / "holdout"
    return tuple(f"{folder.parent.name}/{name}" for folder in folders for name in _records(folder))


def _records(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.glob("*.json")))


def selection(run: Run, figures: Figures, held: Held) -> Selection | None:
    """The front on the holdout, worked out anew only when more of it was scored."""
    if not held:
        return None
    return _SELECTIONS.get(run.folder, (run, figures.front, held), lambda: select(run))


def last_workers(run: Run) -> int:
    """How many workers were at the run when it ended: as many go on with it."""
    ends = [worker.spans[-1][1] for worker in read_workers(run.folder)]
    return max(sum(max(ends) - end < _TOGETHER_SECONDS for end in ends), 1) if ends else 1
