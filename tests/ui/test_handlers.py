"""Failures become sentences, and work in threads ends when nobody waits for it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import gradio as gr
import pytest

from morphing.errors import MorphingError
from morphing.ui import handlers
from morphing.ui.handlers import follow, guarded


@pytest.fixture
def toasts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    shown: list[str] = []
    monkeypatch.setattr(handlers.gr, "Warning", lambda text, **_: shown.append(text))
    return shown


def test_a_foreseen_failure_is_told_as_it_is(toasts: list[str]) -> None:
    with gr.Blocks():
        note = gr.HTML()

    @guarded(note)
    def fails() -> None:
        raise MorphingError("No <model> here: choose another.")

    assert fails() == {
        note: '<p class="m-error" role="alert">No &lt;model&gt; here: choose another.</p>'
    }
    assert toasts == ["No &lt;model&gt; here: choose another."]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "The disk is full (runs/mine): free some space"),
        (errno.EDQUOT, "The disk is full (runs/mine): free some space"),
        (errno.EROFS, "The disk is read-only (runs/mine): work on a copy"),
        (errno.EACCES, "Permission denied (runs/mine): change the permissions"),
        (errno.EPERM, "Permission denied (runs/mine): change the permissions"),
        (errno.EMFILE, "Too many files are open (runs/mine): raise the limit"),
        (errno.EBADF, "Something went wrong: OSError"),
    ],
)
def test_what_a_disk_refuses_is_told_in_a_sentence(
    toasts: list[str], number: int, words: str
) -> None:
    @guarded()
    def fails() -> None:
        raise OSError(number, os.strerror(number), "runs/mine")

    fails()
    (told,) = toasts
    assert told.startswith(words)


def test_an_unforeseen_failure_of_a_stream_keeps_what_came_before(toasts: list[str]) -> None:
    @guarded()
    def fails() -> Iterator[str]:
        yield "before"
        raise ValueError("odd")

    assert list(fails()) == ["before", gr.skip()]
    assert toasts == ["Something went wrong: ValueError: odd"]


def test_following_ends_with_the_last_thing_emitted() -> None:
    def work(emit: Callable[[int], None]) -> None:
        for number in range(1000):
            emit(number)

    assert list(follow(work, stoppable=True))[-1] == 999


def test_following_raises_what_the_work_raised() -> None:
    def work(emit: Callable[[int], None]) -> None:
        emit(1)
        raise MorphingError("The disk is full.")

    with pytest.raises(MorphingError, match="disk"):
        list(follow(work, stoppable=False))


@pytest.mark.parametrize("stoppable", [True, False])
def test_leaving_ends_a_stoppable_work_only(stoppable: bool) -> None:
    left, ended = threading.Event(), threading.Event()
    reached: list[str] = []

    def work(emit: Callable[[str], None]) -> None:
        try:
            emit("first")
            left.wait()
            emit("second")
            reached.append("the end")
        finally:
            ended.set()

    with closing(follow(work, stoppable)) as steps:
        assert next(steps) == "first"
    left.set()
    assert ended.wait(10)
    assert reached == ([] if stoppable else ["the end"])
