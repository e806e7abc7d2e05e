"""What a repository on the Hub is called: ids, and the addresses that people paste for them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from morphing.errors import MorphingError

_PART = r"\w[\w.-]*"
_ID = re.compile(rf"(?P<repo>(?:{_PART}/)?{_PART})(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_HOSTS = ("huggingface.co", "hf.co")
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_CLONE = re.compile(r"git@(?P<host>[\w.-]+):(?P<path>.+)")
_OTHERS = {
    "datasets": "a dataset",
    "spaces": "a Space",
    "collections": "a collection",
    "papers": "a paper",
    "buckets": "a bucket",
    "jobs": "a Job",
    "docs": "a page of documentation",
    "blog": "a blog post",
    "organizations": "an organization",
}
"""What an address of the Hub that begins so is about, other than a model."""
_REVISED = ("tree", "blob", "resolve", "raw", "commit", "commits", "blame", "edit")
"""Parts of an address after which a revision comes."""


class HubId(NamedTuple):
    """A repository on the Hub."""

    repo: str
    """``org/name``, or ``name`` alone, which a few old models are called."""
    revision: str | None


def hub_id(name: str) -> HubId | None:
    """``org/name[@revision]`` in two; None for what is no Hub id."""
    found = _ID.fullmatch(name)
    if found is None or ".." in found["repo"] or "--" in found["repo"]:
        return None
    return HubId(found["repo"], found["revision"])


def is_published(name: str) -> bool:
    """Whether a name is ``org/name[@revision]``, which can be nothing else than a repository."""
    found = hub_id(name)
    return found is not None and "/" in found.repo


def trimmed(text: str) -> str:
    """Text without white space and quotation marks about it."""
    return text.strip().strip("\"'`").strip()


def dataset_name(text: str) -> str:
    """A dataset's canonical name, from its address too; a revision is left out.

    Raises:
        MorphingError: it is an address of something else than a dataset.
    """
    name = trimmed(text)
    if not name or Path(name).expanduser().exists():
        return name
    found = from_address(name, "dataset")
    return name if found is None else found.partition("@")[0]


def from_address(name: str, wanted: Literal["model", "dataset"]) -> str | None:
    """The id, ``org/name[@revision]``, that an address of the Hub is of; None for other names.

    Raises:
        MorphingError: it is an address of something else than what is ``wanted``.
    """
    path = _path_on_hub(name)
    if path is None and _is_tail(name):
        path = name.rstrip("/").split("/")
    return None if path is None else _from_path(name, path, wanted)


def _is_tail(name: str) -> bool:
    """Whether it is what follows the Hub's name in an address, with a revision."""
    parts = name.split("/")
    return len(parts) > 3 and parts[2] in _REVISED and hub_id("/".join(parts[:2])) is not None


def _path_on_hub(name: str) -> list[str] | None:
    """The parts of an address's path, of the Hub's pages and files; None for other names.

    Raises:
        MorphingError: an address of another site.
    """
    clone, address = _CLONE.fullmatch(name), _ADDRESS.fullmatch(name)
    if clone is not None:
        host, path = clone["host"], clone["path"]
    elif address is None:
        host, _, path = name.partition("/")
        if _bare(host) not in _HOSTS:
            return None
    elif address["scheme"].casefold() == "hf":  # of huggingface_hub's file system
        host, path = _HOSTS[0], address["rest"].removeprefix("models/")
    else:
        parsed = urlsplit(name)
        host, path = parsed.netloc.rpartition("@")[2], parsed.path
        own = urlsplit(os.environ.get("HF_ENDPOINT", "")).path.rstrip("/")
        path = path.removeprefix(own)
    if _bare(host) not in (*_HOSTS, _own_host()):
        raise MorphingError(
            f"{name!r} is an address of another site than the Hub: write a Hub id such as org/name,"
            " or the folder of a model that you downloaded."
        )
    parts = [unquote(part) for part in re.split(r"[?#]", path)[0].split("/") if part.strip()]
    return parts[1:] if parts[:1] == ["api"] else parts


def _bare(host: str) -> str:
    return host.casefold().removeprefix("www.")


def _own_host() -> str:
    return _bare(urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc)


def _from_path(name: str, parts: list[str], wanted: str) -> str:
    """The id that an address of the Hub is of.

    Raises:
        MorphingError: it is of something else than what is ``wanted``, or of nothing.
    """
    kind = parts[0] if parts else ""
    if wanted == "dataset":
        if kind != "datasets":
            what = _OTHERS.get(kind, "a model" if len(parts) > 1 else "no repository")
            raise MorphingError(
                f"{name!r} is the address of {what}, and a dataset is asked for: its address begins"
                f" with https://{_HOSTS[0]}/datasets/."
            )
        parts = parts[1:]
    elif kind in _OTHERS:
        raise MorphingError(
            f"{name!r} is the address of {_OTHERS[kind]}, and a model is asked for: write a model's"
            " id, org/name."
        )
    elif kind == "models":
        parts = parts[1:]
    alone = len(parts) < 2 or parts[1] in _REVISED  # an old model without an organization
    repo, rest = "/".join(parts[: 1 if alone else 2]), parts[1 if alone else 2 :]
    repo = repo.removesuffix(".git")
    revision = ""
    if "@" in repo:
        repo, _, revision = repo.partition("@")
    if len(rest) > 1 and rest[0] in _REVISED:
        revision = "/".join(rest[1:4]) if rest[1] == "refs" else rest[1]
    if hub_id(repo) is None:
        raise MorphingError(
            f"{name!r} is no address of a {wanted} on the Hub: write its id, org/name."
        )
    return f"{repo}@{revision}" if revision not in ("", "main") else repo
