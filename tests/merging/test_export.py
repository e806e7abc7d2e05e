"""Export: the evaluated weights on disk, loadable anywhere, whole or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from morphing.errors import MorphingError
from morphing.merging.merge import merge_recipe, read_recipe
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.merging.writing import checkpoint_writer
from morphing.merging.writing.checkpoint import export
from morphing.sources.content import with_digest
from morphing.sources.find import download
from morphing.sources.source import Source
from tests.merging.tiny import METHODS, recipe

CPU = torch.device("cpu")
PROMPT = torch.arange(12).view(1, -1)
GENERIC = {
    "della": {"models": [{"weight": 0.6, "density": 0.5}, {"weight": 0.4, "density": 0.7}]},
    "sce": {"parameters": {"select_topk": 0.5}},
    "model_stock": {},
    "karcher": {},
    "nuslerp": {"models": [{"weight": 0.3}, {"weight": 0.7}]},
}
"""Some of the methods without kernels of our own, with parameters of each model and of all."""


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(PROMPT).logits


def generic(method: str, family: list[Source], **extra: object) -> Recipe:
    asked = GENERIC[method]
    own = asked.get("models", [{}, {}])
    models = [{"model": s.name, "parameters": p} for s, p in zip(family[1:], own, strict=False)]
    config = {"merge_method": method, "models": models, "base_model": family[0].name}
    config |= {"parameters": asked.get("parameters", {}), "dtype": "float32"}
    return Recipe({**config, **extra}, 5)


@pytest.mark.parametrize("method", [*METHODS, *GENERIC])
@pytest.mark.parametrize("kind", ["float32 tied", "bfloat16 untied"])
def test_what_was_evaluated_is_what_is_exported(
    method: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    half = kind.startswith("bfloat16")
    morpher: Morpher = request.getfixturevalue("half_morpher" if half else "morpher")
    family = [morpher.base, *morpher.sources]
    dtype = "bfloat16" if half else "float32"
    made = generic if method in GENERIC else partial(recipe, seed=5)
    wanted = made(method, family, out_dtype=dtype)
    morpher.morph(wanted)
    export(morpher.engine, wanted, tmp_path / "out")

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
    record = json.loads((tmp_path / "out" / "morphing.json").read_text())
    assert record["mask_seed"] == 5
    digests = {source.folder.name: source.digest for source in family}
    assert len(record["models"]) >= 2
    assert all(digests[each["model"]] == each["digest"] for each in record["models"])


@pytest.mark.parametrize("method", ["dare_ties", "slerp", "della", "sce"])
@pytest.mark.parametrize("again", ["by the run", "by morphing merge"])
def test_an_exported_recipe_read_back_exports_the_same_bytes(
    method: str, again: str, half_morpher: Morpher, half_family: list[Source], tmp_path: Path
) -> None:
    made = generic if method in GENERIC else partial(recipe, seed=5)
    wanted = made(method, half_family, out_dtype="bfloat16")
    export(half_morpher.engine, wanted, tmp_path / "first")
    read = read_recipe(tmp_path / "first" / "mergekit_config.yml")
    assert read.mask_seed == 5
    if again == "by the run":
        export(half_morpher.engine, read, tmp_path / "second")
    else:
        merge_recipe(read, tmp_path / "second", CPU, lambda *_: None)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_large_models_are_sharded(
    morpher: Morpher, family: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    sharded(monkeypatch)
    wanted = recipe("ties", family)
    morpher.morph(wanted)
    steps: list[tuple[int, int]] = []
    export(
        morpher.engine, wanted, tmp_path / "out", lambda done, total: steps.append((done, total))
    )
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    assert all(shard.stat().st_size < 25_000 for shard in shards)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(loaded), logits(morpher.model))
    done, totals = zip(*steps, strict=True)
    size = sum(tensor.nbytes for shard in shards for tensor in load_file(shard).values())
    assert set(totals) == {size}
    assert done[0] == 0 and done[-1] == size and list(done) == sorted(set(done))


def sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is a default argument of the writer."""
    writer = partial(checkpoint_writer.write_checkpoint, shard_bytes=20_000)
    monkeypatch.setattr("morphing.merging.writing.checkpoint.write_checkpoint", writer)


def test_an_export_that_failed_goes_on_and_gives_the_same_bytes(
    morpher: Morpher, family: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded(monkeypatch)
    wanted, out = recipe("dare_ties", family), tmp_path / "out"
    export(morpher.engine, wanted, tmp_path / "whole")

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(morpher.engine, wanted, out, stop)
    assert not out.exists()
    assert any(checkpoint_writer.partial_folder(out).rglob("*.safetensors"))
    steps: list[int] = []
    export(morpher.engine, wanted, out, lambda done, total: steps.append(done))
    assert steps[0] > 0
    assert contents(out) == contents(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "whole"}


def test_what_is_kept_of_another_recipe_is_not_used(
    morpher: Morpher, family: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded(monkeypatch)

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(morpher.engine, recipe("dare_ties", family, seed=1), tmp_path / "out", stop)
    wanted = recipe("dare_ties", family, seed=2)
    export(morpher.engine, wanted, tmp_path / "out")
    export(morpher.engine, wanted, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_folder_with_something_in_it_is_refused(
    morpher: Morpher, family: list[Source], tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(MorphingError, match="already holds something"):
        export(morpher.engine, recipe("ties", family), tmp_path)
    with pytest.raises(MorphingError, match="already holds something"):
        export(morpher.engine, recipe("ties", family), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export(morpher.engine, recipe("ties", family), tmp_path / "empty")


def test_too_little_space_is_said_before_anything_is_written(
    morpher: Morpher, family: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(MorphingError, match=r"needs about \d+ MiB and 5 MiB are free"):
        export(morpher.engine, recipe("ties", family), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys, torch
from pathlib import Path
from morphing.errors import MorphingError
from morphing.merging.writing.checkpoint import export
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.sources.content import with_digest
from morphing.sources.find import download

torch.set_num_threads(1)
base = download(sys.argv[1])
morpher = Morpher(base, [], torch.device("cpu"), torch.float32)
models = [{"model": base.name, "parameters": {"weight": 1.0}}]
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    export(morpher.engine, Recipe({"merge_method": "linear", "models": models}), Path(sys.argv[2]))
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
        export(morpher.engine, recipe("ties", family), tmp_path / "file" / "out")


def test_the_configuration_names_the_dtype_written_and_no_path(
    family: list[Source], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(family[0].folder, tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"_name_or_path": "/home/someone/base", "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    base = with_digest(download(str(folder)))
    morpher = Morpher(base, family[1:], CPU, torch.float32)
    export(morpher.engine, recipe("ties", [base, *family[1:]]), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "_name_or_path" not in written
    assert written["dtype"] == written["torch_dtype"] == "float32"


def test_folders_whose_names_mergekits_strings_cannot_hold_become_mappings(
    family: list[Source], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(family[0].folder, tmp_path / "a+b@c"))
    base = with_digest(download(str(folder)))
    morpher = Morpher(base, family[1:], CPU, torch.float32)
    export(morpher.engine, recipe("ties", [base, *family[1:]]), tmp_path / "out")
    text = (tmp_path / "out" / "mergekit_config.yml").read_text()
    assert yaml.safe_load(text)["base_model"] == {"model": {"path": str(folder)}}
    read = Recipe.from_yaml(text)
    assert read.check().base_model.model.path == str(folder)
    merge_recipe(read, tmp_path / "again", CPU, lambda *_: None)
    assert contents(tmp_path / "again") == contents(tmp_path / "out")
