"""Sources as teachers: what they are asked for is what the loaded model would hold of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.sources.find import download
from tests.merging.families import save_models


def alone(name: str) -> Recipe:
    models = [{"model": name, "parameters": {"weight": 1.0}}]
    return Recipe({"merge_method": "linear", "models": models, "dtype": "float32"})


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "mixtral", "gpt_neox", "phi3"])
def test_a_source_as_a_teacher_has_the_parameters_of_its_own_morph(
    family: str, tmp_path: Path
) -> None:
    from morphing.matching.teachers import SourceTeacher

    base, *others = [download(str(folder)) for folder in save_models(tmp_path, family)]
    morpher = Morpher(base, others, torch.device("cpu"), torch.float32)
    teacher = SourceTeacher(morpher, alone(others[0].name))
    names = [name for name, _ in morpher.model.named_parameters()]
    read = {name: tensor.clone() for name, tensor in teacher(names).items()}
    assert teacher(names[3:5]).keys() == set(names[3:5])
    assert morpher.distance() == pytest.approx(0.0, abs=1e-9)
    distance = morpher.morph(alone(others[0].name))
    assert morpher.distance() == pytest.approx(distance, rel=1e-6)
    for name, parameter in morpher.model.named_parameters():
        assert torch.equal(parameter, read[name]), name
