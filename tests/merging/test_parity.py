"""mergekit, run on an exported recipe, writes the same tensors to within rounding."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from morphing.merging.export import export
from morphing.merging.morph import Morpher
from morphing.merging.parameters import resolve
from morphing.merging.recipe import Recipe
from morphing.sources.source import Source, download
from tests.merging.tiny import LAYERS, recipe

DETERMINISTIC = ("linear", "slerp", "task_arithmetic", "ties")
CLI = Path(sys.executable).with_name("mergekit-yaml")


def run_mergekit(config: Path, out: Path, lora_cache: Path | None = None) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    configuration = MergeConfiguration.model_validate(yaml.safe_load(config.read_text()))
    cache = None if lora_cache is None else str(lora_cache)
    run_merge(configuration, str(out), MergeOptions(quiet=True, lora_merge_cache=cache))


def undecided(morpher: Morpher, merged: Recipe) -> dict[str, torch.Tensor]:
    """Where TIES must choose among equal magnitudes: mergekit by its sort's whim, we by index."""
    folders = {source.name: source.folder for source in (morpher.base, *morpher.sources)}
    weights = {n: load_file(folders[n] / "model.safetensors") for n in merged.inputs}
    base = weights[merged.base or ""]
    where = {}
    for name, parameters in resolve(merged, base, LAYERS).items():
        where[name] = torch.zeros(base[name].shape, dtype=torch.bool)
        for model, own in zip(merged.sources, parameters.own, strict=False):
            magnitude = (weights[model][name].float() - base[name].float()).abs()
            keep = max(1, int(own["density"] * magnitude.numel()))
            threshold = magnitude.flatten().sort(descending=True).values[keep - 1]
            if (magnitude >= threshold).sum() > keep:
                where[name] |= magnitude == threshold
    return where


def assert_same_tensors(
    ours: Path, theirs: Path, free: dict[str, torch.Tensor] | None = None
) -> None:
    """Equal to a few units in the last place of the dtype written, except where ``free``."""
    mine, other = (load_file(f / "model.safetensors") for f in (ours, theirs))
    other = {name: tensor for name, tensor in other.items() if name in mine}
    assert mine.keys() == other.keys()
    compared = 0
    for name, tensor in mine.items():
        assert tensor.dtype == other[name].dtype
        unit = torch.finfo(tensor.dtype).eps
        checked = ~free[name] if free else torch.ones(tensor.shape, dtype=torch.bool)
        compared += int(checked.sum())
        torch.testing.assert_close(tensor[checked], other[name][checked], rtol=2 * unit, atol=4e-7)


@pytest.mark.parametrize("method", DETERMINISTIC)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("normalize", [None, True, False])
def test_mergekit_writes_the_same_tensors(
    method: str,
    kind: str,
    normalize: bool | None,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    if method == "slerp" and normalize is not None:
        pytest.skip("slerp has no normalize")
    morpher: Morpher = request.getfixturevalue("morpher" if kind == "float32" else "half_morpher")
    family = [morpher.base, *morpher.sources]
    extra = {} if normalize is None else {"parameters": {"normalize": normalize, "lambda": 0.9}}
    merged = recipe(method, family, out_dtype=kind, **extra)
    export(morpher, merged, tmp_path / "ours")
    run_mergekit(tmp_path / "ours" / "mergekit_config.yml", tmp_path / "theirs")
    free = undecided(morpher, merged) if method == "ties" else None
    assert_same_tensors(tmp_path / "ours", tmp_path / "theirs", free)


def test_dare_without_dropping_is_mergekits(
    morpher: Morpher, family: list[Source], tmp_path: Path
) -> None:
    """mergekit draws its masks at random; at density 1 there is nothing to draw."""
    for method in ("dare_linear", "dare_ties"):
        config = dict(recipe(method, family).config)
        config["models"] = [
            {**entry, "parameters": {**entry["parameters"], "density": 1.0}}
            for entry in config["models"]
        ]
        export(morpher, Recipe(config), tmp_path / method / "ours")
        run_mergekit(tmp_path / method / "ours/mergekit_config.yml", tmp_path / method / "theirs")
        assert_same_tensors(tmp_path / method / "ours", tmp_path / method / "theirs")


def test_ties_with_rescaling_and_a_base_among_the_models(
    morpher: Morpher, family: list[Source], tmp_path: Path
) -> None:
    rescaled = recipe("ties", family, parameters={"rescale": True, "int8_mask": True})
    models = [{"model": family[0].name}, *rescaled.config["models"]]
    export(morpher, Recipe({**rescaled.config, "models": models}), tmp_path / "ours")
    run_mergekit(tmp_path / "ours" / "mergekit_config.yml", tmp_path / "theirs")
    assert_same_tensors(tmp_path / "ours", tmp_path / "theirs")


def test_linear_with_a_base_merges_the_base_too(
    morpher: Morpher, family: list[Source], tmp_path: Path
) -> None:
    """mergekit adds a base that is not listed; its weight is the recipe's own."""
    models = [{"model": family[1].name, "parameters": {"weight": 0.2}}]
    config = {"merge_method": "linear", "base_model": family[0].name, "models": models}
    config["parameters"] = {"weight": 0.6}
    export(morpher, Recipe(config), tmp_path / "ours")
    run_mergekit(tmp_path / "ours" / "mergekit_config.yml", tmp_path / "theirs")
    assert_same_tensors(tmp_path / "ours", tmp_path / "theirs")


def test_adapters_by_mergekits_own_syntax(family: list[Source], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_pretrained(family[0].folder)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    adapter = download(str(tmp_path / "adapter"))
    sources = [family[0], adapter, family[1]]
    morpher = Morpher(family[0], sources[1:], torch.device("cpu"), torch.float32)
    export(morpher, recipe("ties", sources), tmp_path / "ours")
    run_mergekit(tmp_path / "ours" / "mergekit_config.yml", tmp_path / "theirs", tmp_path / "loras")
    assert_same_tensors(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.slow
def test_the_command_line_runs_an_exported_zoo_recipe(tmp_path: Path) -> None:
    from morphing import zoo

    sources = [download(f"zoo:{name}") for name in zoo.MODELS]
    morpher = Morpher(sources[0], sources[1:], torch.device("cpu"), torch.float32)
    export(morpher, recipe("ties", sources), tmp_path / "ours")
    subprocess.run(
        [CLI, str(tmp_path / "ours" / "mergekit_config.yml"), str(tmp_path / "theirs"), "--quiet"],
        check=True,
        capture_output=True,
        timeout=500,
    )
    assert_same_tensors(tmp_path / "ours", tmp_path / "theirs")
