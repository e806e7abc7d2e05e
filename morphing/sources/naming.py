"""Which of a checkpoint's tensors are the model's own, and by which names transformers knows them.

Trainers leave things beside a model's weights (a value head, tables that are computed anew) and
wrap it, so that something stands before or within every name; tools that save the inner model
leave the outer one's name out. None of this changes the model, and sources saved in different ways
can be merged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from morphing.errors import MorphingError
from morphing.sources.conversion import without_place
from morphing.sources.source import TensorInfo

_TABLE = re.compile(
    r"(^|\.)(rotary_emb\.((original_)?inv_freq|cos_cached|sin_cached)|position_ids)$"
)
"""What a model computes anew, and older versions of transformers stored."""
_MASK = re.compile(r"(^|\.)(attn|attention)\.(masked_)?bias$")
"""Causal masks of older versions; a layer's bias of this name has one axis."""
_STRAY = re.compile(r"^(v_head|value_head|critic_head|reward_head)\.")
"""What trainers put on a model to score its answers."""
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in)\.weight$")
_WITHIN = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_BEFORE = ("module.", "base_model.model.", "pretrained_model.")
_DOUBLED = re.compile(r"^model\.(model\.|lm_head\.|transformer\.|gpt_neox\.)")
_MADE_INTO = ("forcausallmwithvaluehead", "forcausallm", "lmheadmodel", "model")
_HEADS = ("lm_head", "embed_out")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_INNER = re.compile(r"^(layers\.\d+\.|h\.\d+\.|decoder\.layers\.\d+\.)")


@dataclass(frozen=True)
class OwnTensors:
    """The model's own tensors among those that a checkpoint's files hold."""

    stored: Mapping[str, str]
    """The files' names, by the names in which transformers saves the model."""
    tied_head: tuple[str, str] | None
    """A stored head, by both names, that the configuration ties to the embeddings: a copy of them,
    unless the configuration is wrong."""
    remarks: tuple[str, ...]
    """What was left out or renamed, in sentences."""


def own_tensors(
    name: str, headers: Mapping[str, TensorInfo], config: Mapping[str, Any]
) -> OwnTensors:
    """Tell a model's own tensors from what lies beside them.

    Args:
        name: of the model, for remarks.
        headers: every tensor of a checkpoint's weight files, by name.
        config: its ``config.json``.

    Raises:
        MorphingError: two tensors are the same one but for what stands around their names, or an
            adapter lies unmerged in the weights.
    """
    own: dict[str, str] = {}
    strays = []
    unwrapped = _unwrapped(headers)
    foreign = _foreign(unwrapped.values(), config)
    for stored, plain in unwrapped.items():
        if is_stray(plain, headers[stored]) or plain in foreign:
            strays.append(stored)
        elif ".lora_A." in plain or ".lora_B." in plain:
            raise MorphingError(
                f"{name} holds an adapter beside the weights it changes ({stored}): merge it into"
                " them (merge_and_unload) before saving, or save the adapter alone."
            )
        elif plain in own:
            raise MorphingError(
                f"{name} holds {plain} twice, as {own[plain]} and as {stored}: save it again."
            )
        else:
            own[plain] = stored
    prefix = _missing_prefix(own, config)
    own = {plain if _HEAD.search(plain) else prefix + plain: s for plain, s in own.items()}
    heads = [plain for plain in own if _HEAD.search(plain)]
    tied = (heads[0], own.pop(heads[0])) if heads and ties_head(config) else None
    return OwnTensors(own, tied, tuple(_remarks(name, own, strays)))


def is_stray(tensor: str, info: TensorInfo) -> bool:
    """Whether a stored tensor is none of the model's own: a value head, tables, causal masks."""
    if _STRAY.search(tensor) or _TABLE.search(tensor):
        return True
    return len(info.shape) in (0, 4) and _MASK.search(tensor) is not None


def is_derived(tensor: str, info: TensorInfo, config: Mapping[str, Any]) -> bool:
    """Whether a stored tensor is a stray or a tied head."""
    return is_stray(tensor, info) or (_HEAD.search(tensor) is not None and ties_head(config))


def is_head(tensor: str) -> bool:
    """Whether this is a model's output matrix by its name."""
    return _HEAD.search(tensor) is not None


def is_token_indexed(tensor: str) -> bool:
    """Whether a tensor has a row for each token, by its name: embeddings, a head or its bias."""
    weight = tensor.removesuffix("bias") + "weight" if tensor.endswith(".bias") else tensor
    return _EMBEDDING.search(weight) is not None or _HEAD.search(weight) is not None


def same_layout(models: Iterable[Iterable[str]]) -> bool:
    """Whether models have tensors of the same names, but for a head, which some may lack."""
    names = [frozenset(model) for model in models]
    heads = frozenset(filter(is_head, frozenset().union(*names)))
    return len({own - heads for own in names}) == 1 and len(heads) <= 1


def embedding(names: Iterable[str]) -> str | None:
    """The name of the token embeddings among a model's tensors."""
    return next((name for name in names if _EMBEDDING.search(name)), None)


def padding_remark(model: str, rows: int, base: str, wanted: int) -> str:
    """That a model's rows of padding are not as many as the base's, in a sentence."""
    return (
        f"{model} has {rows} rows of tokens and the base {base} {wanted}, for the same tokens: the"
        f" rest is padding, and merges have the base's {wanted} rows."
    )


def family(architecture: str | None) -> str | None:
    """An architecture less what it is made into: the inner model saved alone is of the family.

    Case says nothing: models of before transformers had Llama call themselves LLaMA.
    """
    if architecture is None:
        return None
    plain = architecture.casefold()
    for ending in _MADE_INTO:
        if plain.endswith(ending):
            return plain.removesuffix(ending)
    return plain


def ties_head(config: Mapping[str, Any]) -> bool:
    """Whether a configuration ties the head to the embeddings, by itself or as its class does."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        if isinstance(said := part.get("tie_word_embeddings"), bool):
            return said
    return _class_ties(str(config.get("model_type")))


@lru_cache
def _class_ties(model_type: str) -> bool:
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        return False
    return bool(getattr(CONFIG_MAPPING[model_type], "tie_word_embeddings", False))


def _foreign(names: Iterable[str], config: Mapping[str, Any]) -> set[str]:
    """What transformers leaves out as it loads a causal language model.

    That are heads for other purposes (medusa, a classifier), and layers beyond those that the
    configuration counts, which predict further tokens.
    """
    names = set(names)
    text = config.get("text_config")
    inner = text if isinstance(text, Mapping) else config
    layers = inner.get("num_hidden_layers")
    found = set()
    if inner.get("num_nextn_predict_layers") and type(layers) is int:
        numbered = ((name, _LAYER.search(name)) for name in names)
        found = {name for name, match in numbered if match and int(match[1]) >= layers}
    kind, prefix = _causal_class(str(config.get("model_type")))
    architectures = config.get("architectures") or [kind]
    modules = {name.partition(".")[0] for name in names}
    if kind and architectures == [kind] and prefix in modules and modules - {prefix, *_HEADS}:
        found |= without_place(config, names)
    return found


@lru_cache
def _causal_class(model_type: str) -> tuple[str, str]:
    """The class of an architecture's causal language model, and its inner model's name in it."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    known = model_type in CONFIG_MAPPING
    if not known or (kind := CONFIG_MAPPING[model_type]) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "", ""
    model = MODEL_FOR_CAUSAL_LM_MAPPING[kind]
    return model.__name__, model.base_model_prefix


def _unwrapped(headers: Iterable[str]) -> dict[str, str]:
    """Stored names, each without what trainers' wrappers add to all of them."""
    plain = {name: name for name in headers}
    for word in _WITHIN:
        plain = {stored: name.replace(word, "") for stored, name in plain.items()}
    while True:
        names = [name for name in plain.values() if not _STRAY.search(name)]
        if not names:
            return plain
        shared = [p for p in _BEFORE if all(name.startswith(p) for name in names)]
        if not shared and _is_doubled(names):
            shared = ["model."]
        if not shared:
            return {stored: name.replace(".base_layer.", ".") for stored, name in plain.items()}
        plain = {stored: name.removeprefix(shared[0]) for stored, name in plain.items()}


def _is_doubled(names: Sequence[str]) -> bool:
    """Whether ``model.`` stands before a whole model's names, as Lightning saves it."""
    inside = all(name.startswith("model.") for name in names)
    return inside and any(_DOUBLED.search(name) for name in names)


def _missing_prefix(names: Iterable[str], config: Mapping[str, Any]) -> str:
    """What a checkpoint of the inner model alone leaves out before its names; empty if nothing."""
    names = list(names)
    if not any(_INNER.search(name) for name in names):
        return ""
    inner = _causal_class(str(config.get("model_type")))[1]
    prefix = f"{inner}." if inner else ""
    return "" if any(name.startswith(prefix) for name in names) else prefix


def _remarks(name: str, own: Mapping[str, str], strays: Sequence[str]) -> Iterable[str]:
    if strays:
        more = f" and {len(strays) - 1} more like it" if len(strays) > 1 else ""
        yield f"{name} stores {strays[0]}{more}, which is no part of the model: it is left out."
    renamed = next(((plain, stored) for plain, stored in own.items() if plain != stored), None)
    if renamed is not None:
        yield (
            f"{name} was saved with other names for its tensors: {renamed[1]} is taken as"
            f" {renamed[0]}, and the others likewise."
        )
