"""A recipe's model on disk, as an ordinary transformers checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

import morphing
from morphing.merging.engine import Engine
from morphing.merging.models import GENERATION_CONFIG, Opened, check_contents
from morphing.merging.output import Output
from morphing.merging.recipe import Recipe
from morphing.merging.vocabulary.speech import Speech
from morphing.merging.writing.checkpoint_writer import write_checkpoint, write_json
from morphing.sources import metadata
from morphing.sources.names import split_hub_name, zoo_name
from morphing.sources.source import MERGED, STAGE, Source
from morphing.sources.weights import tensor_info

RECIPE = "mergekit_config.yml"
"""The recipe that was merged."""
SOLVED_RECIPE = "morphing_recipe.yml"
RECORD = "morphing.json"
"""What mergekit's schema cannot hold, such as the mask seed."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
)
_TEMPLATES = "additional_chat_templates"


def export(
    engine: Engine,
    recipe: Recipe,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    earlier: str = "",
) -> None:
    """Write the recipe's model to ``folder``, whole or not at all.

    Weights are what `Morpher.morph` puts in the model, bit for bit. Beside them: configuration,
    generation configuration, tokenizer and chat template, ``mergekit_config.yml``, which mergekit
    runs as it is, and ``morphing.json`` with what mergekit's schema cannot hold and what the models
    were: their commits, or the digests of their files. Tensors go to disk as they are merged; an
    export that failed or was killed goes on where it stopped.

    Args:
        engine: with the recipe's models.
        recipe: what to write.
        folder: absent or empty.
        progress: called with the bytes written and their number.
        earlier: YAML documents of the stages that made some of the models, which the recipe that
            is written begins with.

    Raises:
        MorphingError: a model's files are no longer what they were when its digest was taken, the
            recipe cannot be merged, the folder holds something, or the disk is full or cannot be
            written.
    """
    output = engine.output(recipe)
    used = [engine.models[name] for name in recipe.references]
    check_contents(used)

    def merge(names: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
        chosen = frozenset(names)
        segments = engine.merge(recipe, output, chosen)
        return (pair for segment in segments for pair in segment.tensors())

    def document(partial: Path, dtype: str, speech: Speech) -> None:
        text = earlier + mergekit_recipe(engine, recipe, dtype, speech).to_yaml()
        (partial / RECIPE).write_text(text, encoding="utf-8")
        check_contents(used)

    identity = earlier + fingerprint(engine, recipe)
    _write(engine, recipe, output, folder, merge, document, identity, progress)


def export_held(
    engine: Engine,
    recipe: Recipe,
    held: Callable[[Sequence[str]], Iterator[tuple[str, torch.Tensor]]],
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    record: Mapping[str, object] | None = None,
) -> None:
    """Write a model whose tensors are at hand, as a solved merge's are, whole or not at all.

    As `export`, but the recipe, which mergekit cannot run, is ``morphing_recipe.yml``.

    Args:
        engine: with the recipe's models.
        recipe: of a solved method; its mean says which tensors there are.
        held: gives tensors by name.
        folder: absent or empty.
        progress: called with the bytes written and their number.
        record: what else ``morphing.json`` is to say.

    Raises:
        MorphingError: as `export` does.
    """
    mean = recipe.mean()
    output = engine.output(mean)
    digest = sha256()
    for name, tensor in held([tensor.name for tensor in output.plan.tensors]):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())

    def document(partial: Path, dtype: str, speech: Speech) -> None:
        (partial / SOLVED_RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
        known = json.loads((partial / RECORD).read_text(encoding="utf-8"))
        write_json(partial / RECORD, {**known, **(record or {})})

    _write(engine, mean, output, folder, held, document, digest.hexdigest(), progress)


def _write(
    engine: Engine,
    recipe: Recipe,
    output: Output,
    folder: Path,
    merge: Callable[[Sequence[str]], Iterator[tuple[str, torch.Tensor]]],
    document: Callable[[Path, str, Speech], None],
    identity: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    speech = engine.speech(recipe, output)
    infos = engine.infos(recipe, output)
    dtype = _dtype_name(infos)
    # What these refuse they refuse before anything is written.
    output.config(dtype)
    output.check_complete({name: shape for name, (shape, _) in infos.items()}, dtype)

    def companions(partial: Path) -> None:
        _write_companions(engine, recipe, output, speech, dtype, partial)
        document(partial, dtype, speech)

    write_checkpoint(
        folder,
        {name: tensor_info(shape, dtype) for name, (shape, dtype) in infos.items()},
        merge,
        companions,
        identity,
        progress,
    )


def mergekit_recipe(engine: Engine, recipe: Recipe, dtype: str, speech: Speech) -> Recipe:
    """The recipe as mergekit itself can run it, saying the arithmetic that was done.

    Zoo names become folders, adapters mergekit's ``base+adapter``, a model's chat template its
    text, and the dtypes are spelled out: mergekit computes in ``dtype``, and here that is always
    float32.
    """
    if recipe.template_model is not None and speech.tokenizer is not None:
        template = speech.tokenizer.get_chat_template()
        recipe = Recipe({**recipe.config, "chat_template": template}, recipe.mask_seed)

    def rename(name: str) -> str | Mapping[str, Any]:
        model = engine.models[name]
        checkpoint = _reference(model.weights.source)
        if model.adapter is None:
            return checkpoint if isinstance(checkpoint, str) else {"model": checkpoint}
        adapter = _reference(model.source)
        if isinstance(checkpoint, str) and isinstance(adapter, str):
            return f"{checkpoint}+{adapter}"
        return {"model": checkpoint, "lora": adapter}

    renamed = recipe.with_names(rename)
    dtypes = {"dtype": "float32", "out_dtype": dtype}
    return Recipe({**renamed.config, **dtypes}, recipe.mask_seed)


def _reference(source: Source) -> str | dict[str, str]:
    """A source as mergekit's ModelPath: Hub ids and stages by name, everything else by folder."""
    if source.on_hub:
        return source.name
    if source.name.startswith(MERGED):
        return source.name.removeprefix(MERGED)
    path = str(source.folder.absolute())
    # In mergekit's string form these two characters set off an adapter and a revision.
    return {"path": path} if "+" in path or "@" in path else path


def _dtype_name(infos: Mapping[str, tuple[torch.Size, torch.dtype]]) -> str:
    """The dtype the floating-point weights are written in; float32 where there are several."""
    dtypes = {str(dtype) for _, dtype in infos.values() if dtype.is_floating_point}
    return dtypes.pop().removeprefix("torch.") if len(dtypes) == 1 else "float32"


def fingerprint(engine: Engine, recipe: Recipe) -> str:
    """Changes with anything that the files written depend on."""
    parts = [morphing.__version__, recipe.to_yaml(), str(recipe.mask_seed)]
    for name in recipe.references:
        model = engine.models[name]
        for source in (model.weights.source, model.source):
            if source.digest is not None:
                parts.append(f"{name} {source.digest}")
                continue
            for path in sorted(source.folder.iterdir()):
                status = path.stat()
                parts.append(f"{name} {path.name} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(parts)


def _write_companions(
    engine: Engine, recipe: Recipe, output: Output, speech: Speech, dtype: str, folder: Path
) -> None:
    donor: Opened = engine.models[output.plan.donor]
    write_json(folder / metadata.CONFIG, output.config(dtype))
    settings = output.generation_config(donor.generation_config, speech.ends)
    if settings is not None:
        write_json(folder / GENERATION_CONFIG, settings)
    if speech.folder is not None:
        _copy_tokenizer(speech.folder, folder)
    elif speech.tokenizer is not None:
        speech.tokenizer.save_pretrained(folder)
    write_json(
        folder / RECORD,
        {
            "morphing_version": morphing.__version__,
            "mask_seed": recipe.mask_seed,
            "models": [_identity(source) for source in _sources(engine, recipe)],
        },
    )


def _copy_tokenizer(source: Path, folder: Path) -> None:
    more = (f"{_TEMPLATES}/{path.name}" for path in (source / _TEMPLATES).glob("*.jinja"))
    for file in (*_TOKENIZER_FILES, *more):
        if (source / file).is_file():
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / file, folder / file)


def _sources(engine: Engine, recipe: Recipe) -> list[Source]:
    """Checkpoints and adapters of the recipe, each once, in the order it names them."""
    opened = (engine.models[name] for name in recipe.references)
    return list(dict.fromkeys(s for model in opened for s in (model.weights.source, model.source)))


def _identity(source: Source) -> dict[str, str]:
    """Which model it was: no path of this machine, for the file is published."""
    if source.on_hub:
        repo, _ = split_hub_name(source.name)
        return {"model": repo, "commit": source.folder.name}  # as the Hub's cache names folders
    named = source.name.startswith((STAGE, MERGED))
    name = source.name if named else zoo_name(source.folder) or source.folder.name
    return {"model": name} | ({"digest": source.digest} if source.digest else {})
