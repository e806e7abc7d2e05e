"""Models in folders: reading headers and small files from disk."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from morphing.errors import MorphingError
from morphing.sources import metadata, naming
from morphing.sources.source import STORED_DTYPES, Inspection, TensorInfo
from morphing.yaml_files import read_document

TOKEN_FILES = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Where a tokenizer's tokens are read from."""


_LFS = b"version https://git-lfs.github.com/spec/"


class Place(NamedTuple):
    """Where a tensor is."""

    path: Path
    info: TensorInfo
    start: int
    """Of its bytes in the file."""


def inspect_folder(name: str, folder: Path) -> Inspection:
    """Inspect the model saved in ``folder``.

    Raises:
        MorphingError: a file is missing or broken, or the weights are pickled or quantised.
    """
    files = {path.name for path in folder.iterdir()}
    metadata.check_files(name, files)
    adapter = metadata.is_adapter(files)
    config = read_json(folder / (metadata.ADAPTER_CONFIG if adapter else metadata.CONFIG))
    headers = {tensor: place.info for tensor, place in read_checkpoint(folder, config).items()}
    card = read_card(folder / metadata.CARD)
    return metadata.describe(name, config, headers, card, adapter, files)


def weight_files(folder: Path) -> tuple[str, ...]:
    """The names of the safetensors files that hold a model's or adapter's weights."""
    if (folder / metadata.WEIGHTS).exists():
        return (metadata.WEIGHTS,)
    index = folder / metadata.WEIGHTS_INDEX
    if index.exists():
        return index_files(read_json(index), str(index))
    return (metadata.ADAPTER_WEIGHTS,)


def index_files(index: dict[str, Any], where: str) -> tuple[str, ...]:
    """The shards a ``model.safetensors.index.json`` names.

    Raises:
        MorphingError: it names none, or one outside its own folder.
    """
    weight_map = index.get("weight_map")
    files = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not files or not all(map(_is_shard, files)):
        raise MorphingError(
            f"{where} names no safetensors files beside it: download the model again."
        )
    return tuple(sorted(set(files)))


def read_checkpoint(folder: Path, config: Mapping[str, Any]) -> dict[str, Place]:
    """Where every tensor of a model or adapter is, whatever number of files it is in.

    Args:
        folder: the model's.
        config: its ``config.json`` or ``adapter_config.json``.

    Raises:
        MorphingError: a file is missing, truncated or no safetensors file, or the index and the
            files disagree.
    """
    files = weight_files(folder)
    places: dict[str, Place] = {}
    for file in files:
        for tensor, (info, start) in read_places(folder / file).items():
            if tensor in places:
                raise MorphingError(
                    f"{tensor} is both in {places[tensor].path} and in {file}: download the model"
                    " again."
                )
            places[tensor] = Place(folder / file, info, start)
    if metadata.WEIGHTS not in files and metadata.ADAPTER_WEIGHTS not in files:
        _check_index(folder / metadata.WEIGHTS_INDEX, places, config)
    return places


def _check_index(index: Path, places: Mapping[str, Place], config: Mapping[str, Any]) -> None:
    """Refuse an index that says other than the files; on what is no model's own it may."""
    indexed = read_json(index)["weight_map"]
    for tensor in sorted(places.keys() | indexed.keys()):
        place = places.get(tensor)
        file = None if place is None else place.path.name
        info = TensorInfo((), "") if place is None else place.info
        if indexed.get(tensor) != file and not naming.is_derived(tensor, info, config):
            raise MorphingError(
                f"{index} names {indexed.get(tensor, 'no file')} for {tensor}, which is in"
                f" {file or 'none of its files'}: download the model again."
            )


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Shapes and dtypes from a safetensors file.

    Raises:
        MorphingError: the file is missing, truncated or no safetensors file.
    """
    return {name: info for name, (info, _) in read_places(path).items()}


def read_places(path: Path) -> dict[str, tuple[TensorInfo, int]]:
    """Shape, dtype and the place of the first byte of every tensor of a safetensors file.

    Raises:
        MorphingError: the file is missing, truncated or no safetensors file.
    """
    try:
        _refuse_pointer(path)
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size - 8:
                raise ValueError("truncated")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if path.stat().st_size != 8 + length + end:
            raise ValueError("truncated")
        infos = tensor_infos((key, e["shape"], e["dtype"]) for key, e in header.items())
        for key, entry in header.items():
            start, stop = entry["data_offsets"]
            if infos[key].dtype in STORED_DTYPES and stop - start != infos[key].bytes:
                raise ValueError("a tensor of another size than its place")
        return {key: (infos[key], 8 + length + e["data_offsets"][0]) for key, e in header.items()}
    except FileNotFoundError as error:
        raise MorphingError(
            f"The weight file {path} is missing: download the model again."
        ) from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        struct.error,
    ) as error:
        raise MorphingError(
            f"{path} is not a whole safetensors file: download the model again."
        ) from error


def _refuse_pointer(path: Path) -> None:
    """Refuse what a clone without git-lfs leaves in place of a large file.

    Raises:
        MorphingError: the file is such a pointer.
    """
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise MorphingError(
                f"{path} is a pointer that git left in place of the file: run `git lfs pull` in"
                " that folder, or download the model with `hf download`."
            )


def tensor_infos(entries: Iterable[tuple[str, Iterable[int], str]]) -> dict[str, TensorInfo]:
    """Header entries by tensor name."""
    return {key: TensorInfo(tuple(shape), dtype) for key, shape, dtype in entries}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        MorphingError: it is missing or no JSON object.
    """
    try:
        _refuse_pointer(path)
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MorphingError(f"{path} cannot be read as JSON: download the model again.") from error
    if not isinstance(value, dict):
        raise MorphingError(f"{path} is not a JSON object: download the model again.")
    return value


def read_tokens(folder: Path) -> dict[str, int] | None:
    """The tokens of a folder's tokenizer and their ids; None where it has none of a known form."""
    whole, plain, added = (folder / name for name in TOKEN_FILES)
    if whole.is_file():
        return _tokens_of(read_json(whole))
    if not plain.is_file():
        return None
    found = {**read_json(plain), **(read_json(added) if added.is_file() else {})}
    return found if all(type(index) is int for index in found.values()) else None


def _tokens_of(tokenizer: Mapping[str, Any]) -> dict[str, int] | None:
    """From what the ``tokenizers`` library saves, whose unigram models list pairs in order."""
    try:
        known = tokenizer["model"]["vocab"]
        if isinstance(known, list):
            known = {str(pair[0]): index for index, pair in enumerate(known)}
        added = {str(token["content"]): token["id"] for token in tokenizer.get("added_tokens", ())}
        found = {**known, **added}
    except (KeyError, TypeError, IndexError):
        return None
    return found if all(type(index) is int for index in found.values()) else None


def read_card(path: Path) -> dict[str, Any]:
    """The metadata block of a model card; empty where there is none or it is malformed."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return {}
    try:
        card = read_document(text.removeprefix("---").split("\n---", 1)[0], str(path))
    except MorphingError:
        return {}
    return card if isinstance(card, dict) else {}


def _is_shard(file: Any) -> bool:
    return isinstance(file, str) and Path(file).name == file and file.endswith(".safetensors")
