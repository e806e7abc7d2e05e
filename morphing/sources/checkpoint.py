"""Models as transformers and peft load them: whole, and adapters merged in memory."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from morphing.errors import MorphingError
from morphing.sources import metadata
from morphing.sources.conversion import Unlinked, gather, link
from morphing.sources.source import Source
from morphing.sources.weights import Weights, check_finite

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tensors = dict[str, torch.Tensor]


def load_model(source: Source, dtype: torch.dtype) -> "PreTrainedModel":
    """The causal language model of a checkpoint, on the CPU, in eval mode, gradients off.

    Raises:
        MorphingError: transformers cannot load it without running code from the repository.
    """
    from transformers import AutoModelForCausalLM

    weights = Weights(source)
    try:
        if weights.renamed:
            model = _load_tensors(weights, dtype)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                source.folder, dtype=dtype, trust_remote_code=False, use_safetensors=True
            )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MorphingError(
            f"transformers cannot load {source.name} as a causal language model: {reason}"
        ) from error
    return model.eval().requires_grad_(False)


def _load_tensors(weights: Weights, dtype: torch.dtype) -> "PreTrainedModel":
    """The model of tensors that their file calls by other names."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, GenerationConfig

    folder = weights.source.folder
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    tensors = {name: weights.read(name) for name in weights.info}
    model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
        None, config=config, state_dict=tensors, dtype=dtype
    )
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def load_tokenizer(source: Source) -> Any:  # transformers has no type for all of them
    """The tokenizer of a checkpoint.

    Raises:
        MorphingError: there is none that transformers loads without running code.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MorphingError(f"{source.name} has no usable tokenizer: {reason}") from error


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
    shapes = {name: tensor.shape for name, tensor in base_tensors.items()}
    try:
        links = link(model, shapes)
        held = {name: tensor.shape for name, tensor in model.state_dict().items()}
        adapted = PeftModel.from_pretrained(model, str(adapter.folder), is_trainable=False)
        merged = adapted.merge_and_unload().state_dict()
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OSError,
        RuntimeError,
        Unlinked,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MorphingError(
            f"The adapter {adapter.name} cannot be merged into {base.name}: {reason}"
        ) from error
    tensors: Tensors = {}
    for name, original in base_tensors.items():
        names = {one.parameter for one in links[name]}
        if any(key not in merged or merged[key].shape != held[key] for key in names):
            raise MorphingError(
                f"The adapter {adapter.name} changes the shape or name of {name} in {base.name},"
                " which cannot be merged: choose an adapter that keeps the vocabulary."
            )
        tensor = gather(links[name], merged, original.shape).to(original.dtype)
        check_finite(name, tensor, adapter.folder / metadata.ADAPTER_WEIGHTS)
        tensor = tensor.to(original.device)
        tensors[name] = original if torch.equal(tensor, original) else tensor
    return tensors
