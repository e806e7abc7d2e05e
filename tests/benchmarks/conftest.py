"""A tiny model and tokenizer, and declarations over rows written by a test.

Imports inside the fixtures: the local Hub's address must be set before a Hub client is imported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from morphing.benchmarks.benchmark import Benchmark, parse_benchmark

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789 +-=?.:\n"
TEMPLATE = (
    "{% for m in messages %}<{{ m.content }}>{% endfor %}{% if add_generation_prompt %}:{% endif %}"
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost a tiny model more than they give."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Characters as tokens; no chat template; its padding token is its end token."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {character: index for index, character in enumerate(CHARACTERS + "<>", 3)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture(scope="session")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Random weights, wide enough for greedy text to vary; float64, so padding can't flip a tie."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        initializer_range=0.4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).double().eval()


@pytest.fixture
def declare(tmp_path: Path) -> Callable[..., Benchmark]:
    """A benchmark over rows, one list a split; fields given override the declaration."""

    def declare(splits: Mapping[str, Sequence[Mapping[str, Any]]], **fields: Any) -> Benchmark:
        for split, rows in splits.items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        data = {
            "name": "toy",
            "dataset": str(tmp_path),
            "kind": "generation",
            "prompt": "{{ question }}",
            "target": "{{ answer }}",
            **fields,
        }
        return parse_benchmark(data, "toy")

    return declare


@pytest.fixture(scope="session")
def sandbox() -> None:
    """Skips where this system can't isolate programs, which CI must."""
    from morphing.benchmarks.sandbox.check import check_sandbox
    from morphing.errors import MorphingError

    try:
        check_sandbox()
    except MorphingError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
