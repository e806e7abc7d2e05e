"""A recipe's model on disk, as an ordinary transformers checkpoint."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

import morphing
from morphing.errors import MorphingError
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.sources import local, metadata
from morphing.sources.source import Source

SHARD_BYTES = 2 * 2**30
"""Weights go into files of at most this size, one of which is held in memory at a time."""

_OTHER_BYTES = 64 * 2**20  # tokenizer and configuration, generously
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
    "chat_template.jinja",
    "chat_template.json",
)


def export(
    morpher: Morpher,
    recipe: Recipe,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the recipe's model to ``folder``, whole or not at all.

    Weights are what `Morpher.morph` puts in the model, bit for bit. Beside them: configuration,
    generation configuration, the base's tokenizer and chat template, ``mergekit_config.yml``,
    which mergekit runs as it is, and ``morphing.json`` with what mergekit's schema cannot hold.

    Args:
        morpher: with the recipe's models loaded; its model is not changed.
        recipe: what to write.
        folder: absent or empty.
        progress: called with the tensors written and their number.

    Raises:
        MorphingError: the folder holds something, the disk is full or cannot be written.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MorphingError(f"{folder} already holds something: export to a new or empty folder.")
    needed = sum(morpher.sizes(recipe).values()) + _OTHER_BYTES
    with _disk_errors(folder, needed):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _check_space(folder, needed)
        # A sibling, so that the last step is a rename on one file system.
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write_weights(morpher, recipe, partial, progress or (lambda done, total: None))
            _write_companions(morpher, recipe, partial)
            partial.chmod(0o755)  # mkdtemp's own is private
            os.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def mergekit_recipe(morpher: Morpher, recipe: Recipe) -> Recipe:
    """The recipe as mergekit itself can run it, saying the arithmetic that was done.

    Zoo names become folders, adapters mergekit's ``base+adapter``, and the dtypes are spelled out:
    mergekit computes in ``dtype``, and here that is always float32.
    """
    sources = {source.name: source for source in (morpher.base, *morpher.sources)}
    base = _reference(morpher.base)

    def rename(name: str) -> str | Mapping[str, Any]:
        source = sources[name]
        reference = _reference(source)
        if not source.adapter:
            return reference if isinstance(reference, str) else {"model": reference}
        if isinstance(reference, str) and isinstance(base, str):
            return f"{base}+{reference}"
        return {"model": base, "lora": reference}

    renamed = recipe.with_names(rename)
    dtypes = {"dtype": "float32", "out_dtype": _dtype_name(morpher, recipe)}
    return Recipe({**renamed.config, **dtypes}, recipe.mask_seed)


def _reference(source: Source) -> str | dict[str, str]:
    """A source as mergekit's ModelPath: Hub ids as they are, everything else by its folder."""
    if not (source.name.startswith("zoo:") or Path(source.name).is_absolute()):
        return source.name
    path = str(source.folder.absolute())
    # In mergekit's string form these two characters set off an adapter and a revision.
    return {"path": path} if "+" in path or "@" in path else path


def _dtype_name(morpher: Morpher, recipe: Recipe) -> str:
    """The dtype the floating-point weights are written in."""
    dtypes = {str(dtype).removeprefix("torch.") for dtype in morpher.output_dtypes(recipe)}
    return dtypes.pop() if len(dtypes) == 1 else "float32"


def _write_weights(
    morpher: Morpher, recipe: Recipe, folder: Path, progress: Callable[[int, int], None]
) -> None:
    sizes = morpher.sizes(recipe)
    shards = _shards(sizes)
    files = _shard_names(len(shards))
    tensors = morpher.tensors(recipe)
    done = 0
    for names, file in zip(shards, files, strict=True):
        weights: dict[str, torch.Tensor] = {}
        for _ in names:
            name, tensor = next(tensors)
            weights[name] = tensor.to("cpu").contiguous()
            done += 1
            progress(done, len(sizes))
        save_file(weights, folder / file, metadata={"format": "pt"})
    if len(files) > 1:
        index = {
            "metadata": {"total_size": sum(sizes.values())},
            "weight_map": {n: f for s, f in zip(shards, files, strict=True) for n in s},
        }
        _write_json(folder / metadata.WEIGHTS_INDEX, index)


def _write_companions(morpher: Morpher, recipe: Recipe, folder: Path) -> None:
    config = local.read_json(morpher.base.folder / metadata.CONFIG)
    config.pop("_name_or_path", None)  # a path on the machine that saved the base
    dtype = _dtype_name(morpher, recipe)
    # from_pretrained loads in the dtype named here; older releases read torch_dtype.
    config |= {"dtype": dtype, "torch_dtype": dtype}
    _write_json(folder / metadata.CONFIG, config)
    morpher.model.generation_config.save_pretrained(folder)
    for file in _TOKENIZER_FILES:
        if (morpher.base.folder / file).is_file():
            shutil.copyfile(morpher.base.folder / file, folder / file)
    text = mergekit_recipe(morpher, recipe).to_yaml()
    (folder / "mergekit_config.yml").write_text(text, encoding="utf-8")
    _write_json(
        folder / "morphing.json",
        {"morphing_version": morphing.__version__, "mask_seed": recipe.mask_seed},
    )


def _shards(sizes: Mapping[str, int]) -> list[list[str]]:
    """Tensor names by file, in order, each file at most `SHARD_BYTES` unless one tensor is more."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return [metadata.WEIGHTS]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise MorphingError(_full(folder, needed, free))


@contextmanager
def _disk_errors(folder: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors gives the system's error as text only.
        text = str(error)
        if any(f"rror {code}" in text for code in (27, 28, 122)):  # EFBIG, ENOSPC, EDQUOT
            free = shutil.disk_usage(folder.parent).free
            raise MorphingError(_full(folder, needed, free)) from error
        raise MorphingError(
            f"The model cannot be written to {folder} ({text}): choose a folder you may write to."
        ) from error


def _full(folder: Path, needed: int, free: int) -> str:
    return (
        f"The disk is full: exporting to {folder} needs about {_size(needed)} and {_size(free)} are"
        " free (or allowed); nothing was left there: free some space or choose another disk."
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
