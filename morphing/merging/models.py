"""The models that recipes may name, opened: headers and adapters' factors, no weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from morphing.devices import available_memory
from morphing.merging.planning.plan import ModelInfo
from morphing.merging.stores import Adapted, Disk, Resident, Store
from morphing.merging.vocabulary.speech import Voice
from morphing.merging.vocabulary.tokenizers import has_chat_template
from morphing.sources import content, local, naming
from morphing.sources.adapter import Adapter, load_adapter
from morphing.sources.alike import make_alike
from morphing.sources.source import Source
from morphing.sources.weights import Weights, tensor_info

Placement = Literal["auto", "device", "host", "disk"]
GENERATION_CONFIG = "generation_config.json"
PLACEMENTS: tuple[Placement, ...] = ("auto", "device", "host", "disk")


@dataclass(frozen=True)
class Opened:
    """A checkpoint, or an adapter on the checkpoint it adapts."""

    source: Source
    weights: Weights
    """The checkpoint's."""
    adapter: Adapter | None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The checkpoint's ``config.json`` as `Weights` takes it, with an adapter's own rows."""
        config = self.weights.config
        embedding = naming.embedding(self.weights.info)
        replaced = None if self.adapter is None else self.adapter.replaced.get(embedding or "")
        if replaced is None or len(replaced) == self.weights.info[embedding or ""].shape[0]:
            return config
        text, rows = config.get("text_config"), {"vocab_size": len(replaced)}
        nested = "vocab_size" not in config and isinstance(text, dict)
        return config | ({"text_config": {**text, **rows}} if nested and text else rows)

    @cached_property
    def generation_config(self) -> dict[str, Any] | None:
        """The checkpoint's ``generation_config.json``, if it has one."""
        path = self.weights.source.folder / GENERATION_CONFIG
        return local.read_json(path) if path.is_file() else None

    @cached_property
    def info(self) -> ModelInfo:
        """Shapes and dtypes, an adapter's own where it replaces a tensor."""
        replaced = {} if self.adapter is None else self.adapter.replaced
        own = {name: tensor_info(tensor.shape, tensor.dtype) for name, tensor in replaced.items()}
        return ModelInfo(self.config, {**self.weights.info, **own})

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is: an adapter's own only if it changed the vocabulary."""
        replaced = {} if self.adapter is None else self.adapter.replaced
        for name, tensor in replaced.items():
            original = self.weights.info.get(name)
            if original is not None and tuple(tensor.shape) != original.shape:
                return self.source.folder
        return self.weights.source.folder

    @cached_property
    def voice(self) -> Voice:
        """What it reads and writes text with."""
        own = self.tokenizer_folder
        settings = self.generation_config
        if self.adapter is not None and has_chat_template(self.source.folder):
            own = self.source.folder
            path = own / GENERATION_CONFIG
            settings = local.read_json(path) if path.is_file() else {}
        text = self.config.get("text_config")
        config = {**(text if isinstance(text, dict) else {}), **self.config}
        named = (config if settings is None else settings).get("eos_token_id")
        ids: list[Any] = named if isinstance(named, list) else [named]
        ends = tuple(end for end in ids if _is_id(end))
        rows = config.get("vocab_size")
        return Voice(
            folder=self.tokenizer_folder,
            own=own,
            rows=rows if isinstance(rows, int) else 0,
            ends=ends,
        )


def _is_id(value: Any) -> bool:
    return type(value) is int and value >= 0  # a negative id is an old way to say none


def open_models(
    named: Mapping[str, tuple[Source, Source | None]], base: str | None = None
) -> dict[str, Opened]:
    """Open checkpoints, and adapters on theirs; each checkpoint once, all in one layout.

    Args:
        named: by the name recipes write, a checkpoint and, if it is adapted, the adapter.
        base: the name of the model whose configuration merges have; by default the first.

    Raises:
        MorphingError: a file is missing or broken, or an adapter does not fit its checkpoint.
    """
    weights: dict[Path, Weights] = {}
    for checkpoint, _ in named.values():
        if checkpoint.folder not in weights:
            weights[checkpoint.folder] = Weights(checkpoint)
    ground = weights[named[base or next(iter(named))][0].folder]
    weights = dict(zip(weights, make_alike(list(weights.values()), ground), strict=True))
    opened = {}
    for name, (checkpoint, adapter) in named.items():
        own = weights[checkpoint.folder]
        factors = None if adapter is None else load_adapter(adapter, own)
        opened[name] = Opened(adapter or checkpoint, own, factors)
    return opened


def check_contents(models: Iterable[Opened]) -> None:
    """Refuse models whose files hold something else than when their digests were taken.

    Raises:
        ModelChanged: naming the first of them.
    """
    used = (source for model in models for source in (model.weights.source, model.source))
    for source in dict.fromkeys(used):
        content.check(source)


def place_models(
    models: Mapping[str, Opened],
    device: torch.device,
    placement: Placement = "auto",
    order: Iterable[str] = (),
    spare: int = 0,
) -> dict[str, Store]:
    """Put the models' tensors where they fit.

    Args:
        models: from `open_models`.
        device: where merging goes on.
        placement: ``device``; ``host`` memory (pinned for a GPU), brought over as needed; ``disk``,
            mapped from the checkpoint's own files; ``auto``, the first of these with the room.
        order: tensor names in the order they will be merged in.
        spare: bytes on the device to leave for other things.

    Raises:
        MorphingError: a tensor holds NaN or infinity, or is of a dtype that cannot be merged.
    """
    checkpoints = {model.weights.source.folder: model.weights for model in models.values()}
    if placement == "auto":
        placement = _fitting(list(checkpoints.values()), device, spare)
    order = tuple(order)
    kept: dict[Path, Store] = {}
    for folder, weights in checkpoints.items():
        if placement == "disk":
            kept[folder] = Disk(weights, device)
        else:
            kept[folder] = Resident(weights, device, order, host=placement == "host")
    stores: dict[str, Store] = {}
    for name, model in models.items():
        store = kept[model.weights.source.folder]
        adapter = model.adapter
        stores[name] = store if adapter is None else Adapted(store, adapter.to(device))
    return stores


def _fitting(weights: list[Weights], device: torch.device, spare: int) -> Placement:
    needed = sum(w.bytes for w in weights)
    if needed + spare <= available_memory(device):
        return "device"
    host = torch.device("cpu")
    on_host = spare if device.type == "cpu" else 0
    return "host" if needed + on_host <= available_memory(host) else "disk"
