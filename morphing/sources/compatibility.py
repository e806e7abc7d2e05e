"""Whether sources can be merged onto a base, decided from headers alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from morphing.errors import MorphingError
from morphing.sources import naming
from morphing.sources.ancestry import is_base, with_likely
from morphing.sources.configuration import difference_remark
from morphing.sources.source import Inspection, TensorInfo

_LORA_A, _LORA_B = ".lora_A.weight", ".lora_B.weight"
_PEFT_PREFIX = "base_model.model."
_WITHIN_NAMES = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")
_SHOWN = 3
_STACKED = re.compile(r"\.experts\.\w+$")
_SINGLE = re.compile(r"\.experts\.\d+\.")

Vocabulary = Mapping[str, int]


def check(
    base: Inspection,
    sources: Sequence[Inspection],
    allow_unrelated_base: bool = False,
    vocabularies_aligned: bool = False,
    vocabulary: Callable[[str], Vocabulary | None] = lambda name: None,
) -> tuple[str, ...]:
    """Refuse sources that cannot be merged onto ``base``.

    Args:
        base: the common ancestor.
        sources: checkpoints or adapters.
        allow_unrelated_base: accept a base that a source does not name as an ancestor.
        vocabularies_aligned: accept embeddings and heads of other numbers of rows, for recipes that
            say how to bring vocabularies together.
        vocabulary: the tokens and ids of a model's tokenizer by the model's name, or None where it
            has none; asked where numbers of rows differ.

    Returns:
        What was taken for granted, in sentences.

    Raises:
        MorphingError: the first thing that does not fit, and the mend.
    """
    if base.adapter:
        raise MorphingError(
            f"The base {base.name} is an adapter: choose the full model it was trained on as base."
        )
    remarks: list[str] = []
    for model in (base, *sources):
        remarks += model.remarks
        if not model.adapter and model.layers == 0:
            raise MorphingError(
                f"{model.name} has no layers that can be told from the names of its tensors, such"
                f" as {min(model.tensors, default='none')}: choose a model saved with"
                " save_pretrained."
            )
    for source in sources:
        if source.adapter:
            _check_adapter(base, source)
            if not vocabularies_aligned:
                _check_adapter_rows(base, source)
        else:
            ours, theirs = _in_one_layout(base, source)
            _check_checkpoint(ours, theirs)
            remarks += _check_rows(ours, theirs, vocabularies_aligned, vocabulary)
            told = difference_remark(base.name, base.config, source.name, source.config)
            remarks += [told] if told else []
        if not allow_unrelated_base:
            remarks += _check_ancestry(base, source)
    return tuple(dict.fromkeys(remarks))


def vocabulary_rows(model: Inspection) -> int | None:
    """How many rows its embeddings have, by its configuration; None where that does not say."""
    text = model.config.get("text_config")
    size = (text if isinstance(text, Mapping) else model.config).get("vocab_size")
    return size if isinstance(size, int) else None


def _in_one_layout(base: Inspection, source: Inspection) -> tuple[Inspection, Inspection]:
    """Models with tensors of the same names, where they are only saved in different layouts."""
    if naming.same_layout((base.tensors, source.tensors)):
        return base, source
    return _in_original_layout(base), _in_original_layout(source)


def _in_original_layout(model: Inspection) -> Inspection:
    from morphing.sources.conversion import original_layout

    shapes = {name: info.shape for name, info in model.tensors.items()}
    tensors = {}
    for name, link in (original_layout(model.config, shapes) or {}).items():
        stored = model.tensors[link.parameter]
        shape = stored.shape if link.part is None else link.part.shape
        tensors[name] = TensorInfo(shape, stored.dtype)
    return replace(model, tensors=tensors or model.tensors)


def _check_checkpoint(base: Inspection, source: Inspection) -> None:
    if naming.family(source.architecture) != naming.family(base.architecture):
        raise MorphingError(
            f"{source.name} is a {source.architecture} and the base {base.name} a"
            f" {base.architecture}: choose sources of the base's architecture."
        )
    stacked = [model for model in (base, source) if any(map(_STACKED.search, model.tensors))]
    single = [model for model in (base, source) if any(map(_SINGLE.search, model.tensors))]
    if stacked and single and stacked != single:
        raise MorphingError(
            f"{stacked[0].name} stores the experts of a layer stacked, as transformers 5 can save"
            f" them, and {single[0].name} one by one, as transformers 4 does, and transformers"
            f" knows no way from one to the other for {base.architecture}: choose models that were"
            " saved alike."
        )
    # A head that is missing is the embeddings.
    lacking = [n for n in base.tensors.keys() - source.tensors.keys() if not naming.is_head(n)]
    if lacking:
        raise MorphingError(
            f"{source.name} lacks {_listed(lacking)}, which the base {base.name} has: choose"
            " sources of the base's family and size."
        )
    extra = [n for n in source.tensors.keys() - base.tensors.keys() if not naming.is_head(n)]
    if extra:
        raise MorphingError(
            f"The base {base.name} lacks {_listed(extra)}, which {source.name} has: choose sources"
            " of the base's family and size."
        )


def _check_rows(
    base: Inspection,
    source: Inspection,
    aligned: bool,
    vocabulary: Callable[[str], Vocabulary | None],
) -> list[str]:
    """Shapes, of which the rows of tokens may differ: by padding, or where the recipe aligns them.

    Returns:
        That rows of padding differ, if they do.
    """
    padding: tuple[TensorInfo, TensorInfo] | None = None
    for tensor, info in source.tensors.items():
        own = base.tensors.get(tensor) or _embeddings(base)
        if own is None or info.shape == own.shape:
            continue
        of_tokens = naming.is_token_indexed(tensor) and info.shape[1:] == own.shape[1:]
        if of_tokens and aligned:
            continue
        if not of_tokens:
            raise _misshapen(base, source, tensor, "choose sources of the base's size")
        if padding is None and not _is_padding(base, source, info, own, vocabulary):
            mend = "say in the spec whose vocabulary the merges have, with tokenizer_source: base"
            raise _misshapen(base, source, tensor, f"{mend} or union")
        padding = info, own
    if padding is None:
        return []
    theirs, ours = (info.shape[0] for info in padding)
    return [naming.padding_remark(source.name, theirs, base.name, ours)]


def _is_padding(
    base: Inspection,
    source: Inspection,
    theirs: TensorInfo,
    ours: TensorInfo,
    vocabulary: Callable[[str], Vocabulary | None],
) -> bool:
    """Whether the rows that only one model has are of no token: both have the same tokens."""
    known, other = vocabulary(base.name), vocabulary(source.name)
    if not known or known != other:
        return False
    return max(known.values()) < min(theirs.shape[0], ours.shape[0])


def _misshapen(base: Inspection, source: Inspection, tensor: str, mend: str) -> MorphingError:
    own = base.tensors.get(tensor) or _embeddings(base)
    assert own is not None
    return MorphingError(
        f"{tensor} is {_shape(source.tensors[tensor].shape)} in {source.name} and"
        f" {_shape(own.shape)} in the base {base.name}: {mend}."
    )


def _check_adapter(base: Inspection, source: Inspection) -> None:
    """LoRA pairs must fit the weights they adapt: B is (out, r), A is (r, in)."""
    loaded: Mapping[str, tuple[int, ...]] | None = None
    for tensor, info in source.tensors.items():
        for suffix, side in ((_LORA_A, -1), (_LORA_B, 0)):
            if not tensor.endswith(suffix) or not info.shape:
                continue
            target = tensor.removeprefix(_PEFT_PREFIX).removesuffix(suffix) + ".weight"
            stored = base.tensors.get(target)
            adapted = None if stored is None else stored.shape
            if adapted is None and source.config.get("target_parameters"):
                continue  # of stacked experts, whose factors peft stacks in a way of its own
            if adapted is None:
                loaded = _loaded_shapes(base) if loaded is None else loaded
                adapted = loaded.get(target)
            if adapted is None or info.shape[side] not in adapted:
                shape = f"of shape {_shape(adapted)} in" if adapted else "absent from"
                named = ", ".join(map(with_likely, source.base_models)) or "it names none"
                raise MorphingError(
                    f"The adapter {source.name} changes {target}, which is {shape} the base"
                    f" {base.name}: choose the base it was trained on ({named})."
                )


def _check_adapter_rows(base: Inspection, source: Inspection) -> None:
    """Refuse an adapter whose embeddings or head, stored whole, have other rows than the base's."""
    for tensor, info in source.tensors.items():
        if ".original_module." in tensor:
            continue
        target = _WITHIN_NAMES.sub("", tensor.removeprefix(_PEFT_PREFIX))
        own = base.tensors.get(target) or _embeddings(base)
        if own is None or not naming.is_token_indexed(target) or len(info.shape) != 2:
            continue
        if info.shape[0] != own.shape[0] and info.shape[1:] == own.shape[1:]:
            raise MorphingError(
                f"The adapter {source.name} has {info.shape[0]} rows of tokens and the base"
                f" {base.name} {own.shape[0]}: say in the spec whose vocabulary the merges have,"
                " with tokenizer_source: base or union."
            )


def _loaded_shapes(base: Inspection) -> dict[str, tuple[int, ...]]:
    """Of the parameters of the base as transformers loads it, by the names that peft knows."""
    from morphing.sources.conversion import meta_model

    try:
        state = meta_model(base.config).state_dict()
    except (ValueError, KeyError, RuntimeError, AttributeError, TypeError, ImportError):
        return {}
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _check_ancestry(base: Inspection, source: Inspection) -> list[str]:
    """Refuse a checkpoint made from another base; of an adapter that fits, say so only."""
    named = source.base_models
    found = [is_base(model, base.name) for model in (*named, source.name)]
    if not named or "same" in found:
        return []
    if source.adapter or "likely" in found:
        kind = "The adapter " if source.adapter else ""
        return [
            f"{kind}{source.name} says it was made from {', '.join(named)}: its tensors fit the"
            f" base {base.name}, which is taken for that model."
        ]
    raise MorphingError(
        f"{source.name} says it was made from {', '.join(named)}, not from the base {base.name}:"
        " choose that base, or set allow_unrelated_base: true in the spec."
    )


def _embeddings(model: Inspection) -> TensorInfo | None:
    name = naming.embedding(model.tensors)
    return None if name is None else model.tensors[name]


def _listed(names: Sequence[str]) -> str:
    first = sorted(names)[:_SHOWN]
    rest = len(names) - len(first)
    return ", ".join(first) + (f" and {rest} more" if rest else "")


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape) or "a scalar"
