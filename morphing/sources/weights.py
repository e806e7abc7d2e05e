"""A checkpoint's tensors, read one at a time."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from morphing.errors import MorphingError
from morphing.sources import content, local, metadata
from morphing.sources.content import ModelChanged
from morphing.sources.source import STORED_DTYPES, Source, TensorInfo

_PART = 1 << 20


class Weights:
    """A checkpoint's own tensors by name; tied heads and rotary tables beside them are left out.

    Opening reads headers only. Reading maps one tensor's bytes and nothing else, so what is held
    in memory is what the caller keeps.

    Raises:
        MorphingError: a file is missing or broken, or the index and the files disagree.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        config = local.read_json(source.folder / metadata.CONFIG)
        self._places = {
            name: place
            for name, place in local.read_checkpoint(source.folder, config).items()
            if not metadata.is_derived(name, config)
        }
        self._versions = {path: _version(path) for path, _, _ in self._places.values()}
        self._finite: set[str] = set()

    @property
    def info(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of every tensor."""
        return {name: info for name, (_, info, _) in self._places.items()}

    @property
    def bytes(self) -> int:
        """Size of all tensors as stored."""
        return sum(info.bytes for _, info, _ in self._places.values())

    def dtype(self, name: str) -> torch.dtype:
        """A tensor's stored dtype.

        Raises:
            MorphingError: it is not one that can be merged.
        """
        path, info, _ = self._places[name]
        if info.dtype not in STORED_DTYPES:
            raise MorphingError(
                f"{name} in {path} is stored as {info.dtype}, which cannot be merged: choose the"
                " model it was quantised from."
            )
        return torch_dtype(info)

    def read(self, name: str) -> torch.Tensor:
        """A tensor in its stored dtype, on the CPU; a private view of the file, not a copy.

        Raises:
            ModelChanged: the file's content was changed since it was opened.
            MorphingError: its dtype is not one that can be merged, or the tensor holds NaN or
                infinity.
        """
        path, info, start = self._places[name]
        dtype = self.dtype(name)
        count = math.prod(info.shape)
        if count == 0:
            return torch.empty(info.shape, dtype=dtype)
        try:
            if _version(path) != self._versions[path]:
                self._check_content(path)
            # Copy on write: torch wants memory that it may write to, the file stays as it is.
            mapped = np.memmap(path, np.uint8, "c", start, (count * dtype.itemsize,))
        except (OSError, ValueError) as error:
            raise MorphingError(
                f"{path} is not a whole safetensors file: download the model again."
            ) from error
        tensor = torch.from_numpy(mapped).view(dtype).view(info.shape)
        if name not in self._finite:
            check_finite(name, tensor, path)
            self._finite.add(name)
        return tensor

    def _check_content(self, path: Path) -> None:
        """Refuse a file that is another than when it was opened, unless it holds the same."""
        if self.source.digest is None:
            raise ModelChanged(
                f"{path} was changed while its model was in use: begin again with a model that"
                " stays as it is."
            )
        content.check(self.source)
        self._versions = {path: _version(path) for path in self._versions}


def _version(path: Path) -> tuple[int, int, int]:
    """Changes with the file's content."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def torch_dtype(info: TensorInfo) -> torch.dtype:
    """The torch dtype of a header entry."""
    dtype: torch.dtype = getattr(torch, STORED_DTYPES[info.dtype].name)
    return dtype


def tensor_info(shape: Sequence[int], dtype: torch.dtype) -> TensorInfo:
    """What a file's header says of a tensor of this shape and dtype."""
    name = str(dtype).removeprefix("torch.")
    code = next(code for code, stored in STORED_DTYPES.items() if stored.name == name)
    return TensorInfo(tuple(shape), code)


def check_finite(name: str, tensor: torch.Tensor, file: Path) -> None:
    """Refuse NaN and infinity.

    Raises:
        MorphingError: naming the tensor and its file.
    """
    if not tensor.is_floating_point():
        return
    # A finite sum, one fast pass, proves every entry finite; the converse needs a look at each.
    # By parts: torch sums half precision in a float32 copy.
    parts = tensor.reshape(-1).split(_PART)
    if any(
        not math.isfinite(part.sum(dtype=torch.float32)) and not torch.isfinite(part).all()
        for part in parts
    ):
        raise MorphingError(
            f"{name} in {file} holds NaN or infinity: choose another revision of this model."
        )
