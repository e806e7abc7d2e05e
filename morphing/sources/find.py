"""Where models come from: the embedded zoo, a local folder, or the Hub.

A name is ``zoo:<model>``, a path to a folder, or a Hub id ``org/name[@revision]``. The Hub's client
is imported only for Hub ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from morphing import zoo
from morphing.errors import MorphingError
from morphing.sources import hub, local, tokenizer_files
from morphing.sources.names import ZOO, model_name, split_hub_name, unknown_zoo_model
from morphing.sources.source import Inspection, ModelHit, Source

_COMMIT = re.compile(r"[0-9a-f]{40}")


def pin(name: str, token: str | None = None) -> str:
    """The same model by a name whose content never changes.

    A Hub id gets its commit, a folder becomes absolute, a zoo name stays.

    Raises:
        MorphingError: nothing has this name, or the Hub cannot be asked.
    """
    name = model_name(name)
    if name.startswith(ZOO):
        _zoo_folder(name)
        return name
    if _is_folder(name):
        return str(_folder(name))
    repo, revision = split_hub_name(name)
    if revision is not None and _COMMIT.fullmatch(revision):
        return name
    return f"{repo}@{hub.commit(repo, revision, token)}"


def folder_of(name: str) -> Path | None:
    """The folder of a model of the zoo or of this machine; None for a Hub id.

    Raises:
        MorphingError: the zoo has no such model, or there is no such folder.
    """
    if name.startswith(ZOO):
        return _zoo_folder(name)
    return _folder(name) if _is_folder(name) else None


def inspect(name: str, token: str | None = None) -> Inspection:
    """Read a model's headers and configuration; downloads nothing else.

    Raises:
        MorphingError: it cannot be had, or is of a kind that cannot be merged (pickled, quantised).
    """
    folder = folder_of(name)
    if folder is None:
        return hub.inspect_repo(name, token)
    found = local.inspect_folder(name if name.startswith(ZOO) else str(folder), folder)
    return replace(
        found,
        has_tokenizer=tokenizer_files.has_tokenizer(path.name for path in folder.iterdir()),
        chat_template=tokenizer_files.chat_template(folder),
    )


def download(
    name: str,
    token: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Source:
    """Fetch what is needed to merge and run a model: weights, configuration, tokenizer, card.

    Files already in the Hub's cache are not fetched again; a pinned name that is cached whole needs
    no network. ``progress`` is called with the bytes of weights fetched and all of them.

    Raises:
        MorphingError: it cannot be had, or is of a kind that cannot be merged (pickled, quantised).
    """
    if name.startswith(ZOO):
        folder = _zoo_folder(name)
    elif _is_folder(name):
        folder = _folder(name)
        name = str(folder)
    else:
        folder = hub.download_repo(name, token, progress)
    found = local.inspect_folder(name, folder)
    return Source(name, folder, found.base_models, found.adapter)


def read_tokens(name: str, token: str | None = None) -> dict[str, int] | None:
    """The tokens of a model's tokenizer and their ids; None where it has none of a known form.

    Raises:
        MorphingError: the Hub cannot be asked.
    """
    if name.startswith(ZOO):
        return local.read_tokens(_zoo_folder(name))
    if _is_folder(name):
        return local.read_tokens(_folder(name))
    return hub.read_tokens(name, token)


def search_models(query: str, token: str | None = None, limit: int = 20) -> list[ModelHit]:
    """Models on the Hub whose id contains ``query``, most downloaded first.

    Raises:
        MorphingError: the Hub cannot be asked.
    """
    return hub.search(query, token, limit)


def _is_folder(name: str) -> bool:
    path = Path(name).expanduser()
    return bool(name) and (path.is_absolute() or name.startswith(".") or path.is_dir())


def _folder(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    if path.is_file():
        raise MorphingError(f"{path} is a file: give the model's folder, {path.parent}.")
    if not path.is_dir():
        raise MorphingError(f"There is no folder {path}: give the folder of a saved model.")
    return path


def _zoo_folder(name: str) -> Path:
    short = name.removeprefix(ZOO)
    if short not in zoo.MODELS:
        raise unknown_zoo_model(name)
    return zoo.model_folder(short)
