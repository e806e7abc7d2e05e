"""From a model's small files and headers to an `Inspection`, wherever they were read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from morphing.errors import MorphingError
from morphing.hub_names import hub_id
from morphing.sources.naming import own_tensors
from morphing.sources.source import STORED_DTYPES, Inspection, TensorInfo

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
CONFIG = "config.json"
CARD = "README.md"

LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_STACK = re.compile(r"^(.*?(?:^|\.)(?:layers|h|blocks|block))\.(\d+)\.")
_NUMBER = re.compile(r"\.(\d+)\.")


def is_adapter(files: Iterable[str]) -> bool:
    """Whether these files are a PEFT adapter; a checkpoint beside one wins."""
    files = set(files)
    return ADAPTER_CONFIG in files and not files & {WEIGHTS, WEIGHTS_INDEX}


def check_files(name: str, files: Iterable[str]) -> None:
    """Refuse what cannot be merged for want of a file.

    Raises:
        MorphingError: no safetensors weights, or no config.json.
    """
    files = set(files)
    if not files & {WEIGHTS, WEIGHTS_INDEX, ADAPTER_WEIGHTS}:
        if any(file.endswith((".bin", ".pt", ".pth")) for file in files):
            raise MorphingError(
                f"{name} holds pickled weights, which can run code when loaded: convert it to"
                " safetensors first (huggingface.co/spaces/safetensors/convert)."
            )
        if any(file.endswith(".gguf") for file in files):
            raise MorphingError(
                f"{name} holds GGUF weights only: choose the unquantised safetensors model it was"
                " made from."
            )
        raise MorphingError(
            f"{name} holds no {WEIGHTS}, {WEIGHTS_INDEX} or {ADAPTER_WEIGHTS}: choose a model saved"
            " as safetensors."
        )
    if not is_adapter(files) and CONFIG not in files:
        raise MorphingError(
            f"{name} has no {CONFIG}, so its architecture is unknown: choose a model saved with"
            " save_pretrained."
        )


def two_models(name: str, files: Iterable[str]) -> tuple[str, ...]:
    """That two models lie in one folder, in sentences; nothing where only one does."""
    files = set(files)
    found = []
    if {WEIGHTS, WEIGHTS_INDEX} <= files:
        found.append(
            f"{name} holds two models, {WEIGHTS} and the shards that {WEIGHTS_INDEX} names: the"
            f" first is taken, as transformers takes it. Delete {WEIGHTS} if the shards are meant,"
            f" else {WEIGHTS_INDEX} and the shards."
        )
    if ADAPTER_CONFIG in files and not is_adapter(files):
        found.append(
            f"{name} holds an adapter beside a whole model: the model is taken without it. Move"
            f" the adapter's files into a folder of their own and write model+adapter if it is"
            " meant."
        )
    return tuple(found)


def describe(
    name: str,
    config: Mapping[str, Any],
    headers: Mapping[str, TensorInfo],
    card: Mapping[str, Any],
    adapter: bool,
    files: Iterable[str] = (),
) -> Inspection:
    """Put together what was read.

    Args:
        name: as a spec writes it.
        config: ``config.json``, or ``adapter_config.json`` for an adapter.
        headers: every tensor of every weight file.
        card: the model card's metadata.
        adapter: whether this is a PEFT adapter.
        files: the names of all files beside each other.

    Raises:
        MorphingError: the weights are quantised, or of a dtype that cannot be merged.
    """
    if (settings := config.get("quantization_config")) is not None:
        method = settings.get("quant_method") if isinstance(settings, Mapping) else settings
        method = method or "an unnamed method"
        raise MorphingError(
            f"{name} is quantised ({method}), and quantised weights cannot be merged: choose the"
            " model it was quantised from."
        )
    for tensor, info in headers.items():
        if info.dtype not in STORED_DTYPES:
            raise MorphingError(
                f"{tensor} in {name} is stored as {info.dtype}, which cannot be merged: choose the"
                " model it was quantised from."
            )
    if not adapter:
        _check_depth(name, config, headers)
    named = [config.get("base_model_name_or_path")] if adapter else []
    from_card = card.get("base_model") or []
    named += [from_card] if isinstance(from_card, str) else list(from_card)
    own = None if adapter else own_tensors(name, headers, config)
    tensors = headers if own is None else {key: headers[at] for key, at in own.stored.items()}
    license_name = card.get("license")
    return Inspection(
        name=name,
        architecture=None if adapter else next(iter(config.get("architectures") or []), None),
        tensors=tensors,
        adapter=adapter,
        base_models=tuple(dict.fromkeys(str(model) for model in named if _is_ancestor(model))),
        bytes=sum(info.bytes for info in headers.values()),
        parameters=sum(prod(info.shape) for info in tensors.values()),
        layers=layer_count(tensors),
        license=license_name if isinstance(license_name, str) else None,
        config=config,
        remarks=() if own is None else (*two_models(name, files), *own.remarks),
    )


def configured_layers(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """The key by which a ``config.json`` gives the number of its text model's layers, and that."""
    nested = config.get("text_config")
    inner = nested if isinstance(nested, Mapping) else config
    found = ((key, inner.get(key)) for key in LAYER_KEYS)
    return next(((key, count) for key, count in found if type(count) is int), None)


def _check_depth(name: str, config: Mapping[str, Any], tensors: Iterable[str]) -> None:
    """Refuse a configuration of other layers than the files have.

    transformers fills in layers that are missing at random, and drops those that are too many.

    Raises:
        MorphingError: naming both numbers.
    """
    configured = configured_layers(config)
    stacks: dict[str, int] = {}
    for tensor in tensors:
        if match := _STACK.search(tensor):
            stacks[match[1]] = max(stacks.get(match[1], 0), int(match[2]) + 1)
    # Of several stacks (encoder and decoder, images and text) the number may be either's; layers
    # that predict further tokens come after those that are counted.
    if configured is None or len(stacks) != 1 or config.get("num_nextn_predict_layers"):
        return
    key, count = configured
    (found,) = stacks.values()
    if found != count:
        raise MorphingError(
            f"The config.json of {name} says {key}: {count}, and its files hold {found} layers:"
            " choose a checkpoint and a configuration that belong together."
        )


def layer_index(tensor: str) -> int | None:
    """The layer a tensor belongs to: the first number in its dotted name."""
    match = _NUMBER.search(tensor)
    return int(match[1]) if match else None


def layer_count(tensors: Iterable[str]) -> int:
    """How many layers these tensor names are of."""
    return 1 + max((index for t in tensors if (index := layer_index(t)) is not None), default=-1)


def _is_ancestor(model: Any) -> bool:
    """Whether an entry names a model: adapters trained offline name paths of other machines."""
    from pathlib import Path

    return isinstance(model, str) and (hub_id(model) is not None or Path(model).is_dir())
