"""Whether a name that a card or an adapter gives its base is another spelling of a model's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from morphing.sources.source import ZOO

Likeness = Literal["same", "likely", "other"]

_QUANTISED = re.compile(
    r"[-_.](unsloth[-_])?(bnb[-_])?([48]bits?|int[48]|fp8|nf4|gptq|awq|gguf|mlx)"
    r"([-_.](int[48]|[48]bits?|g\d+|\d+g))*$",
    re.IGNORECASE,
)
_SAVED = re.compile(r"[-_.](hf|bf16|fp16|f16)$", re.IGNORECASE)
_MAKER = re.compile(r"^(meta|google|mistralai|qwen|microsoft)[-_]", re.IGNORECASE)


def is_base(model: str, base: str) -> Likeness:
    """Whether an ancestor named by a card is the base.

    A local folder is known by its last part. Copies, quantised ones and repositories that were
    renamed are likely the same: ``unsloth/llama-3-8b-bnb-4bit`` and ``meta-llama/Meta-Llama-3-8B``.
    """
    model, base = _canonical(model), _canonical(base)
    if model.lower() == base.lower():
        return "same"
    known_by_folder = Path(base).is_absolute() and not Path(model).is_absolute()
    if known_by_folder and Path(model).name.lower() == Path(base).name.lower():
        return "same"
    return "likely" if _spelling(model) == _spelling(base) else "other"


def unquantised(model: str) -> str:
    """The name less what says how it was quantised, which is most likely what it was made from."""
    repository = model.partition("@")[0]
    plain = _QUANTISED.sub("", repository)
    return model if plain == repository else plain


def with_likely(model: str) -> str:
    """A name, with the one it most likely stands for where it is a quantised copy's."""
    plain = unquantised(model)
    return model if plain == model else f"{model}, most likely {plain}"


def _canonical(name: str) -> str:
    if name.startswith(ZOO):
        return "morphing-zoo/" + name.removeprefix(ZOO)
    return name if Path(name).is_absolute() else name.partition("@")[0]


def _spelling(name: str) -> str:
    last = _MAKER.sub("", _SAVED.sub("", unquantised(Path(name).name)))
    return re.sub(r"[^a-z0-9]", "", last.lower())
