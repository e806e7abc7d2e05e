"""One merge from a recipe alone: its models are fetched, merged from disk and written."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from morphing.errors import MorphingError
from morphing.merging.engine import Engine
from morphing.merging.models import Placement, open_models, place_models
from morphing.merging.morph import worker_count
from morphing.merging.recipe import Recipe
from morphing.merging.workers import Workers
from morphing.merging.writing.adapter import export_adapter
from morphing.merging.writing.checkpoint import RECORD, export
from morphing.merging.writing.checkpoint_writer import check_target
from morphing.merging.writing.lora import AdapterReport
from morphing.sources import local
from morphing.sources.content import with_digest
from morphing.sources.find import download
from morphing.sources.source import Source
from morphing.yaml_files import read_text

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def read_recipe(path: Path, mask_seed: int | None = None) -> Recipe:
    """A recipe from its file; its mask seed, unless given, from an export's record beside it.

    Raises:
        MorphingError: the file cannot be read, or is no recipe.
    """
    text = read_text(path, "recipe")
    record = path.with_name(RECORD)
    if mask_seed is None and record.is_file():
        mask_seed = local.read_json(record).get("mask_seed")
        if type(mask_seed) is not int:
            raise MorphingError(f"{record} has no whole number as mask_seed: give --mask-seed.")
    return Recipe.from_yaml(text, mask_seed or 0, str(path))


def merge_recipe(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    progress: Progress,
    token: str | None = None,
    placement: Placement = "disk",
) -> None:
    """Merge a recipe as mergekit does: nothing but its text says what to merge.

    Models are Hub ids, folders or the zoo's, ``model+adapter`` where an adapter is merged into a
    checkpoint first; an adapter by itself is taken as one on the recipe's base.

    Raises:
        MorphingError: the recipe, a model or the folder is not usable.
    """
    check_target(folder.resolve())  # before anything is downloaded
    engine = _open(recipe, device, progress, token, placement)
    export(engine, recipe, folder, partial(_megabytes, progress, "merging"))


def merge_adapter(
    recipe: Recipe,
    folder: Path,
    rank: int,
    device: torch.device,
    progress: Progress,
    token: str | None = None,
    placement: Placement = "disk",
) -> AdapterReport:
    """The same as a LoRA adapter of the recipe's base, see `export_adapter`.

    Raises:
        MorphingError: as `merge_recipe` does, or the merge is nothing an adapter can hold.
    """
    check_target(folder.resolve())  # before anything is downloaded
    engine = _open(recipe, device, progress, token, placement)
    return export_adapter(engine, recipe, folder, rank, partial(_megabytes, progress, "merging"))


def _open(
    recipe: Recipe,
    device: torch.device,
    progress: Progress,
    token: str | None,
    placement: Placement,
) -> Engine:
    sources = {}
    for part in dict.fromkeys(part for name in recipe.references for part in _split(name)):
        progress(f"getting {part}", 0, 0)
        fetched = download(part, token, partial(_megabytes, progress, f"downloading {part}"))
        read = partial(_megabytes, progress, f"reading what is in {part}")
        sources[part] = with_digest(fetched, read)
    named = {name: _parts(name, recipe, sources) for name in recipe.references}
    progress("reading", 0, 0)
    models = open_models(named, recipe.base or recipe.inputs[0])
    stores = place_models(models, device, placement)
    elements = max(
        sum(shape.numel() for shape in store.shapes.values()) for store in stores.values()
    )
    # Compiling takes longer than one merge.
    workers = Workers(worker_count(elements, device))
    return Engine(models, stores, device, workers, compiled=False)


def _parts(
    name: str, recipe: Recipe, sources: Mapping[str, Source]
) -> tuple[Source, Source | None]:
    first, *rest = _split(name)
    second = rest[0] if rest else ""
    checkpoint, adapter = sources[first], sources.get(second)
    base = None if recipe.base is None else sources[_split(recipe.base)[0]]
    if adapter is None and checkpoint.adapter:
        if base is None or base.adapter:
            raise MorphingError(
                f"{name} is an adapter: write the model it was trained on before it, as in"
                f" {next(iter(checkpoint.base_models), 'org/base')}+{name}."
            )
        return base, checkpoint
    if checkpoint.adapter or (adapter is not None and not adapter.adapter):
        raise MorphingError(
            f"{name} must be a model and an adapter, and {first if checkpoint.adapter else second}"
            " is the other kind: write model+adapter."
        )
    return checkpoint, adapter


def _split(name: str) -> tuple[str, ...]:
    """A model, or a model and an adapter; a plus may stand in the names of folders too."""
    pieces = name.split("+")
    parts = [("+".join(pieces[:i]), "+".join(pieces[i:])) for i in range(1, len(pieces))]
    if not parts or Path(name).expanduser().is_dir():
        return (name,)
    return next((pair for pair in parts if Path(pair[0]).expanduser().is_dir()), parts[0])


def _megabytes(progress: Progress, step: str, done: int, total: int) -> None:
    progress(f"{step} (MB)", done // 10**6, total // 10**6)
