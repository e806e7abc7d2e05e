"""Chat templates: turns as a model reads them, and the switch that makes it think or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from morphing.benchmarks.engine.thinking import Thinking, may_think, opened_by
from morphing.rendering.chat import render_chat
from morphing.rendering.process import TemplateFailed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = Sequence[Mapping[str, str]]
"""``{"role": "user" | "assistant" | "system", "content": text}`` each."""

_SWITCHES = ("enable_thinking", "thinking", "reasoning")


def chat_text(
    tokenizer: PreTrainedTokenizerBase,
    turns: Turns,
    thinking: Thinking = "auto",
    reply: bool = True,
) -> str:
    """Turns of a chat as the tokenizer's template writes them.

    ``reply``: the assistant's turn is opened; otherwise the last turn is left unfinished. Where the
    template has no switch but begins a thought, ``off`` ends it at once.

    Raises:
        TemplateFailed: the template fails, refuses the turns, or needs more than its limits.
    """
    switch = None if thinking == "auto" else thinking_switch(tokenizer)
    text = _applied(tokenizer, turns, reply, {} if switch is None else {switch: thinking == "on"})
    if thinking == "off" and (marks := opened_by(text)) is not None:
        text = f"{text.rstrip()}\n\n{marks.closing}\n\n"
    return text


def thinking_switch(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The variable by which the template can be told to let the model think; None without one."""
    try:
        template = tokenizer.get_chat_template()
    except ValueError:  # there is none, or none by default
        return None
    return _switch_of(tokenizer, template)


@lru_cache(maxsize=64)
def _switch_of(tokenizer: PreTrainedTokenizerBase, template: str) -> str | None:
    turns = [{"role": "user", "content": "a"}]
    for name in _SWITCHES:
        if name not in template:
            continue
        try:
            texts = {_applied(tokenizer, turns, True, {name: on}) for on in (True, False)}
        except TemplateFailed:
            continue
        if len(texts) == 2:
            return name
    return None


def thinking_remark(tokenizer: PreTrainedTokenizerBase, thinking: Thinking) -> str | None:
    """What is to be told where the tokenizer's template can't do what ``thinking`` says."""
    if thinking == "auto" or thinking_switch(tokenizer) is not None:
        return None
    opens = opened_by(chat_text(tokenizer, [{"role": "user", "content": "a"}])) is not None
    if opens or (thinking == "off" and not may_think(tokenizer)):
        return None
    return (
        f"The chat template has no switch for thinking, so `thinking: {thinking}` changed nothing."
    )


def _applied(
    tokenizer: PreTrainedTokenizerBase, turns: Turns, reply: bool, variables: Mapping[str, bool]
) -> str:
    return render_chat(
        tokenizer,
        turns,
        add_generation_prompt=reply,
        continue_final_message=not reply,
        **variables,
    )
