"""The local Hub as one ASGI application over a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.hub.auth import HubError
from tests.hub.reading import reading_routes
from tests.hub.services import Job, service_routes
from tests.hub.store import Store
from tests.hub.writing import writing_routes


@dataclass(frozen=True)
class Seen:
    """One request as it was answered; ``bytes`` is the size of the body sent back."""

    method: str
    path: str
    range: str | None
    authorized: bool
    status: int
    bytes: int


@dataclass(frozen=True)
class Busy:
    """One answer of a Hub that is busy, to the next request whose path begins so."""

    path: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


def create_app(store: Store, jobs: dict[str, Job], seen: list[Seen], busy: list[Busy]) -> FastAPI:
    """The application.

    Jobs posted land in ``jobs`` and every request in ``seen``; each of ``busy`` is given as an
    answer once, in their order.
    """
    app = FastAPI(title="Local Hub", openapi_url=None)
    app.add_middleware(Refuser, busy=busy)
    app.add_middleware(Recorder, seen=seen)
    for router in (service_routes(store, jobs), writing_routes(store), reading_routes(store)):
        app.include_router(router)

    @app.exception_handler(HubError)
    def refuse(request: Request, error: HubError) -> JSONResponse:
        return error.response()

    @app.exception_handler(404)
    def missing(request: Request, error: Exception) -> JSONResponse:
        # ids without a namespace match no route; to a client they are repositories like others
        repo = request.url.path.startswith(("/api/models/", "/api/datasets/"))
        return HubError(404, "Not found", "RepoNotFound" if repo else None).response()

    return app


class Refuser:
    """Gives the answers of a busy Hub that a test asked for."""

    def __init__(self, app: ASGIApp, busy: list[Busy]) -> None:
        self.app, self.busy = app, busy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http" and self.busy and scope["path"].startswith(self.busy[0].path):
            answer = self.busy.pop(0)
            app = JSONResponse(
                {"error": "Busy"}, status_code=answer.status, headers=dict(answer.headers)
            )
        await app(scope, receive, send)


class Recorder:
    """Keeps a list of what was asked for, so that a test can say what must not be downloaded."""

    def __init__(self, app: ASGIApp, seen: list[Seen]) -> None:
        self.app, self.seen = app, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode().lower(): value.decode() for key, value in scope["headers"]}
        asked = headers.get("range"), "authorization" in headers
        status, sent = 500, 0

        async def count(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            sent += len(message.get("body", b""))
            # Before the answer is whole, so that whoever has it finds it recorded.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.seen.append(Seen(scope["method"], scope["path"], *asked, status, sent))
            await send(message)

        await self.app(scope, receive, count)
