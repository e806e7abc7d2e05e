r"""Text from outside, made harmless where it is shown.

Names, errors, samples and answers come from configurations, data sets, runs and models that
strangers made. Shown as they are, a terminal obeys their control sequences (``ESC [2J`` clears the
screen), a bidirectional override turns the text around them over, and a browser takes their tags
for its own. Here such characters become visible: U+001B is shown as ``\u001b``, which is the same
character again in JSON and in a double-quoted YAML string.
"""

from __future__ import annotations

import logging
import re
from html import escape

_LIVE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LIVE_IN_LINES = re.compile(_LIVE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def visible(text: str, *, lines: bool = False) -> str:
    r"""``text`` with control characters, bidirectional overrides and lone surrogates as ``\uXXXX``.

    ``lines`` keeps line ends and tabs, for texts of several lines. Marks that scripts need, such as
    U+200F and the joiners, stay.
    """
    live = _LIVE_IN_LINES if lines else _LIVE
    if lines:
        text = text.replace("\r\n", "\n")
    return live.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def whole(text: str) -> str:
    """``text`` with U+FFFD for lone surrogates, which no tokenizer and no file takes.

    JSON can hold halves of a character beyond U+FFFF, as where a text was cut in its middle.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def one_line(text: str) -> str:
    """``text`` on one line, with its live characters visible: a message of one sentence."""
    return visible(" ".join(text.split()))


class InertFormatter(logging.Formatter):
    """A log's lines, tracebacks included, without anything that steers the terminal they go to."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return visible(super().format(record), lines=True)


def make_logs_inert() -> None:
    """Let what is logged to the terminal steer nothing there: messages quote text from outside."""
    handlers = [*logging.getLogger().handlers, logging.lastResort]
    for handler in handlers:
        if handler is not None and handler.formatter is None:
            handler.setFormatter(InertFormatter())


def as_html(text: str) -> str:
    """``text`` as HTML that shows it as it is written, in an element or in a quoted attribute."""
    return escape(visible(text, lines=True))
