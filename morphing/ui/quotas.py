"""Who has how much of the machine: searches at once and uploaded files, of a visitor and of all.

Who started or uploaded what is known to this process alone: after a restart it counts for all
visitors together, and for nobody in particular.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr

from morphing.benchmarks.data.files import DATA_SUFFIXES, data_stem, data_suffix
from morphing.errors import MorphingError
from morphing.runs.run import Run, list_runs, runs_root
from morphing.ui.limits import limits
from morphing.visitors import on_space

_MEGABYTE = 10**6
_DAY = 86_400.0


def visitor_of(profile: gr.OAuthProfile | None, request: gr.Request) -> str:
    """What a visitor is counted by: the login on a Space, elsewhere the address they come from."""
    if profile is not None and on_space():
        return f"@{profile.username}"
    client = request.client
    return str(client.host) if client else ""


@dataclass
class Quotas:
    """The searches and uploads of the visitors of one process."""

    owners: dict[str, str] = field(default_factory=dict)
    """Names of runs and paths of uploads to the visitor."""
    _starting: dict[str, str] = field(default_factory=dict)
    """Searches that are being started, by a key of their own, to the visitor."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def starting(self, visitor: str) -> Iterator[Callable[[str], None]]:
        """Start a search for a visitor; what is yielded is to be told the run's name.

        Raises:
            MorphingError: as many searches run as the machine or the visitor may have.
        """
        key = secrets.token_hex(8)
        with self._lock:
            self._check_searches(visitor)
            self._starting[key] = visitor
        try:
            yield lambda name: self.owners.__setitem__(name, visitor)
        finally:
            with self._lock:
                del self._starting[key]

    def _check_searches(self, visitor: str) -> None:
        most = limits()
        if math.isinf(most.searches) and math.isinf(most.searches_each):
            return
        active = [run.name for run in list_runs(runs_root()) if is_active(run)]
        if len(active) + len(self._starting) >= most.searches:
            raise MorphingError(
                f"This machine is busy: {most.searches:.0f} searches at once are as many as it"
                " takes. Try again when one has ended; what you chose stays."
            )
        own = [name for name in active if self.owners.get(name) == visitor]
        own += [key for key, who in self._starting.items() if who == visitor]
        if len(own) >= most.searches_each:
            raise MorphingError(
                f"You have {len(own)} searches running, as many as one visitor may have here: stop"
                " one, or wait until it ends."
            )

    def keep_upload(self, file: Path, visitor: str = "") -> Path:
        """A copy of an uploaded file that stays for some days; the same content is kept once.

        Raises:
            MorphingError: it is no data file, it is too large, or too much was uploaded.
        """
        suffix = data_suffix(file)
        if suffix is None:
            raise MorphingError(
                f"{file.name} is none of {', '.join(DATA_SUFFIXES)}: convert it first."
            )
        most, size = limits(), file.stat().st_size
        if size > most.upload_mb * _MEGABYTE:
            raise MorphingError(
                f"{file.name} has {size / _MEGABYTE:.0f} MB, and an upload may have"
                f" {most.upload_mb:.0f}: upload a part of it, or put it on the Hub as a dataset."
            )
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        stem = re.sub(r"[^\w-]+", "-", data_stem(file), flags=re.ASCII).strip("-")[:60] or "data"
        kept = uploads_root() / digest[:32] / f"{stem}{suffix}"
        with self._lock:
            remove_old_uploads()
            if not kept.exists():
                self._check_uploads(size, visitor)
                self._copy(file, kept)
            kept.touch()
            self.owners.setdefault(str(kept), visitor)
        return kept

    def _check_uploads(self, size: int, visitor: str) -> None:
        most = limits()
        sizes = {path: path.stat().st_size for path in _uploads()}
        own = sum(held for path, held in sizes.items() if self.owners.get(str(path)) == visitor)
        if own + size > most.uploads_mb_each * _MEGABYTE:
            raise MorphingError(
                f"You have uploaded {own / _MEGABYTE:.0f} MB, and a visitor may have"
                f" {most.uploads_mb_each:.0f}: put your data on the Hub as a dataset instead."
            )
        if sum(sizes.values()) + size > most.uploads_mb * _MEGABYTE:
            raise MorphingError(
                "This machine has no room for more uploads now: put your data on the Hub as a"
                " dataset, or try again another day."
            )

    @staticmethod
    def _copy(file: Path, kept: Path) -> None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f".{kept.name}.{secrets.token_hex(4)}")
        try:
            shutil.copyfile(file, partial)
            partial.replace(kept)
        finally:
            partial.unlink(missing_ok=True)


def is_active(run: Run) -> bool:
    """Whether anybody works on a run; a damaged one says what is wrong when it is looked at."""
    try:
        return run.status().active
    except MorphingError:
        return False


def uploads_root() -> Path:
    """Where uploaded data files are kept, for some days: runs keep the samples they draw."""
    return runs_root().resolve() / ".datasets"


def _uploads() -> list[Path]:
    return [path for path in uploads_root().glob("*/*") if path.is_file()]


def remove_old_uploads() -> None:
    """Remove the files that were uploaded longer ago than they are kept."""
    oldest = time.time() - limits().upload_days * _DAY
    for path in _uploads():
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


QUOTAS = Quotas()
