"""What a model reads of a sample: its prompt, or turns of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.engine.chat_template import Thinking, chat_text, thinking_remark
from morphing.errors import MorphingError
from morphing.rendering.process import TemplateFailed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def model_texts(
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    thinking: Thinking = "off",
) -> tuple[list[str], bool]:
    """What the model reads before it answers, and whether the tokenizer must still add its special
    tokens.

    Of a chat the prompt is the user's turn and the assistant's is opened. A template that refuses
    or leaves out the system's turn gets its text before the user's; with ``chat: auto`` a tokenizer
    without a template gets both as plain text. ``thinking`` is for answers that are generated:
    before given ones no thought may be open.

    Raises:
        MorphingError: there is no chat template and ``chat`` is true, or the template fails.
    """
    if not is_chat(tokenizer, benchmark):
        return [_together(sample) for sample in samples], True
    return [_chat(tokenizer, benchmark, sample, thinking) for sample in samples], False


def is_chat(tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark) -> bool:
    """Whether samples are asked as turns of a chat.

    Raises:
        MorphingError: they should be, and there is no chat template.
    """
    if not benchmark.chat or tokenizer.chat_template:
        return bool(benchmark.chat)
    if benchmark.chat != "auto":
        raise MorphingError(
            f"The benchmark {benchmark.name!r} asks in a chat, and {_name(tokenizer)} has no chat"
            " template: set chat to auto to ask in plain text, or use a model that has one."
        )
    return False


def remarks(tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark) -> tuple[str, ...]:
    """What is to be told of how samples are asked."""
    if not benchmark.chat:
        return ()
    if not tokenizer.chat_template:
        return ("It has no chat template, so it was asked in plain text.",)
    told = thinking_remark(tokenizer, benchmark.thinking)
    return (told,) if told else ()


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.name_or_path or "the tokenizer")


def _together(sample: Sample) -> str:
    return f"{sample.system}\n\n{sample.prompt}" if sample.system else sample.prompt


def _chat(
    tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark, sample: Sample, thinking: Thinking
) -> str:
    user = {"role": "user", "content": sample.prompt}
    try:
        if sample.system:
            try:
                system = {"role": "system", "content": sample.system}
                text = chat_text(tokenizer, [system, user], thinking)
                if sample.system.strip() in text:
                    return text
            except TemplateFailed:
                pass  # most that have no system's turn raise an error of their own
            user["content"] = _together(sample)
        return chat_text(tokenizer, [user], thinking)
    except TemplateFailed as error:
        raise MorphingError(
            f"The chat template of {_name(tokenizer)} can't write a prompt of benchmark"
            f" {benchmark.name!r} ({error}): mend the template, or set chat to false."
        ) from error
