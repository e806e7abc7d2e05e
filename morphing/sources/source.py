"""What a model to merge is: its name and folder, and what its headers say. No files are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from morphing.sources.names import ZOO

STAGE = "stage:"
"""Begins the names of models that a run has made."""
MERGED = "merged:"
"""Begins the names of models that an earlier stage of the same recipe has made."""


class StoredDtype(NamedTuple):
    """A dtype that a checkpoint may hold."""

    name: str
    """torch's, such as ``bfloat16``."""
    bytes: int
    floating: bool
    """Whether it can be merged; integers pass through a merge unchanged."""


STORED_DTYPES: Mapping[str, StoredDtype] = {
    "F64": StoredDtype("float64", 8, True),
    "F32": StoredDtype("float32", 4, True),
    "F16": StoredDtype("float16", 2, True),
    "BF16": StoredDtype("bfloat16", 2, True),
    "I64": StoredDtype("int64", 8, False),
    "I32": StoredDtype("int32", 4, False),
    "I16": StoredDtype("int16", 2, False),
    "I8": StoredDtype("int8", 1, False),
    "U8": StoredDtype("uint8", 1, False),
    "BOOL": StoredDtype("bool", 1, False),
}
"""By safetensors' code."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's header entry; ``dtype`` is safetensors' code, such as ``BF16``."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Size as stored; of a dtype that is unknown here, one byte an element."""
        known = STORED_DTYPES.get(self.dtype)
        return prod(self.shape) * (1 if known is None else known.bytes)


@dataclass(frozen=True)
class Source:
    """A model whose files are on this machine."""

    name: str
    """As a spec or recipe writes it, pinned: ``zoo:base``, ``org/name@<commit>`` or a folder."""
    folder: Path
    base_models: tuple[str, ...]
    """Ancestors its card or adapter configuration names, without revisions."""
    adapter: bool
    """Whether it is a PEFT adapter, not a checkpoint."""
    digest: str | None = None
    """Of the content of its files (`sources.content`), where it was asked for."""

    @property
    def on_hub(self) -> bool:
        """Whether it is a Hub id, and not of the zoo, in a folder or made by a run."""
        local = self.name.startswith((ZOO, STAGE, MERGED)) or Path(self.name).is_absolute()
        return not local


@dataclass(frozen=True)
class Inspection:
    """What headers and small JSON files say about a model; no weights were read."""

    name: str
    architecture: str | None
    tensors: Mapping[str, TensorInfo]
    adapter: bool
    base_models: tuple[str, ...]
    bytes: int
    """Size of the weights as stored."""
    parameters: int
    layers: int
    license: str | None
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """``config.json``, or ``adapter_config.json`` of an adapter."""
    remarks: tuple[str, ...] = ()
    """What is unusual about its files and was mended, in sentences."""
    has_tokenizer: bool = True
    """Whether its own files hold one; an adapter's seldom do."""
    chat_template: str | None = None
    """Its own, without white space about it."""

    @property
    def dtype(self) -> str:
        """The torch name of the dtype most parameters are stored in, such as ``bfloat16``."""
        counts: Counter[str] = Counter()
        for info in self.tensors.values():
            counts[info.dtype] += prod(info.shape)
        most = STORED_DTYPES.get(counts.most_common(1)[0][0])
        return most.name if most is not None and most.floating else "float32"


@dataclass(frozen=True)
class ModelHit:
    """One answer of a search on the Hub."""

    id: str
    downloads: int
    likes: int
    base_models: tuple[str, ...]
    gated: bool
