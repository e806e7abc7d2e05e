"""Writing endpoints: repositories, preupload, LFS and commits."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from tests.hub.auth import (
    HubError,
    not_found,
    require_account,
    require_writer,
    writable,
)
from tests.hub.reading import check_kind
from tests.hub.store import KINDS, SETTINGS_FILE, Repo, Store, front_matter, uses_lfs

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")
REPO_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
RELATIONS = ("adapter", "merge", "quantized", "finetune")
# The licence identifiers models of today carry; the Hub refuses those not on its list.
LICENSES = frozenset((Path(__file__).parent / "licenses.txt").read_text().split())


def writing_routes(store: Store) -> APIRouter:
    router = APIRouter()

    @router.post("/api/repos/create")
    async def create(request: Request) -> Any:
        body = await request.json()
        kind, repo_id = named_repo(body, require_account(request).name)
        what = f"create a {kind[:-1]}"
        require_writer(request, repo_id.split("/")[0], what)
        name = repo_id.split("/")[1]
        if not NAME.fullmatch(name) or "--" in name or ".." in name or name.endswith(".git"):
            raise HubError(400, f"Invalid repository name: {name}")
        url = f"{request.base_url}{'datasets/' if kind == 'datasets' else ''}{repo_id}"
        if store.folder(kind, repo_id) is not None:
            message = f"You already created this {kind[:-1]} repo"
            return JSONResponse({"error": message, "url": url}, 409)
        private = body.get("visibility") == "private" or body.get("private") is True
        store.create(kind, repo_id, {"private": private})
        return {"url": url, "name": repo_id, "id": repo_id}

    @router.delete("/api/repos/delete")
    async def delete(request: Request) -> dict[str, Any]:
        body = await request.json()
        user = require_account(request)
        kind, repo_id = named_repo(body, user.name)
        repo = store.get(kind, repo_id)
        if repo is None:
            raise not_found(user)
        store.delete(writable(store, request, kind, repo_id, "main"))
        return {}

    @router.put("/api/{kind}/{org}/{name}/settings")
    async def settings(request: Request, kind: str, org: str, name: str) -> dict[str, Any]:
        check_kind(kind)
        body = await request.json()
        repo = writable(store, request, kind, f"{org}/{name}", "main")
        changes = {key: body[key] for key in ("private", "gated") if key in body}
        if "visibility" in body:
            changes["private"] = body["visibility"] == "private"
        store.update(repo, changes)
        return changes

    @router.post("/api/validate-yaml")
    async def validate_yaml(request: Request) -> Any:
        body = await request.json()
        errors, warnings = check_metadata(body["content"], body.get("repoType") or "model")
        answer = {
            "errors": [{"message": message} for message in errors],
            "warnings": [{"message": message} for message in warnings],
        }
        return JSONResponse(answer, 400 if errors else 200)

    @router.post("/api/{kind}/{org}/{name}/preupload/{rev:path}")
    async def preupload(request: Request, kind: str, org: str, name: str, rev: str) -> Any:
        check_kind(kind)
        body = await request.json()
        repo = writable(store, request, kind, f"{org}/{name}", rev)
        files = []
        for file in body["files"]:
            known = repo.files.get(file["path"])
            mode = "lfs" if uses_lfs(file["path"], file["size"]) else "regular"
            entry = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            files.append({**entry, "oid": known.etag} if known else entry)
        return {"files": files, "commitOid": repo.sha}

    async def batch(request: Request, kind: str, repo_id: str) -> Any:
        body = await request.json()
        writable(store, request, kind, repo_id, "main")
        if "basic" not in body.get("transfers", ["basic"]):
            raise HubError(400, "This server takes the basic LFS transfer only")
        objects = []
        for wanted in body["objects"]:
            entry: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if not object_path(store, wanted["oid"]).exists():
                href = f"{request.base_url}lfs/{wanted['oid']}"
                entry["actions"] = {
                    "upload": {"href": href},
                    "verify": {"href": f"{href}/verify"},
                }
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    @router.post("/datasets/{org}/{name}.git/info/lfs/objects/batch")
    async def batch_dataset(request: Request, org: str, name: str) -> Any:
        return await batch(request, "datasets", f"{org}/{name}")

    @router.post("/{org}/{name}.git/info/lfs/objects/batch")
    async def batch_model(request: Request, org: str, name: str) -> Any:
        return await batch(request, "models", f"{org}/{name}")

    @router.put("/lfs/{oid}")
    async def upload(request: Request, oid: str) -> dict[str, Any]:
        digest = hashlib.sha256()
        handle, part = tempfile.mkstemp(dir=store.objects)
        try:
            with os.fdopen(handle, "wb") as sink:
                async for chunk in request.stream():
                    digest.update(chunk)
                    sink.write(chunk)
            if digest.hexdigest() != oid:
                raise HubError(400, f"The bytes received are not object {oid}")
            os.replace(part, object_path(store, oid))
        finally:
            Path(part).unlink(missing_ok=True)
        return {}

    @router.post("/lfs/{oid}/verify")
    async def verify(request: Request, oid: str) -> dict[str, Any]:
        require_account(request)
        path = object_path(store, oid)
        if not path.exists() or path.stat().st_size != (await request.json())["size"]:
            raise HubError(404, f"Object {oid} was not uploaded")
        return {}

    @router.post("/api/{kind}/{org}/{name}/commit/{rev:path}")
    async def commit(request: Request, kind: str, org: str, name: str, rev: str) -> Any:
        check_kind(kind)
        lines = [json.loads(line) for line in (await request.body()).splitlines() if line]
        repo = writable(store, request, kind, f"{org}/{name}", rev)
        if request.query_params.get("create_pr"):
            raise HubError(400, "This server keeps no pull requests")
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, repo.sha):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        changes: dict[str, bytes | Path | None] = {}
        for line in lines:
            changes |= change(store, repo, line["key"], line["value"])
        readme = changes.get("README.md")
        if isinstance(readme, bytes):
            errors, _ = check_metadata(readme.decode(), kind[:-1])
            if errors:
                raise HubError(400, "; ".join(errors))
        committed = store.commit(repo, changes)
        prefix = "datasets/" if kind == "datasets" else ""
        url = f"{request.base_url}{prefix}{repo.id}/commit/{committed.sha}"
        return {"success": True, "commitOid": committed.sha, "commitUrl": url, "hookOutput": ""}

    return router


def named_repo(body: dict[str, Any], user: str) -> tuple[str, str]:
    kind = f"{body.get('type') or 'model'}s"
    if kind not in KINDS:
        raise HubError(400, f"This server has no {kind}")
    return kind, f"{body.get('organization') or user}/{body['name']}"


def object_path(store: Store, oid: str) -> Path:
    if not re.fullmatch(r"[0-9a-f]{64}", oid):
        raise HubError(400, f"Invalid LFS object id: {oid}")
    return store.objects / oid


def change(store: Store, repo: Repo, key: str, value: dict[str, Any]) -> dict[str, Any]:
    """One line of a commit as changed paths: bytes, an uploaded object, or None for a deletion."""
    if key == "header":
        return {}
    path = value["path"]
    unsafe = PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts
    if unsafe or not path or path == SETTINGS_FILE:
        raise HubError(400, f"Invalid path: {path}")
    if key == "file":
        data = base64.b64decode(value["content"])
        if uses_lfs(path, len(data)):
            raise HubError(400, f"{path} must be uploaded through LFS")
        return {path: data}
    if key == "lfsFile":
        stored = object_path(store, value["oid"])
        if not stored.exists():
            raise HubError(400, f"{path}: object {value['oid']} was not uploaded")
        return {path: stored}
    if key == "deletedFile":
        return {path: None}
    if key == "deletedFolder":
        return {p: None for p in repo.files if p.startswith(f"{path.strip('/')}/")}
    raise HubError(400, f"Unknown operation: {key}")


def check_metadata(readme: str, repo_type: str) -> tuple[list[str], list[str]]:
    """The errors and warnings the Hub has for a card's metadata, as far as known here."""
    try:
        data = front_matter(readme)
    except yaml.YAMLError as error:
        return [f"Invalid YAML metadata: {error}"], []
    if not data:
        return [], ["empty or missing yaml metadata in repo card"]
    errors = []
    licenses = data.get("license", [])
    for name in licenses if isinstance(licenses, list) else [licenses]:
        if name not in LICENSES:
            errors.append(f'"license" must be one of [{", ".join(sorted(LICENSES))}]')
    for key in ("base_model", "datasets"):
        value = data.get(key, [])
        for repo_id in value if isinstance(value, list) else [value]:
            if not isinstance(repo_id, str) or not REPO_ID.fullmatch(repo_id):
                errors.append(f'"{key}" with value "{repo_id}" is not valid. Use a model id.')
    if data.get("base_model_relation", "merge") not in RELATIONS:
        errors.append(f'"base_model_relation" must be one of [{", ".join(RELATIONS)}]')
    tags = data.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        errors.append('"tags" must be an array of strings')
    if repo_type == "model":
        errors += check_model_index(data.get("model-index", []))
    return errors, []


def check_model_index(index: Any) -> list[str]:
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []
    for i, model in enumerate(index):
        where = f"model-index[{i}]"
        if not model.get("name"):
            errors.append(f'"{where}.name" is required')
        for j, result in enumerate(model.get("results", [])):
            spot = f"{where}.results[{j}]"
            for part, keys in (("task", ("type",)), ("dataset", ("type", "name"))):
                for key in keys:
                    if not isinstance(result.get(part, {}).get(key), str):
                        errors.append(f'"{spot}.{part}.{key}" is required')
            for k, metric in enumerate(result.get("metrics", [])):
                if "type" not in metric or "value" not in metric:
                    errors.append(f'"{spot}.metrics[{k}]" needs a type and a value')
    return errors
