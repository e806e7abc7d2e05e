"""An exported folder and its card, pushed to the Hub as one commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from morphing.errors import MorphingError
from morphing.hub_errors import LOGIN, Subject, ask, hub_errors
from morphing.merging.recipe import Recipe
from morphing.publishing.card import EVAL_RESULTS, card_files, published_recipe
from morphing.publishing.facts import CardFacts

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MARK = "morphing.json"
"""The file by which a repository is known to be an earlier push of ours."""
RECIPE = "mergekit_config.yml"
_NAME = re.compile(r"(?:[\w.-]+/)?[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", re.ASCII)
# What a push of ours may leave behind and the next one must not.
_OURS = (".safetensors", ".safetensors.index.json", ".jinja")


def check_push(repo_id: str, token: str | None = None, *, private: bool = False) -> str:
    """The full ``namespace/name`` to push to, if the login may push there.

    Refuses what can be told before any work: the name, the login, someone else's namespace, a
    repository that holds something else or, where ``private`` is asked for, one that everybody
    sees. ``token`` None takes the login stored on this machine.

    Raises:
        MorphingError: one of these, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    check_name(repo_id)
    subject = Subject.writing(f"a push to {repo_id}")
    with hub_errors(subject):
        api = HfApi(token=token)
        user = ask(subject, api.whoami)
        if "/" not in repo_id:
            repo_id = f"{user['name']}/{repo_id}"
        namespace = repo_id.split("/")[0]
        orgs = [org["name"] for org in user.get("orgs", [])]
        if namespace not in (user["name"], *orgs):
            raise MorphingError(
                f"You are logged in as {user['name']}, who cannot push to {namespace}: choose"
                f" {' or '.join((user['name'], *orgs))} as namespace."
            )
        if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise MorphingError(
                f"The token of {user['name']} may only read: make one with write access, then"
                f" {LOGIN}."
            )
        if api.repo_exists(repo_id):
            _check_ours(repo_id, set(api.list_repo_files(repo_id)))
            if private:
                check_hidden(api, repo_id)
    return repo_id


def check_name(repo_id: str) -> None:
    """Check that a repository can be called so: ``name`` or ``namespace/name``.

    Raises:
        MorphingError: the Hub would not take the name.
    """
    bad = not _NAME.fullmatch(repo_id) or len(repo_id.split("/")[-1]) > 96
    if bad or "--" in repo_id or ".." in repo_id or repo_id.endswith(".git"):
        raise MorphingError(
            f"{repo_id!r} is no name for a model on the Hub: write you/name with letters, digits,"
            " '-', '_' and '.' (96 characters at most, no '--' or '..')."
        )


def check_hidden(api: HfApi, repo_id: str, repo_type: str = "model") -> None:
    """Check that an existing repository, which keeps its visibility, is private.

    Raises:
        MorphingError: everybody can see it.
    """
    if not api.repo_info(repo_id, repo_type=repo_type).private:
        raise MorphingError(
            f"{repo_id} is public already, and you asked for a private one: choose another name,"
            " make it private in its settings on the Hub, or say that it may be public."
        )


def push(
    folder: Path,
    repo_id: str,
    token: str | None = None,
    *,
    private: bool = True,
    facts: CardFacts,
) -> str:
    """Push an exported folder, its card and its evaluation results; returns the model's address.

    One commit: after a failure the repository is as before (or new and empty) and the same push
    can be tried again. An earlier push of ours is updated, its stale weights removed, its
    visibility kept; a public one is refused where ``private`` is asked for. The folder is left as
    it is; what is published of it names no local path.

    Raises:
        MorphingError: as `check_push`, or the Hub refuses (in its own words); the message says
            where the export is.
    """
    try:
        return _push(folder, check_push(repo_id, token, private=private), token, private, facts)
    except MorphingError as error:
        reason = str(error).removesuffix(".")
        raise MorphingError(f"{reason}; the export is kept at {folder}.") from error


def _push(folder: Path, repo_id: str, token: str | None, private: bool, facts: CardFacts) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    exported = Recipe(yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8")))
    texts = {**card_files(facts, repo_id), RECIPE: published_recipe(exported)}
    contents: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and EVAL_RESULTS not in path.parts
    }
    contents |= {path: text.encode() for path, text in texts.items()}
    with hub_errors(Subject.writing(f"the push to {repo_id}")):
        api = HfApi(token=token)
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        known = set(api.list_repo_files(repo_id))
        _check_ours(repo_id, known)
        stale = (
            path
            for path in known - set(contents)
            if path.endswith(_OURS) or path.startswith(f"{EVAL_RESULTS}/")
        )
        api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(path, content) for path, content in contents.items()),
                *(CommitOperationDelete(path) for path in sorted(stale)),
            ],
            commit_message=f"Morphing {facts.version}: trial {facts.run['trial']}",
        )
    return str(url)


def _check_ours(repo_id: str, files: set[str]) -> None:
    if MARK not in files and files - {".gitattributes", "README.md"}:
        raise MorphingError(
            f"{repo_id} already holds files that Morphing did not push: choose another name."
        )
