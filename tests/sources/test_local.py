"""The zoo and local folders: pinned, inspected by headers, refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from morphing import zoo
from morphing.errors import MorphingError
from morphing.sources.compatibility import check
from morphing.sources.find import download, inspect, pin
from morphing.sources.source import Inspection, TensorInfo

WEIGHTS = {
    "model.embed_tokens.weight": torch.zeros(10, 4, dtype=torch.bfloat16),
    "model.layers.0.mlp.up_proj.weight": torch.zeros(8, 4, dtype=torch.bfloat16),
    "model.layers.11.mlp.up_proj.weight": torch.zeros(8, 4, dtype=torch.bfloat16),
}
CONFIG = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}


def save(folder: Path, config: dict[str, object] = CONFIG, card: str = "") -> Path:
    folder.mkdir(parents=True)
    save_file(WEIGHTS, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(card)
    return folder


def test_every_zoo_model_is_a_source() -> None:
    for model in zoo.MODELS:
        name = f"zoo:{model}"
        assert pin(name) == name
        source = download(name)
        assert (source.name, source.folder) == (name, zoo.model_folder(model))
        found = inspect(name)
        assert found.dtype == "float32"
        assert found.bytes == 4 * found.parameters
        assert found.license is not None
    with pytest.raises(MorphingError, match=r"no model 'zoo:lion': choose one of zoo:base"):
        pin("zoo:lion")


def test_the_zoo_fits_its_own_base() -> None:
    check(inspect("zoo:base"), [inspect(f"zoo:{name}") for name in zoo.SPECIALISTS])


def test_a_folder_is_inspected_by_its_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = "---\nlicense: mit\nbase_model: [org/base]\n---\n# A model\n"
    folder = save(tmp_path / "model", card=card)
    monkeypatch.chdir(tmp_path)
    assert pin("model") == str(folder)
    found = inspect("model")
    assert found.name == str(folder)
    assert found.architecture == "LlamaForCausalLM"
    assert found.tensors["model.layers.0.mlp.up_proj.weight"] == TensorInfo((8, 4), "BF16")
    assert (found.parameters, found.bytes, found.layers) == (104, 208, 12)
    assert (found.license, found.base_models, found.dtype) == ("mit", ("org/base",), "bfloat16")
    assert download(str(folder)).base_models == ("org/base",)


def test_a_sharded_folder_is_read_through_its_index(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    names = list(WEIGHTS)
    save_file({n: WEIGHTS[n] for n in names[:1]}, folder / "model-00001-of-00002.safetensors")
    save_file({n: WEIGHTS[n] for n in names[1:]}, folder / "model-00002-of-00002.safetensors")
    files = {n: f"model-0000{1 if i == 0 else 2}-of-00002.safetensors" for i, n in enumerate(names)}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    assert inspect(str(folder)).tensors.keys() == WEIGHTS.keys()
    assert not inspect(str(folder)).remarks
    whole = {n: WEIGHTS[n] for n in names[:2]}
    save_file(whole, folder / "model.safetensors")
    found = inspect(str(folder))
    assert found.tensors.keys() == whole.keys()
    assert "holds two models, model.safetensors and the shards" in found.remarks[0]
    (folder / "model.safetensors").unlink()
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MorphingError, match=r"model-00002-of-00002.safetensors is missing"):
        inspect(str(folder))
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(MorphingError, match="names no safetensors files beside it"):
        inspect(str(folder))


def test_what_cannot_be_merged_is_refused_with_the_mend(tmp_path: Path) -> None:
    def refusal(name: str) -> str:
        with pytest.raises(MorphingError) as error:
            download(str(tmp_path / name))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "There is no folder" in refusal("nothing")
    quantised = save(tmp_path / "q", {**CONFIG, "quantization_config": {"quant_method": "awq"}})
    assert "quantised (awq)" in refusal("q")
    (quantised / "config.json").unlink()
    assert "no config.json" in refusal("q")
    (quantised / "model.safetensors").rename(quantised / "pytorch_model.bin")
    assert "convert it to safetensors" in refusal("q")
    (quantised / "pytorch_model.bin").rename(quantised / "model-q4.gguf")
    assert "GGUF weights only" in refusal("q")
    (quantised / "model-q4.gguf").unlink()
    assert "holds no model.safetensors" in refusal("q")
    torn = save(tmp_path / "torn") / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    assert "not a whole safetensors file" in refusal("torn")
    torn.write_bytes(b"abc")
    assert "not a whole safetensors file" in refusal("torn")
    save(tmp_path / "config")
    (tmp_path / "config" / "config.json").write_text("[")
    assert "cannot be read as JSON" in refusal("config")


@pytest.mark.parametrize("name", ["", "a b", "org/name/more", "org/name@", "org/a+b"])
def test_a_name_that_is_none_is_refused_without_the_network(name: str) -> None:
    with pytest.raises(MorphingError, match="names no model"):
        pin(name)


def inspection(name: str, **changes: object) -> Inspection:
    tensors = {n: TensorInfo(tuple(t.shape), "BF16") for n, t in WEIGHTS.items()}
    values = {
        "name": name,
        "architecture": "LlamaForCausalLM",
        "tensors": tensors,
        "adapter": False,
        "base_models": (),
        "bytes": 208,
        "parameters": 104,
        "layers": 12,
        "license": None,
    }
    return Inspection(**{**values, **changes})  # type: ignore[arg-type]


BASE = inspection("org/base@" + "a" * 40)


@pytest.mark.parametrize(
    ("base", "ancestors"),
    [
        (BASE, ()),
        (BASE, ("org/base",)),
        (BASE, ("org/other", "org/base@main")),
        (inspection("zoo:base"), ("morphing-zoo/base",)),
        (inspection("/models/base"), ("org/base",)),
        (inspection("/models/base"), ("/models/base",)),
    ],
)
def test_a_base_that_is_named_or_not_contradicted_is_accepted(
    base: Inspection, ancestors: tuple[str, ...]
) -> None:
    check(base, [inspection("org/fine", base_models=ancestors), base])


@pytest.mark.parametrize("base", [BASE, inspection("zoo:base"), inspection("/models/base")])
def test_a_base_that_is_no_ancestor_is_refused_unless_allowed(base: Inspection) -> None:
    source = inspection("org/fine", base_models=("org/elder",))
    with pytest.raises(MorphingError, match=r"made from org/elder, .*allow_unrelated_base: true"):
        check(base, [source])
    check(base, [source], allow_unrelated_base=True)


def test_sources_that_do_not_fit_are_refused_by_tensor() -> None:
    def refused(match: str, **changes: object) -> None:
        with pytest.raises(MorphingError, match=match):
            check(BASE, [inspection("org/fine", **changes)])

    tensors = dict(BASE.tensors)
    refused(
        "a GemmaForCausalLM and the base .* a LlamaForCausalLM", architecture="GemmaForCausalLM"
    )
    wider = {**tensors, "model.embed_tokens.weight": TensorInfo((12, 4), "BF16")}
    refused(r"embed_tokens.weight is 12 x 4 in org/fine and 10 x 4 in the base", tensors=wider)
    refused("lacks model.bias", tensors={**tensors, "model.bias": TensorInfo((4,), "BF16")})
    del tensors["model.embed_tokens.weight"]
    refused("org/fine lacks model.embed_tokens.weight", tensors=tensors)
    adapter = inspection("org/adapter", adapter=True)
    with pytest.raises(MorphingError, match="base org/adapter is an adapter"):
        check(adapter, [BASE])


def test_an_adapter_for_another_base_is_refused() -> None:
    prefix = "base_model.model.model.layers.0.mlp.up_proj"
    fits = {
        f"{prefix}.lora_A.weight": TensorInfo((2, 4), "F32"),
        f"{prefix}.lora_B.weight": TensorInfo((8, 2), "F32"),
    }
    check(BASE, [inspection("org/a", adapter=True, architecture=None, tensors=fits)])
    wide = {**fits, f"{prefix}.lora_A.weight": TensorInfo((2, 5), "F32")}
    source = inspection("org/a", adapter=True, tensors=wide, base_models=("org/base",))
    with pytest.raises(MorphingError, match=r"changes .*up_proj.weight, which is of shape 8 x 4"):
        check(BASE, [source])
    elsewhere = {"base_model.model.h.0.attn.lora_A.weight": TensorInfo((2, 4), "F32")}
    with pytest.raises(MorphingError, match="absent from the base"):
        check(BASE, [inspection("org/a", adapter=True, tensors=elsewhere)])


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.embed_tokens.modules_to_save.weight",
        "model.embed_tokens.base_layer.weight",
        "lm_head.weight",
        "lm_head.modules_to_save.default.weight",
    ],
)
def test_an_adapter_with_other_rows_of_tokens_needs_a_word_on_the_vocabulary(name: str) -> None:
    """Else every trial of a search would fail."""

    def adapter(rows: int) -> Inspection:
        tensors = {f"base_model.model.{name}": TensorInfo((rows, 4), "F32")}
        return inspection("org/a", adapter=True, architecture=None, tensors=tensors)

    check(BASE, [adapter(10)])
    check(BASE, [adapter(13)], vocabularies_aligned=True)
    with pytest.raises(MorphingError, match=r"13 rows of tokens and the base .* 10: say in the sp"):
        check(BASE, [adapter(13)])
