"""Spellings of a base's name, as cards and adapters have them."""

from __future__ import annotations

import pytest

from morphing.errors import MorphingError
from morphing.sources.ancestry import is_base, unquantised
from morphing.sources.compatibility import check
from morphing.sources.source import TensorInfo
from tests.sources.test_local import inspection

META = "meta-llama/Meta-Llama-3.1-8B"


@pytest.mark.parametrize(
    ("named", "base", "likeness"),
    [
        (META, f"{META}@{'a' * 40}", "same"),
        (META.lower(), META, "same"),
        ("Qwen/Qwen2.5-7B", "qwen/qwen2.5-7b", "same"),
        ("org/Base", "/models/base", "same"),
        ("meta-llama/Llama-3.1-8B", META, "likely"),
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", META, "likely"),
        ("unsloth/llama-3.1-8b-unsloth-bnb-4bit", META, "likely"),
        ("unsloth/Meta-Llama-3.1-8B", META, "likely"),
        ("TheBloke/Meta-Llama-3.1-8B-GPTQ", META, "likely"),
        ("hugging-quants/Meta-Llama-3.1-8B-AWQ-INT4", META, "likely"),
        ("someone/llama-3.1-8b-hf", META, "likely"),
        ("unsloth/mistral-7b-v0.3-bnb-4bit", "mistralai/Mistral-7B-v0.3", "likely"),
        ("google/gemma-2-2b", "/models/gemma_2_2b", "likely"),
        (f"{META}-Instruct", META, "other"),
        ("meta-llama/Meta-Llama-3.1-70B", META, "other"),
        ("unsloth/mistral-7b-bnb-4bit", META, "other"),
    ],
)
def test_spellings_of_a_base(named: str, base: str, likeness: str) -> None:
    assert is_base(named, base) == likeness


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("unsloth/llama-3-8b-bnb-4bit", "unsloth/llama-3-8b"),
        ("unsloth/Qwen3-4B-unsloth-bnb-4bit", "unsloth/Qwen3-4B"),
        ("TheBloke/Llama-2-7B-GPTQ", "TheBloke/Llama-2-7B"),
        ("org/model-AWQ-INT4@main", "org/model"),
        ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf"),
        ("org/model@main", "org/model@main"),
    ],
)
def test_what_a_quantised_copy_was_made_from(name: str, plain: str) -> None:
    assert unquantised(name) == plain


LORA = {
    "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": TensorInfo((2, 4), "F32"),
    "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": TensorInfo((8, 2), "F32"),
}
TOO_WIDE = {name: TensorInfo((9, 9), "F32") for name in LORA}


@pytest.mark.parametrize("named", ["unsloth/base-bnb-4bit", "org/BASE-v2", "elder/something"])
def test_an_adapter_that_fits_is_accepted_and_told(named: str) -> None:
    adapter = inspection("org/a", adapter=True, tensors=LORA, base_models=(named,))
    (remark,) = check(inspection("org/base"), [adapter])
    assert f"made from {named}" in remark and "taken for that model" in remark
    adapter = inspection("org/a", adapter=True, tensors=TOO_WIDE, base_models=(named,))
    with pytest.raises(MorphingError, match=f"base it was trained on .{named}"):
        check(inspection("org/base"), [adapter])


def test_what_an_adapter_that_does_not_fit_is_most_likely_of() -> None:
    named = "unsloth/llama-3-8b-bnb-4bit"
    adapter = inspection("org/a", adapter=True, tensors=TOO_WIDE, base_models=(named,))
    match = "unsloth/llama-3-8b-bnb-4bit, most likely unsloth/llama-3-8b"
    with pytest.raises(MorphingError, match=match):
        check(inspection("org/base"), [adapter])


def test_a_model_from_another_spelling_of_the_base_is_told() -> None:
    (remark,) = check(
        inspection("meta-llama/Llama-3.1-8B"),
        [inspection("org/fine", base_models=("unsloth/Meta-Llama-3.1-8B-bnb-4bit",))],
    )
    assert "its tensors fit the base meta-llama/Llama-3.1-8B" in remark
