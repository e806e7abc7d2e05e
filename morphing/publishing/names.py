"""How models and datasets are written where strangers read: no machine's paths, no live markup."""

from __future__ import annotations

import re
from pathlib import Path

from morphing import hub_names, zoo
from morphing.inert import one_line, visible
from morphing.runs.stage_model import STAGE_MODEL
from morphing.sources.names import ZOO

_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#|~&!:@]|(?<=www)\.)")


def hub_id(name: str) -> str | None:
    """``org/name`` of a Hub id, without its revision; None for anything else."""
    found = hub_names.hub_id(name)
    return found.repo if found is not None and "/" in found.repo else None


def public(name: str) -> str:
    """A model's or dataset's name fit for publishing: of a local path only its last part.

    mergekit's ``model+adapter`` is taken apart where the adapter is a pinned id or an absolute
    path; the zoo's folders get their ``zoo:`` names back, and a run's ``stage:ps`` its own.
    """
    if name.startswith(ZOO) or hub_id(name):
        return name
    model, _, adapter = name.rpartition("+")
    if model and (adapter.startswith("/") or (hub_id(adapter) and "@" in adapter)):
        return f"{public(model)}+{public(adapter)}"
    for member in zoo.MODELS:
        if Path(name) == zoo.model_folder(member):
            return f"{ZOO}{member}"
    if Path(name).parts[-2:] == ("stages", "ps"):
        return STAGE_MODEL
    return Path(name).name


def escape(text: str) -> str:
    """Text as one line of Markdown that shows as it is written."""
    return _MARKUP.sub(r"\\\1", one_line(text))


def code(text: str) -> str:
    """Text as a Markdown code span that also holds inside a table."""
    line = one_line(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(text: str, language: str) -> str:
    """Text as a fenced code block, whatever backticks it holds."""
    text = visible(text, lines=True)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def label(name: str, kind: str = "") -> str:
    """A name in Markdown, with a link and the short commit where it is on the Hub.

    ``kind`` is "datasets/" for a dataset, empty for a model.
    """
    repo = hub_id(name)
    if repo is not None:
        revision = name.partition("@")[2]
        page = f"https://huggingface.co/{kind}{repo}"
        at = f" at {code(revision[:8])}" if revision else ""
        return f"[{escape(repo)}]({page}{f'/tree/{revision}' if revision else ''}){at}"
    if name.startswith(ZOO):
        return f"{code(name)} (embedded in Morphing)"
    return f"{code(public(name))} (local)"
