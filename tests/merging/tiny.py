"""Tiny checkpoints on disk, and recipes over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from morphing.merging.recipe import Recipe
from morphing.sources.source import Source

METHODS = ("linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties")
LAYERS = 3


def save_family(root: Path, dtype: torch.dtype, tied: bool, vocabulary: int = 40) -> list[Path]:
    """A base and three models that differ from it a little everywhere."""
    torch.manual_seed(0)
    base = tiny_llama(tied, vocabulary)
    folders = []
    for name in ("base", "one", "two", "three"):
        model = tiny_llama(tied, vocabulary)
        model.load_state_dict(base.state_dict())
        if name != "base":
            with torch.no_grad():
                for parameter in model.parameters():
                    step = 0.1 * parameter.std() + 0.02  # norms start as ones, without spread
                    parameter.add_(step * torch.randn_like(parameter))
        folders.append(root / name)
        model.to(dtype).save_pretrained(folders[-1])
        save_tokenizer(folders[-1], vocabulary)
    return folders


def tiny_llama(tied: bool = True, vocabulary: int = 40, width: int = 32) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=48,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
        )
    )


def save_tokenizer(folder: Path, vocabulary: int = 40) -> None:
    words = {f"w{i}": i for i in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1", pad_token="w2")
    fast.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    fast.save_pretrained(folder)


def recipe(method: str, family: Sequence[Source], seed: int = 0, **extra: Any) -> Recipe:
    """A recipe of ``method`` with unequal weights, gradients and filters among its parameters."""
    own: list[dict[str, Any]] = [
        {"weight": 0.7, "density": [0.2, 0.9]},
        {"weight": [{"filter": "mlp", "value": -0.3}, {"value": 0.5}], "density": 0.6},
        {"weight": [0.1, 0.4, 0.3], "density": 1.0},
    ]
    if method == "slerp":
        own = [{}]
        extra.setdefault("parameters", {"t": [0.2, 0.8]})
    models = [
        {"model": source.name, "parameters": parameters}
        for source, parameters in zip(family[1:], own, strict=False)
    ]
    config = {"merge_method": method, "models": models, "dtype": "float32", **extra}
    if method != "linear":
        config["base_model"] = family[0].name
    return Recipe(config, seed)
