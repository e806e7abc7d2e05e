"""A loaded model that becomes any recipe's, in place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from morphing.errors import MorphingError
from morphing.merging.engine import Engine, Merged
from morphing.merging.host import Host
from morphing.merging.models import Opened, Placement, open_models, place_models
from morphing.merging.output import Output, build_model
from morphing.merging.recipe import Recipe
from morphing.merging.rows.segments import STAGED_ROWS, Segment
from morphing.merging.vocabulary.speech import Speech
from morphing.merging.vocabulary.tokenizers import load_tokenizer
from morphing.merging.workers import Workers
from morphing.notes import note_once
from morphing.sources.checkpoint import load_model
from morphing.sources.conversion import Link, Unlinked, link, parts, uncovered
from morphing.sources.source import Inspection, Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MARGIN = 256 * 2**20
_REMARKS = ("transformers_version", "use_cache", "architectures")
_LARGE = 1 << 24  # parameters; merging a smaller model is too short to share out


class Morpher:
    """Base and sources at hand, and one model that is morphed between recipes.

    A recipe's merged tensors are a function of the recipe and the models alone: a morph after many
    equals a fresh one bit for bit, and `export` writes what `morph` put in the model.

    Args:
        base: a checkpoint; its configuration and tokenizer are the model's.
        sources: checkpoints and adapters that recipes may name; adapters stay low-rank factors.
        device: where the model is and where tensors are merged.
        dtype: of the loaded model.
        placement: where base and sources are kept, see `place_models`.
        compiled: whether merging uses compiled kernels; by default for large models.

    Raises:
        MorphingError: a source cannot be loaded, holds NaN or infinity, or does not fit the base.
    """

    def __init__(
        self,
        base: Source,
        sources: Sequence[Source],
        device: torch.device,
        dtype: torch.dtype,
        placement: Placement = "auto",
        compiled: bool | None = None,
    ) -> None:
        self.base = base
        self.sources = tuple(sources)
        self.device = device
        self._dtype = dtype
        named = {s.name: (base, s) if s.adapter else (s, None) for s in (base, *sources)}
        models = open_models(named)
        for remark in (remark for opened in models.values() for remark in opened.weights.remarks):
            note_once(remark)
        weights = models[base.name].weights
        workers = Workers(worker_count(sum(map(math.prod, _shapes(models[base.name]))), device))
        model = load_model(base, dtype)
        # The order that merging goes in is any recipe's for these models, for example this one's.
        alone = Recipe({"merge_method": "passthrough", "models": [{"model": base.name}]})
        planner = Engine(models, {}, device, workers, compiled=False)
        order = [tensor.name for tensor in planner.output(alone).plan.tensors]
        stores = place_models(models, device, placement, order, _spare(model))
        own = stores[base.name]
        self.engine = Engine(models, stores, device, workers, compiled, base.name)
        shapes = {name: own.shapes[name] for name in order}
        links = _linked(base, model, shapes)
        state = model.state_dict()
        for name in order:
            if not _holds(state, links[name], weights.read(name)):
                raise _unlinked(base, model, f"{name} is another tensor once it is loaded")
        output = self.engine.output(alone)
        speech = self._speech(alone, output)
        self._host = Host(model, links, shapes, device, speech.tokenizer)
        _end_with(model, speech.ends)
        self._built = _built(output, self._dtype)

        def norm(name: str) -> float:
            tensor = own.tensor(name)
            if not tensor.is_floating_point():
                return 0.0
            return float(torch.linalg.vector_norm(tensor, ord=1, dtype=torch.float32))

        self._norm = math.fsum(workers.map(norm, order))

    @property
    def model(self) -> PreTrainedModel:
        """The loaded model."""
        return self._host.model

    @property
    def links(self) -> Mapping[str, Sequence[Link]]:
        """Where the loaded model holds each tensor of its checkpoint."""
        return self._host.links

    def held(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Tensors of the loaded model by checkpoint name, as they are in it: the model's own."""
        return ((name, self._host.read(name)) for name in names)

    def distance(self) -> float:
        """The relative L1 distance of the loaded model to the base, as `morph` returns it.

        For a model whose weights were changed since, and that has the base's vocabulary.
        """
        base = self.engine.stores[self.base.name]
        total = 0.0
        for name, tensor in self.held(tuple(self._host.shapes)):
            if tensor.is_floating_point():
                origin = base.tensor(name) if name in base.shapes else None
                same = origin is not None and origin.shape == tensor.shape
                change = tensor.float() - origin.float() if same and origin is not None else tensor
                total += float(change.float().abs().sum(dtype=torch.float64))
        return total / self._norm

    @property
    def tokenizer(self) -> Any:
        """The loaded model's."""
        return self._host.tokenizer

    def morph(self, recipe: Recipe) -> float:
        """Change ``self.model`` into the recipe's, in place.

        A recipe with other layers or another vocabulary than the loaded model's replaces
        ``self.model`` (and ``self.tokenizer``) by one that has them.

        Returns:
            The relative L1 distance to the base, sum |merged - base| / sum |base|, of the tensors
            in the recipe's output dtype; a tied head counts once, and a tensor the base has not, or
            has in another shape, counts whole.

        Raises:
            MorphingError: the recipe is malformed or names a model that is not resident; the model
                is then unchanged.
        """
        output = self.engine.output(recipe)
        speech = self._speech(recipe, output)
        host = self._fitting_host(recipe, output, speech)
        host.tokenizer = speech.tokenizer
        _end_with(host.model, speech.ends)

        def place(segment: Segment) -> Tensor | None:
            return host.place([tensor.name for tensor in segment.tensors], segment.dtype)

        total = 0.0
        for merged in self.engine.merge(recipe, output, place=place, origin=self.base.name):
            _write(host, merged)
            total += float(merged.distances.cpu().numpy().sum(dtype=np.float64))
        return total / self._norm

    def tensors(
        self, recipe: Recipe, names: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """The merged tensors, by checkpoint name, in the recipe's output dtype.

        The output dtype is the recipe's ``out_dtype``, else its ``dtype``, else the base's own; the
        arithmetic is float32 whatever ``dtype`` says.

        Raises:
            MorphingError: before the first tensor, as `morph` does.
        """
        output = self.engine.output(recipe)
        merged = self.engine.merge(recipe, output, names)
        return (pair for segment in merged for pair in segment.tensors())

    def _fitting_host(self, recipe: Recipe, output: Output, speech: Speech) -> Host:
        """The loaded model, or a new one where the recipe's is built otherwise."""
        from transformers import GenerationConfig

        shapes = {name: shape for name, (shape, _) in self.engine.infos(recipe, output).items()}
        built = _built(output, self._dtype)
        # Layers in another order may be of other kinds, though their tensors' shapes are the same.
        if shapes == self._host.shapes and built == self._built:
            return self._host
        donor = self.engine.models[output.plan.donor]
        model = build_model(output.config(_name(self._dtype)), self._dtype)
        settings = output.generation_config(donor.generation_config, speech.ends)
        if settings is not None:
            model.generation_config = GenerationConfig(**settings)
        links = _linked(donor.weights.source, model, shapes)
        self._host.release()  # there may not be the room for two
        self._host = Host(model, links, shapes, self.device, speech.tokenizer)
        self._built = built
        return self._host

    def _speech(self, recipe: Recipe, output: Output) -> Speech:
        """How the recipe's model reads and writes text.

        Raises:
            MorphingError: no tokenizer can be read, and without one nothing can be scored.
        """
        speech = self.engine.speech(recipe, output)
        if speech.tokenizer is None:
            donor = output.plan.donor
            load_tokenizer(donor, {donor: self.engine.models[donor].tokenizer_folder})
        return speech


def required_memory(
    base: Inspection,
    sources: Sequence[Inspection],
    dtype: torch.dtype,
    placement: Placement = "device",
) -> int:
    """Bytes on the device that a `Morpher` and the scoring of its model need, told before loading.

    The loaded model; base and sources as stored (an adapter as its factors) where they are placed
    on the device, and not where they can stay elsewhere; while merging, rows in float32 or the
    largest tensor. A quarter of the model and 256 MiB are left for activations and caches; long
    prompts in large batches can need more.
    """
    model = base.parameters * dtype.itemsize
    kept = (base, *sources) if placement == "device" else [s for s in sources if s.adapter]
    resident = sum(inspection.bytes for inspection in kept)
    largest = max((math.prod(info.shape) for info in base.tensors.values()), default=0)
    staged = max(largest, STAGED_ROWS << 12) * torch.float32.itemsize * (len(sources) + 1)
    return resident + model + staged + model // 4 + _MARGIN


def worker_count(parameters: int, device: torch.device) -> int:
    """How many tensors are merged side by side where kernels are not compiled."""
    return torch.get_num_threads() if device.type == "cpu" and parameters > _LARGE else 1


def _built(output: Output, dtype: torch.dtype) -> dict[str, Any]:
    """What a model is built from, less what says nothing of how it computes."""
    config = output.config(_name(dtype))
    return {key: value for key, value in config.items() if key not in _REMARKS}


def _end_with(model: PreTrainedModel, ends: Sequence[int]) -> None:
    """Have answers end with these tokens, in a chat and in scoring."""
    settings = model.generation_config
    if settings is None:
        return
    named = settings.eos_token_id
    if set(ends) != {*(named if isinstance(named, list) else [named])} - {None}:
        settings.eos_token_id = list(ends) if len(ends) > 1 else next(iter(ends), None)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _write(host: Host, merged: Merged) -> None:
    """Bring into the model what was not merged straight into it."""
    for name, tensor in merged.tensors():
        if tensor.data_ptr() != host.read(name).data_ptr():
            host.write(name, tensor)


def _shapes(model: Opened) -> list[tuple[int, ...]]:
    return [info.shape for info in model.info.tensors.values()]


def _spare(model: PreTrainedModel) -> int:
    """Bytes for the model itself, its activations and what merging needs."""
    size = sum(p.numel() * p.itemsize for p in model.parameters())
    return size + size // 4 + _MARGIN


def _linked(
    source: Source, model: PreTrainedModel, shapes: Mapping[str, torch.Size]
) -> dict[str, tuple[Link, ...]]:
    """Where a model holds each of these tensors; they are all of it.

    Raises:
        MorphingError: a tensor has no place of its own in the model, or the model has more.
    """
    try:
        links = link(model, shapes)
    except Unlinked as error:
        raise _unlinked(source, model, str(error)) from error
    if missing := uncovered(model, links):
        raise _unlinked(source, model, f"the checkpoint lacks {missing[0]}")
    return links


def _holds(state: Mapping[str, Tensor], links: Sequence[Link], tensor: Tensor) -> bool:
    return all(
        torch.equal(held, (tensor if one.source is None else one.source.of(tensor)).to(held.dtype))
        for one, held in parts(links, state)
    )


def _unlinked(source: Source, model: PreTrainedModel, reason: str) -> MorphingError:
    return MorphingError(
        f"{source.name} is loaded as a {type(model).__name__} that cannot be morphed in place:"
        f" {reason}. `morphing merge RECIPE.yaml OUT` can merge its checkpoint as it is stored."
    )
