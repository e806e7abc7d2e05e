"""Where models come from: the embedded zoo, a local folder, or the Hub.

A name is ``zoo:<model>``, a path to a folder, or a Hub id ``org/name[@revision]``. Nothing heavy is
imported here; the Hub's client is reached only for Hub ids.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from morphing.errors import MorphingError

DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
STORED_DTYPES = {
    **DTYPE_NAMES,
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""torch's names of what a checkpoint may hold; integers pass through a merge unchanged."""
ZOO = "zoo:"
_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?(@[^@+]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's header entry; ``dtype`` is safetensors' code, such as ``BF16``."""

    shape: tuple[int, ...]
    dtype: str


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

    @property
    def dtype(self) -> str:
        """The torch name of the dtype most parameters are stored in, such as ``bfloat16``."""
        from collections import Counter
        from math import prod

        counts: Counter[str] = Counter()
        for info in self.tensors.values():
            counts[info.dtype] += prod(info.shape)
        return DTYPE_NAMES.get(counts.most_common(1)[0][0], "float32")


@dataclass(frozen=True)
class ModelHit:
    """One answer of a search on the Hub."""

    id: str
    downloads: int
    likes: int
    base_models: tuple[str, ...]
    gated: bool


def pin(name: str, token: str | None = None) -> str:
    """The same model by a name whose content never changes.

    A Hub id gets its commit, a folder becomes absolute, a zoo name stays.

    Raises:
        MorphingError: nothing has this name, or the Hub cannot be asked.
    """
    if name.startswith(ZOO):
        _zoo_folder(name)
        return name
    if _is_folder(name):
        return str(_folder(name))
    repo, revision = split_hub_name(name)
    if revision is not None and _COMMIT.fullmatch(revision):
        return name
    from morphing.sources import hub

    return f"{repo}@{hub.commit(repo, revision, token)}"


def inspect(name: str, token: str | None = None) -> Inspection:
    """Read a model's headers and configuration; downloads nothing else.

    Raises:
        MorphingError: it cannot be had, or is of a kind that cannot be merged (pickled, quantised).
    """
    from morphing.sources import local

    if name.startswith(ZOO):
        return local.inspect_folder(name, _zoo_folder(name))
    if _is_folder(name):
        folder = _folder(name)
        return local.inspect_folder(str(folder), folder)
    from morphing.sources import hub

    return hub.inspect_repo(name, token)


def download(
    name: str,
    token: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Source:
    """Fetch what is needed to merge and run a model: weights, configuration, tokenizer, card.

    Files already in the Hub's cache are not fetched again; a pinned name that is cached whole needs
    no network. ``progress`` is called with the bytes of weights fetched and all of them.

    Raises:
        MorphingError: it cannot be had, or is of a kind that cannot be merged (pickled, quantised).
    """
    from morphing.sources import local

    if name.startswith(ZOO):
        folder = _zoo_folder(name)
    elif _is_folder(name):
        folder = _folder(name)
        name = str(folder)
    else:
        from morphing.sources import hub

        folder = hub.download_repo(name, token, progress)
    found = local.inspect_folder(name, folder)
    return Source(name, folder, found.base_models, found.adapter)


def search_models(query: str, token: str | None = None, limit: int = 20) -> list[ModelHit]:
    """Models on the Hub whose id contains ``query``, most downloaded first.

    Raises:
        MorphingError: the Hub cannot be asked.
    """
    from morphing.sources import hub

    return hub.search(query, token, limit)


def split_hub_name(name: str) -> tuple[str, str | None]:
    """``org/name[@revision]`` in two.

    Raises:
        MorphingError: it is not a Hub id.
    """
    if not _HUB_ID.fullmatch(name):
        raise MorphingError(
            f"{name!r} names no model: write zoo:<name>, an existing folder, or a Hub id such as"
            " org/name or org/name@revision."
        )
    repo, _, revision = name.partition("@")
    return repo, revision or None


def _is_folder(name: str) -> bool:
    path = Path(name).expanduser()
    return bool(name) and (path.is_absolute() or name.startswith(".") or path.is_dir())


def _folder(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    if not path.is_dir():
        raise MorphingError(f"There is no folder {path}: give the folder of a saved model.")
    return path


def _zoo_folder(name: str) -> Path:
    from morphing import zoo

    short = name.removeprefix(ZOO)
    if short not in zoo.MODELS:
        raise MorphingError(
            f"The zoo has no model {name!r}: choose one of"
            f" {', '.join(ZOO + model for model in zoo.MODELS)}."
        )
    return zoo.model_folder(short)
