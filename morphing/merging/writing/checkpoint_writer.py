"""A checkpoint on disk: written as its tensors come, whole or absent, resumable.

Beside the folder ``NAME`` that is asked for, everything happens in a hidden ``.NAME.partial``::

    lock          held by the process that writes; the kernel frees it when that process dies
    fingerprint   of what is being written
    model/        becomes ``NAME`` by one rename, once every file in it is on the disk

A shard of the weights gets its final name when it is on the disk, so after a crash the finished
ones are known and are kept, where the fingerprint is the same.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from morphing.errors import MorphingError, is_disk_full
from morphing.sources.source import STORED_DTYPES, TensorInfo
from morphing.sources.weights import tensor_info

SHARD_BYTES = 2 * 2**30
"""Weights go into files of at most this size, unless one tensor is more."""

_OTHER_BYTES = 64 * 2**20  # tokenizer and configuration, generously
_CHUNK = 16 * 2**20


def partial_folder(folder: Path) -> Path:
    """Where an export to ``folder`` keeps what it has finished until all is."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.partial")


def write_checkpoint(
    folder: Path,
    infos: Mapping[str, TensorInfo],
    merge: Callable[[Sequence[str]], Iterator[tuple[str, torch.Tensor]]],
    companions: Callable[[Path], None],
    fingerprint: str,
    progress: Callable[[int, int], None] | None = None,
    shard_bytes: int = SHARD_BYTES,
    stem: str = "model",
) -> None:
    """Write a checkpoint to ``folder``, whole or not at all.

    Each tensor goes straight to its place in its file, so memory holds one at a time, and a tensor
    is not looked at again once the next is asked for. What fails or is killed goes on after its
    last finished file when the same is written to the same folder again.

    Args:
        folder: absent or empty; its parents are made.
        infos: shape and dtype of every tensor, in the order they are written.
        merge: yields the tensors it is given the names of, in that order, on any device; the names
            are all, but for those of finished files.
        companions: writes every other file into the folder it is given.
        fingerprint: the same where, and only where, the tensors and companions would be the same.
        progress: called with the bytes of tensors written, by earlier tries too, and of all.
        shard_bytes: size of a weight file, unless one tensor is more.
        stem: of the names of the weight files: ``model.safetensors`` or, where there are several,
            ``model-00001-of-00003.safetensors`` with ``model.safetensors.index.json``.

    Raises:
        MorphingError: the folder holds something or is being written by another process, or the
            disk is full or cannot be written; finished files are kept then, and the sentence says
            where. What ``merge`` raises passes, with the same said of a MorphingError.
    """
    folder = Path(folder).resolve()
    check_target(folder)
    shards = _shards(infos, shard_bytes, stem)
    partial = partial_folder(folder)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _locked(folder, partial):
            try:
                check_target(folder)  # another process may just have finished it
                _open_partial(partial, _digest(fingerprint, shards), shards)
                _check_space(partial, shards)
                _write_weights(partial / "model", shards, merge, progress or (lambda *_: None))
                if len(shards) > 1:
                    write_json(partial / "model" / f"{stem}.safetensors.index.json", _index(shards))
                companions(partial / "model")
                _publish(partial / "model", folder)
                shutil.rmtree(partial, ignore_errors=True)
            except BaseException as error:
                if not _sweep(partial / "model", shards):
                    shutil.rmtree(partial, ignore_errors=True)
                if isinstance(error, MorphingError) and partial.exists():
                    text = str(error).removesuffix(".")
                    raise MorphingError(f"{text}; {_kept(folder, partial)}.") from error
                raise
    except OSError as error:
        raise _disk_error(error, folder, partial, shards) from error


def write_json(path: Path, value: Any) -> None:
    """A JSON file as people read it."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Shard:
    file: str
    starts: Mapping[str, int]
    """Place in the file of each tensor's first byte, in the order tensors are written."""
    header: bytes
    tensors: Mapping[str, TensorInfo]

    @property
    def tensor_bytes(self) -> int:
        return sum(info.bytes for info in self.tensors.values())

    @property
    def file_bytes(self) -> int:
        return len(self.header) + self.tensor_bytes


def _shards(infos: Mapping[str, TensorInfo], shard_bytes: int, stem: str) -> list[_Shard]:
    """Tensors by file, in order, each file at most ``shard_bytes`` unless one tensor is more."""
    groups: list[dict[str, TensorInfo]] = [{}]
    filled = 0
    for name, info in infos.items():
        if groups[-1] and filled + info.bytes > shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = info
        filled += info.bytes
    count = len(groups)
    files = [f"{stem}-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    if count == 1:
        files = [f"{stem}.safetensors"]
    return [_shard(file, group) for file, group in zip(files, groups, strict=True)]


def _shard(file: str, tensors: Mapping[str, TensorInfo]) -> _Shard:
    """The file's header: safetensors' format, which needs no more than shapes and dtypes.

    Eight bytes, little-endian, give the length of a JSON object that gives every tensor's dtype,
    shape and place in the bytes after it.
    """
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    places: dict[str, int] = {}
    end = 0
    # Wider dtypes first, so that every tensor is aligned and can be mapped as it is.
    for name in sorted(tensors, key=lambda name: -STORED_DTYPES[tensors[name].dtype].bytes):
        info = tensors[name]
        places[name], end = end, end + info.bytes
        offsets = [places[name], end]
        entries[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": offsets}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    return _Shard(file, {name: len(header) + places[name] for name in tensors}, header, tensors)


def _index(shards: Sequence[_Shard]) -> dict[str, Any]:
    return {
        "metadata": {"total_size": sum(shard.tensor_bytes for shard in shards)},
        "weight_map": {name: shard.file for shard in shards for name in shard.tensors},
    }


def _write_weights(
    model: Path,
    shards: Sequence[_Shard],
    merge: Callable[[Sequence[str]], Iterator[tuple[str, torch.Tensor]]],
    progress: Callable[[int, int], None],
) -> None:
    """Write the shards that are not there yet."""
    missing = [shard for shard in shards if not _is_whole(model, shard)]
    total = sum(shard.tensor_bytes for shard in shards)
    done = total - sum(shard.tensor_bytes for shard in missing)
    progress(done, total)
    names = [name for shard in missing for name in shard.tensors]
    tensors = merge(names) if names else iter(())
    for shard in missing:
        half = model / f"{shard.file}.part"
        with half.open("wb", buffering=0) as file:
            _write(file, memoryview(shard.header))
            for expected, start in shard.starts.items():
                name, tensor = next(tensors, ("nothing", torch.empty(0)))
                info = shard.tensors[expected]
                if (name, tensor_info(tensor.shape, tensor.dtype)) != (expected, info):
                    raise ValueError(f"{name} {tensor.shape} {tensor.dtype}, not {expected} {info}")
                file.seek(start)
                _write(file, _raw(tensor))
                del tensor  # before the next one is made
                done += info.bytes
                progress(done, total)
            os.fsync(file.fileno())
        half.replace(model / shard.file)
        _sync_folder(model)


def _raw(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor, row by row; no copy where it lies so in the CPU's memory."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def _write(file: Any, data: memoryview) -> None:
    while data:
        start = file.tell()
        count = file.write(data[:_CHUNK])
        data = data[count:]
        if hasattr(os, "posix_fadvise"):
            # The system starts to write these bytes now, beside the merging, not all at the fsync.
            os.posix_fadvise(file.fileno(), start, count, os.POSIX_FADV_DONTNEED)


def _is_whole(model: Path, shard: _Shard) -> bool:
    try:
        with (model / shard.file).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return size == shard.file_bytes and file.read(len(shard.header)) == shard.header
    except OSError:
        return False


def check_target(folder: Path) -> None:
    """Refuse a folder that cannot become a checkpoint.

    Raises:
        MorphingError: it holds something, is where a disk is mounted, or cannot be looked at.
    """
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise MorphingError(
            f"The model cannot be written to {folder} ({error.strerror}): choose another folder."
        ) from error
    if taken:
        raise MorphingError(f"{folder} already holds something: export to a new or empty folder.")
    if os.path.ismount(folder):
        raise MorphingError(
            f"{folder} is a disk of its own, which no folder can be renamed to: export to a new"
            " folder on it."
        )


@contextmanager
def _locked(folder: Path, partial: Path) -> Iterator[None]:
    lock = FileLock(partial / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MorphingError(
            f"Another export is writing {folder}: wait until it has finished or choose another"
            " folder."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _digest(fingerprint: str, shards: Sequence[_Shard]) -> str:
    digest = hashlib.sha256(fingerprint.encode())
    for shard in shards:
        digest.update(shard.file.encode() + shard.header)
    return digest.hexdigest()


def _open_partial(partial: Path, digest: str, shards: Sequence[_Shard]) -> None:
    """Make ready to go on where this very export stopped, or to start anew."""
    model, mark = partial / "model", partial / "fingerprint"
    if not mark.is_file() or mark.read_bytes() != digest.encode():
        if model.exists():
            shutil.rmtree(model)
        mark.write_text(digest)
        _sync_file(mark)
    model.mkdir(exist_ok=True)
    _sweep(model, shards)


def _sweep(model: Path, shards: Sequence[_Shard]) -> bool:
    """Remove all but finished shards; whether there are any."""
    whole = {shard.file for shard in shards if _is_whole(model, shard)}
    for path in model.iterdir() if model.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in whole:
            path.unlink()
    return bool(whole)


def _publish(model: Path, folder: Path) -> None:
    """Give a complete folder its name."""
    for root, _, files in os.walk(model):
        for file in files:
            _sync_file(Path(root, file))
        _sync_folder(Path(root))
    if folder.exists():
        shutil.copymode(folder, model)  # who may read it was decided when it was made
    os.replace(model, folder)
    _sync_folder(folder.parent)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    with suppress(OSError):  # not every system can
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _needed(partial: Path, shards: Sequence[_Shard]) -> int:
    missing = (shard for shard in shards if not _is_whole(partial / "model", shard))
    return sum(shard.file_bytes for shard in missing) + _OTHER_BYTES


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _check_space(partial: Path, shards: Sequence[_Shard]) -> None:
    if _free(partial) < _needed(partial, shards):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _disk_error(
    error: OSError, folder: Path, partial: Path, shards: Sequence[_Shard]
) -> MorphingError:
    left = _kept(folder, partial) if partial.exists() else "nothing was left there"
    if is_disk_full(error):
        needed, free = _size(_needed(partial, shards)), _size(_free(partial))
        return MorphingError(
            f"The disk is full: exporting to {folder} needs about {needed} and {free} are free (or"
            f" allowed); {left}: free some space or choose another disk."
        )
    return MorphingError(
        f"The model cannot be written to {folder} ({error}); {left}: choose a folder you may write"
        " to."
    )


def _kept(folder: Path, partial: Path) -> str:
    return f"the same export to {folder} will go on from the finished files kept in {partial}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
