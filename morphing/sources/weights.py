"""A checkpoint's tensors, read one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from morphing.errors import MorphingError
from morphing.sources import content, local, metadata, naming
from morphing.sources.content import ModelChanged
from morphing.sources.source import STORED_DTYPES, Source, TensorInfo

_PART = 1 << 20


class Made(NamedTuple):
    """A tensor that is made of stored ones when it is asked for."""

    info: TensorInfo
    make: Callable[[], torch.Tensor]


class Weights:
    """A checkpoint's own tensors, by the names in which transformers saves its architecture.

    What lies beside them is left out (`naming.own_tensors`), and so is a head that the
    configuration ties to the embeddings and that is the same as they are. A head that differs is
    the model's own, for transformers loads it so whatever the configuration says.

    Opening reads headers only, and both ends of a model that stores a tied head. Reading maps one
    tensor's bytes and nothing else, so what is held in memory is what the caller keeps.

    Raises:
        MorphingError: a file is missing or broken, or the index and the files disagree.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.config = local.read_json(source.folder / metadata.CONFIG)
        """Its ``config.json``, which says of the head what its file holds."""
        stored = local.read_checkpoint(source.folder, self.config)
        headers = {name: place.info for name, place in stored.items()}
        own = naming.own_tensors(source.name, headers, self.config)
        files = [path.name for path in source.folder.iterdir()]
        self.remarks = (*metadata.two_models(source.name, files), *own.remarks)
        self.renamed = any(name != at for name, at in own.stored.items())
        """Whether the files have other names for some of the tensors."""
        self._places = {name: stored[at] for name, at in own.stored.items()}
        self._versions = {path: _version(path) for path, _, _ in stored.values()}
        self._finite: set[str] = set()
        self._made: Mapping[str, Made] = {}
        self._gone: frozenset[str] = frozenset()
        if own.tied_head is not None:
            name, at = own.tied_head
            self._judge_head(name, stored[at])

    @cached_property
    def info(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of every tensor."""
        infos = {name: info for name, (_, info, _) in self._places.items()}
        infos |= {name: made.info for name, made in self._made.items()}
        return {name: info for name, info in infos.items() if name not in self._gone}

    @property
    def bytes(self) -> int:
        """Size of all tensors as stored."""
        return sum(info.bytes for info in self.info.values())

    def remade(
        self, made: Mapping[str, Made], gone: Collection[str], remark: str, **config: Any
    ) -> Weights:
        """The same checkpoint with some tensors made of others, and some left out.

        Args:
            made: by name; of that name or a new one.
            gone: names that are no more.
            remark: what was done, a sentence.
            config: what changes in its configuration.
        """
        other = copy(self)
        other.__dict__.pop("info", None)
        other._made = {**self._made, **made}
        other._gone = self._gone | frozenset(gone) - made.keys()
        other.config = {**self.config, **config}
        other.remarks = (*self.remarks, remark)
        return other

    def _judge_head(self, name: str, place: local.Place) -> None:
        """Keep a stored head that is tied by the configuration and differs from the embeddings."""
        embedding = naming.embedding(self._places)
        self._places[name] = place
        if embedding is None or not torch.equal(self.read(name), self.read(embedding)):
            self.config = {**self.config, "tie_word_embeddings": False}
            self.remarks += (
                f"The config.json of {self.source.name} ties its head to its embeddings, and its"
                " file holds a head that differs: it is taken as a model with a head of its own,"
                " as transformers loads it.",
            )
        else:
            del self._places[name]

    def dtype(self, name: str) -> torch.dtype:
        """A tensor's stored dtype.

        Raises:
            MorphingError: it is not one that can be merged.
        """
        if name in self._made:
            return torch_dtype(self._made[name].info)
        path, info, _ = self._places[name]
        if info.dtype not in STORED_DTYPES:
            raise MorphingError(
                f"{name} in {path} is stored as {info.dtype}, which cannot be merged: choose the"
                " model it was quantised from."
            )
        return torch_dtype(info)

    def read(self, name: str) -> torch.Tensor:
        """A tensor in its stored dtype, on the CPU; a private view of the file, not a copy, unless
        it has to be made of several.

        Raises:
            ModelChanged: the file's content was changed since it was opened.
            MorphingError: its dtype is not one that can be merged, or the tensor holds NaN or
                infinity.
        """
        return self._made[name].make() if name in self._made else self._stored(name)

    def _stored(self, name: str) -> torch.Tensor:
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
            check_finite(name, tensor, self.source.name)
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


def check_finite(name: str, tensor: torch.Tensor, model: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        MorphingError: naming the tensor and its model, and how many of its values they are.
    """
    if is_finite(tensor):
        return
    count = int((~torch.isfinite(tensor)).sum())
    raise MorphingError(
        f"{name} of {model} holds NaN or infinity in {count} of its {tensor.numel()} values: choose"
        " another revision of this model."
    )


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; one of integers never does."""
    if not tensor.is_floating_point():
        return True
    # A finite sum, one fast pass, proves every entry finite; the converse needs a look at each.
    # By parts: torch sums half precision in a float32 copy.
    return all(
        math.isfinite(part.sum(dtype=torch.float32)) or bool(torch.isfinite(part).all())
        for part in tensor.reshape(-1).split(_PART)
    )
