"""Talk to a model that is loaded: replies streamed as they are generated."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

from morphing.benchmarks.engine.encode import context_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Message = Mapping[str, str]
"""``{"role": "user" | "assistant" | "system", "content": text}``."""


def stream_reply(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    max_new_tokens: int = 256,
) -> Generator[str, None, None]:
    """Yield the greedy reply to ``messages`` as it grows, the whole text so far each time.

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
    prompt = tokenizer(
        _render(tokenizer, messages), return_tensors="pt", add_special_tokens=False
    ).input_ids
    context = context_length(model, answer_tokens=0)
    if context is not None:
        max_new_tokens = min(max_new_tokens, context // 2)
        prompt = prompt[:, max_new_tokens - context :]
    prompt = prompt.to(model.device)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)

    def generate() -> None:
        try:
            model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                streamer=streamer,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([Abandoned()]),
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
        except BaseException as error:
            failure.append(error)
            streamer.end()

    thread = threading.Thread(target=generate, daemon=True)
    thread.start()
    text = ""
    try:
        for piece in streamer:
            text += piece
            yield text
    finally:
        abandoned.set()
        thread.join()
    if failure:
        raise failure[0]


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    if tokenizer.chat_template:
        return tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
        )
    turns = "\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages)
    return f"{turns}\nAssistant:"
