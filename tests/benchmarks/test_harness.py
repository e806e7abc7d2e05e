"""The same answers as lm-evaluation-harness's own HFLM, from a real LLM: a few of what
`perf/harness.py` compares many of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.twins import Twin, compare, twins

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS = 10

pytestmark = [pytest.mark.slow, pytest.mark.testbed]


@dataclass(frozen=True)
class Asked:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    twins: dict[str, Twin]


@pytest.fixture(scope="module")
def asked(llm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """The LLM in float32, pulled by id from the local Hub, and all there is to ask it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("twins")
    model = AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(llm)
    found = {twin.name: twin for twin in twins(folder, TOKENS)}
    yield Asked(model, tokenizer, folder, found)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gsm8k", 3),
        ("mgsm_ja", 2),
        ("mgsm_es", 2),
        ("lm_eval_mgsm_zh", 2),
        ("mawps", 6),
        ("rotten_tomatoes", 8),
        ("arc", 6),
        ("hellaswag", 2),
        ("boolq", 4),
        ("winogrande", 4),
        ("lm_eval_arc", 4),
        ("perplexity", 4),
    ],
)
def test_the_same_answers_as_the_harness(asked: Asked, name: str, count: int) -> None:
    found = compare(asked.twins[name], asked.model, asked.tokenizer, asked.folder, count, TOKENS, 4)
    assert (found.n, found.same) == (count, count), found.differences
    assert not found.elsewhere
