"""Reading endpoints: info, search, trees and files with ranges and etags."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response

from tests.hub.auth import HubError, account, check_gate, may_see, readable
from tests.hub.store import File, Repo, Store

DATE = "2026-01-01T00:00:00.000Z"


def reading_routes(store: Store) -> APIRouter:
    router = APIRouter()

    @router.get("/api/{kind}")
    def search(
        request: Request,
        kind: str,
        search: str = "",
        author: str = "",
        filter: Annotated[Sequence[str], Query()] = (),
        pipeline_tag: str = "",
        sort: str = "",
        limit: int = 1000,
        full: bool = False,
        cardData: bool = False,
        config: bool = False,
        expand: Annotated[Sequence[str], Query()] = (),
    ) -> list[dict[str, Any]]:
        check_kind(kind)
        user = account(request)
        repos = (store.get(kind, repo_id) for repo_id in store.ids(kind))
        found = []
        for repo in repos:
            if repo is None or not may_see(repo, user):
                continue
            if (author and repo.owner != author) or search.lower() not in repo.id.lower():
                continue
            entry = info(repo)
            if not set(filter) <= {*entry["tags"], entry.get("pipeline_tag")}:
                continue
            if pipeline_tag and entry.get("pipeline_tag") != pipeline_tag:
                continue
            found.append(entry)
        if sort in ("downloads", "likes"):
            found.sort(key=lambda entry: -entry[sort])
        keys = listed_keys(full, cardData, config, expand)
        return [{k: v for k, v in entry.items() if k in keys} for entry in found[:limit]]

    @router.get("/api/{kind}/{org}/{name}")
    @router.get("/api/{kind}/{org}/{name}/revision/{rev:path}")
    def repo_info(
        request: Request, kind: str, org: str, name: str, rev: str = "main", blobs: bool = False
    ) -> dict[str, Any]:
        check_kind(kind)
        return info(readable(store, request, kind, f"{org}/{name}", rev), blobs)

    @router.get("/api/{kind}/{org}/{name}/refs")
    def refs(request: Request, kind: str, org: str, name: str) -> dict[str, Any]:
        check_kind(kind)
        repo = readable(store, request, kind, f"{org}/{name}")
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.sha}
        return {"branches": [branch], "tags": [], "converts": []}

    @router.get("/api/{kind}/{org}/{name}/auth-check")
    def auth_check(request: Request, kind: str, org: str, name: str) -> dict[str, Any]:
        check_kind(kind)
        check_gate(readable(store, request, kind, f"{org}/{name}"), request)
        return {}

    @router.get("/api/{kind}/{org}/{name}/tree/{rev}")
    @router.get("/api/{kind}/{org}/{name}/tree/{rev}/{path:path}")
    def tree(
        request: Request,
        kind: str,
        org: str,
        name: str,
        rev: str,
        path: str = "",
        recursive: bool = False,
        expand: bool = False,
    ) -> list[dict[str, Any]]:
        check_kind(kind)
        repo = readable(store, request, kind, f"{org}/{name}", rev)
        prefix = f"{path.strip('/')}/" if path.strip("/") else ""
        listing = [
            entry
            for entry in entries(repo, expand)
            if entry["path"].startswith(prefix)
            and (recursive or "/" not in entry["path"].removeprefix(prefix))
        ]
        if prefix and not listing:
            raise HubError(404, f"{path} does not exist on {rev}", "EntryNotFound")
        return listing

    @router.post("/api/{kind}/{org}/{name}/paths-info/{rev}")
    async def paths_info(
        request: Request, kind: str, org: str, name: str, rev: str
    ) -> list[dict[str, Any]]:
        check_kind(kind)
        form = parse_qs((await request.body()).decode())
        repo = readable(store, request, kind, f"{org}/{name}", rev)
        expand = form.get("expand") == ["true"]
        return [e for e in entries(repo, expand) if e["path"] in form.get("paths", [])]

    def resolve(request: Request, kind: str, repo_id: str, rev: str, path: str) -> Response:
        repo = readable(store, request, kind, repo_id, rev)
        check_gate(repo, request)
        file = repo.files.get(path)
        if file is None:
            error = HubError(404, "Entry not found", "EntryNotFound").response()
            error.headers["X-Repo-Commit"] = repo.sha
            return error
        headers = {"X-Repo-Commit": repo.sha, "ETag": f'"{file.etag}"'}
        if file.sha256 is not None:
            headers |= {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.sha256}"'}
        return FileResponse(file.location, headers=headers, media_type="application/octet-stream")

    @router.api_route("/datasets/{org}/{name}/resolve/{rev}/{path:path}", methods=["GET", "HEAD"])
    def resolve_dataset(request: Request, org: str, name: str, rev: str, path: str) -> Response:
        return resolve(request, "datasets", f"{org}/{name}", rev, path)

    @router.api_route("/{org}/{name}/resolve/{rev}/{path:path}", methods=["GET", "HEAD"])
    def resolve_model(request: Request, org: str, name: str, rev: str, path: str) -> Response:
        return resolve(request, "models", f"{org}/{name}", rev, path)

    return router


def check_kind(kind: str) -> None:
    if kind not in ("models", "datasets"):
        raise HubError(404, "Not found")


def listed_keys(full: bool, card: bool, config: bool, expand: Sequence[str]) -> set[str]:
    """The properties a search returns: few unless asked for."""
    if expand:
        return {"id", *expand}
    keys = {"id", "modelId", "private", "downloads", "likes", "tags", "pipeline_tag"}
    keys |= {"library_name", "createdAt"}
    if full:
        keys |= {"author", "gated", "lastModified", "sha", "siblings"}
    if card:
        keys.add("cardData")
    if config:
        keys.add("config")
    return keys


def info(repo: Repo, blobs: bool = False) -> dict[str, Any]:
    """What `GET /api/models/{id}` says of a repository."""
    data: dict[str, Any] = {
        "_id": repo.sha[:24],
        "id": repo.id,
        "author": repo.owner,
        "sha": repo.sha,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": repo.settings.get("downloads", 0),
        "likes": repo.settings.get("likes", 0),
        "createdAt": DATE,
        "lastModified": DATE,
        "cardData": repo.card or None,
        "siblings": [sibling(file, blobs) for file in repo.files.values()],
        "usedStorage": sum(file.size for file in repo.files.values()),
        "tags": tags(repo),
    }
    if repo.kind == "models":
        data |= {"modelId": repo.id, **model_info(repo)}
    return data


def model_info(repo: Repo) -> dict[str, Any]:
    card = repo.card
    config = json.loads(repo.text("config.json") or "{}")
    data: dict[str, Any] = {
        "library_name": library(repo),
        "config": {k: config[k] for k in ("architectures", "model_type") if k in config},
        "model-index": card.get("model-index"),
    }
    causal = any(str(a).endswith("ForCausalLM") for a in config.get("architectures") or ())
    if pipeline := card.get("pipeline_tag") or ("text-generation" if causal else None):
        data["pipeline_tag"] = pipeline
    if parameters := safetensors_parameters(repo):
        data["safetensors"] = {"parameters": parameters, "total": sum(parameters.values())}
    return data


def library(repo: Repo) -> str | None:
    if "library_name" in repo.card:
        return str(repo.card["library_name"])
    if "adapter_config.json" in repo.files:
        return "peft"
    return "transformers" if "config.json" in repo.files else None


def tags(repo: Repo) -> list[str]:
    """The card's tags and those the Hub makes of the card's other fields and of the files."""
    card = repo.card
    found = [str(tag) for tag in as_list(card.get("tags"))]
    if name := library(repo):
        found.append(name)
    if any(path.endswith(".safetensors") for path in repo.files):
        found.append("safetensors")
    for base in as_list(card.get("base_model")):
        found.append(f"base_model:{base}")
        if relation := card.get("base_model_relation"):
            found.append(f"base_model:{relation}:{base}")
    found += [f"dataset:{dataset}" for dataset in as_list(card.get("datasets"))]
    found += [f"license:{name}" for name in as_list(card.get("license"))]
    found += [str(language) for language in as_list(card.get("language"))]
    return list(dict.fromkeys(found))


def as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def safetensors_parameters(repo: Repo) -> dict[str, int]:
    """Elements by dtype over the repository's weights, from their headers."""
    totals: dict[str, int] = {}
    for file in repo.files.values():
        if not file.path.endswith(".safetensors") or "/" in file.path:
            continue
        with file.location.open("rb") as handle:
            try:
                (length,) = struct.unpack("<Q", handle.read(8))
                header = json.loads(handle.read(min(length, file.size)))
            except (struct.error, ValueError):
                continue
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for size in tensor["shape"]:
                    count *= size
                totals[tensor["dtype"]] = totals.get(tensor["dtype"], 0) + count
    return totals


def sibling(file: File, blobs: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": file.path}
    if blobs:
        entry |= {"size": file.size, "blobId": file.oid}
        if lfs := file.lfs("sha256"):
            entry["lfs"] = lfs
    return entry


def entries(repo: Repo, expand: bool) -> list[dict[str, Any]]:
    """Every file and folder, as a tree listing names them."""
    found: list[dict[str, Any]] = [
        {"type": "directory", "path": path, "oid": oid, "size": 0}
        for path, oid in repo.tree_ids().items()
    ]
    for file in repo.files.values():
        entry = {"type": "file", "path": file.path, "oid": file.oid, "size": file.size}
        if lfs := file.lfs("oid"):
            entry["lfs"] = lfs
        found.append(entry)
    if expand:
        commit = {"id": repo.sha, "title": "main", "date": DATE}
        found = [{**entry, "lastCommit": commit} for entry in found]
    return sorted(found, key=lambda entry: PurePosixPath(entry["path"]).parts)
