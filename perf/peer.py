"""mergekit doing the same merges: in memory through its API, and as its program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import recipes
import torch
from torch import Tensor

from morphing.merging.recipe import Recipe

Loaded = Mapping[str, Mapping[str, Tensor]]
"""Tensors by model and name."""


def tensor_by_tensor(loaded: Loaded, recipe: Recipe) -> dict[str, Tensor]:
    """`merge_tensors` for each tensor."""
    from mergekit.merge_methods.api import merge_tensors

    names = recipes.models(recipe)
    with torch.no_grad():
        return {
            name: merge_tensors(
                [loaded[model][name] for model in names],
                recipe.method,
                parameters=recipes.parameters(recipe),
                base_index=0 if recipe.base else None,
                name=name,
                dtype=torch.float32,
                out_dtype=torch.bfloat16,
            )
            for name in loaded[names[0]]
        }


def state_dicts(loaded: Loaded, recipe: Recipe) -> dict[str, Tensor]:
    """`merge_state_dicts`, which batches tensors."""
    from mergekit.merge_methods.api import merge_state_dicts

    with torch.no_grad():
        return merge_state_dicts(
            [loaded[model] for model in recipes.models(recipe)],
            recipe.method,
            parameters=recipes.parameters(recipe),
            base=0 if recipe.base else None,
            dtype=torch.float32,
            out_dtype=torch.bfloat16,
        )


IN_MEMORY: dict[str, Callable[[Loaded, Recipe], dict[str, Tensor]]] = {
    "merge_tensors": tensor_by_tensor,
    "merge_state_dicts": state_dicts,
}


def program(recipe: Recipe, folder: Path, threads: int) -> None:
    """`mergekit-yaml`, from its start to a model in ``folder``, which is removed again."""
    config = folder.with_suffix(".yml")
    config.write_text(recipe.to_yaml())
    command = [str(Path(sys.executable).with_name("mergekit-yaml")), str(config), str(folder)]
    done = subprocess.run(
        [*command, "--num-threads", str(threads), "--quiet"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode or not any(folder.glob("*.safetensors")):
        sys.exit(f"mergekit-yaml failed:\n{done.stdout}")
    shutil.rmtree(folder)
