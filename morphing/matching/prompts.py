"""What a benchmark's samples teach: prompts, each with what the teacher itself answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.engine.encode import Request
from morphing.benchmarks.results import Output, Prepared

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Text = tuple[int, ...]
"""Token ids."""


def taught_texts(
    tokenizer: PreTrainedTokenizerBase, prepared: Prepared, outputs: Sequence[Output]
) -> tuple[Text, ...]:
    """The samples as the teacher would continue them: no label is looked at.

    Of a written answer the prompt and the teacher's own answer; of a multiple choice the prompt
    and the option that the teacher held likeliest; of a text to be predicted the text.

    Args:
        tokenizer: the merge's.
        prepared: samples of a benchmark as its tokens.
        outputs: what the teacher made of them, in their order.
    """
    return tuple(
        _text(tokenizer, sample, requests, output)
        for sample, requests, output in zip(
            prepared.samples, prepared.requests, outputs, strict=True
        )
    )


def _text(
    tokenizer: PreTrainedTokenizerBase,
    sample: Sample,
    requests: Sequence[Request],
    output: Output,
) -> Text:
    first = requests[0]
    if not any(request.answer for request in requests):  # written, not given
        answer = tokenizer(output.text, add_special_tokens=False)["input_ids"]
        return (*first.ids, *answer)
    if len(requests) == 1:
        return first.ids
    options = [choice.strip() for choice in sample.choices]
    if len(options) == len(requests) and output.answer in options:
        return requests[options.index(output.answer)].ids
    return first.ids[: len(first.ids) - first.answer]
