"""One model by itself in memory: a checkpoint, or an adapter on its base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from morphing.devices import check_memory, resolve_device
from morphing.errors import MorphingError
from morphing.merging.recipe_checks import TEMPLATE_OF
from morphing.notes import note_once
from morphing.runs.plain_recipes import unmerged
from morphing.runs.progress import Progress, quiet
from morphing.sources.names import model_and_adapter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from morphing.sources.source import Inspection, Source


@dataclass(frozen=True)
class Single:
    """A loaded model, ready to be scored."""

    name: str
    """Pinned: ``zoo:base``, ``org/name@<commit>`` or a folder."""
    base: str | None
    """Of an adapter, its base, pinned too."""
    model: PreTrainedModel
    tokenizer: Any


def load_single(
    name: str,
    base: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    token: str | None = None,
    progress: Progress = quiet,
) -> Single:
    """Load a model as a run scores it by itself.

    Args:
        name: a Hub id, a folder or a zoo model; a checkpoint, a PEFT adapter, or
            ``model+adapter``.
        base: what an adapter is put on; by default what its own configuration names.
        device: as in a run spec.
        dtype: of the weights; ``auto`` is the checkpoint's own.
        token: for the Hub.
        progress: called with what is being done.

    Raises:
        MorphingError: it cannot be had, has no base or needs none, or the memory is too small (said
            before anything is downloaded).
    """
    import torch
    from transformers.utils import logging

    from morphing.merging.morph import required_memory
    from morphing.sources.find import download, inspect, pin

    logging.disable_progress_bar()  # ``progress`` shows the loading
    named = model_and_adapter(name)
    if len(named) > 1 and base is not None:
        raise MorphingError(f"{name} names a model and its adapter: leave out the base {base}.")
    base, name = (named[0], named[1]) if len(named) > 1 else (base, name)
    where = resolve_device(device)
    inspected = inspect(pin(name, token), token)
    under = _base_of(inspected, base, token)
    stored = under or inspected
    if not stored.has_tokenizer:
        raise MorphingError(
            f"{stored.name} has no tokenizer, without which it cannot be scored: put the tokenizer"
            " files of the model it was trained from in its folder."
        )
    weights_dtype = getattr(torch, stored.dtype if dtype == "auto" else dtype)
    check_memory(
        required_memory(stored, [inspected] if under else [], weights_dtype, "disk"), where
    )

    def fetched(model: Inspection) -> Source:
        progress(f"getting {model.name}", 0, 0)

        def megabytes(done: int, total: int) -> None:
            progress(f"downloading {model.name} (MB)", done // 10**6, total // 10**6)

        return download(model.name, token, megabytes)

    source, ground = fetched(inspected), fetched(under) if under else None
    progress("loading", 0, 0)
    if ground is None:
        return Single(inspected.name, None, *_checkpoint(source, where, weights_dtype))
    template = f"{TEMPLATE_OF}{inspected.name}" if inspected.chat_template else None
    return Single(
        inspected.name, ground.name, *_adapted(source, ground, where, weights_dtype, template)
    )


def _base_of(found: Inspection, base: str | None, token: str | None) -> Inspection | None:
    from morphing.sources.ancestry import unquantised
    from morphing.sources.find import inspect, pin

    if not found.adapter:
        if base is not None:
            raise MorphingError(f"{found.name} is a whole model, no adapter: leave out the base.")
        return None
    named = base or next(iter(found.base_models), None)
    if named is None:
        raise MorphingError(
            f"The adapter {found.name} does not say what it was trained on: name its base."
        )
    if base is None and (plain := unquantised(named)) != named:
        note_once(
            f"The adapter {found.name} says it was made from {named}, whose quantised weights"
            f" cannot be merged: it is put on {plain}, which that was most likely made from."
        )
        named = plain
    under = inspect(pin(named, token), token)
    if under.adapter:
        raise MorphingError(f"The base {named} is an adapter itself: name a whole model.")
    return under


def _checkpoint(
    source: Source, device: torch.device, dtype: torch.dtype
) -> tuple[PreTrainedModel, Any]:
    from morphing.sources.checkpoint import load_model, load_tokenizer

    tokenizer = load_tokenizer(source)
    model: Any = load_model(source, dtype)
    return model.to(device), tokenizer


def _adapted(
    adapter: Source,
    base: Source,
    device: torch.device,
    dtype: torch.dtype,
    template: str | None,
) -> tuple[PreTrainedModel, Any]:
    from morphing.merging.morph import Morpher

    # The way a run scores an adapter that is one of its sources: the same weights, bit for bit.
    morpher = Morpher(base, [adapter], device, dtype, "disk", compiled=False)
    morpher.morph(unmerged(adapter.name, str(dtype).removeprefix("torch."), template))
    return morpher.model, morpher.tokenizer
