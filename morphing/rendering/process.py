"""Templates of others, rendered where they can hold neither this process nor its memory.

A template is a program: a loop in a loop runs for hours, ``'a' * 20_000_000_000`` takes all memory
at once, and no list of forbidden operations is whole. So a process of its own renders, with limits
on its processor time and memory (`limits`), no tokens, and Jinja's sandbox in it. It starts with
the first template and stays for the others; a template costs some 0.2 ms more than in this process.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from morphing.rendering.limits import MEMORY, SECONDS, SOURCE

_KEPT = ("PATH", "HOME", "TZ", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")
"""Variables that the process gets of this one's; no tokens."""


class TemplateFailed(Exception):
    """A template can't be rendered over the values it is given; ``str`` of it says why."""


class NameUndefined(TemplateFailed):
    """A template uses a name that its values don't have."""


class TemplateMalformed(TemplateFailed):
    """A text is no Jinja template; the sentence begins with the line."""


class TemplateUnbounded(TemplateFailed):
    """A template needs more time, memory or room than it may have (`limits`)."""


_KINDS = {
    "UndefinedError": NameUndefined,
    "TemplateSyntaxError": TemplateMalformed,
    "TooLong": TemplateUnbounded,
}


def render_text(environment: str, source: str, values: Mapping[str, Any]) -> str:
    """What a template writes.

    Args:
        environment: ``module:function`` that makes the Jinja environment, in the other process.
        source: the template.
        values: its names; what can't be pickled is there as its text.

    Raises:
        NameUndefined: it uses a name that is not there.
        TemplateFailed: it fails, does what a sandbox forbids, or needs more than its limits.
    """
    return str(_ask({"want": "text", "environment": environment}, source, values))


def render_list(environment: str, source: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts of the list that an expression gives.

    Raises:
        NameUndefined, TemplateFailed: as `render_text`, or it gives no list.
    """
    return tuple(_ask({"want": "list", "environment": environment}, source, values))


def render_messages(
    source: str, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> str:
    """What a chat template writes, in transformers' environment for these.

    Raises:
        TemplateFailed: as `render_text`; also where the template itself raises an exception.
    """
    asked = {"want": "chat", "messages": [dict(message) for message in messages]}
    return str(_ask(asked, source, options))


def _ask(request: dict[str, Any], source: str, values: Mapping[str, Any]) -> Any:
    if len(source) > SOURCE:
        raise TemplateUnbounded(f"it is longer than {SOURCE} characters")
    asked = {**request, "source": source, "values": dict(values), "seconds": SECONDS}
    reply = _renderer.ask(_packed(asked))
    if "made" in reply:
        return reply["made"]
    if reply["kind"] == "MemoryError":
        raise TemplateUnbounded(f"it needs more than {MEMORY >> 20} MB of memory")
    if reply["kind"] == "RecursionError":
        raise TemplateUnbounded("it calls itself without end")
    raise _KINDS.get(reply["kind"], TemplateFailed)(reply["failed"] or reply["kind"])


def _packed(request: dict[str, Any]) -> bytes:
    try:
        return pickle.dumps(request)
    except Exception:
        # Columns may hold what a library opened, such as a video.
        values = {name: _plain(value) for name, value in request["values"].items()}
        return pickle.dumps({**request, "values": values})


def _plain(value: Any) -> Any:
    try:
        pickle.dumps(value)
    except Exception:
        return str(value)
    return value


class _Renderer:
    """The process that renders, started when it is first asked and again whenever it ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        atexit.register(self.close)

    def ask(self, request: bytes) -> dict[str, Any]:
        """The reply to a request.

        Raises:
            TemplateFailed: the process ended over it.
        """
        with self._lock:
            reply = self._exchange(request)
            # After a template that took its memory it ends in order, and is started again.
            if reply is None and self._ended() == 0:
                reply = self._exchange(request)
            if reply is not None:
                return reply
            code = self._ended()
        if code == -signal.SIGPROF:
            raise TemplateUnbounded(f"it takes more than {SECONDS:g} s of processor time")
        raise TemplateFailed(f"it ended the process that renders templates (exit code {code})")

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None and self._owner == os.getpid():
            child.kill()
            child.communicate()

    def _exchange(self, request: bytes) -> dict[str, Any] | None:
        child = self._running()
        assert child.stdin and child.stdout
        try:
            child.stdin.write(len(request).to_bytes(8, "big") + request)
            child.stdin.flush()
            size = int.from_bytes(child.stdout.read(8), "big")
            body = child.stdout.read(size)
        except OSError:
            return None
        except BaseException:
            self.close()  # a reply that nobody waited for must not be the next one's
            raise
        return json.loads(body) if size and len(body) == size else None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            self._child = None  # a fork's copy is its parent's
        if self._child is None or self._child.poll() is not None:
            self._owner = os.getpid()
            self._child = subprocess.Popen(
                [sys.executable, "-B", "-m", "morphing.rendering.inside"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_environment(),
            )
        return self._child

    def _ended(self) -> int:
        assert self._child
        return self._child.wait()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONUTF8": "1",
        # Each thread of these libraries takes address space.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


_renderer = _Renderer()
