"""What visitors may take of a machine that others than its owner can reach, in one place.

Each limit can be set by an environment variable: ``MORPHING_LIMIT_`` and the field's name. Where
the app is its owner's alone, only the size of an upload is limited.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields, replace

from morphing.errors import MorphingError
from morphing.runs.spec import RunSpec
from morphing.visitors import is_public

PREFIX = "MORPHING_LIMIT_"


@dataclass(frozen=True)
class Limits:
    """How much visitors may use. ``inf`` is no limit."""

    searches: float = 4
    """Searches that run at once, of all visitors."""
    searches_each: float = 2
    """The same of one visitor."""
    workers: float = 2
    """Workers of one search."""
    hours: float = 12
    """Hours of work of one search."""
    upload_mb: float = 64
    """Megabytes (10^6 bytes) of one uploaded file."""
    uploads_mb_each: float = 256
    """The same of all files of one visitor."""
    uploads_mb: float = 4096
    """The same of the files of all visitors."""
    upload_days: float = 7
    """Days after which an uploaded file is removed; samples that a run has drawn stay with the run,
    those of the holdout from when it is first scored."""
    waiting: float = 8
    """Requests that wait for the loaded models at once: conversations, scorings, pushes."""
    queue: float = 512
    """Events of the page that wait at once, of all visitors."""


_OWNER = Limits(**{field.name: math.inf for field in fields(Limits)})


def limits() -> Limits:
    """The limits in force.

    Raises:
        MorphingError: an environment variable holds no number above 0.
    """
    usual = Limits() if is_public() else replace(_OWNER, upload_mb=256)
    return replace(usual, **{name: number for name in _names() if (number := _asked(name))})


def within_limits(spec: RunSpec, workers: int) -> RunSpec:
    """The spec of a search that visitors may start: it ends after the hours they may have.

    Raises:
        MorphingError: it would have more workers than a search may have here.
    """
    most = limits()
    if workers > most.workers:
        raise MorphingError(f"A search may have {most.workers:.0f} workers here: choose fewer.")
    if math.isinf(most.hours) or (spec.search.hours or math.inf) <= most.hours:
        return spec
    search = spec.search.model_copy(update={"hours": most.hours})
    return spec.model_copy(update={"search": search})


def _names() -> list[str]:
    return [field.name for field in fields(Limits)]


def _asked(name: str) -> float | None:
    variable = f"{PREFIX}{name.upper()}"
    text = os.environ.get(variable)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise MorphingError(f"{variable} is {text!r}: set it to a number above 0, or to inf.")
    return number
