"""Tiny random models of several architectures, and a tokenizer that is just large enough."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers
from transformers import PreTrainedModel

VOCABULARY = 50
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,
}
_WINDOW = 7


def _llama() -> PreTrainedModel:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SIZES))


def _qwen2() -> PreTrainedModel:
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**_SIZES))


def _mistral() -> PreTrainedModel:
    config = transformers.MistralConfig(**_SIZES, sliding_window=_WINDOW)
    return transformers.MistralForCausalLM(config)


def _gemma2() -> PreTrainedModel:
    """Soft-capped logits, and a window in every other layer."""
    config = transformers.Gemma2Config(**_SIZES, head_dim=8, sliding_window=_WINDOW)
    return transformers.Gemma2ForCausalLM(config)


def _gpt2() -> PreTrainedModel:
    """Learned positions, and no more of them than the tests' rows need."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.4,
    )
    return transformers.GPT2LMHeadModel(config)


def _opt() -> PreTrainedModel:
    """Learned positions that come from the mask."""
    config = transformers.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        init_std=0.4,
        word_embed_proj_dim=32,
    )
    return transformers.OPTForCausalLM(config)


def _mamba() -> PreTrainedModel:
    """Recurrent: what it keeps of a text can't be cut at a token."""
    config = transformers.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8
    )
    return transformers.MambaForCausalLM(config)


def _lfm2() -> PreTrainedModel:
    """Convolutions beside attention."""
    config = transformers.Lfm2Config(**_SIZES, layer_types=["conv", "full_attention"])
    return transformers.Lfm2ForCausalLM(config)


MAKERS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "mistral": _mistral,
    "gemma2": _gemma2,
    "gpt2": _gpt2,
    "opt": _opt,
    "mamba": _mamba,
    "lfm2": _lfm2,
}
KEEPING = ("llama", "qwen2", "mistral", "gemma2", "gpt2", "opt")
"""Those whose memory of a text is keys and values."""


def make(name: str) -> PreTrainedModel:
    """In float64 where the architecture can, so that no close call goes the other way."""
    torch.manual_seed(0)
    model = MAKERS[name]().eval()
    # Gemma 2 masks with float64's least number in float32, where it is minus infinity.
    return model if name == "gemma2" else model.double()


class Letters:
    """Token ids as letters: all that scoring asks of a tokenizer when it is given ids."""

    bos_token_id = None
    eos_token_id = 2
    pad_token_id = None

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join(chr(ord("a") + token) for token in ids if token > 2)
