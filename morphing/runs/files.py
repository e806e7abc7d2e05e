"""Files of a run: written whole or not at all, and checked when they are read.

A run's folder may come from a stranger, from another version or from a disk that failed. So all
that is read from it passes :func:`read_json` or :func:`parse`, which give data of a declared shape
or one sentence that names the file and the mend.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from morphing.errors import MorphingError

T = TypeVar("T")

FOREIGN = ConfigDict(extra="ignore", allow_inf_nan=False, validate_default=True)
"""How dataclasses that are read from a run's folder are checked (`__pydantic_config__`): fields of
another version are ignored, and no number is NaN or infinite."""

MEBIBYTE = 2**20
_LIMIT = 64 * MEBIBYTE
_LONGEST_TEXT = 10_000
_LONGEST_REASON = 200


def _shown(text: object) -> object:
    if not isinstance(text, str):
        return text
    whole = text.encode("utf-8", "replace").decode()  # halves of surrogate pairs are no text
    return whole if len(whole) <= _LONGEST_TEXT else f"{whole[: _LONGEST_TEXT - 1]}…"


Text = Annotated[str, BeforeValidator(_shown)]
"""Words for people, such as a message: cut off at 10,000 characters, never refused."""
Name = Annotated[str, Field(max_length=1000)]
"""What something is called."""
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""What a file is named by, so never a path."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Moment = Annotated[float, Field(ge=0, le=1e11)]
"""Seconds since the epoch, or a duration in seconds."""
Number = Annotated[float, Field(allow_inf_nan=False)]


def read_json(path: Path, shape: TypeAdapter[T], mend: str, limit: int = _LIMIT) -> T:
    """The JSON in a file, as data of ``shape``.

    Args:
        path: the file.
        shape: what it must hold.
        mend: what a person can do where it does not, as the end of a sentence.
        limit: bytes that the file may have.

    Raises:
        MorphingError: the file cannot be read, is too large, or holds something else.
    """
    return parse(read_bytes(path, mend, limit), shape, str(path), mend)


def read_bytes(path: Path, mend: str, limit: int = _LIMIT) -> bytes:
    """What is in a file.

    Raises:
        MorphingError: the file cannot be read, is no ordinary file, or has more than ``limit``
            bytes.
    """
    try:
        if not path.is_file():  # reading a pipe or a device might never end
            raise MorphingError(f"{path} is no file: {mend}.")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise MorphingError(f"{path} cannot be read ({error.strerror}): {mend}.") from error
    if len(data) > limit:
        raise MorphingError(f"{path} is larger than {limit // MEBIBYTE} MiB: {mend}.")
    return data


def parse(data: bytes, shape: TypeAdapter[T], where: str, mend: str) -> T:
    """JSON as data of ``shape``.

    Raises:
        MorphingError: it is something else; ``where`` and ``mend`` are told.
    """
    try:
        return shape.validate_json(data)
    except ValidationError as error:
        raise MorphingError(f"{where} cannot be used ({reason(error)}): {mend}.") from error


def reason(error: ValidationError) -> str:
    """The first thing that is wrong, and with what, in printable characters."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    text = f"{field}: {first['msg']}" if field else first["msg"]
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:_LONGEST_REASON])


def write_atomically(path: Path, data: bytes, durable: bool = True) -> None:
    """Write ``data`` so that a reader or a killed process leaves the whole file or the old one.

    ``durable`` also holds when the machine loses power, at the cost of waiting for the disk. Where
    writing fails, nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
