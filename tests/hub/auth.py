"""Who is asking, and what the Hub answers those who may not: its status codes and error headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import JSONResponse

from tests.hub.store import Repo, Store


@dataclass(frozen=True)
class Account:
    name: str
    role: str = "write"  # of the token: "read" or "write"
    orgs: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.orgs


TOKENS: Mapping[str, Account] = {
    "hf_alice": Account("alice", orgs=("acme",)),
    "hf_bob": Account("bob"),
    "hf_reader": Account("reader", role="read"),
}


class HubError(Exception):
    """An answer as the Hub gives it: status, `X-Error-Code` and `X-Error-Message`."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: object) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body

    def response(self) -> JSONResponse:
        headers = {"X-Error-Message": self.message}
        if self.code:
            headers["X-Error-Code"] = self.code
        return JSONResponse({"error": self.message, **self.body}, self.status, headers=headers)


def account(request: Request) -> Account | None:
    """The account of the request's token; None without one."""
    header = request.headers.get("authorization", "")
    token = header.removeprefix("Bearer ").strip()
    if not token:
        return None
    if token not in TOKENS:
        raise HubError(401, "Invalid credentials in Authorization header")
    return TOKENS[token]


def require_account(request: Request) -> Account:
    user = account(request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    return user


def not_found(user: Account | None) -> HubError:
    """A missing repository and a private one look the same; without a token both are a 401."""
    if user is None:
        return HubError(401, "Invalid username or password.", "RepoNotFound")
    return HubError(404, "Repository not found", "RepoNotFound")


def readable(store: Store, request: Request, kind: str, repo_id: str, rev: str = "main") -> Repo:
    """The repository at a revision, if the request may know of it."""
    user = account(request)
    try:
        repo = store.get(kind, repo_id, rev)
    except KeyError:
        if may_see(store.get(kind, repo_id), user):
            raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound") from None
        repo = None
    if repo is None or not may_see(repo, user):
        raise not_found(user)
    return repo


def may_see(repo: Repo | None, user: Account | None) -> bool:
    if repo is None:
        return False
    return not repo.private or (user is not None and user.owns(repo.owner))


def check_gate(repo: Repo, request: Request) -> None:
    """Files of a gated repository need a token, and access granted to its account."""
    if not repo.gated:
        return
    user = account(request)
    start = f"Access to {repo.kind[:-1]} {repo.id} is restricted"
    if user is None:
        message = f"{start}. You must have access to it and be authenticated to access it."
        raise HubError(401, f"{message} Please log in.", "GatedRepo")
    if not user.owns(repo.owner) and user.name not in repo.settings.get("granted", ()):
        message = f"{start} and you are not in the authorized list."
        raise HubError(
            403, f"{message} Visit the repository's page to ask for access.", "GatedRepo"
        )


def require_writer(request: Request, namespace: str, what: str) -> Account:
    user = require_account(request)
    if user.role != "write":
        raise HubError(403, f"This token has no write access: cannot {what} under {namespace}")
    if not user.owns(namespace):
        message = f'You don\'t have the rights to {what} under the namespace "{namespace}"'
        raise HubError(403, message)
    return user


def writable(store: Store, request: Request, kind: str, repo_id: str, rev: str) -> Repo:
    """The repository, if the request may push to it; its `refuse_push` setting refuses anyone."""
    user = require_account(request)
    repo = readable(store, request, kind, repo_id)
    if user.role != "write" or not user.owns(repo.owner) or not repo.writable:
        raise HubError(403, f"You don't have write access to {kind[:-1]} {repo_id}")
    if "refuse_push" in repo.settings:
        raise HubError(403, str(repo.settings["refuse_push"]))
    if rev not in ("main", "refs/heads/main"):
        raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
    return repo
