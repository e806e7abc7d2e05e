"""Whether sources can be merged onto a base, decided from headers alone."""

import re
from collections.abc import Sequence
from pathlib import Path

from morphing.errors import MorphingError
from morphing.sources.source import ZOO, Inspection

_LORA_A, _LORA_B = ".lora_A.weight", ".lora_B.weight"
_PEFT_PREFIX = "base_model.model."
_TOKENS = re.compile(r"embed|wte|lm_head")


def check(
    base: Inspection,
    sources: Sequence[Inspection],
    allow_unrelated_base: bool = False,
    vocabularies_aligned: bool = False,
) -> None:
    """Refuse sources that cannot be merged onto ``base``.

    Args:
        base: the common ancestor.
        sources: checkpoints or adapters.
        allow_unrelated_base: accept a base that a source does not name as an ancestor.
        vocabularies_aligned: accept embeddings and heads of other numbers of rows, for recipes that
            say how to bring vocabularies together.

    Raises:
        MorphingError: the first thing that does not fit, and the mend.
    """
    if base.adapter:
        raise MorphingError(
            f"The base {base.name} is an adapter: choose the full model it was trained on as base."
        )
    for source in sources:
        if source.adapter:
            _check_adapter(base, source)
        else:
            _check_checkpoint(base, source, vocabularies_aligned)
        if not allow_unrelated_base:
            _check_ancestry(base, source)


def _check_checkpoint(base: Inspection, source: Inspection, vocabularies_aligned: bool) -> None:
    if source.architecture != base.architecture:
        raise MorphingError(
            f"{source.name} is a {source.architecture} and the base {base.name} a"
            f" {base.architecture}: choose sources of the base's architecture."
        )
    if lacking := base.tensors.keys() - source.tensors.keys():
        raise MorphingError(
            f"{source.name} lacks {min(lacking)}, which the base {base.name} has: choose sources of"
            " the base's family and size."
        )
    for tensor, info in source.tensors.items():
        if tensor not in base.tensors:
            raise MorphingError(
                f"The base {base.name} lacks {tensor}, which {source.name} has: choose sources of"
                " the base's family and size."
            )
        expected = base.tensors[tensor].shape
        if info.shape == expected:
            continue
        of_tokens = _TOKENS.search(tensor) is not None and info.shape[1:] == expected[1:]
        if of_tokens and vocabularies_aligned:
            continue
        mend = (
            "say in the spec whose vocabulary the merges have, with tokenizer_source: base or union"
            if of_tokens
            else "choose sources of the base's size"
        )
        raise MorphingError(
            f"{tensor} is {_shape(info.shape)} in {source.name} and {_shape(expected)} in the base"
            f" {base.name}: {mend}."
        )


def _check_adapter(base: Inspection, source: Inspection) -> None:
    """LoRA pairs must fit the weights they adapt: B is (out, r), A is (r, in)."""
    for tensor, info in source.tensors.items():
        for suffix, side in ((_LORA_A, -1), (_LORA_B, 0)):
            if not tensor.endswith(suffix) or not info.shape:
                continue
            target = tensor.removeprefix(_PEFT_PREFIX).removesuffix(suffix) + ".weight"
            adapted = base.tensors.get(target)
            if adapted is None or info.shape[side] not in adapted.shape:
                shape = f"of shape {_shape(adapted.shape)} in" if adapted else "absent from"
                raise MorphingError(
                    f"The adapter {source.name} changes {target}, which is {shape} the base"
                    f" {base.name}: choose the base it was trained on"
                    f" ({', '.join(source.base_models) or 'it names none'})."
                )


def _check_ancestry(base: Inspection, source: Inspection) -> None:
    named = source.base_models
    if not named or any(_same(model, base.name) for model in (*named, source.name)):
        return
    raise MorphingError(
        f"{source.name} says it was made from {', '.join(named)}, not from the base {base.name}:"
        " choose that base, or set allow_unrelated_base: true in the spec."
    )


def _same(model: str, base: str) -> bool:
    """Whether an ancestor named by a card is the base; a local folder is known by its last part."""
    model, base = _canonical(model), _canonical(base)
    if Path(base).is_absolute() and not Path(model).is_absolute():
        return Path(model).name == Path(base).name
    return model == base


def _canonical(name: str) -> str:
    if _is_zoo(name):
        return "morphing-zoo/" + name.removeprefix(ZOO)
    return name if Path(name).is_absolute() else name.partition("@")[0]


def _is_zoo(name: str) -> bool:
    return name.startswith(ZOO)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape) or "a scalar"
