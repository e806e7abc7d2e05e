"""Turns of a chat as a tokenizer's template writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from morphing.rendering.process import TemplateFailed, render_messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], **options: Any
) -> str:
    """The text that ``tokenizer.apply_chat_template(messages, tokenize=False, **options)`` gives.

    A template comes with a model and is a program of its authors, so it is rendered in another
    process (`process`). Tokenizers whose chats are no Jinja templates write them themselves.

    Args:
        tokenizer: with a chat template.
        messages: turns with ``role`` and ``content``.
        options: ``add_generation_prompt``, ``continue_final_message``, ``tools``, ``documents`` and
            whatever else the template asks for, such as ``enable_thinking``.

    Raises:
        TemplateFailed: the template fails, refuses the turns, or needs more than its limits.
    """
    from transformers import PreTrainedTokenizerBase

    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
    # As `apply_chat_template` does before it renders.
    try:
        source = tokenizer.get_chat_template(None, options.get("tools"))
    except ValueError as error:
        raise TemplateFailed(str(error)) from error
    given = [{key: value for key, value in m.items() if value is not None} for m in messages]
    return render_messages(source, given, {**tokenizer.special_tokens_map, **options})
