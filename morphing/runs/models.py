"""The models of a run: fetched, and found to hold what they held when the run was made."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from morphing.errors import MorphingError
from morphing.runs.progress import Progress, megabytes
from morphing.runs.run import Run
from morphing.runs.stage_model import STAGE_MODEL, stage_folder, stage_model
from morphing.sources.content import ModelChanged, check, with_digest
from morphing.sources.find import download

if TYPE_CHECKING:
    from morphing.sources.source import Source


def fetch(run: Run, name: str, token: str | None, progress: Progress) -> Source:
    """The base or a source of a run. Of runs of earlier versions it is taken as it is.

    Raises:
        ModelChanged: its files hold something else than when the run was made, or are gone.
        MorphingError: it cannot be had.
    """
    progress(f"getting {name}", 0, 0)
    pinned = run.spec.digests.get(name)
    fetched = partial(megabytes, partial(progress, f"downloading {name} (MB)"))
    read = partial(megabytes, partial(progress, f"reading what is in {name} (MB)"))
    try:
        source = download(name, token, fetched)
    except MorphingError as error:
        if pinned is None:
            raise
        raise ModelChanged(
            f"{name}, which the run {run.name} merges, is no longer a model that can be read: put"
            " its old files back to go on, or begin a new run."
        ) from error
    if pinned is None:
        return with_digest(source, read)
    source = replace(source, name=name, digest=pinned)  # a folder may have become a link
    check(source, read)
    return source


def made_by_stage(run: Run) -> Source | None:
    """What a search in two stages has made of its first, if it has; see `runs.second_stage`."""
    from morphing.sources.source import Source

    if not stage_folder(run).exists():
        return None
    known = stage_model(run)
    digest = known.digest if known is not None else None
    return Source(STAGE_MODEL, stage_folder(run), (), adapter=False, digest=digest)
