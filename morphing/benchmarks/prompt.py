"""Templates over dataset rows, and the text a model is given."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from transformers import PreTrainedTokenizerBase


@cache
def _environment() -> "ImmutableSandboxedEnvironment":
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


@cache
def _template(source: str) -> "Template":
    return _environment().from_string(source)


def check_template(field: str, source: str) -> None:
    """Raise ValueError where ``source`` is not a Jinja template."""
    from jinja2 import TemplateSyntaxError

    try:
        _template(source)
    except TemplateSyntaxError as error:
        raise ValueError(f"{field} is not a Jinja template ({error.message})") from error


def render(source: str, row: Mapping[str, Any]) -> str:
    """The template over the row's columns, and over ``row`` itself.

    Raises:
        jinja2.TemplateError: it uses a column the row doesn't have, or does what a sandbox forbids.
    """
    return _template(source).render({**row, "row": row})


def model_text(prompt: str, tokenizer: "PreTrainedTokenizerBase", chat: bool) -> tuple[str, bool]:
    """What the model reads, and whether the tokenizer must still add its special tokens.

    With ``chat`` the prompt is the user's turn and the assistant's turn is opened; a tokenizer
    without a chat template gets the plain prompt.
    """
    if not chat or not tokenizer.chat_template:
        return prompt, True
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return str(text), False
