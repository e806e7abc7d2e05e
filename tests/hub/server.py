"""Starting the local Hub: on loopback, in a thread of this process or by hand."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from tests.hub.app import Busy, Seen, create_app
from tests.hub.services import Job
from tests.hub.store import Store, zoo_repos

CHECKOUT = Path(__file__).resolve().parents[2]
# Set in a developer's shell, each of these would send the clients past the local Hub.
CLEARED = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "HUGGINGFACE_HUB_CACHE",
)


def testbed_folder() -> Path:
    """Where the test-bed is looked for; it may not be there."""
    return Path(os.environ.get("MORPHING_TESTBED") or CHECKOUT.parent / "shared" / "hub")


@dataclass(frozen=True)
class RunningHub:
    """A local Hub that answers at ``url``.

    ``settings`` ("models/org/name" -> private, gated, granted, refuse_push, ...), ``jobs``,
    ``seen`` and ``busy`` are the server's own, live.
    """

    url: str
    root: Path
    store: Store
    jobs: dict[str, Job]
    seen: list[Seen]
    busy: list[Busy]

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        return self.store.settings

    @property
    def env(self) -> dict[str, str]:
        """The variables that make the real clients use this Hub and nothing of the user's."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HOME": str(self.root / ".client"),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def environ(self, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """A whole environment for a subprocess: ``base`` without the user's login, and ``env``."""
        return {**{k: v for k, v in base.items() if k not in CLEARED}, **self.env}


def build_store(root: Path) -> Store:
    """A store over ``root`` that serves the zoo and, where it is there, the test-bed too."""
    root.mkdir(parents=True, exist_ok=True)
    testbed = testbed_folder()
    return Store(root, [testbed] if testbed.is_dir() else [], zoo_repos)


def bind(port: int) -> socket.socket:
    """A socket on loopback only; port 0 takes a free one."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


@contextmanager
def start_hub(root: Path, port: int = 0) -> Iterator[RunningHub]:
    """Runs a Hub over ``root`` in a thread until the block ends."""
    store = build_store(root)
    jobs: dict[str, Job] = {}
    seen: list[Seen] = []
    busy: list[Busy] = []
    listener = bind(port)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = create_app(store, jobs, seen, busy)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), name="hub", daemon=True)
    listener.listen()  # requests queue from here on, so nobody has to wait for the thread
    thread.start()
    try:
        yield RunningHub(url, root, store, jobs, seen, busy)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
