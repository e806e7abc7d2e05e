"""One merge from a recipe alone, in one stage or several: models fetched, merged and written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch

from morphing.errors import MorphingError
from morphing.merging.engine import Engine
from morphing.merging.merge_stages import MergeStages, read_stages
from morphing.merging.models import Placement, open_models, place_models
from morphing.merging.morph import worker_count
from morphing.merging.recipe import Recipe
from morphing.merging.workers import Workers
from morphing.merging.writing.adapter import export_adapter
from morphing.merging.writing.checkpoint import RECIPE, RECORD, export, fingerprint
from morphing.merging.writing.checkpoint_writer import check_target
from morphing.merging.writing.lora import AdapterReport
from morphing.sources import local
from morphing.sources.configuration import difference_remark
from morphing.sources.content import with_digest
from morphing.sources.find import download
from morphing.sources.names import model_and_adapter
from morphing.sources.source import MERGED, Source
from morphing.yaml_files import read_text, write_yaml

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


Told = Callable[[Sequence[str]], None]
"""Called before anything is written with what a person would want to know; it may refuse."""


def tell_nobody(remarks: Sequence[str]) -> None:
    """Remarks that nobody reads."""


def refuse_all(remarks: Sequence[str]) -> None:
    """Remarks where there must be none.

    Raises:
        MorphingError: there are some; it has them all.
    """
    if remarks:
        text = "; ".join(remark.rstrip(".") for remark in remarks)
        raise MorphingError(
            f"Strictly, the recipe is refused: {text}{'' if text[-1] == '?' else '.'}"
        )


def read_merge(path: Path, mask_seed: int | None = None) -> MergeStages:
    """A recipe from its file, of one stage or several.

    Args:
        path: YAML, or Markdown with the YAML in fences.
        mask_seed: by default that of an export's record beside the recipe, else 0.

    Raises:
        MorphingError: the file cannot be read, or is no recipe.
    """
    text = read_text(path, "recipe")
    record = path.with_name(RECORD)
    if mask_seed is None and record.is_file():
        mask_seed = local.read_json(record).get("mask_seed")
        if type(mask_seed) is not int:
            raise MorphingError(f"{record} has no whole number as mask_seed: give --mask-seed.")
    return read_stages(text, mask_seed or 0, str(path))


def read_recipe(path: Path, mask_seed: int | None = None) -> Recipe:
    """A recipe of one stage from its file, see `read_merge`.

    Raises:
        MorphingError: the file cannot be read, is no recipe, or has several stages.
    """
    stages = read_merge(path, mask_seed)
    if stages.earlier:
        raise MorphingError(f"{path} has several stages: `morphing merge` makes them one by one.")
    return stages.final


def merge_recipe(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    progress: Progress,
    token: str | None = None,
    placement: Placement = "disk",
    told: Told = tell_nobody,
) -> None:
    """`merge_stages` of a recipe alone."""
    stages = MergeStages(recipe, {}, tuple(recipe.remarks))
    merge_stages(stages, folder, device, progress, token, placement, told)


def merge_stages(
    stages: MergeStages,
    folder: Path,
    device: torch.device,
    progress: Progress,
    token: str | None = None,
    placement: Placement = "disk",
    told: Told = tell_nobody,
) -> None:
    """Merge as mergekit does: nothing but a recipe's text says what to merge.

    Models are Hub ids, folders or the zoo's, ``model+adapter`` where an adapter is merged into a
    checkpoint first; an adapter by itself is taken as one on the recipe's base. Earlier stages are
    made beside ``folder`` and are gone when it is there; what was interrupted goes on after the
    last finished stage.

    Raises:
        MorphingError: a recipe, a model or the folder is not usable, or ``told`` refuses.
    """
    maker = _Maker(stages, folder, device, progress, token, placement, told)
    engine = maker.engine()
    maker.export(engine, stages.final, folder, maker.documents())
    maker.clean()


def merge_adapter(
    stages: MergeStages,
    folder: Path,
    rank: int,
    device: torch.device,
    progress: Progress,
    token: str | None = None,
    placement: Placement = "disk",
    told: Told = tell_nobody,
) -> AdapterReport:
    """The same as a LoRA adapter of the recipe's base, see `export_adapter`.

    Raises:
        MorphingError: as `merge_stages` does, or the merge is nothing an adapter can hold.
    """
    if stages.final.base in stages.earlier:
        raise MorphingError(
            f"The final merge's base {stages.final.base} is a stage of the recipe, and an adapter"
            " is of a model that stays: write the whole model."
        )
    maker = _Maker(stages, folder, device, progress, token, placement, told)
    engine = maker.engine()
    shown = partial(megabytes, progress, "merging")
    report = export_adapter(engine, one_spelling(stages.final), folder, rank, shown)
    maker.clean()
    return report


@dataclass
class _Maker:
    """Makes the stages of one merge."""

    stages: MergeStages
    folder: Path
    device: torch.device
    progress: Progress
    token: str | None
    placement: Placement
    told: Told
    made: dict[str, Path] = field(default_factory=dict)
    """The folders of the stages that are made, by name."""

    @property
    def kept(self) -> Path:
        """Where stages are until the final merge is whole."""
        target = self.folder.resolve()
        return target.with_name(f".{target.name}.stages")

    def engine(self) -> Engine:
        """What merges the final stage, the earlier ones made."""
        check_target(self.folder.resolve())  # before anything is downloaded
        remarks = list(self.stages.remarks)
        for name, recipe in self.stages.earlier.items():
            engine = self._open(recipe, remarks, f"Stage {name}: ")
            remarks = []
            self.made[name] = self._stage(engine, recipe, name)
        return self._open(self.stages.final, remarks, "")

    def export(self, engine: Engine, recipe: Recipe, folder: Path, earlier: str = "") -> None:
        shown = partial(megabytes, self.progress, "merging")
        export(engine, one_spelling(recipe), folder, shown, earlier)

    def documents(self) -> str:
        """The earlier stages as YAML documents before the final one's."""
        texts = []
        for name, made in self.made.items():
            texts.append(write_yaml({"name": name}, short_lists=False))
            texts.append((made / RECIPE).read_text(encoding="utf-8") + "---\n")
        return "".join(texts)

    def clean(self) -> None:
        """Give up the stages' models."""
        shutil.rmtree(self.kept, ignore_errors=True)

    def _open(self, recipe: Recipe, remarks: Sequence[str], prefix: str) -> Engine:
        recipe = one_spelling(recipe)
        engine = open_engine(
            recipe, self.device, self.progress, self.token, self.placement, self.made
        )
        found = (*engine.remarks(recipe), *_model_remarks(engine, recipe))
        self.told([*remarks, *(prefix + remark for remark in found)])
        return engine

    def _stage(self, engine: Engine, recipe: Recipe, name: str) -> Path:
        """The folder of a stage's model, made unless it is there from an interrupted merge."""
        folder = self.kept / str(len(self.made) + 1)
        mark, wanted = folder.with_suffix(".made"), _digest(engine, one_spelling(recipe))
        if not (folder.is_dir() and mark.is_file() and mark.read_text() == wanted):
            mark.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            self.progress(f"stage {name}", 0, 0)
            self.export(engine, recipe, folder)
            mark.write_text(wanted)
        return folder


def _model_remarks(engine: Engine, recipe: Recipe) -> Iterator[str]:
    """What was taken for granted of the models, and settings of theirs that the merge has not."""
    models = {name: engine.models[name] for name in recipe.inputs}
    yield from dict.fromkeys(r for model in models.values() for r in model.weights.remarks)
    donor = recipe.base or recipe.inputs[0]  # whose configuration the merge has
    for name, model in models.items():
        if remark := difference_remark(donor, models[donor].config, name, model.config):
            yield remark


def _digest(engine: Engine, recipe: Recipe) -> str:
    return sha256(fingerprint(engine, recipe).encode()).hexdigest()


def one_spelling(recipe: Recipe) -> Recipe:
    """The recipe with every folder written in one way: ``./b`` and ``b/`` are one model.

    Raises:
        MorphingError: a model is then merged with itself.
    """
    spellings: dict[tuple[Path | str, ...], str] = {}
    for name in filter(None, (recipe.base, *recipe.references)):
        spellings.setdefault(_places(name), name)
    renamed = recipe.with_names(lambda name: spellings[_places(name)])
    if renamed.config == recipe.config:
        return recipe
    listed = [name for name in recipe.sources if spellings[_places(name)] != renamed.base]
    for name in listed:
        others = [other for other in listed if other != name and _places(other) == _places(name)]
        if others and not recipe.config.get("slices"):
            raise MorphingError(
                f"The recipe lists {name} and {others[0]}, which are one model: keep one of them."
            )
    renamed.check()
    return renamed


def _places(name: str) -> tuple[Path | str, ...]:
    """What a model's name stands for: the folders of a model and an adapter, or Hub ids."""

    def place(part: str) -> Path | str:
        path = Path(part).expanduser()
        return path.resolve() if path.is_dir() else part

    return tuple(place(part) for part in model_and_adapter(name))


def open_engine(
    recipe: Recipe,
    device: torch.device,
    progress: Progress,
    token: str | None = None,
    placement: Placement = "disk",
    made: Mapping[str, Path] | None = None,
) -> Engine:
    """Fetch a recipe's models and open them for merging.

    Args:
        recipe: which models.
        device: where merging goes on.
        progress: called while models are fetched and read.
        token: for the Hub.
        placement: where tensors are kept.
        made: folders of models that the recipe names and that are not to be looked for elsewhere.

    Raises:
        MorphingError: a model cannot be had or read.
    """
    sources = {}
    for part in dict.fromkeys(
        part for name in recipe.references for part in model_and_adapter(name)
    ):
        progress(f"getting {part}", 0, 0)
        if made and part in made:
            fetched = Source(MERGED + part, made[part], (), adapter=False)
        else:
            shown = partial(megabytes, progress, f"downloading {part}")
            fetched = download(part, token, shown)
        read = partial(megabytes, progress, f"reading what is in {part}")
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
    first, *rest = model_and_adapter(name)
    second = rest[0] if rest else ""
    checkpoint, adapter = sources[first], sources.get(second)
    base = None if recipe.base is None else sources[model_and_adapter(recipe.base)[0]]
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


def megabytes(progress: Progress, step: str, done: int, total: int) -> None:
    """Report bytes as megabytes of a step."""
    progress(f"{step} (MB)", done // 10**6, total // 10**6)
