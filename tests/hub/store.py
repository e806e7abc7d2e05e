"""Repositories as plain folders: what lies in a folder is the repository's `main`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

KINDS = ("models", "datasets")
SETTINGS_FILE = ".hub.json"
CONVERTED = "refs/convert/parquet"
LFS_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("safetensors", "bin", "pt", "pth", "gguf", "onnx", "h5", "npz", "npy", "msgpack"),
        *("parquet", "arrow", "gz", "zip", "tar", "png", "jpg"),
    )
)
LFS_THRESHOLD = 10 * 1024 * 1024  # bytes; larger files go through LFS whatever their name


def git_blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def uses_lfs(path: str, size: int) -> bool:
    return size > 0 and (PurePosixPath(path).suffix in LFS_SUFFIXES or size > LFS_THRESHOLD)


@dataclass(frozen=True)
class File:
    """One file of a repository; ``oid`` is its git blob id (of the LFS pointer for LFS files)."""

    path: str
    location: Path
    size: int
    oid: str
    sha256: str | None  # LFS files only

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid

    def lfs(self, key: str) -> dict[str, Any] | None:
        """The LFS entry of a listing; trees name the hash `oid`, siblings `sha256`."""
        if self.sha256 is None:
            return None
        return {key: self.sha256, "size": self.size, "pointerSize": len(self.pointer)}

    @property
    def pointer(self) -> bytes:
        return _pointer(self.sha256 or "", self.size)


def _pointer(sha256: str, size: int) -> bytes:
    spec = "version https://git-lfs.github.com/spec/v1"
    return f"{spec}\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True)
class Repo:
    """A snapshot of one repository: its files now and the commit id made from them."""

    kind: str
    id: str
    folder: Path
    writable: bool
    settings: Mapping[str, Any]
    files: Mapping[str, File]
    sha: str

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    @property
    def private(self) -> bool:
        return bool(self.settings.get("private", False))

    @property
    def gated(self) -> str | bool:
        gated = self.settings.get("gated", False)
        return "auto" if gated is True else gated

    def text(self, path: str) -> str | None:
        file = self.files.get(path)
        return None if file is None else file.location.read_text(encoding="utf-8")

    @property
    def card(self) -> dict[str, Any]:
        """The README's front matter; empty where there is none or it doesn't parse."""
        try:
            return front_matter(self.text("README.md") or "")
        except yaml.YAMLError:
            return {}

    def tree_ids(self) -> dict[str, str]:
        """Every folder of the repository with a stable id made from what is under it."""
        members: dict[str, list[str]] = {}
        for path, file in sorted(self.files.items()):
            for parent in PurePosixPath(path).parents:
                if str(parent) != ".":
                    members.setdefault(str(parent), []).append(f"{path} {file.oid}")
        return {
            folder: hashlib.sha1("\n".join(lines).encode()).hexdigest()
            for folder, lines in members.items()
        }


def front_matter(readme: str) -> dict[str, Any]:
    """The YAML between the first two `---` lines.

    Raises yaml.YAMLError where it is not YAML or not a mapping.
    """
    match = re.match(r"\s*---[ \t]*[\r\n]+(.*?)[\r\n]+---[ \t]*(\r?\n|$)", readme, re.DOTALL)
    data = yaml.safe_load(match.group(1)) if match else None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise yaml.YAMLError("the metadata block is not a mapping")
    return data


@dataclass
class Store:
    """The writable root and, beneath it, read-only folders laid out alike; the first to know wins.

    ``settings`` maps "models/org/name" to what `.hub.json` in the repository's folder may say too:
    ``private``, ``gated``, ``granted`` (user names), ``refuse_push`` (a message), ``downloads``,
    ``likes``.
    """

    root: Path
    overlays: Sequence[Path] = ()
    extra: Callable[[], Mapping[str, Path]] = (
        dict  # "models/org/name" -> folder, asked at each call
    )
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self._hashes: dict[tuple[str, int, int], tuple[str, str | None]] = {}
        self.objects = self.root / ".lfs"
        self.objects.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            (self.root / kind).mkdir(exist_ok=True)

    def folder(self, kind: str, repo_id: str) -> Path | None:
        for root in (self.root, *self.overlays):
            if (candidate := root / kind / repo_id).is_dir():
                return candidate
        return self.extra().get(f"{kind}/{repo_id}")

    def ids(self, kind: str) -> list[str]:
        found = {
            f"{folder.parent.name}/{folder.name}"
            for root in (self.root, *self.overlays)
            for folder in (root / kind).glob("*/*")
            if folder.is_dir()
        }
        found.update(key.split("/", 1)[1] for key in self.extra() if key.startswith(f"{kind}/"))
        return sorted(found)

    def get(self, kind: str, repo_id: str, revision: str = "main") -> Repo | None:
        """The repository at a revision: `main`, its commit id, that of an earlier commit, or the
        branch of converted rows and its commit id.

        None where there is no such repository; KeyError where it has no such revision.
        """
        folder = self.folder(kind, repo_id)
        if folder is None:
            return None
        with self.lock:
            repo = self._read(kind, repo_id, folder, folder)
            if revision in ("main", "refs/heads/main", repo.sha):
                return repo
            if (branch := self.converted(kind, repo_id)).is_dir():
                converted = self._read(kind, repo_id, folder, branch)
                if revision in (CONVERTED, converted.sha):
                    return converted
            snapshot = self._snapshot(kind, repo_id, revision)
            if not re.fullmatch(r"[0-9a-f]{40}", revision) or not snapshot.is_dir():
                raise KeyError(revision)
            return self._read(kind, repo_id, folder, snapshot)

    def converted(self, kind: str, repo_id: str) -> Path:
        """Where the files of a repository's branch `refs/convert/parquet` lie, if it has one."""
        return self.root / ".converted" / kind / repo_id

    def _snapshot(self, kind: str, repo_id: str, sha: str) -> Path:
        return self.root / ".commits" / kind / repo_id / sha

    def _read(self, kind: str, repo_id: str, folder: Path, content: Path) -> Repo:
        files = {file.path: file for file in self._files(content)}
        listing = "\n".join(f"{path} {file.oid}" for path, file in files.items())
        settings_file = folder / SETTINGS_FILE
        settings = json.loads(settings_file.read_text()) if settings_file.is_file() else {}
        return Repo(
            kind=kind,
            id=repo_id,
            folder=folder,
            writable=folder.is_relative_to(self.root),
            settings={**settings, **self.settings.get(f"{kind}/{repo_id}", {})},
            files=files,
            sha=hashlib.sha1(f"{kind}/{repo_id}\n{listing}".encode()).hexdigest(),
        )

    def _files(self, folder: Path) -> Iterator[File]:
        for location in sorted(folder.rglob("*")):
            path = location.relative_to(folder).as_posix()
            hidden = path == SETTINGS_FILE or "__pycache__" in path or path.startswith(".git/")
            if hidden or not location.is_file():
                continue
            stat = location.stat()
            key = (str(location), stat.st_mtime_ns, stat.st_size)
            if key not in self._hashes:
                self._hashes[key] = _hash(path, location, stat.st_size)
            oid, sha256 = self._hashes[key]
            yield File(path, location, stat.st_size, oid, sha256)

    def create(self, kind: str, repo_id: str, settings: Mapping[str, Any]) -> None:
        folder = self.root / kind / repo_id
        folder.mkdir(parents=True)
        (folder / SETTINGS_FILE).write_text(json.dumps(dict(settings)))
        attributes = "".join(
            f"*{s} filter=lfs diff=lfs merge=lfs -text\n" for s in sorted(LFS_SUFFIXES)
        )
        (folder / ".gitattributes").write_text(attributes)

    def update(self, repo: Repo, settings: Mapping[str, Any]) -> None:
        path = repo.folder / SETTINGS_FILE
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**known, **settings}))

    def delete(self, repo: Repo) -> None:
        shutil.rmtree(repo.folder)
        shutil.rmtree(self.root / ".commits" / repo.kind / repo.id, ignore_errors=True)

    def commit(self, repo: Repo, changes: Mapping[str, bytes | Path | None]) -> Repo:
        """Writes (bytes or a file to copy) or deletes (None) paths, keeping the earlier commit."""
        with self.lock:
            snapshot = self._snapshot(repo.kind, repo.id, repo.sha)
            if not snapshot.exists():
                shutil.copytree(repo.folder, snapshot)
            for path, content in changes.items():
                target = repo.folder / path
                if content is None:
                    target.unlink(missing_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(dir=self.root, prefix=".new-")
                os.close(handle)
                if isinstance(content, bytes):
                    Path(name).write_bytes(content)
                else:
                    shutil.copyfile(content, name)
                os.replace(name, target)
            return self._read(repo.kind, repo.id, repo.folder, repo.folder)


def _hash(path: str, location: Path, size: int) -> tuple[str, str | None]:
    if not uses_lfs(path, size):
        return git_blob_id(location.read_bytes()), None
    with location.open("rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    return git_blob_id(_pointer(sha256, size)), sha256


def zoo_repos() -> dict[str, Path]:
    """The zoo's models and datasets as `morphing-zoo/<name>`; empty where there is no zoo."""
    try:
        from morphing import zoo
    except ImportError:
        return {}
    repos: dict[str, Path] = {}
    for kind, names, folder in (
        ("models", getattr(zoo, "MODELS", ()), getattr(zoo, "model_folder", None)),
        ("datasets", getattr(zoo, "BENCHMARKS", ()), getattr(zoo, "dataset_folder", None)),
    ):
        for name in names if folder else ():
            repos[f"{kind}/morphing-zoo/{name}"] = Path(folder(name))
    return {key: path for key, path in repos.items() if path.is_dir()}
