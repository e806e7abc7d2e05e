"""An adapter's ``adapter_config.json``, as peft reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphing.errors import MorphingError
from morphing.sources import local, metadata
from morphing.sources.source import Source

if TYPE_CHECKING:
    from peft import PeftConfig

# Fields of peft's configuration that add to a pair of factors, beside those it calls variants.
_EXTRAS = {"lora_bias", "layer_replication", "trainable_token_indices"}
_EXTRAS |= {"target_parameters", "use_qalora"}
# Initialisations that leave the base's weights alone; the others (PiSSA, OLoRA, ...) change them.
_HARMLESS = (True, False, "gaussian", "eva", "orthogonal")


def read_config(source: Source) -> PeftConfig:
    """peft's configuration of an adapter.

    Raises:
        MorphingError: it lacks what scales the adapter, or peft cannot read it.
    """
    from peft import PeftConfig

    path = source.folder / metadata.ADAPTER_CONFIG
    stored = local.read_json(path)  # peft would ask the Hub for a file that is not there
    needed = ["peft_type"]
    if stored.get("peft_type") == "LORA":
        needed += ["r", "lora_alpha"]  # peft's defaults would scale the adapter wrongly
    missing = [key for key in needed if stored.get(key) is None]
    if missing:
        raise MorphingError(f"{path} gives no {' and no '.join(missing)}: download it again.")
    if stored["peft_type"] == "LORA":
        _check_numbers(path, stored)
    try:
        return PeftConfig.from_pretrained(str(source.folder))
    except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MorphingError(
            f"peft cannot read {path}, made by peft {stored.get('peft_version', 'unknown')}"
            f" ({reason}): update peft or choose another adapter."
        ) from error


def _check_numbers(path: Path, stored: Mapping[str, Any]) -> None:
    """Refuse ranks and scales that are no numbers, which peft reads without a look at them.

    Raises:
        MorphingError: naming the first.
    """
    given = {key: stored[key] for key in ("r", "lora_alpha") if stored.get(key) is not None}
    for pattern in ("rank_pattern", "alpha_pattern"):
        entries = stored.get(pattern) or {}
        if not isinstance(entries, Mapping):
            raise MorphingError(f"{path} gives {pattern} as {entries!r}: it must be a mapping.")
        given |= {f"{pattern} of {module}": value for module, value in entries.items()}
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MorphingError(
                f"{path} gives {key} as {value!r}, which is no number: write it without quotes, or"
                " download the adapter again."
            )


def is_plain_lora(config: PeftConfig) -> bool:
    """Whether factors, scale and magnitude are all there is to it."""
    from peft import LoraConfig

    if type(config) is not LoraConfig:
        return False
    variants = {f.name for f in fields(config) if f.metadata.get("is_lora_variant")} | _EXTRAS
    active = {name for name in variants if getattr(config, name, None)}
    return active <= {"use_dora"} and config.init_lora_weights in _HARMLESS
