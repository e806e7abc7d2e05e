"""Models as transformers and peft load them: whole, and adapters merged in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch

from morphing.errors import MorphingError
from morphing.sources import metadata
from morphing.sources.configuration import strict_reason
from morphing.sources.conversion import Unlinked, gather, link
from morphing.sources.source import Source
from morphing.sources.weights import Weights, check_finite, is_finite

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tensors = dict[str, torch.Tensor]


def load_model(source: Source, dtype: torch.dtype) -> PreTrainedModel:
    """The causal language model of a checkpoint, on the CPU, in eval mode, gradients off.

    Raises:
        MorphingError: transformers cannot load it without running code from the repository, a
            tensor is missing, or one holds NaN or infinity.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoModelForCausalLM

    weights = Weights(source)
    try:
        # transformers would put an adapter that lies beside the model on top of it.
        if weights.renamed or (source.folder / metadata.ADAPTER_CONFIG).exists():
            model, found = _load_tensors(weights, dtype)
        else:
            model, found = AutoModelForCausalLM.from_pretrained(
                source.folder,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except StrictDataclassError as error:
        raise MorphingError(
            f"transformers cannot read the config.json of {source.name}: {strict_reason(error)}:"
            " mend it, or download the model again."
        ) from error
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MorphingError(
            f"transformers cannot load {source.name} as a causal language model: {reason}"
        ) from error
    check_missing(found["missing_keys"], source.name)
    _check_values(model, source.name, dtype)
    return model.eval().requires_grad_(False)


def check_missing(missing: Collection[str], model: str) -> None:
    """Refuse a checkpoint that lacks tensors, which transformers would fill in at random.

    Raises:
        MorphingError: naming some of them.
    """
    if missing:
        first = sorted(missing)[:3]
        more = f" and {len(missing) - len(first)} more" if len(missing) > len(first) else ""
        raise MorphingError(
            f"{model} lacks {', '.join(first)}{more}, for which random weights would be taken:"
            " choose a whole checkpoint, or a config.json that fits this one."
        )


def _check_values(model: PreTrainedModel, name: str, dtype: torch.dtype) -> None:
    """Refuse NaN and infinity, in the files or from rounding to a dtype that is too small."""
    for parameter, tensor in model.state_dict().items():
        if not is_finite(tensor):
            count = int((~torch.isfinite(tensor)).sum())
            raise MorphingError(
                f"{parameter} of {name} holds NaN or infinity in {count} of its {tensor.numel()}"
                f" values once it is loaded as {str(dtype).removeprefix('torch.')}: choose another"
                " dtype or another revision of this model."
            )


def _load_tensors(
    weights: Weights, dtype: torch.dtype
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """The model of tensors that their file calls by other names, and what loading found."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, GenerationConfig

    folder = weights.source.folder
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    tensors = {name: weights.read(name) for name in weights.info}
    model, found = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
        None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True
    )
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model, found


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
    if added := merged.keys() - held.keys():
        raise MorphingError(
            f"The adapter {adapter.name} adds {min(added)} to {base.name}, which its merge would"
            " lack: choose an adapter that keeps the base's layers."
        )
    tensors: Tensors = {}
    for name, original in base_tensors.items():
        names = {one.parameter for one in links[name]}
        if any(key not in merged or merged[key].shape != held[key] for key in names):
            raise MorphingError(
                f"The adapter {adapter.name} changes the shape or name of {name} in {base.name},"
                " which cannot be merged: choose an adapter that keeps the vocabulary."
            )
        tensor = gather(links[name], merged, original.shape).to(original.dtype)
        check_finite(name, tensor, adapter.name)
        tensor = tensor.to(original.device)
        tensors[name] = original if torch.equal(tensor, original) else tensor
    return tensors
