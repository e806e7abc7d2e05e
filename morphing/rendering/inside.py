"""The process that renders: it reads requests from its standard input until that is closed.

A request comes from `process.Renderer` as a pickled dict, after its length in eight bytes; a reply
goes back as JSON in the same way, so that what a template makes is only ever text. A template that
takes too long is ended by the kernel, and this process with it.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import resource
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, BinaryIO

from morphing.rendering.limits import CHARACTERS, MEMORY

Reply = dict[str, Any]


def main() -> None:
    """Answer requests, one after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle; it closes the pipe
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(what, (most, most))
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    while request := _read(asked):
        reply = _reply(pickle.loads(request))
        body = json.dumps(reply).encode()
        answers.write(len(body).to_bytes(8, "big") + body)
        answers.flush()
        if reply.get("kind") == "MemoryError":
            return  # what it holds now is not given back to the system; the next one starts afresh


def _read(stream: BinaryIO) -> bytes:
    size = int.from_bytes(stream.read(8), "big")
    return stream.read(size) if size else b""


def _reply(request: Mapping[str, Any]) -> Reply:
    from jinja2 import TemplateSyntaxError, UndefinedError

    try:
        render = {"text": _text, "list": _list, "chat": _chat}[request["want"]](request)
        # Without a handler the signal ends this process, in the middle of whatever takes so long.
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        try:
            made = render()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except UndefinedError as error:
        return {"failed": str(error.message), "kind": "UndefinedError"}
    except TemplateSyntaxError as error:
        return {"failed": f"line {error.lineno}, {error.message}", "kind": "TemplateSyntaxError"}
    except Exception as error:
        # A template is a program: what it raises can't be told in advance.
        return {"failed": str(error), "kind": type(error).__name__}
    length = len(made) if isinstance(made, str) else sum(map(len, made))
    if length > CHARACTERS:
        return {"failed": f"it writes more than {CHARACTERS} characters", "kind": "TooLong"}
    return {"made": made}


def _text(request: Mapping[str, Any]) -> Any:
    environment, source = _environment(request["environment"]), request["source"]
    return lambda: _template(environment, source).render(request["values"])


def _list(request: Mapping[str, Any]) -> Any:
    environment, source = _environment(request["environment"]), request["source"]

    def render() -> list[str]:
        from jinja2 import Undefined

        value = _expression(environment, source)(**request["values"])
        if isinstance(value, Undefined):
            value._fail_with_undefined_error()
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise TypeError(f"{source!r} gives no list")
        return list(map(str, value))

    return render


def _chat(request: Mapping[str, Any]) -> Any:
    from transformers.utils.chat_template_utils import render_jinja_template

    def render() -> str:
        texts, _ = render_jinja_template(
            conversations=[request["messages"]],
            chat_template=request["source"],
            **request["values"],
        )
        return str(texts[0])

    return render


@lru_cache(maxsize=16)
def _environment(place: str) -> Any:
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(module), function)()


@lru_cache(maxsize=256)
def _template(environment: Any, source: str) -> Any:
    return environment.from_string(source)


@lru_cache(maxsize=256)
def _expression(environment: Any, source: str) -> Any:
    return environment.compile_expression(source, undefined_to_none=False)


if __name__ == "__main__":
    main()
