"""A merge as a LoRA adapter: as near as its rank allows, and honest about how near that is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from morphing.errors import MorphingError
from morphing.merging.writing.lora import AdapterReport, factors, write_adapter
from tests.merging.tiny import tiny_llama

Tensors = dict[str, torch.Tensor]
TIED = {"lm_head.weight": "model.embed_tokens.weight"}
Q = "model.layers.0.self_attn.q_proj"


def checkpoint(model: Any) -> Tensors:
    """A model's tensors as its checkpoint has them: a tied head is not among them."""
    names = set(model.state_dict()) - set(model.all_tied_weights_keys)
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name in names}


def linear_names(model: Any) -> set[str]:
    layers = (name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear))
    return {f"{name}.weight" for name in layers} & checkpoint(model).keys()


def changed(model: Any, rank: int, only: Callable[[str], bool] = lambda name: True) -> Tensors:
    """A step from the model: of ``rank`` in linear weights, 1 in one of them, any elsewhere."""
    torch.manual_seed(1)
    linear, tensors = linear_names(model), checkpoint(model)
    for name, tensor in tensors.items():
        if name in linear:
            size = 1 if name == f"{Q}.weight" else rank
            step = torch.randn(tensor.shape[0], size) @ torch.randn(size, tensor.shape[1]) / 20
        else:
            step = torch.randn_like(tensor) / 5
        if only(name):
            tensors[name] = tensor + step
    return tensors


def write(folder: Path, model: Any, merged: Tensors, rank: int, **options: Any) -> AdapterReport:
    if not (folder.parent / "base").exists():
        model.save_pretrained(folder.parent / "base")
    original = checkpoint(model)
    base = str(folder.parent / "base")
    return write_adapter(
        folder, base, original.__getitem__, merged.items(), rank, linear_names(model), **options
    )


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(torch.arange(12).view(1, -1)).logits


def qwen() -> Any:
    """Biases in the attention's layers, none in the others."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return Qwen2ForCausalLM(config)


MODELS: dict[str, Callable[[], Any]] = {
    "untied": lambda: tiny_llama(tied=False),
    "tied": lambda: tiny_llama(tied=True),
    "biases": qwen,
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("part", ["all", "some"])
def test_peft_makes_the_merge_of_base_and_adapter(tmp_path: Path, kind: str, part: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = MODELS[kind]()
    merged = changed(model, 3, lambda name: part == "all" or ".1." in name or "bias" in name)
    report = write(tmp_path / "out", model, merged, 3, tied=TIED if kind == "tied" else None)
    assert report.error < 1e-5
    assert report.left_out == ()

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    before = logits(base)
    adapted, load = PeftModel.from_pretrained(base, tmp_path / "out"), tmp_path / "out"
    full = MODELS[kind]()
    full.load_state_dict(merged, strict=False)
    assert (before - logits(full)).abs().max() > 1e-2
    torch.testing.assert_close(logits(adapted), logits(full), atol=1e-5, rtol=1e-4)
    held = {name for name in load_file(load / "adapter_model.safetensors") if "lora_" in name}
    wanted = {name.replace(".default", "") for name in adapted.state_dict() if "lora_" in name}
    assert held == wanted  # no layer is left as PEFT starts it
    torch.testing.assert_close(
        logits(adapted.merge_and_unload()), logits(full), atol=1e-5, rtol=1e-4
    )


def test_an_update_of_a_low_rank_gets_that_rank(tmp_path: Path) -> None:
    model = tiny_llama(tied=False)
    report = write(tmp_path / "out", model, changed(model, 3), 40)
    for name, found in report.tensors.items():
        assert found.rank == (1 if name == f"{Q}.weight" else 3)
        assert found.error < 1e-5
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["rank_pattern"]) == (3, {Q: 1})


def test_the_error_told_is_the_true_one(tmp_path: Path) -> None:
    model = tiny_llama(tied=False)
    original, merged = checkpoint(model), changed(model, 8)
    report = write(tmp_path / "out", model, merged, 2, whole=False, dtype=torch.bfloat16)
    file = load_file(tmp_path / "out" / "adapter_model.safetensors")
    steps = {name: (merged[name].double() - original[name].double()) for name in merged}
    left: Tensors = dict(steps)
    for name in report.tensors:
        key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        a, b = file[f"{key}A.weight"], file[f"{key}B.weight"]
        assert a.dtype == b.dtype == torch.bfloat16
        assert a.shape[0] == b.shape[1] == report.tensors[name].rank <= 2
        left[name] = steps[name] - b.double() @ a.double()
        true = (left[name].norm() / steps[name].norm()).item()
        assert report.tensors[name].error == pytest.approx(true, rel=1e-4)
        if name != f"{Q}.weight":
            assert true > 0.1
    assert report.whole == ()
    assert set(report.left_out) == merged.keys() - report.tensors.keys() != set()
    overall = math.sqrt(sum(t.norm().item() ** 2 for t in left.values()))
    overall /= math.sqrt(sum(t.norm().item() ** 2 for t in steps.values()))
    assert report.error == pytest.approx(overall, rel=1e-4)
    told = json.loads((tmp_path / "out" / "adapter_report.json").read_text())
    assert told["error"] == report.error
    assert told["tensors"][f"{Q}.weight"]["rank"] == 1


@pytest.mark.parametrize("shape", [(20, 30), (900, 700), (700, 900)])
def test_factors_are_the_nearest_of_their_rank(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    update = torch.randn(shape)  # its spectrum is flat: the hardest there is
    b, a = factors(update, 10)
    best = torch.linalg.svdvals(update.double())[10:].norm()
    assert (update - b @ a).double().norm() <= 1.002 * best
    assert torch.equal(factors(update, 999)[0], factors(update, min(shape))[0])


def test_the_same_merge_gives_the_same_bytes(tmp_path: Path) -> None:
    base, merged = torch.zeros(600, 700), torch.randn(600, 700)
    state = torch.get_rng_state()
    for folder in ("one", "two"):
        tensors, names = [("l.weight", merged)], {"l.weight"}
        write_adapter(tmp_path / folder, "org/name", {"l.weight": base}.get, tensors, 4, names)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(7)
        state = torch.get_rng_state()
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        for folder in ("one", "two")
    )
    assert one == two
    assert set(one) == {"adapter_config.json", "adapter_model.safetensors", "adapter_report.json"}


def test_the_base_is_named_as_peft_loads_it(tmp_path: Path) -> None:
    base, merged = {"l.weight": torch.zeros(4, 4)}, {"l.weight": torch.ones(4, 4)}.items()
    write_adapter(tmp_path / "o", "org/name@abc", base.__getitem__, merged, 1, set(base))
    config = json.loads((tmp_path / "o" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/name", "abc")


def test_what_no_adapter_can_hold_is_said(tmp_path: Path) -> None:
    model = tiny_llama(tied=False)
    merged = changed(model, 2)
    grown = merged | {"lm_head.weight": torch.ones(50, 32)}
    refusals = {
        "rank 0 holds nothing": (merged, 0),
        r"lm_head.weight is \(50, 32\) in the merge and \(40, 32\)": (grown, 2),
        "has model.extra.weight, which its base has not": (merged | {"model.extra.weight": Q}, 2),
        "changes no linear layer": (checkpoint(model), 2),
    }
    for text, (tensors, rank) in refusals.items():
        with pytest.raises(MorphingError, match=text) as told:
            write(tmp_path / "out", model, tensors, rank)  # type: ignore[arg-type]
        assert str(told.value).count(". ") == 0
        assert not (tmp_path / "out").exists()


def test_a_parameter_of_a_module_that_holds_layers_is_left_out(tmp_path: Path) -> None:
    """PEFT can replace only whole modules, and the layers in this one have updates of their own."""
    names = ("mixer.decay", "mixer.in_proj.weight", "mixer.conv.weight")
    base = {name: torch.zeros(4, 4) for name in names}
    merged = {name: torch.ones(4, 4) for name in names}
    report = write_adapter(
        tmp_path / "out", "o/n", base.__getitem__, merged.items(), 1, {"mixer.in_proj.weight"}
    )
    assert report.whole == ("mixer.conv.weight",)
    assert report.left_out == ("mixer.decay",)
    assert report.error == pytest.approx(math.sqrt(1 / 3))
