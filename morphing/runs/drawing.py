"""Drawing what a search does: whatever goes wrong in it, the search goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


def harmless(draw: Callable[[], None]) -> Callable[[], None]:
    """``draw``, with its exceptions logged instead of raised: each once, since it draws often.

    A request to end (KeyboardInterrupt, SystemExit) is raised as ever.
    """
    logged: set[str] = set()

    def drawn() -> None:
        try:
            draw()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if text not in logged:
                logged.add(text)
                _log.warning("The progress could not be drawn (%s); the search goes on.", text)
                _log.debug("How it failed:", exc_info=True)

    return drawn
