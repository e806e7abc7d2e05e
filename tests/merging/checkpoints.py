"""Checkpoints of a few made-up tensors, and an engine over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from morphing.merging.engine import Engine
from morphing.merging.models import Placement, open_models, place_models
from morphing.merging.recipe import Recipe
from morphing.merging.workers import Workers
from morphing.sources.source import Source

CPU = torch.device("cpu")
NAMES = ("base", "one", "two", "three")
Tensors = Mapping[str, Tensor]


def save_models(folder: Path, models: Sequence[Tensors]) -> list[Source]:
    """Checkpoints named `NAMES`, of an architecture nobody knows."""
    sources = []
    for name, tensors in zip(NAMES, models, strict=False):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text('{"architectures": ["MadeUp"]}')
        own = {key: tensor.contiguous() for key, tensor in tensors.items()}
        save_file(own, folder / name / "model.safetensors", metadata={"format": "pt"})
        sources.append(Source(name, folder / name, (), False))
    return sources


def make_engine(
    sources: Sequence[Source],
    placement: Placement = "device",
    compiled: bool = False,
    workers: int = 1,
) -> Engine:
    """An engine over checkpoints, without the model a `Morpher` loads."""
    models = open_models({source.name: (source, None) for source in sources})
    order = tuple(models[sources[0].name].info.tensors)
    stores = place_models(models, CPU, placement, order)
    return Engine(models, stores, CPU, Workers(workers), compiled)


def engine_of(folder: Path, *models: Tensors, **options: Any) -> Engine:
    """`save_models`, then `make_engine`."""
    return make_engine(save_models(folder, models), **options)


def simple_recipe(
    method: str,
    own: Sequence[Mapping[str, Any]],
    seed: int = 0,
    dtype: str = "float32",
    **shared: Any,
) -> Recipe:
    """A recipe that merges ``one``, ``two``, ... into ``base``, with one mapping for each."""
    models = [
        {"model": name, "parameters": dict(parameters)}
        for name, parameters in zip(NAMES[1:], own, strict=False)
    ]
    config = {"merge_method": method, "models": models, "dtype": dtype, "parameters": shared}
    if method != "linear":
        config["base_model"] = "base"
    return Recipe(config, seed)


def merged(engine: Engine, recipe: Recipe, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The recipe's tensors by name."""
    segments = engine.merge(recipe, engine.output(recipe), names)
    return {name: tensor.clone() for part in segments for name, tensor in part.tensors()}


def same(one: Tensors, other: Tensors) -> bool:
    """Whether two models are equal bit for bit, but for the sign of zeros."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )
