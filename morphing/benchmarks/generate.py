"""Greedy generation in batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from morphing.benchmarks.encode import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class StopAtStrings(StoppingCriteria):
    """Ends each row once its new text holds one of ``stop``.

    Only the newest tokens are decoded: as many as a stop string has bytes, for a token stands for
    at least one byte, and a few more for characters begun before. ``lengths`` has the new tokens of
    each row that ended so: what follows them is padding.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", stop: Sequence[str], prompt_width: int
    ) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        self.prompt_width = prompt_width
        self.tail = max(len(text.encode()) for text in stop) + 4
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        start = max(self.prompt_width, input_ids.shape[1] - self.tail)
        texts = self.tokenizer.batch_decode(input_ids[:, start:], skip_special_tokens=True)
        done = [any(stop in text for stop in self.stop) for text in texts]
        for row in (row for row, ended in enumerate(done) if ended):
            self.lengths.setdefault(row, input_ids.shape[1] - self.prompt_width)
        return torch.tensor(done, device=input_ids.device)  # type: ignore[return-value]


def generate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Encoded],
    groups: Iterator[list[int]],
    max_new_tokens: int,
    stop: Sequence[str],
    progress: Callable[[int], None],
) -> list[tuple[str, int]]:
    """The greedy continuation of each prompt, up to its end token, a stop string or the limit; and
    how many tokens that took, the end token and those of the stop string among them.

    Batches are ``groups`` of indices into ``prompts``, padded on the left. ``progress`` gets the
    number of prompts done. The model's own generation settings (sampling, penalties) don't count,
    only its end tokens do.
    """
    written = [("", 0)] * len(prompts)
    done = 0
    ends = _end_tokens(model, tokenizer)
    pad = _pad_token(tokenizer, ends)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=ends or None,
    )
    with torch.inference_mode(), _own_settings_aside(model):
        for group in groups:
            input_ids, mask = _left_padded([prompts[index].ids for index in group], pad)
            width = input_ids.shape[1]
            stopping = StopAtStrings(tokenizer, stop, width) if stop else None
            tokens = model.generate(
                input_ids=input_ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=config,
                stopping_criteria=StoppingCriteriaList([stopping] if stopping else []),
            )
            for row, (index, new) in enumerate(zip(group, tokens[:, width:].tolist(), strict=True)):
                end = next((at for at, token in enumerate(new) if token in ends), len(new))
                text = _cut(tokenizer.decode(new[:end], skip_special_tokens=True), stop)
                length = stopping.lengths.get(row, len(new)) if stopping else len(new)
                written[index] = text, min(end + 1, length)
            done += len(group)
            progress(done)
    return written


def _end_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    # A chat model's generation settings name an end of turn beside the tokenizer's end of text.
    named = model.generation_config.eos_token_id if model.generation_config else None
    ends = set(named if isinstance(named, list) else [named]) | {tokenizer.eos_token_id}
    return sorted(end for end in ends if end is not None)


def _pad_token(tokenizer: "PreTrainedTokenizerBase", ends: Sequence[int]) -> int:
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    return ends[0] if ends else 0


@contextmanager
def _own_settings_aside(model: "PreTrainedModel") -> Iterator[None]:
    # `generate` fills what a configuration leaves open from the model's own, which may sample or
    # penalise repetition.
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    return ids, mask


def _cut(text: str, stop: Sequence[str]) -> str:
    return text[: min((at for word in stop if (at := text.find(word)) >= 0), default=len(text))]
