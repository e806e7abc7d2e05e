"""Kinds of benchmarks and what their prompts become, against the plainest way to do the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.engine.encode import Request, windows
from morphing.benchmarks.evaluate import evaluate, prepare
from morphing.benchmarks.kinds.table import KINDS
from morphing.errors import MorphingError
from tests.benchmarks.conftest import TEMPLATE

Declare = Callable[..., Benchmark]
REFUSING = (
    "{{ raise_exception('no system here') if messages[0].role == 'system' else '' }}" + TEMPLATE
)
IGNORING = TEMPLATE.replace("<{{", "{% if m.role != 'system' %}<{{").replace(
    "}}>", "}}>{% endif %}"
)


def logprobs(model: LlamaForCausalLM, ids: list[int]) -> list[float]:
    """Of every token but the first, after those before it."""
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [float(scores[at - 1, token]) for at, token in enumerate(ids) if at]


def choice(declare: Declare, **fields: object) -> Benchmark:
    return declare({}, kind="multiple_choice", choices=["a", "b"], target="0", **fields)


def told(text: str) -> list[float]:
    return [float(part.partition(" ")[0]) for part in text.split("=")[1:]]


def test_the_table_of_kinds_is_whole_and_told() -> None:
    """Its fields are a declaration's, its modules score, and the manual has a line for each."""
    manual = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for kind in KINDS.values():
        assert {*kind.needs, *kind.takes} <= Benchmark.model_fields.keys()
        scorer = import_module(f"morphing.benchmarks.{kind.module}")
        assert all(callable(getattr(scorer, name)) for name in ("check", "requests", "score"))
        assert f"| `{kind.name}` | {kind.sentence} |" in manual
        assert kind.title


def test_normalized_by_tokens_characters_or_bytes(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    """The space before an option is none of its characters; the tokenizer knows no é: <unk>."""
    options = (" yes", " n", " été")
    sample = Sample("0", "is it?", 0, options)
    ids = tokenizer("is it?")["input_ids"]
    sums = [
        sum(logprobs(model, ids + tokenizer(option)["input_ids"])[len(ids) - 1 :])
        for option in options
    ]
    lengths = {None: [1, 1, 1], "tokens": [4, 2, 4], "characters": [3, 1, 3], "bytes": [3, 1, 5]}
    for normalize, by in lengths.items():
        benchmark = choice(declare, normalize=normalize)
        (output,) = evaluate(model, tokenizer, benchmark, [sample]).outputs
        expected = [value / length for value, length in zip(sums, by, strict=True)]
        assert told(output.text) == pytest.approx(expected, abs=1e-4)
        assert output.answer == options[expected.index(max(expected))].strip()


def test_a_continuation_is_what_is_scored(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    sample = Sample("0", "he saw ", 1, ("ann", "bobby"), continuation=" and ran")
    benchmark = choice(declare, continuation="x", normalize="characters")
    (output,) = evaluate(model, tokenizer, benchmark, [sample]).outputs
    expected = []
    for option in sample.choices:
        before = tokenizer(sample.prompt + option)["input_ids"]
        ids = before + tokenizer(sample.continuation)["input_ids"]
        expected.append(sum(logprobs(model, ids)[len(before) - 1 :]) / len("and ran"))
    assert told(output.text) == pytest.approx(expected, abs=1e-4)
    assert output.target == "bobby"


def test_options_without_a_prompt(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    """They begin after the token that begins every text."""
    sample = Sample("0", "", 0, ("yes", "no"))
    (output,) = evaluate(model, tokenizer, choice(declare), [sample]).outputs
    expected = [
        sum(logprobs(model, [tokenizer.bos_token_id, *tokenizer(option)["input_ids"]]))
        for option in sample.choices
    ]
    assert told(output.text) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("prompt", ["", "once upon a time"])
def test_bits_per_byte(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare, prompt: str
) -> None:
    benchmark = declare({}, kind="perplexity")
    text = " there was été"
    score = evaluate(model, tokenizer, benchmark, [Sample("0", prompt, text)])
    before = tokenizer(prompt)["input_ids"] or [tokenizer.bos_token_id]
    ids = before + tokenizer(text)["input_ids"]
    bits = -sum(logprobs(model, ids)[len(before) - 1 :]) / math.log(2)
    assert score.value == pytest.approx(bits / len(text.encode()), abs=1e-6)
    assert (score.tokens, score.truncated) == (None, 0)
    assert score.outputs[0].answer == f"{score.value:.4f}"


def test_long_texts_are_read_in_windows(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    """The context is 96 tokens; a token is a character."""
    text = "the quick brown fox jumps over the lazy dog. " * 6
    ids = tokenizer(text)["input_ids"]
    total = 0.0
    for context, answer in map(
        make_disjoint_window, get_rolling_token_windows(ids, tokenizer.bos_token_id, 96, 1)
    ):
        total += sum(logprobs(model, context + answer)[len(context) - 1 :])
    benchmark = declare({}, kind="perplexity")
    found = [
        evaluate(model, tokenizer, benchmark, [Sample("0", "", text)] * 3, size).value
        for size in (None, 1)
    ]
    expected = -total / math.log(2) / len(text.encode())
    assert found == pytest.approx([expected, expected], abs=1e-6)
    long = Sample("0", "before " * 20, text)
    assert evaluate(model, tokenizer, benchmark, [long]).truncated == 1


@pytest.mark.parametrize("before", [1, 3, 9, 30])
@pytest.mark.parametrize("answer", [1, 7, 8, 25])
def test_windows_ask_for_every_token_once(before: int, answer: int) -> None:
    context = 8
    request = Request(tuple(range(before + answer)), answer)
    asked: list[int] = []
    for window in windows(request, context):
        assert len(window.ids) - 1 <= context or window == request
        assert 0 < window.answer < len(window.ids)
        assert window.truncated is (before + answer > context + 1 and before > context // 2)
        asked += window.ids[-window.answer :]
    assert asked == list(request.ids[before:])
    assert list(windows(request, None)) == [request]


def test_a_text_without_content_has_no_perplexity(
    tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    with pytest.raises(MorphingError, match="at row test/3 is empty"):
        prepare(tokenizer, declare({}, kind="perplexity"), [Sample("test/3", "a", "")])


@pytest.mark.parametrize(
    ("template", "read"),
    [
        (TEMPLATE, "<be kind><hi>:"),
        (REFUSING, "<be kind\n\nhi>:"),
        (IGNORING, "<be kind\n\nhi>:"),
        (None, "be kind\n\nhi"),
    ],
)
def test_the_system_turn_is_never_lost(
    tokenizer: PreTrainedTokenizerFast, declare: Declare, template: str | None, read: str
) -> None:
    benchmark = declare({}, chat="auto", system="be kind")
    sample = Sample("0", "hi", "x", system="be kind")
    tokenizer.chat_template = template
    try:
        (((prompt,),)) = prepare(tokenizer, benchmark, [sample]).requests
    finally:
        tokenizer.chat_template = None
    assert tokenizer.decode(prompt.ids) == read


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no user here') }}", "{{ 1 / 0 }}", "{{ messages[7].role }}"]
)
def test_a_chat_template_that_fails(
    tokenizer: PreTrainedTokenizerFast, declare: Declare, template: str
) -> None:
    benchmark = declare({}, chat=True, system="be kind")
    tokenizer.chat_template = template
    try:
        with pytest.raises(MorphingError, match=r"chat template of .* can't write a prompt"):
            prepare(tokenizer, benchmark, [Sample("0", "hi", "x", system="be kind")])
    finally:
        tokenizer.chat_template = None


def test_prepared_samples_score_as_the_samples_do(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    samples = [Sample(str(n), f"what is {n}?", "7") for n in range(5)]
    benchmark = declare({}, max_new_tokens=6)
    prepared = prepare(tokenizer, benchmark, samples)
    plain = evaluate(model, tokenizer, benchmark, samples)
    assert evaluate(model, tokenizer, benchmark, prepared) == plain
