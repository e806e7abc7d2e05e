"""Weights from disk: a source's tensors by name, adapters merged into the base in memory."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from morphing.errors import MorphingError
from morphing.sources import local, metadata
from morphing.sources.source import Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tensors = dict[str, torch.Tensor]


def load_model(source: Source, dtype: torch.dtype) -> "PreTrainedModel":
    """The causal language model of a checkpoint, on the CPU, in eval mode, gradients off.

    Raises:
        MorphingError: transformers cannot load it without running code from the repository.
    """
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.folder, dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MorphingError(
            f"transformers cannot load {source.name} as a causal language model: {reason}"
        ) from error
    return model.eval().requires_grad_(False)


def load_tensors(source: Source, device: torch.device) -> Tensors:
    """A checkpoint's own tensors in their stored dtypes, copied off the file.

    Tied heads and rotary tables stored beside them are left out.

    Raises:
        MorphingError: a file is broken, or a tensor holds NaN or infinity.
    """
    config = local.read_json(source.folder / metadata.CONFIG)
    tensors: Tensors = {}
    for file in local.weight_files(source.folder):
        path = source.folder / file
        try:
            with safe_open(path, framework="pt", device="cpu") as weights:
                for name in weights.keys():  # noqa: SIM118  (not a mapping)
                    if not metadata.is_derived(name, config):
                        # safe_open maps the file; a copy stays as it is when the file changes.
                        tensor = weights.get_tensor(name)
                        _check_finite(name, tensor, str(path))
                        tensors[name] = tensor.to(device, copy=True)
        except (SafetensorError, OSError) as error:
            raise MorphingError(
                f"{path} is not a whole safetensors file: download the model again."
            ) from error
    return tensors


def load_adapted(
    adapter: Source, base: Source, base_tensors: Mapping[str, torch.Tensor]
) -> Tensors:
    """The base with an adapter merged in by peft, in the base's stored dtypes.

    Tensors the adapter leaves alone are the very ones of ``base_tensors``, not copies.

    Raises:
        MorphingError: peft cannot read the adapter, or merge its kind or shapes into this base.
    """
    from peft import PeftModel

    dtypes = {tensor.dtype for tensor in base_tensors.values() if tensor.is_floating_point()}
    model = load_model(base, dtypes.pop() if len(dtypes) == 1 else torch.float32)
    try:
        adapted = PeftModel.from_pretrained(model, str(adapter.folder), is_trainable=False)
        merged = adapted.merge_and_unload().state_dict()
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MorphingError(
            f"The adapter {adapter.name} cannot be merged into {base.name}: {reason}"
        ) from error
    tensors: Tensors = {}
    for name, original in base_tensors.items():
        if name not in merged or merged[name].shape != original.shape:
            raise MorphingError(
                f"The adapter {adapter.name} changes the shape or name of {name} in {base.name},"
                " which cannot be merged: choose an adapter that keeps the vocabulary."
            )
        tensor = merged[name].to(original.dtype)
        _check_finite(name, tensor, str(adapter.folder / metadata.ADAPTER_WEIGHTS))
        tensor = tensor.to(original.device)
        tensors[name] = original if torch.equal(tensor, original) else tensor
    return tensors


def _check_finite(name: str, tensor: torch.Tensor, file: str) -> None:
    if not tensor.is_floating_point():
        return
    # A finite sum, one fast pass, proves every entry finite; the converse needs a look at each.
    if not math.isfinite(tensor.sum(dtype=torch.float32)) and not torch.isfinite(tensor).all():
        raise MorphingError(
            f"{name} in {file} holds NaN or infinity: choose another revision of this model."
        )
