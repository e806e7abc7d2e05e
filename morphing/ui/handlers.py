"""Event handlers that never show a traceback, and work that outlasts a single answer."""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import gradio as gr

from morphing.errors import mendable
from morphing.inert import as_html

log = logging.getLogger(__name__)
T = TypeVar("T")
_FRAME_SECONDS = 0.06


def sentence(error: Exception) -> str:
    """What the visitor is told of ``error``; the details of an unforeseen one go to the log."""
    if told := mendable(error):
        return told
    log.error("unforeseen error in the app", exc_info=error)
    return f"Something went wrong: {type(error).__name__}: {error}"


def guarded(
    note: gr.HTML | None = None, otherwise: Callable[[], dict[Any, Any]] = dict
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Show a handler's failure as one sentence: a toast and, where given, ``note`` beside it.

    ``otherwise`` gives the outputs to restore (a button that was made inactive).
    """

    def told(error: Exception) -> Any:
        text = as_html(sentence(error))
        gr.Warning(text, title="That did not work", duration=12)
        outputs = otherwise()
        if note is not None:
            outputs[note] = f'<p class="m-error" role="alert">{text}</p>'
        return outputs or gr.skip()

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(handler):

            @functools.wraps(handler)
            def streaming(*args: Any, **kwargs: Any) -> Iterator[Any]:
                try:
                    yield from handler(*args, **kwargs)
                except Exception as error:
                    yield told(error)

            return streaming

        @functools.wraps(handler)
        def answering(*args: Any, **kwargs: Any) -> Any:
            try:
                return handler(*args, **kwargs)
            except Exception as error:
                return told(error)

        return answering

    return decorate


class _Abandoned(Exception):
    """Nobody waits for the work any more."""


def follow(
    work: Callable[[Callable[[T], None]], None], stoppable: bool
) -> Generator[T, None, None]:
    """Run ``work(emit)`` in a thread and yield the latest thing it emitted, a few times a second.

    When the visitor leaves or presses stop, a ``stoppable`` work ends at its next ``emit``; any
    other goes on to its end. The work's exception is raised here.
    """
    latest: deque[T] = deque(maxlen=1)
    failure: list[Exception] = []
    changed, done, closed = threading.Event(), threading.Event(), threading.Event()

    def emit(item: T) -> None:
        if stoppable and closed.is_set():
            raise _Abandoned
        latest.append(item)
        changed.set()

    def run() -> None:
        try:
            work(emit)
        except _Abandoned:
            pass
        except Exception as error:
            failure.append(error)
        finally:
            done.set()
            changed.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        while True:
            changed.wait()
            changed.clear()
            last = done.is_set()
            while latest:
                yield latest.popleft()
            if last:
                break
            time.sleep(_FRAME_SECONDS)
    finally:
        closed.set()
    if failure:
        raise failure[0]
