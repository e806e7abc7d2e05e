"""A recipe's model as an adapter of its base: PEFT loads it, and it is what it says it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from morphing.errors import MorphingError
from morphing.merging.merge import merge_adapter, merge_recipe
from morphing.merging.merge_stages import MergeStages
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.merging.writing.lora import AdapterReport
from morphing.sources.source import Source
from tests.merging.tiny import recipe, save_tokenizer, tiny_llama

CPU = torch.device("cpu")
PROMPT = torch.arange(12).view(1, -1)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(PROMPT).logits


def write(wanted: Recipe, out: Path, rank: int = 64) -> AdapterReport:
    return merge_adapter(MergeStages(wanted, {}, ()), out, rank, CPU, lambda *_: None)


def loaded(out: Path) -> torch.nn.Module:
    from peft import AutoPeftModelForCausalLM

    return AutoPeftModelForCausalLM.from_pretrained(out, dtype=torch.float32)


@pytest.mark.parametrize("method", ["dare_ties", "linear", "slerp"])
@pytest.mark.parametrize("tied", [True, False])
def test_of_full_rank_it_is_the_merge(
    method: str, tied: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    family: list[Source] = request.getfixturevalue("family" if tied else "half_family")
    wanted = recipe(method, family, base_model=family[0].name, out_dtype="float32")
    if method == "linear":
        wanted.config["models"].append({"model": family[0].name, "parameters": {"weight": 0.2}})  # type: ignore[attr-defined]
    report = write(wanted, tmp_path / "adapter")
    merge_recipe(wanted, tmp_path / "whole", CPU, lambda *_: None)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    expected = logits(whole)
    assert (logits(loaded(tmp_path / "adapter")) - expected).abs().max() < 1e-4 * expected.std()
    assert report.error < 1e-5
    assert not report.left_out


def test_of_a_low_rank_it_misses_what_it_says(
    morpher: Morpher, family: list[Source], tmp_path: Path
) -> None:
    wanted = recipe("ties", family)
    reports = [write(wanted, tmp_path / f"rank{rank}", rank) for rank in (1, 4, 16)]
    errors = [report.error for report in reports]
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0.01
    name = max(reports[0].tensors)
    merged = dict(morpher.tensors(wanted, [name]))[name]
    base = AutoModelForCausalLM.from_pretrained(family[0].folder).state_dict()[name]
    adapted = loaded(tmp_path / "rank4").merge_and_unload().state_dict()[name]  # type: ignore[operator]
    error = ((adapted - merged).norm() / (merged - base).norm()).item()
    assert error == pytest.approx(reports[1].tensors[name].error, rel=1e-3)


def test_progress_ends_at_all_there_is(family: list[Source], tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    merge_adapter(
        MergeStages(recipe("ties", family), {}, ()),
        tmp_path / "a",
        2,
        CPU,
        lambda *step: steps.append(step),
    )
    step, done, total = steps[-1]
    assert step.startswith("merging") and done == total


def refusal(config: Mapping[str, object], out: Path) -> str:
    with pytest.raises(MorphingError) as told:
        write(Recipe(config), out)
    assert "\n" not in str(told.value) and ". " not in str(told.value)
    assert not out.exists()
    return str(told.value)


def test_what_is_no_change_of_the_bases_weights_is_refused(
    family: list[Source], tmp_path: Path
) -> None:
    base, one = family[0].name, family[1].name
    ties = dict(recipe("ties", family).config)
    out = tmp_path / "out"
    bare = {"merge_method": "linear", "models": [{"model": one, "parameters": {"weight": 1.0}}]}
    assert "has no base_model" in refusal(bare, out)

    ranges = [{"sources": [{"model": one, "layer_range": r}]} for r in ([0, 2], [1, 3])]
    stacked = {"merge_method": "passthrough", "slices": ranges, "base_model": base}
    assert "other layers or another vocabulary" in refusal(stacked, out)

    tiny_llama(vocabulary=44).save_pretrained(tmp_path / "large")
    save_tokenizer(tmp_path / "large", 44)
    large = {"model": str(tmp_path / "large"), "parameters": {"weight": 0.1}}
    union = {**ties, "models": [*ties["models"], large], "tokenizer_source": "union"}
    assert "other layers or another vocabulary" in refusal(union, out)
    write(Recipe({**ties, "tokenizer_source": "union"}), tmp_path / "same")


def test_a_model_without_linear_layers_has_no_adapter(tmp_path: Path) -> None:
    """GPT-2 multiplies by transposed matrices, in a layer class of its own."""
    config = GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    torch.manual_seed(0)
    for name in ("base", "one"):
        GPT2LMHeadModel(config).save_pretrained(tmp_path / name)
    models = [{"model": str(tmp_path / "one"), "parameters": {"weight": 0.5}}]
    wanted = {"merge_method": "task_arithmetic", "models": models}
    text = refusal({**wanted, "base_model": str(tmp_path / "base")}, tmp_path / "out")
    assert "changes no linear layer" in text


def test_a_base_that_is_an_adapter_is_refused(family: list[Source], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])).save_pretrained(
        tmp_path / "lora"
    )
    ties = dict(recipe("ties", family).config)
    ties["base_model"] = f"{family[0].name}+{tmp_path / 'lora'}"
    assert "itself an adapter" in refusal(ties, tmp_path / "out")
