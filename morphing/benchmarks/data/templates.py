"""Templates over dataset rows, and the text a model is given."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from morphing.benchmarks.judging.answers import last_boxed

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.environment import TemplateExpression
    from jinja2.sandbox import ImmutableSandboxedEnvironment


@cache
def _environment() -> "ImmutableSandboxedEnvironment":
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True
    )
    # Options that end a prompt begin with a space in most languages, and columns hold them without.
    environment.filters["prefixed"] = lambda text, prefix: f"{prefix}{text}"
    environment.filters["boxed"] = last_boxed
    return environment


@cache
def _template(source: str) -> "Template":
    return _environment().from_string(source)


@cache
def _expression(source: str) -> "TemplateExpression":
    return _environment().compile_expression(source, undefined_to_none=False)


def check_template(field: str, source: str) -> None:
    """Raise ValueError where ``source`` is not a Jinja template."""
    from jinja2 import TemplateSyntaxError

    try:
        _template(source)
    except TemplateSyntaxError as error:
        raise ValueError(f"{field} is not a Jinja template ({error.message})") from error


def check_expression(field: str, source: str) -> None:
    """Raise ValueError where ``source`` is not a Jinja expression."""
    from jinja2 import TemplateSyntaxError

    try:
        _expression(source)
    except TemplateSyntaxError as error:
        raise ValueError(f"{field} is not a Jinja expression ({error.message})") from error


def evaluate_list(source: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts of the list that an expression gives over the row's columns, and ``row`` itself.

    Raises:
        jinja2.TemplateError: as :func:`render`.
        TypeError: the expression gives no list.
    """
    from collections.abc import Iterable

    from jinja2 import Undefined

    value = _expression(source)(**{**row, "row": row})
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"{source!r} gives no list")
    return tuple(map(str, value))


def render(source: str, row: Mapping[str, Any]) -> str:
    """The template over the row's columns, and over ``row`` itself.

    Raises:
        jinja2.TemplateError: it uses a column the row doesn't have, or does what a sandbox forbids.
    """
    return _template(source).render({**row, "row": row})
