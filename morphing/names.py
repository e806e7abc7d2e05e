"""Names from outside that become part of a path: what they may be, checked where they come in.

A spec, a benchmark, a run or a visitor gives names to things that get a file or folder of their
own. `PlainName` is the type of such a field: one component of a path and nothing else, on any file
system. `InnerPath` is the type of a field that says where in a folder something lies.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

LONGEST_NAME = 120
"""Characters; leaves room for suffixes in the 255 bytes that file systems allow."""

_PLAIN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_COMPONENT = 200  # bytes
# What some file system gives a meaning, and control characters. Brackets and colons stay: with them
# `datasets` takes a part of a split, train[:100].
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\*?"<>|]')


def check_plain(name: str) -> str:
    """``name`` as it is.

    Raises:
        ValueError: it is more or other than letters, digits, dots, dashes and underscores.
    """
    if not _PLAIN.fullmatch(name):
        raise ValueError(
            f"{name[: LONGEST_NAME + 1]!r} can't be the name of a file: write letters (a-z),"
            " digits, dots, dashes and underscores, a letter or digit first, at most"
            f" {LONGEST_NAME} characters"
        )
    return name


def made_plain(text: str, otherwise: str) -> str:
    """The plain name that is most like ``text``; ``otherwise`` where nothing of it is left."""
    plain = _OTHER.sub("-", text).lstrip("._-")[:LONGEST_NAME].rstrip("-")
    return plain or otherwise


def check_inner(path: str) -> str:
    """``path`` as it is: relative, and without a way up.

    Raises:
        ValueError: it is empty, absolute, climbs, or has a character that no portable path has.
    """
    parts = path.split("/")
    if path.startswith("~") or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{path!r} must be a name inside the dataset, without '..' and '/' around")
    if found := _FORBIDDEN.search(path):
        raise ValueError(f"{path!r} has the character {found[0]!r}, which no such name may have")
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        raise ValueError(f"{path!r} is no text that a file's name can be") from None
    if longest > _LONGEST_COMPONENT:
        raise ValueError(f"{path[:40]!r}... is longer than {_LONGEST_COMPONENT} bytes")
    return path


PlainName = Annotated[str, AfterValidator(check_plain)]
"""The name of something that gets a file or folder of its own."""
InnerPath = Annotated[str, AfterValidator(check_inner)]
"""Where in a folder something lies: a path below it, by its text alone."""
