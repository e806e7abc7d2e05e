"""Sources by id, from a local Hub through the real client."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from morphing import zoo
from morphing.errors import MorphingError
from morphing.sources.find import download, inspect, pin, search_models
from tests.hub.server import RunningHub


@pytest.fixture
def repo(hub: RunningHub) -> str:
    """The id of a new model repository, a copy of the zoo's base."""
    name = f"alice/base-{uuid.uuid4().hex[:8]}"
    shutil.copytree(zoo.model_folder("base"), hub.root / "models" / name)
    return name


def refusal(action, name: str, token: str | None = None) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(MorphingError) as error:
        action(name, token)
    message = str(error.value)
    assert "\n" not in message
    assert token is None or token not in message
    return message


def folder_of(hub: RunningHub, repo: str) -> Path:
    return hub.root / "models" / repo


def test_a_name_is_pinned_to_its_commit(repo: str, hub: RunningHub) -> None:
    pinned = pin(repo)
    assert pin(f"{repo}@main") == pinned
    assert len(pinned.partition("@")[2]) == 40
    hub.seen.clear()
    assert pin(pinned) == pinned
    assert not hub.seen


def test_inspection_reads_headers_and_no_weights(repo: str, hub: RunningHub) -> None:
    found = inspect(pin(repo))
    local = inspect(str(zoo.model_folder("base")))
    assert found.tensors == local.tensors
    assert (found.parameters, found.bytes) == (local.parameters, local.bytes)
    assert (found.architecture, found.layers, found.license) == (
        local.architecture,
        local.layers,
        local.license,
    )
    assert found.has_tokenizer and found.chat_template
    assert found.chat_template == local.chat_template
    cache = Path(os.environ["HF_HOME"], "hub", "models--" + repo.replace("/", "--"))
    assert not list(cache.rglob("*.safetensors"))


def test_a_download_fetches_only_what_is_needed(repo: str, hub: RunningHub) -> None:
    extra = folder_of(hub, repo)
    (extra / "pytorch_model.bin").write_bytes(b"a pickle")
    (extra / "consolidated.safetensors").write_bytes(b"the same weights again")
    (extra / "modeling_mine.py").write_text("raise SystemExit")
    source = download(pin(repo))
    names = {path.name for path in source.folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert not names & {"pytorch_model.bin", "consolidated.safetensors", "modeling_mine.py"}
    weights = source.folder / "model.safetensors"
    assert weights.read_bytes() == (zoo.model_folder("base") / "model.safetensors").read_bytes()
    assert source.name == pin(repo)


def test_a_sharded_repository_is_fetched_by_its_index(repo: str, hub: RunningHub) -> None:
    from safetensors.torch import load_file

    folder = folder_of(hub, repo)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for i, name in enumerate(tensors):
        weight_map[name] = f"model-{i % 2 + 1:05d}-of-00002.safetensors"
    for file in set(weight_map.values()):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, folder / file)
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)
    assert inspect(repo).tensors.keys() == tensors.keys()
    source = download(pin(repo))
    assert inspect(str(source.folder)).tensors.keys() == tensors.keys()
    assert not inspect(repo).remarks

    # Left beside them, a whole file is what transformers loads.
    whole = {name: tensor for name, tensor in tensors.items() if "layers." in name}
    save_file(whole, folder / "model.safetensors")
    assert inspect(repo).tensors.keys() == whole.keys()
    (remark,) = inspect(repo).remarks
    assert "holds two models" in remark and "Delete model.safetensors if the shards" in remark
    source = download(pin(repo))
    assert inspect(str(source.folder)).tensors.keys() == whole.keys()
    assert not list(source.folder.glob("model-0*"))


def test_a_cached_download_needs_no_network(repo: str) -> None:
    pinned = pin(repo)
    folder = download(pinned).folder
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{unused.getsockname()[1]}"}
    code = (
        "import sys; from morphing.sources.find import download, pin;"
        "print(download(pin(sys.argv[1])).folder)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, pinned], capture_output=True, text=True, env=environment
    )
    assert result.stdout.strip() == str(folder), result.stderr


@pytest.mark.slow
def test_no_network_is_one_sentence() -> None:
    code = (
        "from morphing.errors import MorphingError\n"
        "from morphing.sources import find\n"
        "for action in (find.pin, find.inspect, find.download, find.search_models):\n"
        "    try: action('org/name')\n"
        "    except MorphingError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 4, result.stderr
    assert all("http://127.0.0.1:9 cannot be reached" in line for line in lines), lines


@pytest.mark.parametrize("action", [pin, inspect, download])
def test_an_id_that_is_unknown_or_private_is_refused(action, repo: str, hub: RunningHub) -> None:  # type: ignore[no-untyped-def]
    assert "The model alice/none is not on the Hub, or it is private" in refusal(
        action, "alice/none"
    )
    hub.settings[f"models/{repo}"] = {"private": True}
    assert f"The model {repo} is not on the Hub, or it is private" in refusal(action, repo)
    assert "may not read it" in refusal(action, repo, "hf_bob")
    action(repo, "hf_alice")


@pytest.mark.parametrize("action", [inspect, download])
def test_a_gated_model_says_where_to_accept(action, repo: str, hub: RunningHub) -> None:  # type: ignore[no-untyped-def]
    hub.settings[f"models/{repo}"] = {"gated": True}
    for token in (None, "hf_bob"):
        assert f"accept its conditions at {hub.url}/{repo}" in refusal(action, repo, token)
    hub.settings[f"models/{repo}"]["granted"] = ["bob"]
    action(repo, "hf_bob")


@pytest.mark.parametrize("action", [pin, inspect, download])
def test_a_revision_or_token_that_does_not_exist_is_refused(action, repo: str) -> None:  # type: ignore[no-untyped-def]
    assert f"{repo} has no revision 'v9'" in refusal(action, f"{repo}@v9")
    assert "does not accept the token" in refusal(action, repo, "hf_nobody")


def test_repositories_that_cannot_be_merged_are_refused(repo: str, hub: RunningHub) -> None:
    folder = folder_of(hub, repo)
    config = json.loads((folder / "config.json").read_text())
    quantised = {**config, "quantization_config": {"quant_method": "gptq"}}
    (folder / "config.json").write_text(json.dumps(quantised))
    for action in (inspect, download):
        assert "is quantised (gptq)" in refusal(action, repo)
    (folder / "config.json").unlink()
    for action in (inspect, download):
        assert "has no config.json" in refusal(action, repo)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "holds pickled weights" in refusal(inspect, repo)
    assert "holds no model.safetensors" in refusal(download, repo)


def test_an_adapter_is_known_from_its_repository(hub: RunningHub) -> None:
    name = f"alice/adapter-{uuid.uuid4().hex[:8]}"
    folder = folder_of(hub, name)
    folder.mkdir(parents=True)
    weights = {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.zeros(2, 4)}
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"base_model_name_or_path": "morphing-zoo/base", "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    found = inspect(name)
    assert (found.adapter, found.architecture) == (True, None)
    assert found.base_models == ("morphing-zoo/base",)
    source = download(pin(name))
    assert source.adapter
    assert (source.folder / "adapter_model.safetensors").exists()


def test_the_zoo_is_served_under_its_own_ids() -> None:
    from morphing.sources.compatibility import check

    base = inspect("zoo:base")
    check(base, [inspect(pin(f"morphing-zoo/{name}")) for name in zoo.SPECIALISTS])


def test_search_finds_models_by_part_of_their_id(repo: str, hub: RunningHub) -> None:
    card = "---\nbase_model: morphing-zoo/base\n---\n"
    (folder_of(hub, repo) / "README.md").write_text(card)
    hub.settings[f"models/{repo}"] = {"downloads": 7, "likes": 2, "gated": True}
    (hit,) = search_models(repo.partition("/")[2])
    assert (hit.id, hit.downloads, hit.likes, hit.gated) == (repo, 7, 2, True)
    assert hit.base_models == ("morphing-zoo/base",)
    assert len(search_models("", limit=2)) == 2
    assert search_models("no-such-model-anywhere") == []


def test_a_download_tells_how_far_it_is(hub: RunningHub, tmp_path: Path) -> None:
    """In a process of its own: the model must not be in the cache already."""
    code = (
        "from morphing.sources.find import download\n"
        "download('morphing-zoo/word-games', None, lambda done, total: print(done, total))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=hub.environ() | {"HF_HOME": str(tmp_path), "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    size = (zoo.model_folder("word-games") / "model.safetensors").stat().st_size
    assert done.stdout.splitlines()[-1] == f"{size} {size}"
