"""Talk to a model that is loaded: replies streamed as they are generated."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import TYPE_CHECKING

from morphing.benchmarks.engine.chat_template import Turns, chat_text
from morphing.benchmarks.engine.encode import context_length, encode
from morphing.benchmarks.engine.thinking import MARKS, Reply, may_think, opened_by, split_thought
from morphing.errors import MorphingError
from morphing.rendering.process import TemplateFailed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LONGEST_THOUGHT = 1024
"""Tokens that a reply may have more where the model may think."""


def stream_reply(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Turns,
    max_new_tokens: int = 256,
) -> Generator[Reply, None, None]:
    """Yield the greedy reply to ``messages`` as it grows, all of it so far each time, a thought
    apart from the answer; ``unfinished`` while the model thinks.

    A model without a chat template gets the turns as plain text. A reply takes at most half of the
    model's context, and the conversation's oldest tokens are dropped where it exceeds the rest.
    Closing the iterator ends the generation.
    """
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

    class Abandoned(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            return torch.full((len(input_ids),), abandoned.is_set(), device=input_ids.device)

    abandoned = threading.Event()
    failure: list[BaseException] = []
    asked = _render(tokenizer, messages)
    (ids,) = encode(tokenizer, [asked], add_special_tokens=False)
    room = max_new_tokens + (_LONGEST_THOUGHT if may_think(tokenizer) else 0)
    context = context_length(model, answer_tokens=0)
    if context is not None:
        room = min(room, context // 2)
        ids = ids[room - context :]
    prompt = torch.tensor([ids], device=model.device)
    # With special tokens: they mark some families' thoughts.
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=False)

    def generate() -> None:
        try:
            model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                streamer=streamer,
                max_new_tokens=room,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([Abandoned()]),
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
        except BaseException as error:
            failure.append(error)
            streamer.end()

    thread = threading.Thread(target=generate, daemon=True)
    thread.start()
    text, opened = "", opened_by(asked)
    try:
        for piece in streamer:
            text += piece
            head = text.lstrip()
            # What may yet become the mark of a thought is no answer.
            if opened or not any(marks.opening.startswith(head) for marks in MARKS):
                yield split_thought(text, opened).without(tokenizer.all_special_tokens)
    finally:
        abandoned.set()
        thread.join()
    if failure:
        raise failure[0]
    yield split_thought(text, opened).without(tokenizer.all_special_tokens)


def _render(tokenizer: PreTrainedTokenizerBase, messages: Turns) -> str:
    if tokenizer.chat_template:
        try:
            return chat_text(tokenizer, messages)
        except TemplateFailed as error:
            raise MorphingError(
                f"The model's chat template can't write this chat ({error}): choose another model."
            ) from error
    turns = "\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages)
    return f"{turns}\nAssistant:"
