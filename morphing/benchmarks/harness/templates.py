"""Templates of the harness's tasks, rendered like all others: in a process with limits.

The harness renders in Jinja's plain environment, in which a template is a program that may do
whatever this process may.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from morphing.rendering.process import render_text

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment


@cache
def environment() -> ImmutableSandboxedEnvironment:
    """The harness's environment (``lm_eval.utils.env``), in a sandbox."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    made.filters["regex_replace"] = _regex_replace
    return made


def _regex_replace(string: str, pattern: str, repl: str, count: int = 0) -> str:
    return re.sub(pattern, repl, string, count=count)


class _Template:
    def __init__(self, source: str) -> None:
        self._source = source

    def render(self, **values: Any) -> str:
        return render_text(f"{__name__}:environment", self._source, values)


class _Environment:
    """What the harness asks of its environment."""

    def from_string(self, source: str) -> _Template:
        return _Template(source)


@cache
def render_apart() -> None:
    """Have the harness render all templates, from now on, in the process with limits."""
    from lm_eval import utils

    utils.env = _Environment()
