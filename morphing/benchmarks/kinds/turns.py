"""What a model reads of a sample: its prompt, or turns of a chat."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.errors import MorphingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def model_texts(
    tokenizer: "PreTrainedTokenizerBase", benchmark: Benchmark, samples: Sequence[Sample]
) -> tuple[list[str], bool]:
    """What the model reads before it answers, and whether the tokenizer must still add its special
    tokens.

    Of a chat the prompt is the user's turn and the assistant's is opened. A template that refuses
    or leaves out the system's turn gets its text before the user's; a tokenizer without a template
    gets both as plain text.

    Raises:
        MorphingError: the chat template fails.
    """
    if not benchmark.chat:
        return [sample.prompt for sample in samples], True
    if not tokenizer.chat_template:
        return [_together(sample) for sample in samples], True
    return [_chat(tokenizer, benchmark, sample) for sample in samples], False


def _together(sample: Sample) -> str:
    return f"{sample.system}\n\n{sample.prompt}" if sample.system else sample.prompt


def _chat(tokenizer: "PreTrainedTokenizerBase", benchmark: Benchmark, sample: Sample) -> str:
    from jinja2 import TemplateError

    user = {"role": "user", "content": sample.prompt}
    try:
        if sample.system:
            try:
                text = _apply(tokenizer, [{"role": "system", "content": sample.system}, user])
                if sample.system.strip() in text:
                    return text
            except TemplateError:
                pass  # most that have no system's turn raise an error of their own
            user["content"] = _together(sample)
        return _apply(tokenizer, [user])
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise MorphingError(
            f"The chat template of {tokenizer.name_or_path or 'the tokenizer'} can't write a prompt"
            f" of benchmark {benchmark.name!r} ({error}): mend the template, or set chat to false."
        ) from error


def _apply(tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
