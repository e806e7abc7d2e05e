"""What a person would want to know of what they gave: one sentence, said once a process."""

from __future__ import annotations

import logging
from functools import cache

from morphing.inert import one_line

_log = logging.getLogger("morphing")


@cache
def note_once(remark: str) -> None:
    """Say a remark where warnings go: to the terminal, or the log of a search that the app started.

    Args:
        remark: a sentence; what it quotes may come from outside.
    """
    _log.warning("Note: %s", one_line(remark))
