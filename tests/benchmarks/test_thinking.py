"""Models that think before they answer: their thoughts are no answers, whatever marks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.engine.chat_template import chat_text, thinking_remark, thinking_switch
from morphing.benchmarks.engine.encode import encode
from morphing.benchmarks.engine.stopping import Ending, Limit
from morphing.benchmarks.engine.thinking import (
    MARKS,
    Marks,
    Reply,
    may_think,
    opened_by,
    split_thought,
)
from morphing.benchmarks.evaluate import evaluate, prepare
from morphing.benchmarks.results import Score

Declare = Callable[..., Benchmark]
CHARACTERS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 +-=?.,:'`()[]{}<>/|_#\\\n"
)
CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
)
TEMPLATES = {
    "plain": CHATML + "{% endif %}",
    # As Qwen3: thinks of itself unless it is told not to.
    "qwen": CHATML + "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}",
    # As DeepSeek-V3.1: does not unless it is told to.
    "deepseek": CHATML + "{% if thinking %}<think>{% else %}</think>{% endif %}{% endif %}",
    # As DeepSeek-R1: always begins a thought.
    "opens": CHATML + "<think>\n{% endif %}",
    # The word alone is no switch.
    "word": "{# thinking #}" + CHATML + "{% endif %}",
}


def character_tokenizer(
    template: str | None = None, special: tuple[str, ...] = (), bos: bool = False
) -> PreTrainedTokenizerFast:
    """Characters as tokens; ``special`` are whole; ``bos``: it begins texts with <s>."""
    vocabulary = {token: at for at, token in enumerate(("<unk>", "<s>", "</s>", *CHARACTERS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    if special:
        made.add_special_tokens({"additional_special_tokens": list(special)})
    made.chat_template = template
    return made


@pytest.fixture(scope="module")
def writer() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


@contextmanager
def writing(model: LlamaForCausalLM, ids: list[int]) -> Iterator[None]:
    """Let the model write these tokens, then dots without end, one prompt at a time."""
    written = 0

    def say(module: object, inputs: object, logits: torch.Tensor) -> torch.Tensor:
        nonlocal written
        token = ids[written] if written < len(ids) else CHARACTERS.index(".") + 3
        written += 1
        chosen = torch.full_like(logits, -1.0)
        chosen[..., token] = 1.0
        return chosen

    hook = model.lm_head.register_forward_hook(say)
    try:
        yield
    finally:
        hook.remove()


def score_of(
    model: LlamaForCausalLM,
    benchmark: Benchmark,
    text: str,
    target: str,
    tokenizer: PreTrainedTokenizerFast | None = None,
    row: dict[str, Any] | None = None,
) -> Score:
    """Scored on one sample to which the model writes ``text`` and then its end token."""
    tokenizer = tokenizer or character_tokenizer(TEMPLATES["qwen"])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with writing(model, [*ids, 2]):
        return evaluate(model, tokenizer, benchmark, [Sample("0", "2+2?", target, row=row)])


# --- the two parts of a text ---------------------------------------------------------------------


@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks.opening)
def test_every_family_is_read(marks: Marks) -> None:
    thought = f"{marks.opening}\nIs it 5? No.\n{marks.closing}"
    assert split_thought(f"{thought}\n\n4") == Reply("4", "Is it 5? No.")
    assert split_thought(f"\n {thought}{thought}4").answer == "4"
    assert split_thought(thought) == Reply("", "Is it 5? No.")
    assert split_thought(f"{marks.opening}Is it 5") == Reply("", "Is it 5", unfinished=True)
    assert split_thought(f"{thought}{marks.opening}So 6").unfinished
    assert split_thought(f"Is it 5?{marks.closing}4", marks) == Reply("4", "Is it 5?")
    assert split_thought("Is it 5?", marks) == Reply("", "Is it 5?", unfinished=True)
    assert opened_by(f"<|user|>2+2?<|assistant|>{marks.opening}\n") == marks
    assert opened_by(f"{marks.opening}{marks.closing}\n\n") is None
    if marks.anywhere:
        assert split_thought(f"Is it 5?{marks.closing}4") == Reply("4", "Is it 5?")
        assert split_thought(f"Well. {thought}4").answer == "4"
        assert split_thought(f"Well. {marks.opening}Is it 5").unfinished
    else:
        assert split_thought(f"See: {thought}") == Reply(f"See: {thought}")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("4", "4"),
        ("", ""),
        ("\n  4\n", "\n  4\n"),
        ("a < b and c > d", "a < b and c > d"),
        ("<answer>4</answer>", "<answer>4</answer>"),
        ("<think>a</think><answer>4</answer>", "4"),
        ("<think>a</think>\n<response>\n4\n</response>\n", "4"),
        ("<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>4", "4"),
        ("<think>a</think>\n\n    return 4", "    return 4"),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>4",
            "4",
        ),
        ("<|channel|>final<|message|>4", "4"),
    ],
)
def test_answers(text: str, answer: str) -> None:
    assert split_thought(text).answer == answer
    assert not split_thought(text).unfinished


# --- where rows end ------------------------------------------------------------------------------


@pytest.mark.parametrize("special", [(), ("[THINK]", "[/THINK]")], ids=["ordinary", "special"])
@pytest.mark.parametrize("opened", [False, True])
def test_stops_and_lengths_count_after_the_thought(
    writer: LlamaForCausalLM, special: tuple[str, ...], opened: bool
) -> None:
    tokenizer = character_tokenizer(special=special)
    marks = next(marks for marks in MARKS if marks.opening == "[THINK]")
    begun = marks if opened else None

    def length(text: str, limit: Limit) -> int:
        ids = tokenizer(text)["input_ids"]
        row = Ending(writer, tokenizer, ["\n"]).row(limit, begun)
        ends = (at for at in range(1, len(ids) + 1) if row.reached(ids[:at]))
        return next(ends, 0)

    def tokens(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    thought = ("" if opened else "[THINK]") + "one\ntwo\n[/THINK]"
    assert length(f"{thought}4\n5", Limit(9, 90)) == tokens(f"{thought}4\n")
    assert length(f"{thought}123456789", Limit(5, 90)) == tokens(f"{thought}12345")
    assert length(thought, Limit(9, 90)) == 0
    assert length(thought[:-3], Limit(2, 3)) == 5, "a thought ends with its room"
    if not opened:
        assert length("4\n5", Limit(9, 90)) == 2
        assert length("123456789", Limit(5, 90)) == 5, "room for a thought is for nothing else"


# --- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text", "target"),
    [
        ({"extract": "final_answer", "metric": "numeric"}, "<think>Is it 5?</think>So 4.", "4"),
        ({"extract": "last_number", "metric": "numeric"}, "<think>Is it 5?</think>So 4.", "4"),
        ({"extract": "first_line"}, "<think>Well\nis it 5?\n</think>\n\n4\nor so", "4"),
        ({}, "<think>5</think>4", "4"),
        ({"extract": "boxed", "metric": "math"}, "<think>\\boxed{5}</think>\\boxed{4}", "4"),
        ({"extract": "regex:\\d"}, "<think>5</think>4", "4"),
        ({"metric": "f1"}, "<think>a b c</think>yes", "yes"),
        ({"stop": ["\n"]}, "<think>a\nb\n</think>4\n5", "4"),
        ({"max_new_tokens": 3}, "<think>a long thought about it</think>4", "4"),
    ],
)
def test_metrics_see_the_answer_alone(
    writer: LlamaForCausalLM, declare: Declare, fields: dict[str, Any], text: str, target: str
) -> None:
    benchmark = declare({}, chat=True, **fields)
    score = score_of(writer, benchmark, text, target)
    (output,) = score.outputs
    assert (output.score, score.unfinished) == (1.0, 0), output
    assert output.thought and "think" not in output.text
    assert output.tokens > len(output.text)


def test_a_thought_that_does_not_end_is_no_answer(
    writer: LlamaForCausalLM, declare: Declare
) -> None:
    benchmark = declare({}, chat=True, max_new_tokens=8, thinking_tokens=20, metric="f1")
    score = score_of(writer, benchmark, f"<think>It is 4{'.' * 40}", "")
    (output,) = score.outputs
    assert (output.answer, output.text, output.score) == ("", "", 0.0), "nothing is not right"
    assert output.thought.startswith("It is 4") and output.tokens == 28
    assert (score.unfinished, score.value) == (1, 0.0)
    assert score.joined(score).unfinished == 2
    text = score_of(writer, benchmark, "It is 4", "4")
    assert text.unfinished == 0 and text.outputs[0].tokens == 8


def test_code_is_taken_from_the_answer(
    writer: LlamaForCausalLM,
    declare: Declare,
    monkeypatch: pytest.MonkeyPatch,
    sandbox: None,
) -> None:
    monkeypatch.setenv("MORPHING_ALLOW_CODE", "1")
    benchmark = declare({}, kind="code", target="", program="{{ answer }}\nassert f()", chat=True)
    wrong, right = ("```python\ndef f():\n    return " + end + "\n```\n" for end in "01")
    score = score_of(writer, benchmark, f"<think>{wrong}</think>{right}", "", row={"a": 1})
    assert (score.value, score.outputs[0].answer) == (1.0, "def f():\n    return 1\n")


@pytest.mark.parametrize("kind", ["multiple_choice", "perplexity"])
def test_no_thought_is_open_before_given_answers(declare: Declare, kind: str) -> None:
    fields = {"choices": [" 4", " 5"]} if kind == "multiple_choice" else {}
    benchmark = declare({}, chat=True, kind=kind, **fields)
    sample = Sample("0", "2+2?", 0 if fields else " 4", (" 4", " 5") if fields else ())
    for template in TEMPLATES.values():
        tokenizer = character_tokenizer(template)
        request = prepare(tokenizer, benchmark, [sample]).requests[0][0]
        text = tokenizer.decode(request.ids)
        assert text.count("<think>") <= text.count("</think>"), text


# --- the switch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "switch", "auto", "on", "off"),
    [
        ("plain", None, "", "", ""),
        ("qwen", "enable_thinking", "", "", "<think>\n\n</think>\n\n"),
        ("deepseek", "thinking", "</think>", "<think>", "</think>"),
        ("opens", None, "<think>\n", "<think>\n", "<think>\n\n</think>\n\n"),
        ("word", None, "", "", ""),
    ],
)
def test_thinking_is_switched_by_the_template(
    template: str, switch: str | None, auto: str, on: str, off: str
) -> None:
    tokenizer = character_tokenizer(TEMPLATES[template])
    turns = [{"role": "user", "content": "2+2?"}]
    assert thinking_switch(tokenizer) == switch
    for thinking, end in (("auto", auto), ("on", on), ("off", off)):
        text = chat_text(tokenizer, turns, thinking)  # type: ignore[arg-type]
        assert text == f"<|user|>2+2?<|assistant|>{end}"
    told = {each: thinking_remark(tokenizer, each) for each in ("auto", "on", "off")}  # type: ignore[arg-type]
    assert told["auto"] is None
    can = template in ("qwen", "deepseek", "opens")
    assert (told["on"] is None) == can
    assert told["off"] is None, "what can't think does not think"
    assert may_think(tokenizer) == can


def test_a_model_that_thinks_whatever_its_template_says_is_told() -> None:
    tokenizer = character_tokenizer(TEMPLATES["plain"], special=("<think>",))
    told = thinking_remark(tokenizer, "off")
    assert told and "no switch for thinking, so `thinking: off` changed nothing" in told


def test_what_a_benchmark_says_reaches_the_template_and_the_score(
    writer: LlamaForCausalLM, declare: Declare
) -> None:
    tokenizer = character_tokenizer(TEMPLATES["qwen"])
    for thinking, ends in (("on", "<|assistant|>"), ("off", "</think>\n\n")):
        benchmark = declare({}, chat=True, thinking=thinking)
        asked = prepare(tokenizer, benchmark, [Sample("0", "a", "b")])
        assert tokenizer.decode(asked.requests[0][0].ids).endswith(ends)
        score = score_of(writer, benchmark, "4", "4")
        assert score.conditions is not None and score.conditions.thinking == thinking
        assert score.remarks == ()
    unable = character_tokenizer(TEMPLATES["plain"])
    score = score_of(writer, declare({}, chat=True, thinking="on"), "4", "4", unable)
    assert len(score.remarks) == 1 and "`thinking: on` changed nothing" in score.remarks[0]


# --- one beginning -------------------------------------------------------------------------------


@pytest.mark.parametrize("bos", [True, False], ids=["tokenizer-adds", "tokenizer-adds-none"])
@pytest.mark.parametrize("written", [0, 1, 2], ids=["none", "one", "two"])
def test_a_text_has_one_beginning(bos: bool, written: int) -> None:
    tokenizer = character_tokenizer(bos=bos)
    text = "<s>" * written + "ab"
    for special in (True, False):
        (ids,) = encode(tokenizer, [text], special)
        assert ids.count(1) == (1 if bos else written), (special, ids)
        assert ids[-2:] == tokenizer("ab", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("template", ["", "{{ bos_token }}", "{{ bos_token }}<s>"])
def test_template_and_tokenizer_give_one_beginning(
    declare: Declare, bos: bool, template: str
) -> None:
    tokenizer = character_tokenizer(template + TEMPLATES["plain"], bos=bos)
    fields: dict[str, Any]
    for fields in ({}, {"kind": "multiple_choice", "choices": ["4", "5"]}, {"kind": "perplexity"}):
        benchmark = declare({}, chat=True, **fields)
        sample = Sample("0", "2+2?", 0 if "choices" in fields else "4", ("4", "5"))
        for request in prepare(tokenizer, benchmark, [sample]).requests[0]:
            starts = request.ids.count(1)
            assert starts == 1 if bos else starts == template.count("s"), template
