"""Endpoints beside repositories: whoami, collections and Jobs. Their state lives in memory only."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from tests.hub.auth import HubError, account, require_account, require_writer
from tests.hub.reading import DATE
from tests.hub.store import Store

HARDWARE = [
    # name, title, vCPU, RAM, GPU and its memory, micro-dollars a minute
    ("cpu-basic", "CPU Basic", "2 vCPU", "16 GB", None, 167),
    ("t4-small", "Nvidia T4 - small", "4 vCPU", "15 GB", ("T4", "16 GB"), 6667),
    ("a10g-small", "Nvidia A10G - small", "4 vCPU", "15 GB", ("A10G", "24 GB"), 16667),
    ("a100-large", "Nvidia A100 - large", "12 vCPU", "142 GB", ("A100", "80 GB"), 41667),
]


@dataclass
class Job:
    """``spec`` is what was posted, secrets included; ``logs`` are the lines to serve."""

    owner: str
    spec: dict[str, Any]
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:24])
    stage: str = "SCHEDULING"
    logs: list[str] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """The Job as the Hub tells it, which never shows the values of secrets."""
        owner = {"id": self.owner, "name": self.owner, "type": "user"}
        return {
            "id": self.id,
            "createdAt": DATE,
            "owner": owner,
            "initiator": owner,
            "status": {"stage": self.stage, "message": None},
            "secrets": dict.fromkeys(self.spec.get("secrets", {}), ""),
            **{key: value for key, value in self.spec.items() if key != "secrets"},
        }


def service_routes(store: Store, jobs: dict[str, Job]) -> APIRouter:
    router = APIRouter()
    collections: dict[str, dict[str, Any]] = {}

    @router.get("/api/whoami-v2")
    def whoami(request: Request) -> dict[str, Any]:
        user = require_account(request)
        token = {"displayName": user.role, "role": user.role, "createdAt": DATE}
        orgs = [{"type": "org", "id": name, "name": name, "fullname": name} for name in user.orgs]
        return {
            "type": "user",
            "id": user.name,
            "name": user.name,
            "fullname": user.name.title(),
            "email": f"{user.name}@example.org",
            "isPro": False,
            "canPay": False,
            "orgs": [{**org, "roleInOrg": "write"} for org in orgs],
            "auth": {"type": "access_token", "accessToken": token},
        }

    def find_collection(request: Request, slug: str) -> dict[str, Any]:
        user = account(request)
        found = collections.get(slug)
        hidden = found and found["private"] and not (user and user.owns(found["owner"]["name"]))
        if found is None or hidden:
            raise HubError(404, "Collection not found")
        return found

    @router.post("/api/collections")
    async def create_collection(request: Request) -> Any:
        body = await request.json()
        owner = body["namespace"]
        require_writer(request, owner, "create a collection")
        title = re.sub(r"[^a-z0-9]+", "-", body["title"].lower()).strip("-")
        for slug, known in collections.items():
            if known["owner"]["name"] == owner and known["title"] == body["title"]:
                return JSONResponse({"error": "Already exists", "slug": slug}, 409)
        slug = f"{owner}/{title}-{uuid.uuid4().hex[:24]}"
        collections[slug] = {
            "slug": slug,
            "title": body["title"],
            "description": body.get("description"),
            "owner": {"name": owner, "type": "user"},
            "items": [],
            "lastUpdated": DATE,
            "position": len(collections),
            "private": bool(body.get("private", False)),
            "theme": "blue",
            "upvotes": 0,
        }
        return collections[slug]

    @router.get("/api/collections/{namespace}/{name}")
    def collection(request: Request, namespace: str, name: str) -> dict[str, Any]:
        return find_collection(request, f"{namespace}/{name}")

    @router.post("/api/collections/{namespace}/{name}/items")
    async def add_item(request: Request, namespace: str, name: str) -> Any:
        body = await request.json()
        require_writer(request, namespace, "change a collection")
        found = find_collection(request, f"{namespace}/{name}")
        item = body["item"]
        if item["type"] in ("model", "dataset") and not store.folder(
            f"{item['type']}s", item["id"]
        ):
            raise HubError(404, "Repository not found", "RepoNotFound")
        if any(known["id"] == item["id"] for known in found["items"]):
            raise HubError(409, "Item already in collection")
        note = {"note": {"text": body["note"]}} if body.get("note") else {}
        entry = {"_id": uuid.uuid4().hex[:24], "position": len(found["items"])}
        found["items"].append({**entry, "id": item["id"], "type": item["type"], **note})
        return found

    @router.get("/api/jobs/hardware")
    def hardware() -> list[dict[str, Any]]:
        listing = []
        for name, title, cpu, ram, gpu, cost in HARDWARE:
            entry = {"name": name, "prettyName": title, "cpu": cpu, "ram": ram}
            entry |= {"unitCostMicroUSD": cost, "unitCostUSD": cost / 1e6, "unitLabel": "minute"}
            if gpu:
                entry["accelerator"] = {
                    "type": "gpu",
                    "model": gpu[0],
                    "quantity": "1",
                    "vram": gpu[1],
                    "manufacturer": "Nvidia",
                }
            listing.append(entry)
        return listing

    def find_job(request: Request, namespace: str, job_id: str) -> Job:
        user = require_account(request)
        job = jobs.get(job_id)
        if job is None or job.owner != namespace or not user.owns(namespace):
            raise HubError(404, "Job not found")
        return job

    @router.post("/api/jobs/{namespace}")
    async def run_job(request: Request, namespace: str) -> dict[str, Any]:
        spec = await request.json()
        require_writer(request, namespace, "run a Job")
        if spec.get("flavor") not in [entry[0] for entry in HARDWARE]:
            raise HubError(400, f"Invalid flavor: {spec.get('flavor')}")
        job = Job(namespace, spec)
        jobs[job.id] = job
        return job.describe()

    @router.get("/api/jobs/{namespace}")
    def list_jobs(request: Request, namespace: str) -> list[dict[str, Any]]:
        if not require_account(request).owns(namespace):
            raise HubError(403, f"You have no access to the Jobs of {namespace}")
        return [job.describe() for job in jobs.values() if job.owner == namespace]

    @router.get("/api/jobs/{namespace}/{job_id}")
    def inspect_job(request: Request, namespace: str, job_id: str) -> dict[str, Any]:
        return find_job(request, namespace, job_id).describe()

    @router.post("/api/jobs/{namespace}/{job_id}/cancel")
    def cancel_job(request: Request, namespace: str, job_id: str) -> dict[str, Any]:
        job = find_job(request, namespace, job_id)
        job.stage = "CANCELED"
        return job.describe()

    @router.get("/api/jobs/{namespace}/{job_id}/logs")
    def job_logs(request: Request, namespace: str, job_id: str) -> PlainTextResponse:
        job = find_job(request, namespace, job_id)
        events = [json.dumps({"data": line, "timestamp": DATE}) for line in job.logs]
        return PlainTextResponse(
            "".join(f"data: {event}\n\n" for event in events), media_type="text/event-stream"
        )

    return router
