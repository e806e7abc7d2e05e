"""Templates over dataset rows: how a row becomes a prompt, a target or options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from morphing.benchmarks.judging.answers import last_boxed
from morphing.rendering.limits import SOURCE
from morphing.rendering.process import render_list, render_text

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

_NEWLINE = re.compile(r"\r\n|\r")
_ENVIRONMENT = f"{__name__}:environment"


@cache
def environment() -> ImmutableSandboxedEnvironment:
    """The Jinja environment of a benchmark's templates."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    # Options that end a prompt begin with a space in most languages, and columns hold them without.
    made.filters["prefixed"] = lambda text, prefix: f"{prefix}{text}"
    made.filters["boxed"] = last_boxed
    return made


def check_template(field: str, source: str) -> None:
    """Raise ValueError where ``source`` is not a Jinja template."""
    _check(field, source, "template")


def check_expression(field: str, source: str) -> None:
    """Raise ValueError where ``source`` is not a Jinja expression."""
    _check(field, source, "expression")


def _check(field: str, source: str, what: str) -> None:
    from jinja2 import TemplateSyntaxError, nodes

    if len(source) > SOURCE:
        raise ValueError(f"{field} is longer than {SOURCE} characters")
    try:
        # Parsed and not compiled: compiling computes what is constant, however long that takes.
        parsed = environment().parse(source if what == "template" else f"{{{{ {source} }}}}")
    except (TemplateSyntaxError, RecursionError) as error:
        said = getattr(error, "message", None) or "it is nested too deeply"
        raise ValueError(f"{field} is not a Jinja {what} ({said})") from error
    if what == "expression" and not _is_expression(parsed):
        raise ValueError(f"{field} is not a Jinja expression (write what is between {{{{ and }}}})")
    for kind, known in ((nodes.Filter, environment().filters), (nodes.Test, environment().tests)):
        for node in parsed.find_all(kind):
            if node.name not in known:
                named = f"No {kind.__name__.lower()} named {node.name!r}"
                raise ValueError(f"{field} is not a Jinja {what} ({named})")


def _is_expression(parsed: Any) -> bool:
    from jinja2 import nodes

    if len(parsed.body) != 1 or not isinstance(parsed.body[0], nodes.Output):
        return False
    (output,) = parsed.body
    return len(output.nodes) == 1 and not isinstance(output.nodes[0], nodes.TemplateData)


def evaluate_list(source: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts of the list that an expression gives over the row's columns, and ``row`` itself.

    Raises:
        NameUndefined: it uses a column that the row doesn't have.
        TemplateFailed: it gives no list, or as `render`.
    """
    return render_list(_ENVIRONMENT, source, {**row, "row": row})


def render(source: str, row: Mapping[str, Any]) -> str:
    """The template over the row's columns, and over ``row`` itself.

    Raises:
        NameUndefined: it uses a column that the row doesn't have.
        TemplateFailed: it fails, does what a sandbox forbids, or needs more time or memory than
            `morphing.rendering.limits` allow.
    """
    if "{" not in source:
        return _NEWLINE.sub("\n", source)  # plain text, in which Jinja changes nothing else
    return render_text(_ENVIRONMENT, source, {**row, "row": row})
