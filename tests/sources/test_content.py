"""A model in a folder is known by what its files hold, and by nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from morphing import zoo
from morphing.errors import MorphingError
from morphing.sources import content
from morphing.sources.content import ModelChanged, check, content_files, digest, with_digest
from morphing.sources.source import Source
from morphing.sources.weights import Weights

LARGE = torch.arange(400_000, dtype=torch.float32)
"""More than a megabyte: such files' hashes are kept."""


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint with all that may lie beside one."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"model.weight": LARGE}, folder / "model.safetensors")
    files = {
        "config.json": "{}",
        "generation_config.json": '{"eos_token_id": 1}',
        "tokenizer.json": "{}",
        "tokenizer_config.json": "{}",
        "special_tokens_map.json": "{}",
        "chat_template.jinja": "{{ messages }}",
        "vocab.txt": "a",
        "spiece.model": "b",
        "README.md": "# A model",
        "trainer_state.json": "{}",
        "all_results.json": "{}",
        "training_args.bin": "c",
        "LICENSE.txt": "d",
        "morphing.json": "{}",
        "additional_chat_templates/tools.jinja": "{{ tools }}",
        "checkpoint-5/config.json": "{}",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def adapter(folder: Path) -> Path:
    folder.mkdir()
    save_file({"a.lora_A.weight": torch.ones(2, 4)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"r": 2}')
    (folder / "README.md").write_text("# An adapter")
    return folder


def source(folder: Path) -> Source:
    return with_digest(Source(str(folder), folder, (), adapter=False))


def age(folder: Path, seconds: float = 60.0) -> None:
    """Make the files look as if they had lain there for a while."""
    for path in folder.rglob("*"):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - int(seconds * 1e9)))


COUNTED = (
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.txt",
    "spiece.model",
    "additional_chat_templates/tools.jinja",
)


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("how", ["one byte", "gone"])
def test_what_a_model_is_read_from_counts(model: Path, name: str, how: str) -> None:
    known = source(model)
    check(known)
    if how == "gone":
        (model / name).unlink()
    else:
        data = bytearray((model / name).read_bytes())
        data[-1] ^= 1
        (model / name).write_bytes(data)
    with pytest.raises(ModelChanged, match=f"The files of {model} .*begin again"):
        check(known)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_adapter_counts_too(tmp_path: Path, name: str) -> None:
    folder = adapter(tmp_path / "adapter")
    known = source(folder)
    (folder / "README.md").write_text("# Retrained")
    check(known)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data.replace(data[-2:], data[-2:][::-1]) + b" ")
    with pytest.raises(ModelChanged):
        check(known)


def test_a_file_that_comes_to_a_model_counts(model: Path) -> None:
    known = source(model)
    (model / "added_tokens.json").write_text("{}")
    with pytest.raises(ModelChanged):
        check(known)


def test_cards_logs_and_other_folders_do_not_count(model: Path) -> None:
    known = source(model)
    assert set(content_files(model)) == set(COUNTED)
    for name in set(os.listdir(model)) - {name.partition("/")[0] for name in COUNTED}:
        if (model / name).is_file():
            (model / name).write_text("changed")
    (model / "checkpoint-5" / "config.json").write_text("changed")
    (model / "eval_results.json").write_text("new")
    check(known)


def test_it_is_what_sha256sum_says(model: Path) -> None:
    files = sorted(COUNTED)
    listed = subprocess.run(["sha256sum", *files], cwd=model, capture_output=True, check=True)
    total = subprocess.run(["sha256sum"], input=listed.stdout, capture_output=True, check=True)
    assert digest(model) == f"sha256:{total.stdout.decode().split()[0]}"


def test_the_same_content_is_the_same_model(model: Path, tmp_path: Path) -> None:
    known = source(model)
    (model / "model.safetensors").touch()
    check(known)
    shutil.copytree(model, tmp_path / "copy")
    shutil.rmtree(model)
    with pytest.raises(ModelChanged, match="can no longer be read from"):
        check(known)
    (tmp_path / "copy").rename(model)
    check(known)
    model.rename(tmp_path / "elsewhere")
    model.symlink_to(tmp_path / "elsewhere")
    check(known)


def test_links_are_what_they_lead_to(model: Path, tmp_path: Path) -> None:
    """A snapshot of the Hub's cache is a folder of links to files called by their hashes."""
    snapshot, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    snapshot.mkdir()
    blobs.mkdir()
    for name in content_files(model):
        if "/" not in name:
            shutil.copyfile(model / name, blobs / name)
            (snapshot / name).symlink_to(Path("..") / "blobs" / name)
    shutil.rmtree(model / "additional_chat_templates")
    assert digest(snapshot) == digest(model)
    known = source(snapshot)
    (blobs / "config.json").write_text('{"tie_word_embeddings": true}')
    with pytest.raises(ModelChanged):
        check(known)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(model / "config.json")
    check(known)
    (model / "config.json").unlink()
    with pytest.raises(ModelChanged):
        check(known)


def test_large_files_are_read_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    hash_file = content._hash

    def counting(path: Path, *rest: object) -> str:
        read.append(path.name)
        return hash_file(path, *rest)

    monkeypatch.setattr(content, "_hash", counting)
    monkeypatch.setattr(content, "_SETTLED_SECONDS", -1.0)
    first = digest(model)
    assert read.count("model.safetensors") == 1
    assert digest(model) == first
    assert read.count("model.safetensors") == 1
    # Another file of the same name, size and time of change.
    status = (model / "model.safetensors").stat()
    save_file({"model.weight": LARGE + 1}, model / "new")
    os.utime(model / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(model / "new", model / "model.safetensors")
    assert digest(model) != first
    assert read.count("model.safetensors") == 2
    # The same file, written into, with its time of change set back.
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(bytes(4))
    second = digest(model)
    os.utime(model / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns))
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"1234")
    os.utime(model / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest(model) not in (first, second)


def test_a_hash_of_a_file_just_written_is_not_kept(model: Path) -> None:
    digest(model)
    assert not (model.parent / "caches").exists()


@pytest.mark.parametrize("broken", ["not json", '["a list"]', '{"version": 1}', ""])
def test_a_broken_or_forbidden_cache_costs_time_alone(
    model: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_SETTLED_SECONDS", -1.0)
    first = digest(model)
    (kept,) = (model.parent / "caches" / "morphing" / "hashes").iterdir()
    assert json.loads(kept.read_text())["sha256"]
    kept.write_text(broken)
    assert digest(model) == first
    shutil.rmtree(model.parent / "caches")
    (model.parent / "caches").write_text("a file, where a folder should be")
    assert digest(model) == first


def test_progress_counts_bytes_and_may_end_it(model: Path) -> None:
    seen: list[tuple[int, int]] = []
    digest(model, lambda done, total: seen.append((done, total)))
    sizes = sum((model / name).stat().st_size for name in COUNTED)
    assert seen[-1] == (sizes, sizes)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        digest(model, stop)


def test_a_file_that_changes_while_it_is_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def written(self: content._Counter, count: int) -> None:
        (model / "model.safetensors").touch()

    monkeypatch.setattr(content._Counter, "add", written)
    with pytest.raises(ModelChanged, match="was changed while it was read"):
        digest(model)


def test_models_of_the_hub_have_their_commit() -> None:
    hub = Source("org/name@" + "a" * 40, Path("/nowhere"), (), adapter=False)
    assert with_digest(hub) is hub
    check(hub)
    inside = Source("zoo:base", zoo.model_folder("base"), (), adapter=False)
    assert with_digest(inside).digest is not None
    with pytest.raises(ModelChanged, match="zoo:base"):
        check(replace(inside, digest="sha256:" + "0" * 64))


def rewrite(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("touch", [Path.touch, rewrite])
def test_weights_in_use_may_be_touched_but_not_changed(
    model: Path, touch: Callable[[Path], None]
) -> None:
    weights = Weights(source(model))
    file = model / "model.safetensors"
    touch(file)
    assert torch.equal(weights.read("model.weight"), LARGE)
    save_file({"model.weight": LARGE + 1}, file)
    with pytest.raises(MorphingError, match="hold something else"):
        weights.read("model.weight")
