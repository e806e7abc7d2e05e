"""Settings of a model's configuration under which its weights mean something else.

A rotary base, a norm's epsilon or an activation is no tensor, and a merge takes the base's: sources
trained with another are merged without an error and may collapse. Configurations are compared as
transformers' own classes read them, so that a setting spelled in another release's way, or left at
its default, is no difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# What says nothing of how the weights compute: sizes that shapes show, training, generation.
_HARMLESS = frozenset(
    {
        "vocab_size",
        "num_hidden_layers",
        "max_position_embeddings",
        "original_max_position_embeddings",
        "initializer_range",
        "initializer_factor",
        "use_cache",
        "pretraining_tp",
        "tie_word_embeddings",
        "max_window_layers",
        "use_sliding_window",
        "output_router_logits",
        "router_jitter_noise",
        "is_decoder",
        "rope_scaling",
        "rope_theta",
        "rope_local_base_freq",
        "partial_rotary_factor",
        "architectures",
        "dtype",
        "torch_dtype",
        "transformers_version",
    }
)
_HARMLESS_ENDINGS = ("_token_id", "_dropout", "_pdrop", "dropout", "_loss_coef", "_loss_weight")
# The names that releases and families give to one setting, for configurations that transformers
# does not know.
_ONE_NAME = {
    "n_embd": "hidden_size",
    "d_model": "hidden_size",
    "n_head": "num_attention_heads",
    "n_heads": "num_attention_heads",
    "num_heads": "num_attention_heads",
    "n_inner": "intermediate_size",
    "hidden_activation": "hidden_act",
    "activation_function": "hidden_act",
    "layer_norm_epsilon": "layer_norm_eps",
    "norm_epsilon": "layer_norm_eps",
    "rotary_pct": "partial_rotary_factor",
    "rotary_emb_base": "rope_theta",
    "qkv_bias": "attention_bias",
}
_TELLING = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "layer_norm_eps",
    "sliding_window",
    "attention_bias",
    "mlp_bias",
    "query_pre_attn_scalar",
    "logit_scale",
    "num_experts_per_tok",
)
_TELLING_ENDINGS = ("_multiplier", "_softcapping", "_scaling", "_scale")


def differences(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that change what weights mean and differ between two ``config.json``.

    Returns:
        By the setting's name the first configuration's value and the second's; None where one has
        no such setting. Rotary settings are called ``rope.theta``, ``rope.factor`` and so on.
    """
    ours, theirs = _settings(base), _settings(other)
    return {
        key: (ours.get(key), theirs.get(key))
        for key in sorted(ours.keys() | theirs.keys())
        if not _equal(ours.get(key), theirs.get(key))
    }


def difference_remark(
    base_name: str, base: Mapping[str, Any], name: str, config: Mapping[str, Any]
) -> str | None:
    """One sentence on what a model's weights mean otherwise than the base's; None if nothing.

    Args:
        base_name: whose configuration a merge takes.
        base: its ``config.json``.
        name: of the other model.
        config: its ``config.json``.
    """
    found = differences(base, config)
    if not found:
        return None
    listed = "; ".join(
        f"{key} {_shown(theirs)} where the base has {_shown(ours)}"
        for key, (ours, theirs) in found.items()
    )
    return (
        f"{name} was made with other settings than {base_name}, which merges take and under which"
        f" its weights may mean something else: {listed}."
    )


def transformers_config(config: Mapping[str, Any]) -> PretrainedConfig:
    """transformers' own object for a ``config.json``.

    Raises:
        ValueError: it names no kind of model that transformers knows, or a value is none that its
            class takes.
        KeyError, TypeError, ...: whatever else that class stumbles over.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        built: PretrainedConfig = AutoConfig.for_model(**config)
    except StrictDataclassError as error:
        raise ValueError(strict_reason(error)) from error
    return built


def strict_reason(error: Exception) -> str:
    """What huggingface_hub's strict dataclasses have against a value, in a few words."""
    told = next(filter(None, (line.strip() for line in reversed(str(error).splitlines()))), "")
    return told.partition(": ")[2].partition(". ")[0] or told


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return _normalised(json.dumps(config, sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _normalised(text: str) -> Mapping[str, Any]:
    config = json.loads(text)
    known = _by_transformers(config)
    found = dict(_by_name(config) if known is None else known)
    rope = found.pop("rope_parameters", None)
    return found | dict(_rope(rope if isinstance(rope, Mapping) else {}, "rope"))


def _by_transformers(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings as transformers' class for the configuration reads them; None without one."""
    from dataclasses import fields, is_dataclass

    from transformers import PretrainedConfig

    try:
        read: Any = transformers_config(config).get_text_config()
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        return None
    if not is_dataclass(kind := type(read)):
        return None
    common = {field.name for field in fields(PretrainedConfig)}
    own = {field.name for field in fields(kind)} - common
    values = read.to_dict()
    return {key: values[key] for key in own & values.keys() if not _is_harmless(key)}


def _by_name(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings that are known by their names, whatever the architecture."""
    nested = config.get("text_config")
    inner = {**config, **nested} if isinstance(nested, Mapping) else config
    rope: dict[str, Any] = {}
    for key, value in inner.items():
        name = _ONE_NAME.get(key, key)
        if name in ("rope_theta", "partial_rotary_factor"):
            rope[name] = value
        elif name in ("rope_scaling", "rope_parameters") and isinstance(value, Mapping):
            rope |= value
        elif name in _TELLING or name.endswith(_TELLING_ENDINGS):
            yield name, value
    yield "rope_parameters", rope


def _rope(parameters: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """Rotary settings one by one, those of each kind of layer too; defaults left out."""
    kind = parameters.get("rope_type") or parameters.get("type")
    if kind not in (None, "default"):
        yield f"{name}.type", {"su": "longrope"}.get(kind, kind)
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            yield from _rope(value, f"{name}.{key}")
        elif key in ("rope_type", "type") or value is None:
            continue
        elif key != "partial_rotary_factor" or value != 1:
            yield f"{name}.{key.removeprefix('rope_')}", value


def _is_harmless(key: str) -> bool:
    return key in _HARMLESS or key.endswith(_HARMLESS_ENDINGS) or key.startswith("_")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
