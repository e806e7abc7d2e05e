"""Models as people type them: one canonical name.

A model is ``zoo:NAME``, a folder, or ``org/name[@revision]``. People paste addresses of pages,
clone commands' addresses and names with spaces or slashes about them; all of these are read here,
at the door of the command line, of specs, of recipes and of the app.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from morphing import zoo
from morphing.errors import MorphingError
from morphing.hub_names import HubId, from_address, hub_id, trimmed
from morphing.yaml_files import did_you_mean

ZOO = "zoo:"


def model_name(text: str) -> str:
    """A model's canonical name from what a person typed or pasted.

    Addresses of the Hub (and of ``HF_ENDPOINT``) become ids with their revision, names of the zoo
    get their case, white space and slashes about a name go. A folder that exists stays as it is,
    and so does what is no name at all: who looks it up says so.

    Raises:
        MorphingError: it is an address of something else than a model.
    """
    name = trimmed(text)
    if not name or Path(name).expanduser().is_dir():
        return name
    if name[: len(ZOO)].casefold() == ZOO:
        return ZOO + _zoo_name(name[len(ZOO) :].strip().strip("/"))
    if name.startswith("file://"):
        return unquote(urlsplit(name).path)
    if (found := from_address(name, "model")) is not None:
        return found
    if Path(name).expanduser().is_absolute() or name.startswith("."):
        return name
    return re.sub(r"\s*([/@])\s*", r"\1", name).rstrip("/")


def model_and_adapter(name: str) -> tuple[str, ...]:
    """A model, or a model and an adapter; a plus may stand in the names of folders too."""
    pieces = name.split("+")
    parts = [("+".join(pieces[:i]), "+".join(pieces[i:])) for i in range(1, len(pieces))]
    if not parts or Path(name).expanduser().is_dir():
        return (name,)
    return next((pair for pair in parts if Path(pair[0].strip()).expanduser().is_dir()), parts[0])


def reference_name(text: str) -> str:
    """What a recipe calls a model, ``model[+adapter]``, with both in their canonical form.

    Raises:
        MorphingError: as `model_name` does.
    """
    return "+".join(model_name(part) for part in model_and_adapter(text))


def split_hub_name(name: str) -> HubId:
    """``org/name[@revision]`` in two.

    Raises:
        MorphingError: it is not a Hub id.
    """
    found = hub_id(name)
    if found is None:
        raise MorphingError(
            f"{name!r} names no model: write zoo:<name>, an existing folder, or a Hub id such as"
            " org/name or org/name@revision."
        )
    return found


def unknown_zoo_model(name: str) -> MorphingError:
    """What is said of a name that the zoo has not."""
    near = did_you_mean(name.removeprefix(ZOO), zoo.MODELS)
    mend = (
        f"did you mean {ZOO}{near}?"
        if near
        else f"choose one of {', '.join(ZOO + model for model in zoo.MODELS)}."
    )
    return MorphingError(f"The zoo has no model {name!r}: {mend}")


def zoo_name(folder: Path) -> str | None:
    """``zoo:NAME`` of a folder that is the zoo's, as which exported recipes have its models."""
    return ZOO + folder.name if folder in map(zoo.model_folder, zoo.MODELS) else None


def _zoo_name(short: str) -> str:
    plain = {model.casefold(): model for model in zoo.MODELS}
    return plain.get(short.casefold().replace("_", "-").replace(" ", "-"), short)
