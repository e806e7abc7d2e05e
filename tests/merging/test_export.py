"""Export: the evaluated weights on disk, loadable anywhere, whole or not at all."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from morphing.errors import MorphingError
from morphing.merging import export as export_module
from morphing.merging.export import export
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.sources.source import Source, download
from tests.merging.tiny import METHODS, recipe

PROMPT = torch.arange(12).view(1, -1)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(PROMPT).logits


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["float32 tied", "bfloat16 untied"])
def test_what_was_evaluated_is_what_is_exported(
    method: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    half = kind.startswith("bfloat16")
    morpher: Morpher = request.getfixturevalue("half_morpher" if half else "morpher")
    family = [morpher.base, *morpher.sources]
    wanted = recipe(method, family, seed=5, out_dtype="bfloat16" if half else "float32")
    morpher.morph(wanted)
    export(morpher, wanted, tmp_path / "out")

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert loaded.dtype == morpher.model.dtype
    assert torch.equal(logits(loaded), logits(morpher.model))
    assert loaded.generation_config.eos_token_id == morpher.model.generation_config.eos_token_id
    state = morpher.model.state_dict()
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(tensor, state[name])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    chat = [{"role": "user", "content": "w3 w4"}]
    template = morpher.tokenizer.apply_chat_template(chat)
    assert tokenizer.apply_chat_template(chat) == template
    assert json.loads((tmp_path / "out" / "morphing.json").read_text())["mask_seed"] == 5


def test_an_exported_recipe_read_back_exports_the_same_weights(
    morpher: Morpher, family: list[Source], tmp_path: Path
) -> None:
    export(morpher, recipe("dare_ties", family, seed=5), tmp_path / "first")
    text = (tmp_path / "first" / "mergekit_config.yml").read_text()
    seed = json.loads((tmp_path / "first" / "morphing.json").read_text())["mask_seed"]
    export(morpher, Recipe.from_yaml(text, seed), tmp_path / "second")
    first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_large_models_are_sharded(
    morpher: Morpher, family: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(export_module, "SHARD_BYTES", 20_000)
    wanted = recipe("ties", family)
    morpher.morph(wanted)
    steps: list[tuple[int, int]] = []
    export(morpher, wanted, tmp_path / "out", lambda done, total: steps.append((done, total)))
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    assert all(shard.stat().st_size < 25_000 for shard in shards)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(loaded), logits(morpher.model))
    assert steps[-1][0] == steps[-1][1] == len(steps)


def test_a_folder_with_something_in_it_is_refused(
    morpher: Morpher, family: list[Source], tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(MorphingError, match="already holds something"):
        export(morpher, recipe("ties", family), tmp_path)
    with pytest.raises(MorphingError, match="already holds something"):
        export(morpher, recipe("ties", family), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export(morpher, recipe("ties", family), tmp_path / "empty")


def test_too_little_space_is_said_before_anything_is_written(
    morpher: Morpher, family: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(MorphingError, match=r"needs about \d+ MiB and 5 MiB are free"):
        export(morpher, recipe("ties", family), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys, torch
from pathlib import Path
from morphing.errors import MorphingError
from morphing.merging.export import export
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.sources.source import download

torch.set_num_threads(1)
base = download(sys.argv[1])
morpher = Morpher(base, [], torch.device("cpu"), torch.float32)
models = [{"model": base.name, "parameters": {"weight": 1.0}}]
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    export(morpher, Recipe({"merge_method": "linear", "models": models}), Path(sys.argv[2]))
except MorphingError as error:
    print(error)
"""


def test_a_disk_that_fills_up_while_writing_leaves_nothing(
    family: list[Source], tmp_path: Path
) -> None:
    """A process that may write 10 kB a file fails where a full disk would: inside the write."""
    out = tmp_path / "here" / "out"
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(family[0].folder), str(out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.stdout.startswith("The disk is full: "), result.stderr
    assert result.stdout.count("\n") == 1
    assert list(out.parent.iterdir()) == []


def test_an_unwritable_folder_is_one_sentence(
    morpher: Morpher, family: list[Source], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MorphingError, match=r"cannot be written to .*/file/out"):
        export(morpher, recipe("ties", family), tmp_path / "file" / "out")


def test_the_configuration_names_the_dtype_written_and_no_path(
    family: list[Source], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(family[0].folder, tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"_name_or_path": "/home/someone/base", "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    base = download(str(folder))
    morpher = Morpher(base, family[1:], torch.device("cpu"), torch.float32)
    export(morpher, recipe("ties", [base, *family[1:]]), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "_name_or_path" not in written
    assert written["dtype"] == written["torch_dtype"] == "float32"


def test_folders_whose_names_mergekits_strings_cannot_hold_become_mappings(
    family: list[Source], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(family[0].folder, tmp_path / "a+b@c"))
    base = download(str(folder))
    morpher = Morpher(base, family[1:], torch.device("cpu"), torch.float32)
    text = export_module.mergekit_recipe(morpher, recipe("ties", [base, *family[1:]])).to_yaml()
    assert yaml.safe_load(text)["base_model"] == {"model": {"path": str(folder)}}
    assert Recipe.from_yaml(text).check().base_model.model.path == str(folder)
