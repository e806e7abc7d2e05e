"""A recipe's model on disk as a LoRA adapter of the recipe's base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from morphing.errors import MorphingError
from morphing.merging.engine import Engine
from morphing.merging.models import Opened, check_contents
from morphing.merging.output import Output
from morphing.merging.recipe import Recipe
from morphing.merging.vocabulary.tokenizers import load_tokenizer
from morphing.merging.writing.lora import AdapterReport, write_adapter
from morphing.sources.conversion import checkpoint_names, meta_model
from morphing.sources.source import ZOO

_FLOAT = {"dtype": "float32", "out_dtype": "float32"}


def export_adapter(
    engine: Engine,
    recipe: Recipe,
    folder: Path,
    rank: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AdapterReport:
    """Write merged - base to ``folder`` as a LoRA adapter, whole or not at all.

    What is approximated is the merge in float32: the noise of rounding it would be of full rank.

    Args:
        engine: with the recipe's models.
        recipe: one with a base.
        folder: absent or empty.
        rank: of every update, at most.
        progress: called with the bytes merged and their number.

    Returns:
        How far from the merge the adapter is.

    Raises:
        ModelChanged: a model's files are no longer what they were when its digest was taken.
        MorphingError: the recipe has no base or a base that is an adapter, makes a model of other
            layers or another vocabulary than its base's, or what `write_adapter` refuses.
    """
    base = _base(engine, recipe)
    used = [engine.models[name] for name in recipe.references]
    check_contents(used)
    exact = Recipe({**recipe.config, **_FLOAT}, recipe.mask_seed)
    output = engine.output(exact)
    infos = engine.infos(exact, output)
    _check_same_model(engine, recipe, output, {name: shape for name, (shape, _) in infos.items()})
    loaded = _loaded(base)
    stored = {parameter: name for name, parameter in loaded.names.items()}
    source = base.weights.source
    total = sum(shape.numel() * dtype.itemsize for shape, dtype in infos.values())

    def merged() -> Iterator[tuple[str, torch.Tensor]]:
        done = 0
        for segment in engine.merge(exact, output):
            for name, tensor in segment.tensors():
                yield loaded.names[name], tensor
                done += tensor.nbytes
                progress(done, total)
        check_contents(used)  # before anything is written

    return write_adapter(
        folder,
        str(source.folder) if source.name.startswith(ZOO) else source.name,
        lambda name: base.weights.read(stored[name]),
        merged(),
        rank,
        loaded.linear,
        loaded.tied,
    )


def _base(engine: Engine, recipe: Recipe) -> Opened:
    if recipe.base is None:
        raise MorphingError(
            "The recipe has no base_model, which an adapter must be of: give it one, or write the"
            " whole model."
        )
    base = engine.models[recipe.base]
    if base.adapter is not None:
        raise MorphingError(
            f"The recipe's base {recipe.base} is itself an adapter on a model, which an adapter"
            " cannot be of: choose a full model as base, or write the whole model."
        )
    return base


def _check_same_model(
    engine: Engine, recipe: Recipe, output: Output, shapes: Mapping[str, torch.Size]
) -> None:
    """Refuse a merge that is no change of its base's weights."""
    assert recipe.base is not None
    base = engine.models[recipe.base]
    if shapes != {name: torch.Size(info.shape) for name, info in base.weights.info.items()}:
        raise MorphingError(
            f"The recipe makes a model of other layers or another vocabulary than {recipe.base},"
            " and no adapter can change those: write the whole model."
        )
    if output.vocabulary is None:
        return
    folders = {recipe.base: base.tokenizer_folder}
    tokens = load_tokenizer(recipe.base, folders).get_vocab()
    if output.vocabulary.tokenizer.get_vocab() != tokens:
        raise MorphingError(
            f"The recipe makes a model of other tokens than {recipe.base}, and an adapter keeps its"
            " base's tokenizer: write the whole model."
        )


@dataclass(frozen=True)
class _Loaded:
    """The base as transformers loads it and PEFT knows it."""

    names: Mapping[str, str]
    """The parameters' names, by those of the checkpoint's tensors."""
    linear: set[str]
    """The names of linear layers' weights."""
    tied: Mapping[str, str]
    """The names of parameters tied to others, and of those."""


def _loaded(base: Opened) -> _Loaded:
    if isinstance(base.config.get("text_config"), Mapping):
        raise MorphingError(
            f"{base.weights.source.name} is more than a text model, and peft cannot adapt all of"
            " its parts: write the whole model."
        )
    model = meta_model(base.config)
    infos = base.weights.info
    stored = checkpoint_names(model, {name: info.shape for name, info in infos.items()})
    names = {own: parameter for parameter, own in stored.items()}
    if unknown := infos.keys() - names.keys():
        raise MorphingError(
            f"{base.weights.source.name} is a {type(model).__name__}, which transformers loads"
            f" with other tensors than its checkpoint's ({min(unknown)}), and no LoRA adapter is of"
            " those: write the whole model."
        )
    layers = {f"{n}.weight" for n, part in model.named_modules() if type(part) is torch.nn.Linear}
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", {})
    return _Loaded(names, layers & stored.keys(), tied)
