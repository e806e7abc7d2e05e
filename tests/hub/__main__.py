"""`python -m tests.hub ROOT --port N`: the local Hub, started by hand."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from tests.hub.app import create_app
from tests.hub.auth import TOKENS
from tests.hub.server import bind, build_store


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("root", type=Path, help="folder of the store; made where missing")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    arguments = parser.parse_args()
    store = build_store(arguments.root)
    listener = bind(arguments.port)
    print(f"export HF_ENDPOINT=http://127.0.0.1:{listener.getsockname()[1]} HF_HUB_DISABLE_XET=1")
    print(f"tokens: {', '.join(f'{token} ({who.role})' for token, who in TOKENS.items())}")
    for kind in ("models", "datasets"):
        print(f"{kind}: {', '.join(store.ids(kind)) or 'none'}", flush=True)
    server = uvicorn.Server(uvicorn.Config(create_app(store, {}, [], []), log_level="info"))
    server.run([listener])


if __name__ == "__main__":
    main()
