"""Writing a checkpoint: exact, as it comes, whole or absent, and resumable after anything."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from morphing.errors import MorphingError
from morphing.merging.writing.checkpoint_writer import partial_folder, write_checkpoint
from morphing.sources import local
from morphing.sources.weights import tensor_info

Tensors = dict[str, torch.Tensor]
LAYER = 1000  # float32 numbers a tensor of `layers`
SHARD = 3 * 4 * LAYER  # three of them a file


def layers(count: int) -> Tensors:
    return {f"layer.{i}": torch.full((10, LAYER // 10), float(i)) for i in range(count)}


class Merge:
    """Yields tensors, remembers which it was asked for, and fails when it is told to."""

    def __init__(self, tensors: Tensors, fail_at: str = "", error: Exception | None = None) -> None:
        self.tensors, self.fail_at = tensors, fail_at
        self.error = error or RuntimeError("the machine broke")
        self.asked: list[str] = []

    def __call__(self, names: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
        self.asked += names
        for name in names:
            if name == self.fail_at:
                raise self.error
            yield name, self.tensors[name]


def companions(folder: Path) -> None:
    (folder / "config.json").write_text("{}\n")
    (folder / "templates").mkdir()
    (folder / "templates" / "one.jinja").write_text("x")


def write(folder: Path, merge: Merge, mark: str = "recipe", **options: object) -> None:
    infos = {name: tensor_info(t.shape, t.dtype) for name, t in merge.tensors.items()}
    options = {"shard_bytes": SHARD, **options}
    write_checkpoint(folder, infos, merge, companions, mark, **options)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def whole(tmp_path: Path, count: int) -> dict[str, bytes]:
    write(tmp_path / "reference" / "out", Merge(layers(count)))
    return contents(tmp_path / "reference" / "out")


def test_safetensors_reads_back_every_kind_of_tensor(tmp_path: Path) -> None:
    tensors = {
        "bytes": torch.arange(3, dtype=torch.uint8),
        "half": torch.randn(3, 5).to(torch.bfloat16),
        "scalar": torch.tensor(7.5),
        "flags": torch.tensor([True, False, True]),
        "nothing": torch.empty(0, 4),
        "turned": torch.randn(4, 6).T,
        "numbers": torch.arange(5),
        "Gewicht.ä": torch.randn(2, requires_grad=True),
    }
    write(tmp_path / "out", Merge(tensors), shard_bytes=2**20)
    file = tmp_path / "out" / "model.safetensors"
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
        assert set(opened.keys()) == set(tensors)
        for name, tensor in tensors.items():
            assert opened.get_slice(name).get_shape() == list(tensor.shape)
            assert opened.get_tensor(name).dtype == tensor.dtype
            assert torch.equal(opened.get_tensor(name), tensor)
    for name, (_, start) in local.read_places(file).items():
        assert start % tensors[name].dtype.itemsize == 0, name
    assert contents(tmp_path / "out").keys() == {
        "model.safetensors",
        "config.json",
        "templates/one.jinja",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_shards_are_as_transformers_reads_them(tmp_path: Path) -> None:
    from tests.merging.tiny import tiny_llama

    model = tiny_llama(tied=False)
    tensors = dict(model.state_dict())
    infos = {name: tensor_info(t.shape, t.dtype) for name, t in tensors.items()}
    write_checkpoint(
        tmp_path / "out", infos, Merge(tensors), model.config.save_pretrained, "x", None, 20_000
    )
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert files[1].name == f"model-00002-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    for file in files:
        held = load_file(file)
        assert {index["weight_map"][name] for name in held} == {file.name}
        assert sum(tensor.nbytes for tensor in held.values()) <= 20_000
    loaded = type(model).from_pretrained(tmp_path / "out").state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_each_tensor_is_on_disk_and_let_go_before_the_next_is_made(tmp_path: Path) -> None:
    infos = {f"layer.{i}": tensor_info((LAYER,), torch.float32) for i in range(5)}
    model = partial_folder(tmp_path / "out") / "model"

    def merge(names: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
        last: weakref.ref[torch.Tensor] | None = None
        for i, name in enumerate(names):
            if last is not None:
                assert last() is None
                (half,) = model.iterdir()
                assert half.stat().st_size >= 4 * LAYER * i
            fresh = [torch.ones(LAYER)]
            last = weakref.ref(fresh[0])
            yield name, fresh.pop()

    write_checkpoint(tmp_path / "out", infos, merge, companions, "x")
    assert len(load_file(tmp_path / "out" / "model.safetensors")) == 5


def test_a_complete_folder_gets_its_name_in_one_step(tmp_path: Path) -> None:
    out, seen = tmp_path / "out", list[int]()

    def look(folder: Path) -> None:
        assert not out.exists()
        assert (folder / "model.safetensors").is_file()
        seen.append(folder.stat().st_ino)

    infos = {"layer.0": tensor_info((2, 3), torch.float32)}
    write_checkpoint(out, infos, Merge({"layer.0": torch.ones(2, 3)}), look, "x")
    assert seen == [out.stat().st_ino]  # renamed, not copied


def test_what_failed_goes_on_after_its_last_finished_file(tmp_path: Path) -> None:
    tensors, out = layers(10), tmp_path / "out"
    with pytest.raises(RuntimeError, match="broke"):
        write(out, Merge(tensors, fail_at="layer.7"))
    assert [path.name for path in tmp_path.iterdir()] == [".out.partial"]
    kept = sorted(path.name for path in (partial_folder(out) / "model").iterdir())
    assert kept == ["model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors"]

    again, steps = Merge(tensors), list[tuple[int, int]]()
    write(out, again, progress=lambda done, total: steps.append((done, total)))
    assert again.asked == ["layer.6", "layer.7", "layer.8", "layer.9"]
    assert steps[0] == (6 * 4 * LAYER, 10 * 4 * LAYER)
    assert steps == sorted(set(steps)) and steps[-1] == (10 * 4 * LAYER, 10 * 4 * LAYER)
    assert contents(out) == whole(tmp_path, 10)
    assert not partial_folder(out).exists()


@pytest.mark.parametrize("change", ["fingerprint", "sizes"])
def test_another_export_starts_anew(tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError):
        write(out, Merge(layers(10), fail_at="layer.9"), "recipe")
    merge = Merge(layers(10 if change == "fingerprint" else 9))
    write(out, merge, "another" if change == "fingerprint" else "recipe")
    assert merge.asked == list(merge.tensors)
    assert contents(out) == whole(tmp_path, len(merge.tensors))


@pytest.mark.parametrize("damage", ["cut", "header", "half"])
def test_a_damaged_file_is_not_taken_for_a_finished_one(tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError):
        write(out, Merge(layers(10), fail_at="layer.9"))
    shard = partial_folder(out) / "model" / "model-00002-of-00004.safetensors"
    data = shard.read_bytes()
    if damage == "half":
        shard.rename(f"{shard}.part")
    else:
        shard.write_bytes(data[:-1] if damage == "cut" else data[:30] + b"?" + data[31:])
    again = Merge(layers(10))
    write(out, again)
    assert again.asked == ["layer.3", "layer.4", "layer.5", "layer.9"]
    assert contents(out) == whole(tmp_path, 10)


def test_a_file_has_its_name_only_once_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".safetensors.part"):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(MorphingError, match=r"cannot be written to .*out .*; nothing was left"):
        write(tmp_path / "out", Merge(layers(4)))
    assert list(tmp_path.iterdir()) == []


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from tests.merging.test_writer import Merge, layers, write

torch.set_num_threads(1)
out, chance, kills = Path(sys.argv[1]), random.Random(int(sys.argv[2])), 0
while not out.exists():  # where it exists it is whole, even if the kill came after it got its name
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        write(out, Merge(layers(30)), progress=lambda *_: (os.write(tell, b"."), time.sleep(0.001)))
        os._exit(0)
    os.close(tell)
    for _ in range(chance.randint(1, 9)):  # a file has three tensors
        os.read(told, 1)
    time.sleep(chance.uniform(0, 0.01))
    if os.waitpid(child, os.WNOHANG) == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
    os.close(told)
print(kills)
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_any_moment_it_is_absent_or_whole(tmp_path: Path, seed: int) -> None:
    out = tmp_path / "here" / "out"
    command = [sys.executable, "-c", KILLS, str(out), str(seed)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    assert contents(out) == whole(tmp_path, 30)


def test_of_two_exports_to_one_folder_the_second_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Busy(Merge):
        def __call__(self, names: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
            with pytest.raises(MorphingError, match=r"^Another export is writing .*/out: ") as told:
                write(out, Merge(layers(10)))
            assert str(told.value).count(". ") == 0
            write(tmp_path / "elsewhere", Merge(layers(1)))
            return super().__call__(names)

    write(out, Busy(layers(10)))
    assert contents(out) == whole(tmp_path, 10)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "elsewhere", "reference"}


def test_a_full_disk_keeps_what_is_finished_and_says_where(tmp_path: Path) -> None:
    """A process that may write only so much a file fails where a full disk would: in the write."""
    tensors = layers(6) | {"big": torch.ones(20 * LAYER)}
    out = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * SHARD, before[1]))
    try:
        with pytest.raises(MorphingError) as told:
            write(out, Merge(tensors))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    text = str(told.value)
    assert text.startswith("The disk is full: ") and f" kept in {tmp_path}/.out.partial: " in text
    again = Merge(tensors)
    write(out, again)
    assert again.asked == ["big"]


def test_a_full_disk_with_nothing_finished_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SHARD // 2, before[1]))
    try:
        with pytest.raises(MorphingError, match=r"^The disk is full: .*; nothing was left there: "):
            write(tmp_path / "out", Merge(layers(6)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_space_is_asked_for_what_is_still_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, mib = tmp_path / "out", 2**20
    tensors = {f"layer.{i}": torch.ones(mib) for i in range(10)}  # 4 MiB each
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=80 * mib))
    with pytest.raises(MorphingError, match="needs about 104 MiB and 80 MiB are free"):
        write(out, Merge(tensors), shard_bytes=8 * mib)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with pytest.raises(RuntimeError):
        write(out, Merge(tensors, fail_at="layer.9"), shard_bytes=8 * mib)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=80 * mib))
    write(out, Merge(tensors), shard_bytes=8 * mib)


def test_a_refusal_of_the_merge_names_what_is_kept(tmp_path: Path) -> None:
    refusal = MorphingError("layer.7 holds NaN: choose another revision.")
    with pytest.raises(MorphingError) as told:
        write(tmp_path / "out", Merge(layers(10), "layer.7", refusal))
    assert str(told.value).startswith("layer.7 holds NaN: choose another revision; the same export")
    assert str(told.value).endswith(f" kept in {tmp_path}/.out.partial.")
    with pytest.raises(MorphingError, match=r"^layer\.1 is bad: mend\.$"):
        write(
            tmp_path / "two", Merge(layers(10), "layer.1", MorphingError("layer.1 is bad: mend."))
        )
    assert [path.name for path in tmp_path.iterdir()] == [".out.partial"]


@pytest.mark.parametrize("wrong", ["dtype", "shape", "name", "end"])
def test_a_merge_that_is_not_what_was_planned_is_a_defect(tmp_path: Path, wrong: str) -> None:
    infos = {f"layer.{i}": tensor_info((4, 2), torch.float32) for i in range(2)}
    last = {
        "dtype": [("layer.1", torch.ones(4, 2, dtype=torch.float16))],
        "shape": [("layer.1", torch.ones(2, 4))],
        "name": [("layer.2", torch.ones(4, 2))],
        "end": [],
    }[wrong]
    tensors = [("layer.0", torch.ones(4, 2)), *last]
    with pytest.raises(ValueError, match=r"not layer\.1"):
        write_checkpoint(tmp_path / "out", infos, lambda names: iter(tensors), companions, "x")
    assert list(tmp_path.iterdir()) == []


def test_only_a_new_or_empty_folder_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    for place in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(MorphingError, match="already holds something"):
            write(place, Merge(layers(2)))
    with pytest.raises(MorphingError, match=r"cannot be written to .*/mine\.txt/out"):
        write(tmp_path / "mine.txt" / "out", Merge(layers(2)))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "real").mkdir(mode=0o750)
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", Merge(layers(2)))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "model.safetensors").is_file()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o750
    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "mounted")
    with pytest.raises(MorphingError, match="export to a new folder on it"):
        write(tmp_path / "mounted", Merge(layers(2)))
