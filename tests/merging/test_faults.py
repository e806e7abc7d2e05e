"""What is broken is said in one sentence, and nothing half-written is taken for a whole model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from morphing.errors import MorphingError
from morphing.merging.merge import merge_recipe, read_recipe
from morphing.merging.recipe import Recipe
from morphing.sources.checkpoint import load_model
from morphing.sources.find import download
from morphing.sources.source import Source
from morphing.sources.weights import Weights
from tests.hub.server import RunningHub
from tests.merging.tiny import LAYERS, save_tokenizer, tiny_llama

Config = dict[str, Any]
INDEX = "model.safetensors.index.json"
LAST = f"model.layers.{LAYERS - 1}.mlp.down_proj.weight"
NORM = "model.norm.weight"


@pytest.fixture
def source(family: list[Source], tmp_path: Path) -> Path:
    """A copy of a source, to be broken."""
    return Path(shutil.copytree(family[1].folder, tmp_path / "source"))


def config(family: list[Source], *models: object, **changes: object) -> Config:
    """A recipe that merges what is broken, the models, with one that is not."""
    listed = [{"model": str(m), "parameters": {"weight": 0.5}} for m in models]
    listed += [{"model": family[2].name, "parameters": {"weight": 0.4}}]
    base = family[0].name
    return {"merge_method": "task_arithmetic", "base_model": base, "models": listed} | changes


def refusal(config: Config, out: Path) -> str:
    """The sentence that refuses a merge; nothing is left of it."""
    before = set(out.parent.iterdir()) if out.parent.is_dir() else set()
    with pytest.raises(MorphingError) as told:
        merge_recipe(Recipe(config), out, torch.device("cpu"), lambda *_: None)
    assert before == (set(out.parent.iterdir()) if out.parent.is_dir() else set())
    return sentence(str(told.value))


def sentence(text: str) -> str:
    """Checked to be one sentence."""
    assert text.endswith(".") and not text.endswith("..")
    assert "\n" not in text and ". " not in text
    assert len(text) < 600
    return text


def shard(folder: Path, parts: int = 3) -> list[Path]:
    """Spread a checkpoint over several files."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = [f"model-{i + 1:05d}-of-{parts:05d}.safetensors" for i in range(parts)]
    places = {name: files[i * parts // len(tensors)] for i, name in enumerate(sorted(tensors))}
    for file in files:
        save_file({n: tensors[n] for n, at in places.items() if at == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    return [folder / file for file in files]


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


# Files that do not hold what they should.


def test_a_sharded_source_merges_like_a_whole_one(
    family: list[Source], source: Path, tmp_path: Path
) -> None:
    """So the refusals below are not of shards as such."""
    cpu = torch.device("cpu")
    merge_recipe(Recipe(config(family, source)), tmp_path / "whole", cpu, lambda *_: None)
    shard(source)
    merge_recipe(Recipe(config(family, source)), tmp_path / "sharded", cpu, lambda *_: None)
    whole, sharded = (tmp_path / name / "model.safetensors" for name in ("whole", "sharded"))
    assert whole.read_bytes() == sharded.read_bytes()


@pytest.mark.parametrize("size", [-1, 100, 7, 0])
def test_a_truncated_shard(family: list[Source], source: Path, tmp_path: Path, size: int) -> None:
    broken = shard(source)[1]
    broken.write_bytes(broken.read_bytes()[:size])
    text = refusal(config(family, source), tmp_path / "out")
    assert f"{broken} is not a whole safetensors file: download" in text


def test_a_missing_shard(family: list[Source], source: Path, tmp_path: Path) -> None:
    missing = shard(source)[2]
    missing.unlink()
    text = refusal(config(family, source), tmp_path / "out")
    assert f"The weight file {missing} is missing: download" in text


def test_a_header_that_lies_about_a_shape(
    family: list[Source], source: Path, tmp_path: Path
) -> None:
    """Read as it says, the tensor would go on into the next one."""
    file = source / "model.safetensors"
    data = file.read_bytes()
    assert data.count(b'"shape":[40,32]') == 1
    file.write_bytes(data.replace(b'"shape":[40,32]', b'"shape":[80,32]'))
    text = refusal(config(family, source), tmp_path / "out")
    assert f"{file} is not a whole safetensors file" in text


def wrong_shard(places: dict[str, str]) -> None:
    places[NORM] = places["model.embed_tokens.weight"]


def no_such_tensor(places: dict[str, str]) -> None:
    places["model.extra.weight"] = places[NORM]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            wrong_shard,
            f"names model-00001-of-00003.safetensors for {NORM}, which is in model-00003",
        ),
        (no_such_tensor, "for model.extra.weight, which is in none of its files"),
        (lambda places: places.pop(NORM), f"names no file for {NORM}, which is in model-00003"),
        (lambda places: places.clear(), "names no safetensors files beside it"),
        (lambda places: places.update(a="../b.safetensors"), "names no safetensors files beside"),
    ],
)
def test_an_index_that_is_wrong(
    change: Callable[[dict[str, str]], object],
    words: str,
    family: list[Source],
    source: Path,
    tmp_path: Path,
) -> None:
    shard(source)
    change_json(source / INDEX, lambda index: change(index["weight_map"]))
    text = refusal(config(family, source), tmp_path / "out")
    assert words in text and str(source / INDEX) in text


def test_an_index_may_name_what_is_no_weight(
    family: list[Source], source: Path, tmp_path: Path
) -> None:
    """Checkpoints of old libraries list rotary tables and tied heads that their files lack."""
    shard(source)
    first = "model-00001-of-00003.safetensors"
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": first, "lm_head.weight": first}
    change_json(source / INDEX, lambda index: index["weight_map"].update(extra))
    download(str(source))


def test_a_tensor_in_two_shards(family: list[Source], source: Path, tmp_path: Path) -> None:
    first, *_, last = shard(source)
    save_file({**load_file(first), NORM: load_file(last)[NORM]}, first)
    text = refusal(config(family, source), tmp_path / "out")
    assert f"{NORM} is both in {first} and in {last.name}" in text


def test_a_file_that_changes_while_it_is_merged(
    family: list[Source], source: Path, tmp_path: Path
) -> None:
    file = source / "model.safetensors"
    wanted = config(family, source)

    def swap(step: str, done: int, total: int) -> None:
        if step.startswith("merging"):
            (source / "new").write_bytes(file.read_bytes()[:9000])
            os.replace(source / "new", file)

    with pytest.raises(MorphingError) as told:
        merge_recipe(Recipe(wanted), tmp_path / "out", torch.device("cpu"), swap)
    assert f"The files of {source} hold something else" in sentence(str(told.value))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [9000, None])
def test_weights_that_change_after_they_were_opened(source: Path, size: int | None) -> None:
    """A shorter file, and one with other contents of the same length."""
    weights = Weights(download(str(source)))
    file = source / "model.safetensors"
    (source / "new").write_bytes(file.read_bytes()[:size])
    os.replace(source / "new", file)
    with pytest.raises(MorphingError) as told:
        weights.read(LAST)
    assert f"{file} was changed while" in sentence(str(told.value))


# Models that are whole and cannot be merged.


def set_entry(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[LAST][3, 4] = value

    return change


def as_dtype(dtype: torch.dtype) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[LAST] = tensors[LAST].mul(9).to(dtype)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_entry(float("nan")), f"{LAST} of {{source}} holds NaN or infinity in 1 of"),
        (set_entry(float("inf")), f"{LAST} of {{source}} holds NaN or infinity in 1 of"),
        (as_dtype(torch.float8_e4m3fn), f"{LAST} in {{source}} is stored as F8_E4M3"),
        (as_dtype(torch.int8), f"{LAST} holds integers in {{source}} and not in"),
        (lambda tensors: tensors.pop(LAST), f"{{source}} lacks {LAST}"),
        (
            lambda tensors: tensors.update({LAST: torch.ones(32, 50)}),
            f"{LAST} is 32 x 50 in {{source}}",
        ),
        (
            lambda tensors: tensors.update({"model.layers.0.mlp.odd.weight": torch.ones(3)}),
            "lacks model.layers.0.mlp.odd.weight, which {source} has",
        ),
    ],
)
def test_tensors_that_cannot_be_merged(
    change: Callable[[dict[str, torch.Tensor]], object],
    words: str,
    family: list[Source],
    source: Path,
    tmp_path: Path,
) -> None:
    change_tensors(source, change)
    text = refusal(config(family, source), tmp_path / "out")
    assert words.format(source=source) in text


def quantised(folder: Path) -> None:
    settings = {"quantization_config": {"quant_method": "gptq"}}
    change_json(folder / "config.json", lambda config: config.update(settings))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 32000}, "is 40 x 32 and would have to be 32000 x 32"),
        ({"intermediate_size": 64}, "and would have to be"),
        ({"vocab_size": "40"}, "Field 'vocab_size' expected int, got str"),
        ({"eos_token_id": 1.0}, "Field 'eos_token_id'"),
        ({"hidden_act": 3, "num_attention_heads": None}, "Field 'num_attention_heads'"),
    ],
)
def test_a_configuration_under_which_the_merge_could_not_be_loaded(
    changes: dict[str, object], words: str, family: list[Source], source: Path, tmp_path: Path
) -> None:
    change_json(source / "config.json", lambda config: config.update(changes))
    wanted = config(family, family[1].name, base_model=str(source))
    text = refusal(wanted, tmp_path / "out")
    assert words in text and f"config.json of {source}" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eos_token_id": 1.0}, "'eos_token_id'"),
        ({"num_hidden_layers": str(LAYERS)}, "Field 'num_hidden_layers' expected int, got str"),
        ({"rope_parameters": [1]}, "'rope_parameters'"),
        ({"rope_scaling": "linear"}, "'rope_parameters'"),
    ],
)
def test_a_model_whose_configuration_transformers_cannot_read(
    changes: dict[str, object], words: str, source: Path
) -> None:
    change_json(source / "config.json", lambda config: config.update(changes))
    with pytest.raises(MorphingError) as told:
        load_model(download(str(source)), torch.float32)
    text = sentence(str(told.value))
    assert words in text and f"cannot read the config.json of {source}" in text


def configured(**settings: object) -> Callable[[Path], object]:
    return lambda folder: change_json(folder / "config.json", lambda c: c.update(settings))


def pointer(file: str) -> Callable[[Path], object]:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132\n"
    return lambda folder: (folder / file).write_text(text)


def folder_for(file: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return change


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["LLaMAForCausalLM"]},  # from before transformers had Llama
        {"architectures": ["LlamaModel"]},  # the inner model saved alone
        {"num_hidden_layers": str(LAYERS)},  # written by hand
    ],
)
def test_configurations_of_one_architecture(
    changes: dict[str, object], family: list[Source], source: Path, tmp_path: Path
) -> None:
    plain = config(family, str(source))
    merge_recipe(Recipe(plain), tmp_path / "plain", torch.device("cpu"), lambda *_: None)
    change_json(source / "config.json", lambda config: config.update(changes))
    merge_recipe(Recipe(plain), tmp_path / "out", torch.device("cpu"), lambda *_: None)
    expected, merged = (load_file(tmp_path / n / "model.safetensors") for n in ("plain", "out"))
    assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())


def test_an_index_whose_values_are_no_names(
    family: list[Source], source: Path, tmp_path: Path
) -> None:
    (source / "model.safetensors").rename(source / "model-00001-of-00001.safetensors")
    for value in (None, 3, ["model-00001-of-00001.safetensors"], {}, "../x.safetensors"):
        index = {"weight_map": {"a": "model-00001-of-00001.safetensors", "b": value}}
        (source / "model.safetensors.index.json").write_text(json.dumps(index))
        text = refusal(config(family, source), tmp_path / "out")
        assert "names no safetensors files beside it" in text


def renamed(file: str, to: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).rename(folder / to)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (quantised, "{source} is quantised (gptq)"),
        (configured(quantization_config="awq"), "{source} is quantised (awq)"),
        (configured(quantization_config={"bits": 4}), "{source} is quantised (an unnamed method)"),
        (renamed("model.safetensors", "pytorch_model.bin"), "{source} holds pickled weights"),
        (renamed("model.safetensors", "model.gguf"), "{source} holds GGUF weights only"),
        (renamed("config.json", "old.json"), "{source} has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "{source}/config.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "{source}/config.json is not a JSON"),
        (lambda f: shutil.rmtree(f), "There is no folder {source}"),
        (pointer("model.safetensors"), "model.safetensors is a pointer that git left in place"),
        (pointer("config.json"), "{source}/config.json is a pointer that git left in place"),
        (folder_for("model.safetensors"), "model.safetensors is not a whole safetensors file"),
        (folder_for("config.json"), "{source}/config.json cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text('{"a":' * 9999), "cannot be read as JSON"),
    ],
)
def test_folders_that_hold_no_model_to_merge(
    change: Callable[[Path], object],
    words: str,
    family: list[Source],
    source: Path,
    tmp_path: Path,
) -> None:
    change(source)
    assert words.format(source=source) in refusal(config(family, source), tmp_path / "out")


def save(model: Any, folder: Path, vocabulary: int = 40) -> Path:
    model.save_pretrained(folder)
    save_tokenizer(folder, vocabulary)
    return folder


def test_models_that_do_not_fit(family: list[Source], source: Path, tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    own = json.loads((source / "config.json").read_text())
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")
    sizes = {key: own[key] for key in (*kept, "num_hidden_layers", "num_key_value_heads")}
    other = save(MistralForCausalLM(MistralConfig(**sizes)), tmp_path / "mistral")
    text = refusal(config(family, other), tmp_path / "out")
    assert "LlamaForCausalLM" in text and "MistralForCausalLM" in text

    wide = save(tiny_llama(width=64), tmp_path / "wide")
    text = refusal(config(family, wide), tmp_path / "out")
    assert f"is 40 x 64 in {wide}" in text or f"and 40 x 64 in {wide}" in text

    large = save(tiny_llama(vocabulary=44), tmp_path / "large", 44)
    text = refusal(config(family, large), tmp_path / "out")
    assert "44 x 32" in text and "tokenizer_source: union" in text
    united = config(family, large, tokenizer_source="union")
    merge_recipe(Recipe(united), tmp_path / "united", torch.device("cpu"), lambda *_: None)


def save_adapter(folder: Path, width: int = 32, target: str = "q_proj") -> Path:
    adapted = get_peft_model(tiny_llama(width=width), LoraConfig(target_modules=[target], r=2))
    adapted.save_pretrained(folder)
    return folder


def test_adapters(family: list[Source], source: Path, tmp_path: Path) -> None:
    base, out = family[0].name, tmp_path / "out"
    own, other = save_adapter(tmp_path / "own"), save_adapter(tmp_path / "other", 64)
    text = refusal(config(family, f"{base}+{other}"), out)
    assert str(other) in text and base in text
    assert str(other) in refusal(config(family, other), out)
    assert "must be a model and an adapter" in refusal(config(family, f"{own}+{own}"), out)
    assert "must be a model and an adapter" in refusal(config(family, f"{base}+{source}"), out)
    alone = config(family, own, merge_method="linear")
    del alone["base_model"]
    assert f"{own} is an adapter: write the model" in refusal(alone, out)
    (own / "adapter_model.safetensors").write_bytes(b"")
    text = refusal(config(family, own), out)
    assert f"{own}/adapter_model.safetensors is not a whole safetensors file" in text


def test_names_on_the_hub(family: list[Source], hub: RunningHub, tmp_path: Path) -> None:
    name = f"alice/source-{uuid.uuid4().hex[:8]}"
    shutil.copytree(family[1].folder, hub.root / "models" / name)
    hub.settings[f"models/{name}"] = {"gated": True}
    gated = refusal(config(family, name), tmp_path / "out")
    assert f"{name} is gated: accept its conditions at" in gated
    absent = refusal(config(family, "alice/none"), tmp_path / "out")
    assert "The model alice/none is not on the Hub, or it is private" in absent
    wrong = refusal(config(family, "one/two/three"), tmp_path / "out")
    assert "'one/two/three' names no model" in wrong


# Recipes that say nothing that can be done.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("merge_method: [", "not valid YAML"),
        ("- a", "not a mergekit configuration"),
        ("merge_method: magic\nmodels: []", "merge_method is 'magic': choose one of dare_ties"),
        ("merge_method: linear", "not a mergekit configuration"),
        ("merge_method: linear\nmodels: [{model: x}]\ndtype: int4", "dtype is 'int4'"),
        (
            "merge_method: linear\nmodels: 7",
            "The recipe's models is 7: it must be a list of models",
        ),
        ("merge_method: ties\nmodels: [{model: x}]", "cannot be merged with ties"),
    ],
)
def test_recipes_that_are_none(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(MorphingError) as told:
        read_recipe(path)
    assert words in sentence(str(told.value))


def test_recipe_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "recipe.yaml").write_text("merge_method: linear\nmodels: [{model: x}]")
    (tmp_path / "morphing.json").write_text('{"mask_seed": "seven"}')
    for name in ("none.yaml", "binary.yaml", "."):
        with pytest.raises(MorphingError) as told:
            read_recipe(tmp_path / name)
        assert "cannot be read" in sentence(str(told.value))
    with pytest.raises(MorphingError) as told:
        read_recipe(tmp_path / "recipe.yaml")
    assert "morphing.json has no whole number" in sentence(str(told.value))
    assert read_recipe(tmp_path / "recipe.yaml", 7).mask_seed == 7


def test_parameters_that_are_missing_or_cancel_out(family: list[Source], tmp_path: Path) -> None:
    bare = config(family, family[1].name)
    del bare["models"][0]["parameters"]
    assert "weight" in refusal(bare, tmp_path / "out")
    zero = config(family, family[1].name, merge_method="linear")
    del zero["base_model"]
    zero["models"][0]["parameters"]["weight"] = -0.4
    assert "sum to zero" in refusal(zero, tmp_path / "out")


# Places that cannot be written.


def test_a_place_whose_name_is_too_long(family: list[Source], tmp_path: Path) -> None:
    text = refusal(config(family, family[1].name), tmp_path / ("n" * 300))
    assert "cannot be written to" in text and "choose another folder" in text


def test_places_that_hold_something(family: list[Source], source: Path, tmp_path: Path) -> None:
    wanted = config(family, source)
    held = sorted(source.iterdir())
    assert f"{source} already holds something" in refusal(wanted, source)
    assert f"{source}/config.json already holds" in refusal(wanted, source / "config.json")
    text = refusal(wanted, source / "config.json" / "out")
    assert f"cannot be written to {source}/config.json/out" in text
    assert sorted(source.iterdir()) == held


def test_a_folder_that_may_not_be_written(family: list[Source], tmp_path: Path) -> None:
    locked = Path("/proc/self") if os.geteuid() == 0 else tmp_path / "locked"
    if os.geteuid() != 0:
        locked.mkdir(mode=0o500)
    if not locked.is_dir():
        pytest.skip("root may write everywhere here")
    text = refusal(config(family, family[1].name), locked / "out")
    assert f"cannot be written to {locked.resolve().parent if locked.is_symlink() else locked}" in (
        text.replace(str(locked.resolve()), str(locked))
    )


def test_a_disk_without_room(
    family: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    text = refusal(config(family, family[1].name), tmp_path / "out")
    assert "The disk is full" in text and f"{tmp_path}/out" in text


# The command itself, in processes that may be killed. One process imports what is needed and forks
# for every try, which is what a real `morphing merge` would do anew.

FORKS = """
import json, os, resource, signal, sys
import mergekit.config, mergekit.merge_methods, mergekit.parameter_resolver, transformers
from morphing import cli
from morphing.cli import terminal
from morphing.merging import merge as _
from morphing.merging.writing import checkpoint_writer
from morphing.merging.writing import checkpoint

write, publish = checkpoint_writer.write_checkpoint, checkpoint_writer._publish
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
def interrupt():
    raise KeyboardInterrupt

def broken(moment):
    act = {"full": full, "interrupted": interrupt}.get(moment.split()[0] if moment else "", die)
    def disturbed(folder, infos, merge, companions, fingerprint, progress):
        def steps(done, total):
            progress(done, total)
            if "at the start" in moment or "half-way" in moment and done > total / 2:
                act()
        def files(partial):
            companions(partial)
            if moment == "before it is named":
                act()
        write(folder, infos, merge, files, fingerprint, steps, shard_bytes=20_000)
    def published(*arguments):
        publish(*arguments)
        if moment == "just after it is named":
            act()
    checkpoint_writer._publish = published
    return disturbed

def attempt(moment, arguments):
    child = os.fork()
    if not child:
        for stream, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        checkpoint.write_checkpoint = broken(moment)
        sys.argv = ["morphing", *arguments]
        cli.main()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, open("stderr").read(), os.listdir(".")

for line in sys.stdin:
    folder, tries = json.loads(line)
    os.chdir(folder)
    print(json.dumps([attempt(*each) for each in tries]), flush=True)
"""
Told = tuple[int, str, list[str]]


Tries = list[tuple[str, list[str]]]
Forked = Callable[[Tries, Path], list[Told]]


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    """Runs `morphing` in a folder, each time disturbed at a moment.

    Gives exit code, standard error and the folder's entries after each.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    asked, answers = process.stdin, process.stdout
    assert asked and answers

    def run(tries: Tries, folder: Path) -> list[Told]:
        asked.write(json.dumps([str(folder), tries]) + "\n")
        asked.flush()
        return [tuple(told) for told in json.loads(answers.readline())]

    yield run
    asked.close()
    process.wait(60)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


MOMENTS = ("at the start", "half-way", "before it is named", "just after it is named")


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_goes_on(
    family: list[Source], tmp_path: Path, forked: Forked
) -> None:
    wanted = config(family, family[1].name, merge_method="dare_linear", dtype="float32")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(wanted))
    tries = [("", ["merge", "r.yaml", "undisturbed"])]
    for number, moment in enumerate(MOMENTS):
        tries += [(moment, ["merge", "r.yaml", f"out{number}"])]
        tries += [("", ["merge", "r.yaml", f"out{number}"])]
    (first, *told) = forked(tries, tmp_path)
    assert first[0] == 0, first[1]
    whole = contents(tmp_path / "undisturbed")
    assert len(whole) > 5
    for number, moment in enumerate(MOMENTS):
        killed, again = told[2 * number : 2 * number + 2]
        assert killed[0] == -9, (moment, killed[1])
        if moment == "just after it is named":
            assert f"out{number}" in killed[2]
            assert again[0] == 1 and "already holds something" in again[1]
        else:
            assert f"out{number}" not in killed[2]
            assert f".out{number}.partial" in killed[2]
            assert again[0] == 0, (moment, again[1])
            assert f".out{number}.partial" not in again[2]
        assert contents(tmp_path / f"out{number}") == whole


@pytest.mark.slow
def test_a_disk_that_fills_up_half_way_and_is_given_room(
    family: list[Source], tmp_path: Path, forked: Forked
) -> None:
    wanted = config(family, family[1].name)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(wanted))
    tries = [
        ("", ["merge", "r.yaml", "undisturbed"]),
        ("full at the start", ["merge", "r.yaml", "early"]),
        ("full half-way", ["merge", "r.yaml", "out"]),
        ("", ["merge", "r.yaml", "out"]),
    ]
    _, early, full, again = forked(tries, tmp_path)
    for code, text, _ in (early, full):
        assert code == 1
        assert sentence(text.strip()).startswith("Error: The disk is full: exporting to ")
    assert not {"early", ".early.partial"} & set(early[2])
    assert "out" not in full[2] and f"kept in {tmp_path}/.out.partial" in full[1]
    assert again[0] == 0, again[1]
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    assert ".out.partial" not in again[2]


@pytest.mark.slow
def test_an_interrupted_merge_says_how_it_goes_on(
    family: list[Source], tmp_path: Path, forked: Forked
) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(config(family, family[1].name)))
    command = ["merge", "r.yaml", "out"]
    tries = [("interrupted at the start", command), ("interrupted half-way", command)]
    early, late, again = forked([*tries, ("", command)], tmp_path)
    assert early[:2] == (130, "Interrupted; nothing was written.\n")
    assert not {"out", ".out.partial"} & set(early[2])
    assert late[0] == 130
    kept = "Interrupted; the same command goes on from the finished files in .out.partial."
    assert sentence(late[1].strip()) == kept
    assert "out" not in late[2] and again[0] == 0


@pytest.mark.slow
def test_the_command_says_what_is_wrong(
    family: list[Source], source: Path, tmp_path: Path, forked: Forked
) -> None:
    recipes = {
        "good": config(family, family[1].name),
        "broken": config(family, source),
        "unknown": config(family, "./nothing-here"),
        "method": config(family, source, merge_method="magic"),
    }
    for name, wanted in recipes.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(wanted))
    shard(source)[1].unlink()
    before = set(os.listdir(tmp_path))
    cases = {
        "is missing: download": ["merge", "broken.yaml", "out"],
        "There is no folder": ["merge", "unknown.yaml", "out"],
        "merge_method is 'magic'": ["merge", "method.yaml", "out"],
        "none.yaml cannot be read": ["merge", "none.yaml", "out"],
        "already holds something": ["merge", "good.yaml", "source"],
        "Unknown --placement 'moon'": ["merge", "good.yaml", "out", "--placement", "moon"],
        "Unknown device 'tpu'": ["merge", "good.yaml", "out", "--device", "tpu"],
    }
    told = forked([("", arguments) for arguments in cases.values()], tmp_path)
    for (words, arguments), (code, text, there) in zip(cases.items(), told, strict=True):
        assert code == 1, (arguments, text)
        assert text.startswith("Error: ") and words in sentence(text.strip())
        assert set(there) == before | {"stdout", "stderr"}
