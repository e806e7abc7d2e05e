"""Adapters kept as factors, against peft's own merge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from morphing.errors import MorphingError
from morphing.sources.adapter import Adapter, load_adapter
from morphing.sources.find import download
from morphing.sources.source import Source
from morphing.sources.weights import Weights
from tests.merging.tiny import tiny_llama

Case = Callable[..., tuple[Source, Weights]]
ATTENTION = ["q_proj", "v_proj"]
EVERYWHERE = [*ATTENTION, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FILE = "adapter_model.safetensors"
NAME = "model.layers.0.self_attn.q_proj.weight"
KEY = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Save a base and an adapter trained on it, as far as random steps are training."""

    def save(
        config: PeftConfig, base: PreTrainedModel | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple[Source, Weights]:
        torch.manual_seed(0)
        (base or tiny_llama(tied=False)).to(dtype).save_pretrained(tmp_path / "base")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=dtype)
        adapted = get_peft_model(model, config)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        adapted.save_pretrained(tmp_path / "adapter")
        return download(str(tmp_path / "adapter")), Weights(download(str(tmp_path / "base")))

    return save


def adapted_by_peft(adapter: Source, base: Weights, merge: bool = True) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(base.source.folder, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(model, str(adapter.folder)).eval()
    return adapted.merge_and_unload() if merge else adapted


def adapted_by_us(adapter: Adapter, base: Weights) -> dict[str, torch.Tensor]:
    assert not adapter.updates.keys() & adapter.replaced.keys()
    tensors = {name: base.read(name) for name in base.info} | dict(adapter.replaced)
    return tensors | {name: u.apply(tensors[name]) for name, u in adapter.updates.items()}


def assert_as_peft(source: Source, base: Weights) -> Adapter:
    adapter = load_adapter(source, base)
    expected = adapted_by_peft(source, base).state_dict()
    ours = adapted_by_us(adapter, base)
    changed = {n for n in base.info if not torch.equal(expected[n], base.read(n).float())}
    assert {*adapter.updates, *adapter.replaced} == changed
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor.float(), expected[name], rtol=1e-5, atol=1e-6)
    return adapter


def rewrite(adapter: Source, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = adapter.folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def configure(adapter: Source, changes: Mapping[str, Any]) -> None:
    path = adapter.folder / "adapter_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "gone"}))


def gpt2() -> PreTrainedModel:
    """Stores its layers' weights as (in, out)."""
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"use_dora": True, "use_rslora": True, "target_modules": ["down_proj", "lm_head"]},
        {"rank_pattern": {"q_proj": 2, r"layers\.1\.self_attn.v_proj": 6}},
        {"alpha_pattern": {"v_proj": 32, "model.layers.2.mlp.up_proj": 1}},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"target_modules": ["embed_tokens"], "use_dora": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens", "norm"]},
        {"layers_to_transform": [1]},
    ],
    ids=str,
)
def test_factors_give_what_peft_merges(case: Case, options: dict[str, Any]) -> None:
    config = LoraConfig(r=4, lora_alpha=16, task_type="CAUSAL_LM")
    for key, value in ({"target_modules": EVERYWHERE} | options).items():
        setattr(config, key, value)
    adapter = assert_as_peft(*case(config))
    assert adapter.updates


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases(case: Case, bias: str) -> None:
    config = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, bias=bias)
    adapter = assert_as_peft(*case(config, gpt2()))
    assert ("transformer.h.0.mlp.c_fc.bias" in adapter.replaced) == (bias == "all")
    assert "transformer.h.0.attn.c_attn.bias" in adapter.replaced


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("flag", [False, True])
def test_the_layer_and_not_the_flag_says_whether_it_is_transposed(
    case: Case, dora: bool, flag: bool
) -> None:
    """GPT-2's attn.c_proj is square, so its shape cannot say."""
    config = LoraConfig(r=4, target_modules=["c_attn", "c_proj"], use_dora=dora)
    source, base = case(config, gpt2())
    configure(source, {"fan_in_fan_out": flag})
    assert_as_peft(source, base)


def test_a_bfloat16_base_is_adapted_in_float32(case: Case) -> None:
    source, base = case(
        LoraConfig(r=4, target_modules=EVERYWHERE, use_dora=True), dtype=torch.bfloat16
    )
    adapter = assert_as_peft(source, base)
    expected = adapted_by_peft(source, base).state_dict()
    for name, update in adapter.updates.items():
        original = base.read(name)
        before = original.clone()
        merged = update.apply(original)
        assert merged.dtype == torch.float32
        assert torch.equal(original, before)
        bits = [t.bfloat16().view(torch.int16).int() for t in (merged, expected[name])]
        assert (bits[0] - bits[1]).abs().max() <= 1


def test_names_as_other_tools_write_them(case: Case) -> None:
    source, base = case(LoraConfig(r=4, target_modules=ATTENTION, modules_to_save=["norm"]))
    expected = adapted_by_us(load_adapter(source, base), base)

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for key in list(tensors):
            new = key.removeprefix("base_model.model.").replace(".weight", ".default.weight")
            if "lora_" not in key:
                new = key.replace("norm.", "norm.modules_to_save.default.")
            tensors[new] = tensors.pop(key)

    rewrite(source, rename)
    ours = adapted_by_us(load_adapter(source, base), base)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


def test_what_an_adapter_costs(case: Case) -> None:
    source, base = case(LoraConfig(r=4, target_modules=ATTENTION, use_dora=True))
    adapter = load_adapter(source, base)
    stored = load_file(source.folder / "adapter_model.safetensors")
    assert adapter.bytes == sum(tensor.nbytes for tensor in stored.values())
    moved = adapter.to(torch.device("meta"))
    assert moved.updates.keys() == adapter.updates.keys()
    assert moved.updates[NAME].left.is_meta
    assert moved.updates[NAME].magnitude.is_meta


OTHER_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "loha": ("LoHa", {"r": 4}),
    "lokr": ("LoKr", {"r": 4}),
    "ia3": ("IA3", {"target_modules": ["k_proj"], "feedforward_modules": []}),
    "ia3 of an mlp": (
        "IA3",
        {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    ),
    "adalora": ("AdaLora", {"r": 4, "total_step": 10}),
    "oft": ("OFT", {"r": 0, "oft_block_size": 8}),
    "boft": ("BOFT", {"boft_block_size": 8}),
    "hra": ("HRA", {"r": 4}),
    "vera": ("Vera", {"r": 4}),
    "fourierft": ("FourierFT", {"n_frequency": 20}),
    "norms": ("LNTuning", {"target_modules": ["input_layernorm"]}),
    "miss": ("Miss", {"r": 4}),
    "vblora": ("VBLoRA", {"r": 4, "num_vectors": 8, "vector_length": 8, "topk": 2}),
    "c3a": ("C3A", {"block_size": 8}),
    "delora": ("Delora", {"r": 4}),
    "pissa": ("Lora", {"r": 4, "init_lora_weights": "pissa"}),
    "olora": ("Lora", {"r": 4, "init_lora_weights": "olora"}),
    "tokens": ("Lora", {"r": 4, "trainable_token_indices": [1, 2]}),
    "a parameter": ("Lora", {"r": 4, "target_modules": [], "target_parameters": ["q_proj.weight"]}),
}
"""Kinds of peft's that are no plain pair of factors: the class, and its options."""


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_kinds_are_merged_by_peft(case: Case, kind: str) -> None:
    name, options = OTHER_KINDS[kind]
    config = getattr(peft, f"{name}Config")(**({"target_modules": ["q_proj"]} | options))
    source, base = case(config, tiny_llama(tied=True))
    adapter = assert_as_peft(source, base)
    assert not adapter.updates
    assert set(adapter.replaced) < set(base.info)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ],
    ids=["lora", "whole"],
)
def test_a_tied_head_follows_the_embeddings(case: Case, options: dict[str, Any]) -> None:
    """Against what was trained: peft's merge adds a low-rank change to the one tensor twice."""
    config = LoraConfig(**({"r": 4, "target_modules": ["q_proj"]} | options))
    source, base = case(config, tiny_llama(tied=True))
    model = AutoModelForCausalLM.from_pretrained(base.source.folder)
    model.load_state_dict(adapted_by_us(load_adapter(source, base), base), strict=False)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        trained = adapted_by_peft(source, base, merge=False)(tokens).logits
        torch.testing.assert_close(model(tokens).logits, trained, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["lm_head"], "init_lora_weights": "pissa"},
    ],
    ids=str,
)
def test_a_head_parted_from_the_embeddings_is_refused(case: Case, options: dict[str, Any]) -> None:
    config = LoraConfig(**({"r": 4, "target_modules": ["q_proj"]} | options))
    source, base = case(config, tiny_llama(tied=True))
    with pytest.raises(MorphingError, match=r"ties into one tensor: choose .*ensure_weight_tying"):
        load_adapter(source, base)


def test_a_longer_vocabulary_is_kept_whole(case: Case) -> None:
    source, base = case(
        LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"], modules_to_save=["lm_head"])
    )
    extra, embeddings = 3, "base_model.model.model.embed_tokens"
    longer: dict[str, torch.Tensor] = {}

    def resize(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("base_model.model.lm_head.weight", f"{embeddings}.base_layer.weight"):
            tensors[name] = torch.cat([tensors[name], torch.ones(extra, 32)])
        down = f"{embeddings}.lora_embedding_A"
        tensors[down] = torch.cat([tensors[down], torch.ones(4, extra)], dim=1)
        longer.update(tensors)

    rewrite(source, resize)
    adapter = load_adapter(source, base)
    model = AutoModelForCausalLM.from_pretrained(base.source.folder)
    model.resize_token_embeddings(40 + extra)
    merged = PeftModel.from_pretrained(model, str(source.folder)).merge_and_unload().state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert adapter.replaced[name].shape == (43, 32)
        torch.testing.assert_close(adapter.replaced[name], merged[name])


def test_an_adapter_of_another_base(case: Case, tmp_path: Path) -> None:
    source, _ = case(LoraConfig(r=4, target_modules=ATTENTION))
    configure(source, {"base_model_name_or_path": "org/narrow"})
    source = download(str(source.folder))
    tiny_llama(tied=False, width=64).save_pretrained(tmp_path / "wide")
    wide = Weights(download(str(tmp_path / "wide")))
    with pytest.raises(
        MorphingError, match=r"shape \(32, 32\), which is \(64, 64\) in .*wide: "
    ) as e:
        load_adapter(source, wide)
    assert "choose the base it was trained on (org/narrow" in str(e.value)
    gpt2().save_pretrained(tmp_path / "gpt2")
    with pytest.raises(MorphingError, match=r"changes model\.layers.*weight, which .*gpt2 has not"):
        load_adapter(source, Weights(download(str(tmp_path / "gpt2"))))


def test_a_whole_tensor_of_another_base(case: Case) -> None:
    source, base = case(LoraConfig(r=4, target_modules=ATTENTION, modules_to_save=["lm_head"]))
    head = "base_model.model.lm_head.weight"
    rewrite(source, lambda tensors: tensors.update({head: torch.zeros(40, 64)}))
    with pytest.raises(MorphingError, match=r"fits lm_head.weight of shape \(40, 64\)"):
        load_adapter(source, base)


def change(name: str, value: Any) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({f"{KEY}.{name}": value})


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (change("lora_A.weight", torch.full((4, 32), float("nan"))), r"q_proj\.lora_A\.weight of "),
        (change("lora_A.weight", torch.zeros(5, 32)), r"\(5, 32\).*gives rank 4"),
        (change("lora_A.weight", torch.zeros(4)), r"\(4,\).*gives rank 4"),
        (change("lora_magnitude_vector", torch.ones(32)), "asks for lora_A, lora_B: "),
        (change("lora_A.second.weight", torch.zeros(4, 32)), "more than one adapter"),
        (lambda tensors: tensors.pop(f"{KEY}.lora_B.weight"), "asks for lora_A, lora_B: "),
        (change("lora_B.bias", torch.zeros(32)), r"q_proj\.lora_B\.bias, which .* has not"),
    ],
    ids=["nan", "rank", "vector", "magnitude", "second", "half", "bias"],
)
def test_faults_in_the_weights(
    case: Case, fault: Callable[[dict[str, torch.Tensor]], None], says: str
) -> None:
    source, base = case(LoraConfig(r=4, target_modules=ATTENTION))
    rewrite(source, fault)
    with pytest.raises(MorphingError, match=says) as error:
        load_adapter(source, base)
    assert str(source.folder) in str(error.value)


@pytest.mark.parametrize("key", ["peft_type", "r", "lora_alpha"])
def test_a_configuration_without_what_scales_it(case: Case, key: str) -> None:
    source, base = case(LoraConfig(r=4, target_modules=ATTENTION))
    configure(source, {key: "gone"})
    with pytest.raises(MorphingError, match=rf"adapter_config\.json gives no {key}: download"):
        load_adapter(source, base)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("r", "4", "r as '4', which is no number"),
        ("lora_alpha", "8", "lora_alpha as '8', which is no number"),
        ("lora_alpha", [8], r"lora_alpha as \[8\], which is no number"),
        ("rank_pattern", {"q_proj": "2"}, "rank_pattern of q_proj as '2', which is no number"),
        ("alpha_pattern", {"q_proj": None}, "alpha_pattern of q_proj as None, which is no number"),
        ("alpha_pattern", ["q_proj"], "alpha_pattern as .*: it must be a mapping"),
    ],
)
def test_a_configuration_that_scales_by_what_is_no_number(
    case: Case, key: str, value: Any, said: str
) -> None:
    source, base = case(LoraConfig(r=4, target_modules=ATTENTION))
    configure(source, {key: value})
    with pytest.raises(MorphingError, match=f"adapter_config.json gives {said}"):
        load_adapter(source, base)


def test_an_adapter_without_tensors_is_refused(case: Case) -> None:
    source, base = case(LoraConfig(r=4, target_modules=ATTENTION))
    rewrite(source, lambda tensors: tensors.clear())
    with pytest.raises(MorphingError, match="holds no tensors, so it changes nothing"):
        load_adapter(source, base)


def test_resized_embeddings_that_peft_stores_twice(tmp_path: Path) -> None:
    """Within the wrapper of modules_to_save and without, as peft saves a longer vocabulary."""
    tiny_llama(tied=False).save_pretrained(tmp_path / "base")
    base = Weights(download(str(tmp_path / "base")))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model.resize_token_embeddings(43)
    ends = ["embed_tokens", "lm_head"]
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=ends)
    )
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    source = download(str(tmp_path / "adapter"))
    stored = [key.rpartition("lm_head.")[2] for key in load_file(source.folder / FILE)]
    assert {"weight", "modules_to_save.weight"} <= set(stored)
    adapter = load_adapter(source, base)
    merged = adapted.merge_and_unload().state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(adapter.replaced[name], merged[name])
    rewrite(source, lambda tensors: tensors["base_model.model.lm_head.weight"].add_(1))
    with pytest.raises(MorphingError, match="more than one adapter"):
        load_adapter(source, base)


@pytest.mark.parametrize(
    "changes", [{"peft_type": "NEXT_YEAR"}, {"target_modules": "q", "layers_to_transform": [1]}]
)
def test_a_configuration_peft_cannot_read(case: Case, changes: dict[str, Any]) -> None:
    source, base = case(LoraConfig(r=4, target_modules=ATTENTION))
    configure(source, changes)
    with pytest.raises(MorphingError, match=r"peft cannot read .*: update peft or choose"):
        load_adapter(source, base)


def test_broken_files(case: Case) -> None:
    source, base = case(LoraConfig(r=4, target_modules=ATTENTION))
    path = source.folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MorphingError, match="is not a whole safetensors file"):
        load_adapter(source, base)
    path.unlink()
    with pytest.raises(MorphingError, match="is missing: download the model again"):
        load_adapter(source, base)
    (source.folder / "adapter_config.json").unlink()
    with pytest.raises(MorphingError, match="cannot be read as JSON"):
        load_adapter(source, base)


def test_layers_that_an_adapter_adds_are_refused(case: Case) -> None:
    options = {"target_modules": ["q_proj"], "layer_replication": [[0, 2], [1, 3]]}
    with pytest.raises(MorphingError, match=r"adds model\.layers\.3\..*keeps the base's layers"):
        load_adapter(*case(LoraConfig(r=4, **options)))


def test_a_prompt_changes_no_weights(case: Case) -> None:
    source, base = case(PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(MorphingError, match="of kind PROMPT_TUNING, which changes no weights"):
        load_adapter(source, base)
