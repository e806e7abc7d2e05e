"""One model by itself, loaded as a run would score it."""

from __future__ import annotations

from pathlib import Path

import pytest

from morphing import zoo
from morphing.errors import MorphingError
from morphing.runs.single import Single, load_single


def logits(model: object) -> object:
    import torch

    with torch.inference_mode():
        return model(torch.arange(3, 15).view(1, -1)).logits  # type: ignore[operator]


@pytest.fixture
def adapter(tmp_path: Path) -> tuple[Path, object]:
    """A LoRA of the zoo's base as peft saves it, and what peft makes of it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(zoo.model_folder("base"))
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", adapted


def check(found: Single, expected: object) -> None:
    import torch

    torch.testing.assert_close(logits(found.model), logits(expected), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_is_loaded_in_its_own_dtype() -> None:
    found = load_single("zoo:english-math", device="cpu")
    assert (found.name, found.base) == ("zoo:english-math", None)
    assert str(found.model.dtype) == "torch.float32"
    assert str(load_single("zoo:base", dtype="bfloat16").model.dtype) == "torch.bfloat16"


def test_an_adapter_is_put_on_the_base_it_names_or_on_another(
    adapter: tuple[Path, object],
) -> None:
    folder, expected = adapter
    found = load_single(str(folder), device="cpu")
    assert found.base == str(zoo.model_folder("base").resolve())
    check(found, expected)
    check(load_single(str(folder), base="zoo:base"), expected)
    # As recipes write it, and as people type it.
    together = load_single(f" ZOO:base + {folder}", device="cpu")
    assert (together.name, together.base) == (str(folder), "zoo:base")
    check(together, expected)
    with pytest.raises(MorphingError, match="leave out the base zoo:word-games"):
        load_single(f"zoo:base+{folder}", base="zoo:word-games")


def test_a_base_that_does_not_fit_is_refused(adapter: tuple[Path, object]) -> None:
    folder, _ = adapter
    with pytest.raises(MorphingError, match="leave out the base"):
        load_single("zoo:base", base="zoo:base")
    with pytest.raises(MorphingError, match="an adapter itself"):
        load_single(str(folder), base=str(folder))
    with pytest.raises(MorphingError, match="nobody"):
        load_single("zoo:nobody")
