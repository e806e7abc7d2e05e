"""What the files of a model hold, as one digest.

A commit on the Hub never changes; a folder on this machine does whenever somebody trains into it
again. The digest is that of the list that ``sha256sum`` prints of the files a model is read from,
ordered by name: ``sha256sum FILES | sha256sum``. Hashes of large files are kept in the user's cache
folder for as long as a file's place, size and times are the same, so that a second look is free.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path

from morphing.errors import MorphingError
from morphing.sources import local
from morphing.sources.source import Source

Progress = Callable[[int, int], None]
"""Called with the bytes read and all that there are to read."""

SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
"""Beside its weights, the files in which a model's configuration and tokenizer are."""
_TEMPLATES = "additional_chat_templates"
# What trainers and exports leave beside a model, and nobody reads with it.
_REMARKS = (
    "trainer_state.json",
    "training_args.json",
    "*_results.json",
    "*_report.json",
    "morphing.json",
    "requirements*.txt",
    "license*",
    "notice*",
    "use_policy*",
)
_KEPT_FROM = 1 << 20
"""Bytes from which on a file's hash is kept in the cache."""
_SETTLED_SECONDS = 2.0
"""A file may be written twice within one tick of the file system's clock: the hash of one that was
changed so lately is not kept."""
_BLOCK = 1 << 22

Version = tuple[int, int, int, int, int]


class ModelChanged(MorphingError):
    """A model's files hold something else than when they were first looked at, or are gone."""


def digest(folder: Path, progress: Progress | None = None) -> str:
    """``sha256:`` and 64 hexadecimal digits, of all that a model or adapter is read from.

    The weights, the configuration, the generation configuration, the tokenizer and its chat
    templates count; the card, logs of training and whatever lies in other folders do not.

    Args:
        folder: the model's.
        progress: called with the bytes read and all that there are to read, now and then; what it
            raises ends the reading.

    Raises:
        MorphingError: a file cannot be read, or changes while it is read.
    """
    try:
        names = content_files(folder)
    except OSError as error:
        raise _unreadable(error) from error
    hashes = _hashes([folder / name for name in names], progress)
    listing = "".join(f"{found}  {name}\n" for name, found in zip(names, hashes, strict=True))
    return f"sha256:{sha256(listing.encode()).hexdigest()}"


def with_digest(source: Source, progress: Progress | None = None) -> Source:
    """The source with the digest of its files, where no commit says already what they are.

    Raises:
        MorphingError: as `digest` does.
    """
    if source.on_hub or source.digest is not None:
        return source
    return replace(source, digest=digest(source.folder, progress))


def check(source: Source, progress: Progress | None = None) -> None:
    """Refuse a source whose files are no longer what its digest says; without one it passes.

    Files that were touched, copied or moved to their place again and hold the same pass.
    ``progress`` is told as by `digest`.

    Raises:
        ModelChanged: they hold something else, or are gone.
    """
    if source.digest is None:
        return
    try:
        found = digest(source.folder, progress)
    except ModelChanged:
        raise
    except MorphingError as error:
        raise ModelChanged(
            f"The files of {source.name} can no longer be read from {source.folder}: put them back"
            " to go on, or begin again with a model that stays where it is."
        ) from error
    if found != source.digest:
        raise ModelChanged(
            f"The files of {source.name} hold something else than when it was first read: put the"
            " old ones back to go on, or begin again with the new."
        )


def content_files(folder: Path) -> tuple[str, ...]:
    """The names of the files that say what a model or adapter is, in order; they may be links."""
    small = (
        path.name
        for path in folder.iterdir()
        if any(fnmatch(path.name, pattern) for pattern in SMALL_FILES)
        and not any(fnmatch(path.name.lower(), pattern) for pattern in _REMARKS)
        and path.is_file()
    )
    templates = (f"{_TEMPLATES}/{path.name}" for path in (folder / _TEMPLATES).glob("*.jinja"))
    return tuple(sorted({*local.weight_files(folder), *small, *templates}))


def _hashes(paths: Sequence[Path], progress: Progress | None) -> list[str]:
    """The SHA-256 of each file, in hexadecimal digits."""
    try:
        versions = [_version(path) for path in paths]
    except OSError as error:
        raise _unreadable(error) from error
    known = [_kept(path, version) for path, version in zip(paths, versions, strict=True)]
    unknown = [i for i, found in enumerate(known) if found is None]
    counter = _Counter(sum(versions[i][2] for i in unknown))
    large = [i for i in unknown if versions[i][2] >= _KEPT_FROM]
    found = {i: _hash(paths[i], versions[i], counter) for i in unknown if i not in large}
    if large:
        hashes = _side_by_side(large, paths, versions, counter, progress)
        found |= dict(zip(large, hashes, strict=True))
    return [found[i] if old is None else old for i, old in enumerate(known)]


def _side_by_side(
    which: Sequence[int],
    paths: Sequence[Path],
    versions: Sequence[Version],
    counter: _Counter,
    progress: Progress | None,
) -> list[str]:
    """The hashes of some of the files, worked out on several processors."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(_hash, paths[i], versions[i], counter) for i in which]
        try:
            waiting = set(futures)
            while waiting:
                _, waiting = wait(waiting, timeout=0.2)
                if progress is not None:
                    progress(counter.done, counter.total)
            return [future.result() for future in futures]
        except BaseException:  # of the progress too: a search that was asked to stop
            counter.stopped = True
            raise


class _Counter:
    """Bytes read by several threads together, and whether they shall end."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.stopped = False
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count


def _hash(path: Path, version: Version, counter: _Counter) -> str:
    found = sha256()
    buffer = bytearray(min(_BLOCK, max(version[2], 1)))
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            while (count := file.readinto(buffer)) and not counter.stopped:
                found.update(view[:count])
                counter.add(count)
        after = _version(path)
    except OSError as error:
        raise _unreadable(error) from error
    if after != version:
        raise ModelChanged(
            f"{path} was changed while it was read: wait until it is whole, and begin again."
        )
    if not counter.stopped:
        _keep(path, version, found.hexdigest())
    return found.hexdigest()


def _unreadable(error: OSError) -> MorphingError:
    return MorphingError(
        f"{error.filename} cannot be read ({error.strerror}): check the model's folder."
    )


def _version(path: Path) -> Version:
    """Changes with the file's content, and when it is touched."""
    status = path.stat()
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,  # which no program sets as it likes
    )


def _place(path: Path) -> Path:
    """Where a file's hash is kept."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "morphing" / "hashes" / f"{sha256(str(path.resolve()).encode()).hexdigest()}"


def _kept(path: Path, version: Version) -> str | None:
    if version[2] < _KEPT_FROM:
        return None
    try:
        known = json.loads(_place(path).read_text(encoding="ascii"))
        return str(known["sha256"]) if known["version"] == list(version) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, version: Version, found: str) -> None:
    age = time.time_ns() - max(version[3], version[4])
    if version[2] < _KEPT_FROM or age < _SETTLED_SECONDS * 1e9:
        return
    place = _place(path)
    with suppress(OSError):  # a home that cannot be written: files are read again each time
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=place.parent, prefix=".", delete=False, encoding="ascii"
        ) as file:
            json.dump({"version": version, "sha256": found}, file)
        Path(file.name).replace(place)
