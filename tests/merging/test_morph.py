"""Morphing in place: determinism, the distance, adapters, refusals."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from morphing.errors import MorphingError
from morphing.merging.models import Placement
from morphing.merging.morph import Morpher, required_memory
from morphing.merging.recipe import Recipe
from morphing.sources.find import download, inspect
from morphing.sources.source import Source
from tests.merging.test_stores import save_lora
from tests.merging.tiny import METHODS, recipe, save_family

CPU = torch.device("cpu")


def state(morpher: Morpher) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in morpher.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("method", METHODS)
def test_a_morph_after_many_equals_a_fresh_one(
    method: str, morpher: Morpher, family: list[Source]
) -> None:
    for other in METHODS:
        morpher.morph(recipe(other, family, seed=9))
    morpher.morph(recipe(method, family, seed=1))
    fresh = Morpher(family[0], family[1:], CPU, torch.float32)
    fresh.morph(recipe(method, family, seed=1))
    assert same(state(morpher), state(fresh))


def test_the_mask_seed_and_only_it_changes_the_masks(
    morpher: Morpher, family: list[Source]
) -> None:
    results = []
    for seed in (0, 1, 0):
        morpher.morph(recipe("dare_ties", family, seed=seed))
        results.append(state(morpher))
    assert same(results[0], results[2])
    assert not same(results[0], results[1])


def test_renaming_sources_does_not_change_the_masks(morpher: Morpher, family: list[Source]) -> None:
    original = dict(morpher.tensors(recipe("dare_ties", family)))
    renamed = [Source(f"org/{i}", s.folder, (), False) for i, s in enumerate(family)]
    other = Morpher(renamed[0], renamed[1:], CPU, torch.float32)
    assert same(original, dict(other.tensors(recipe("dare_ties", renamed))))


def test_the_distance_is_relative_l1_with_a_tied_head_once(
    morpher: Morpher, family: list[Source]
) -> None:
    distance = morpher.morph(recipe("task_arithmetic", family))
    base = load_file(family[0].folder / "model.safetensors")
    merged = dict(morpher.tensors(recipe("task_arithmetic", family)))
    assert merged.keys() == base.keys()
    assert "lm_head.weight" not in merged
    expected = sum((merged[n].double() - base[n].double()).abs().sum() for n in base)
    expected = expected / sum(t.double().abs().sum() for t in base.values())
    assert math.isclose(distance, float(expected), rel_tol=1e-5)


def test_the_base_alone_is_the_base(half_morpher: Morpher, half_family: list[Source]) -> None:
    half_morpher.morph(recipe("ties", half_family))
    alone = {"merge_method": "linear", "models": [{"model": half_family[0].name}]}
    alone["parameters"] = {"weight": 1.0}
    assert half_morpher.morph(Recipe(alone)) == 0
    assert same(state(half_morpher), load_file(half_family[0].folder / "model.safetensors"))


def test_morphing_changes_what_the_model_says(morpher: Morpher, family: list[Source]) -> None:
    prompt = torch.arange(12).view(1, -1)
    logits = []
    for method in ("task_arithmetic", "linear"):
        morpher.morph(recipe(method, family))
        with torch.inference_mode():
            logits.append(morpher.model(prompt).logits)
    assert not torch.equal(*logits)


def test_the_output_dtype_is_out_dtype_then_dtype_then_the_bases(
    half_morpher: Morpher, half_family: list[Source]
) -> None:
    asked: list[tuple[dict[str, str | None], torch.dtype]] = [
        ({"dtype": None}, torch.bfloat16),
        ({"dtype": "float16"}, torch.float16),
        ({"dtype": "float32", "out_dtype": "bfloat16"}, torch.bfloat16),
    ]
    for extra, dtype in asked:
        merged = half_morpher.tensors(recipe("ties", half_family, **extra))
        assert {tensor.dtype for _, tensor in merged} == {dtype}


def test_a_failed_morph_leaves_the_model_as_it_was(morpher: Morpher, family: list[Source]) -> None:
    morpher.morph(recipe("ties", family))
    before = state(morpher)
    unknown = recipe("ties", family).with_names(lambda name: name.replace("three", "four"))
    with pytest.raises(MorphingError, match="four, which this run has not loaded"):
        morpher.morph(unknown)
    models = [{"model": family[1].name, "parameters": {"weight": [{"filter": "mlp", "value": 1}]}}]
    lacking = Recipe({"merge_method": "linear", "models": models})
    with pytest.raises(MorphingError, match="Missing required parameter weight"):
        morpher.morph(lacking)
    weights = [1.0, [{"filter": "model.norm", "value": -1.0}, {"value": 1.0}]]
    cancelling = [
        {"model": source.name, "parameters": {"weight": weight}}
        for source, weight in zip(family[1:3], weights, strict=True)
    ]
    with pytest.raises(MorphingError, match=r"model\.norm\.weight sum to zero"):
        morpher.morph(Recipe({"merge_method": "linear", "models": cancelling}))
    assert same(state(morpher), before)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "modules_to_save"])
def test_an_adapter_is_merged_as_peft_applies_it(
    kind: str, family: list[Source], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(family[0].folder)
    saved = ["norm"] if kind == "modules_to_save" else None
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "down_proj"],
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
        modules_to_save=saved,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    source = download(str(tmp_path / "adapter"))
    assert source.adapter
    assert source.base_models == (str(family[0].folder),)
    morpher = Morpher(family[0], [source, family[1]], CPU, torch.float32)
    models = [{"model": source.name, "parameters": {"weight": 1.0}}]
    alone = {"merge_method": "task_arithmetic", "base_model": family[0].name, "models": models}
    assert morpher.morph(Recipe(alone)) > 0
    prompt = torch.arange(12).view(1, -1)
    with torch.inference_mode():
        expected, found = adapted(prompt).logits, morpher.model(prompt).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_nan_is_refused_by_tensor_and_model(family: list[Source], tmp_path: Path) -> None:
    broken = Path(shutil.copytree(family[1].folder, tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        MorphingError, match=r"model\.norm\.weight of .*broken holds NaN or infinity in 1 of"
    ):
        Morpher(family[0], [download(str(broken))], CPU, torch.float32)


def test_another_vocabulary_is_refused_by_tensor(family: list[Source], tmp_path: Path) -> None:
    other = save_family(tmp_path, torch.float32, tied=True, vocabulary=41)[0]
    source = download(str(other))
    morpher = Morpher(family[0], [source], CPU, torch.float32)
    with pytest.raises(MorphingError, match=r"embed_tokens.*41.*40|embed_tokens.*40.*41"):
        morpher.morph(recipe("ties", [family[0], source]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("lacks", r"lacks model\.norm\.weight, for which random weights would be taken"),
        ("adds", r"a LlamaForCausalLM that cannot be morphed.*no place for model\.layers\.0\.x"),
    ],
)
def test_a_base_whose_model_is_not_its_checkpoint_is_refused(
    change: str, said: str, family: list[Source], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(family[0].folder, tmp_path / "base"))
    tensors = load_file(folder / "model.safetensors")
    if change == "lacks":
        del tensors["model.norm.weight"]
    else:
        tensors["model.layers.0.x"] = torch.zeros(2)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(MorphingError, match=said):
        Morpher(download(str(folder)), [], CPU, torch.float32)


def test_a_base_that_needs_its_own_code_is_refused(family: list[Source], tmp_path: Path) -> None:
    own = Path(shutil.copytree(family[0].folder, tmp_path / "own"))
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.Mine"}}
    (own / "config.json").write_text(json.dumps(config))
    (own / "configuration_mine.py").write_text("raise SystemExit('code from a repository ran')")
    with pytest.raises(MorphingError, match="cannot load"):
        Morpher(download(str(own)), [], CPU, torch.float32)


def test_required_memory_covers_what_a_morph_holds(family: list[Source]) -> None:
    inspections = [inspect(source.name) for source in family]
    needed = required_memory(inspections[0], inspections[1:], torch.float32)
    stored = sum(inspection.bytes for inspection in inspections)
    assert needed > stored + 4 * inspections[0].parameters
    wider = required_memory(inspections[0], inspections[1:] * 2, torch.float32)
    assert wider - needed > stored - inspections[0].bytes


def test_a_tied_head_stored_beside_its_embedding_counts_once(
    family: list[Source], tmp_path: Path
) -> None:
    doubled = Path(shutil.copytree(family[0].folder, tmp_path / "doubled"))
    tensors = load_file(doubled / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, doubled / "model.safetensors", metadata={"format": "pt"})
    source = download(str(doubled))
    morpher = Morpher(source, family[1:], CPU, torch.float32)
    assert "lm_head.weight" not in dict(morpher.tensors(recipe("ties", [source, *family[1:]])))
    assert inspect(source.name).parameters == inspect(family[0].name).parameters


@pytest.mark.parametrize("placement", ["host", "disk"])
def test_where_sources_are_kept_does_not_change_the_model(
    placement: Placement, half_family: list[Source], tmp_path: Path
) -> None:
    names = [f"model.layers.1.{module}.weight" for module in ("self_attn.q_proj", "mlp.up_proj")]
    adapter = save_lora(tmp_path / "adapter", half_family[0].folder, names)
    sources = [half_family[1], adapter, half_family[2]]
    resident, other = (
        Morpher(half_family[0], sources, CPU, torch.bfloat16, placement=place)
        for place in ("device", placement)
    )
    for method in METHODS:
        wanted = recipe(method, [half_family[0], *sources], out_dtype="bfloat16")
        assert resident.morph(wanted) == other.morph(wanted)
        assert same(state(resident), state(other))


def test_an_adapter_is_at_hand_as_its_factors(family: list[Source], tmp_path: Path) -> None:
    """And what is put in the model is computed in float32, whatever the base is stored in."""
    names = ["model.layers.0.self_attn.q_proj.weight"]
    adapter = save_lora(tmp_path / "adapter", family[0].folder, names)
    morpher = Morpher(family[0], [adapter], CPU, torch.float32)
    opened = morpher.engine.models[adapter.name]
    assert opened.adapter is not None
    assert opened.adapter.bytes == 2 * (32 + 32) * torch.float32.itemsize
    models = [{"model": adapter.name, "parameters": {"weight": 1.0}}]
    config = {"merge_method": "task_arithmetic", "base_model": family[0].name, "models": models}
    assert morpher.morph(Recipe(config)) > 0
    base = load_file(family[0].folder / "model.safetensors")
    changed = {
        name for name, tensor in base.items() if not torch.equal(state(morpher)[name], tensor)
    }
    assert changed == set(names)
