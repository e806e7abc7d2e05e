"""The local Hub answers the real clients as huggingface.co would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.server import CHECKOUT, RunningHub


@pytest.fixture
def repo(hub: RunningHub, request: pytest.FixtureRequest) -> str:
    """A public model repository of the test's own with three small files."""
    name = f"alice/{request.node.name.replace('[', '-').replace(']', '').replace('_', '-')}"
    folder = hub.root / "models" / name
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nlicense: mit\nbase_model: acme/base\nbase_model_relation: finetune\ntags: [toy]\n"
        "---\nToy.\n"
    )
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "sub" / "weights.bin").write_bytes(bytes(range(256)))
    return name


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\nA tiny model.\n")
    return folder


def test_info_carries_card_tags_and_files(hub: RunningHub, repo: str) -> None:
    from huggingface_hub import HfApi

    hub.settings[f"models/{repo}"] = {"downloads": 7, "likes": 2}
    info = HfApi().model_info(repo, files_metadata=True)
    assert info.card_data.base_model == "acme/base"
    assert {"toy", "base_model:acme/base", "base_model:finetune:acme/base", "license:mit"} <= set(
        info.tags
    )
    assert (info.downloads, info.likes, info.private, info.gated) == (7, 2, False, False)
    assert info.pipeline_tag == "text-generation"
    weights = next(s for s in info.siblings if s.rfilename == "sub/weights.bin")
    assert weights.lfs is not None and weights.size == 256


def test_search_by_name_author_tag_and_limit(hub: RunningHub, repo: str) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    name = repo.split("/")[1]
    assert [m.id for m in api.list_models(search=name.upper())] == [repo]
    assert repo in [m.id for m in api.list_models(author="alice", filter="base_model:acme/base")]
    assert [m.id for m in api.list_models(search=name, author="bob")] == []
    assert len(list(api.list_models(limit=1))) == 1
    plain = next(iter(api.list_models(search=name)))
    expanded = next(iter(api.list_models(search=name, expand=["cardData", "gated"])))
    assert plain.card_data is None
    assert expanded.card_data.base_model == "acme/base"


def test_tree_lists_one_level_or_all(hub: RunningHub, repo: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RemoteEntryNotFoundError

    api = HfApi()
    assert [e.path for e in api.list_repo_tree(repo)] == ["README.md", "config.json", "sub"]
    assert [e.path for e in api.list_repo_tree(repo, "sub")] == ["sub/weights.bin"]
    assert "sub/weights.bin" in [
        e.path for e in api.list_repo_tree(repo, recursive=True, expand=True)
    ]
    assert [e.path for e in api.get_paths_info(repo, ["config.json", "none"])] == ["config.json"]
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(repo, "nowhere"))


def test_files_have_etags_and_ranges(hub: RunningHub, repo: str) -> None:
    import hashlib

    from huggingface_hub import get_hf_file_metadata, get_session, hf_hub_url

    url = hf_hub_url(repo, "sub/weights.bin")
    metadata = get_hf_file_metadata(url)
    assert metadata.etag == hashlib.sha256(bytes(range(256))).hexdigest()
    assert metadata.size == 256 and len(metadata.commit_hash) == 40
    part = get_session().get(url, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == bytes(range(10, 20))


def test_download_at_a_pinned_revision_survives_a_push(hub: RunningHub, repo: str) -> None:
    from huggingface_hub import HfApi, hf_hub_download

    api = HfApi(token="hf_alice")
    before = api.model_info(repo).sha
    commit = api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=repo)
    after = api.model_info(repo).sha
    assert after == commit.oid != before
    assert Path(hf_hub_download(repo, "config.json")).read_text() == "{}"
    assert "Llama" in Path(hf_hub_download(repo, "config.json", revision=before)).read_text()


def test_missing_things_have_their_own_errors(hub: RunningHub, repo: str) -> None:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(repo, "none.json")
    with pytest.raises(RevisionNotFoundError):
        HfApi().model_info(repo, revision="f" * 40)
    with pytest.raises(RevisionNotFoundError):
        HfApi().model_info(repo, revision="refs/pr/1")
    for name in ("alice/none", "none"):
        for token in (None, "hf_bob"):
            with pytest.raises(RepositoryNotFoundError):
                HfApi(token=token).model_info(name)


def test_private_repositories_hide_from_others(hub: RunningHub, repo: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    hub.settings[f"models/{repo}"] = {"private": True}
    assert HfApi(token="hf_alice").model_info(repo).private
    for token in (None, "hf_bob"):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).model_info(repo)
        assert repo not in [m.id for m in HfApi(token=token).list_models()]


def test_gated_files_need_a_token_and_a_grant(hub: RunningHub, repo: str) -> None:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import GatedRepoError

    hub.settings[f"models/{repo}"] = {"gated": True}
    assert HfApi().model_info(repo).gated == "auto"
    for token, status in ((False, 401), ("hf_bob", 403)):
        with pytest.raises(GatedRepoError) as caught:
            hf_hub_download(repo, "config.json", token=token)
        assert caught.value.response.status_code == status
    hub.settings[f"models/{repo}"]["granted"] = ["bob"]
    assert Path(hf_hub_download(repo, "config.json", token="hf_bob")).is_file()


def test_whoami(hub: RunningHub) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    assert HfApi(token="hf_alice").whoami()["orgs"][0]["name"] == "acme"
    assert HfApi(token="hf_reader").whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_nobody").whoami()


def test_push_and_load_back(hub: RunningHub, tiny_model: Path) -> None:
    import torch
    from huggingface_hub import HfApi
    from transformers import AutoModelForCausalLM

    api = HfApi(token="hf_alice")
    url = api.create_repo("acme/tiny", private=True)
    assert url.repo_id == "acme/tiny"
    first = api.upload_folder(repo_id="acme/tiny", folder_path=tiny_model)
    assert [s.path for s in hub.seen if s.method == "PUT"], "weights go through LFS"
    again = api.upload_folder(repo_id="acme/tiny", folder_path=tiny_model)
    assert again.oid == first.oid, "the same files make no new commit"
    pushed = AutoModelForCausalLM.from_pretrained("acme/tiny", token="hf_alice").state_dict()
    local = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    assert all(torch.equal(pushed[name], local[name]) for name in local)


def test_safetensors_metadata_by_range(hub: RunningHub, tiny_model: Path) -> None:
    from huggingface_hub import HfApi

    api = HfApi(token="hf_bob")
    api.create_repo("bob/headers")
    api.upload_folder(repo_id="bob/headers", folder_path=tiny_model)
    hub.seen.clear()
    metadata = api.get_safetensors_metadata("bob/headers")
    assert metadata.parameter_count == api.model_info("bob/headers").safetensors.parameters
    gets = [s for s in hub.seen if s.path.endswith("model.safetensors") and s.method == "GET"]
    assert [(s.range, s.status) for s in gets] == [("bytes=0-100000", 206)]


def test_commits_delete_files_and_folders(hub: RunningHub, repo: str) -> None:
    from huggingface_hub import HfApi

    api = HfApi(token="hf_alice")
    api.delete_folder("sub", repo)
    api.delete_file("config.json", repo)
    assert api.list_repo_files(repo) == ["README.md"]


def test_refused_pushes(hub: RunningHub, repo: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    def push(token: str) -> HfHubHTTPError:
        with pytest.raises(HfHubHTTPError) as caught:
            HfApi(token=token).upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo)
        return caught.value

    assert push("hf_bob").response.status_code == 403
    assert push("hf_reader").response.status_code == 403
    hub.settings[f"models/{repo}"] = {"refuse_push": "Private storage limit reached"}
    assert "Private storage limit reached" in str(push("hf_alice"))
    for token, name in (("hf_bob", "alice/new"), ("hf_reader", "reader/new")):
        with pytest.raises(HfHubHTTPError) as caught:
            HfApi(token=token).create_repo(name)
        assert caught.value.response.status_code == 403


def test_bad_metadata_and_bad_paths_are_refused(hub: RunningHub, repo: str) -> None:
    from huggingface_hub import ModelCard, get_session

    with pytest.raises(ValueError, match="license"):
        ModelCard("---\nlicense: my own\n---\n").validate()
    with pytest.raises(ValueError, match="base_model"):
        ModelCard("---\nbase_model: /home/me/model\n---\n").validate()
    # the clients refuse such paths themselves, so this one goes past them
    line = b"""{"key": "header", "value": {"summary": "s"}}
        {"key": "file", "value": {"path": "../x", "content": ""}}"""
    answer = get_session().post(
        f"{hub.url}/api/models/{repo}/commit/main",
        content=line,
        headers={"Authorization": "Bearer hf_alice"},
    )
    assert answer.status_code == 400 and "Invalid path" in answer.json()["error"]


def test_create_settings_delete(hub: RunningHub) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token="hf_alice")
    api.create_repo("alice/data", repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="already created"):
        api.create_repo("alice/data", repo_type="dataset")
    assert api.create_repo("alice/data", repo_type="dataset", exist_ok=True).repo_id == "alice/data"
    api.update_repo_settings("alice/data", repo_type="dataset", private=True, gated="manual")
    info = api.dataset_info("alice/data")
    assert (info.private, info.gated) == (True, "manual")
    api.delete_repo("alice/data", repo_type="dataset")
    assert not api.repo_exists("alice/data", repo_type="dataset")


def test_datasets_pushed_by_id_load_by_id(hub: RunningHub) -> None:
    from datasets import load_dataset
    from huggingface_hub import HfApi

    api = HfApi(token="hf_alice")
    api.create_repo("alice/questions", repo_type="dataset", private=True)
    readme = (
        b"---\nconfigs:\n- config_name: a\n  data_files: [{split: test, path: a/*.jsonl}]\n---\n"
    )
    for path, data in (("README.md", readme), ("a/test.jsonl", b'{"q": "1+1", "a": "2"}\n')):
        api.upload_file(
            path_or_fileobj=data, path_in_repo=path, repo_id="alice/questions", repo_type="dataset"
        )
    rows = load_dataset("alice/questions", "a", split="test", token="hf_alice")
    assert rows[0] == {"q": "1+1", "a": "2"}


def test_collections(hub: RunningHub, repo: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token="hf_alice")
    made = api.create_collection("My front")
    assert made.slug.startswith("alice/my-front-")
    assert api.create_collection("My front", exists_ok=True).slug == made.slug
    api.add_collection_item(made.slug, repo, "model", note="the knee")
    assert [(i.item_id, i.note) for i in api.get_collection(made.slug).items] == [
        (repo, "the knee")
    ]
    with pytest.raises(HfHubHTTPError):
        api.add_collection_item(made.slug, repo, "model")


def test_jobs_keep_secrets_secret(hub: RunningHub) -> None:
    from huggingface_hub import HfApi

    api = HfApi(token="hf_alice")
    made = api.run_job(
        image="python:3.12", command=["true"], secrets={"HF_TOKEN": "hf_alice"}, flavor="t4-small"
    )
    seen = api.inspect_job(job_id=made.id)
    assert (seen.status.stage, seen.flavor, seen.secrets) == (
        "SCHEDULING",
        "t4-small",
        {"HF_TOKEN": ""},
    )
    assert hub.jobs[made.id].spec["secrets"] == {"HF_TOKEN": "hf_alice"}
    api.cancel_job(job_id=made.id)
    assert [j.status.stage for j in api.list_jobs(token="hf_alice")] == ["CANCELED"]
    hub.jobs[made.id].logs.append("one line")
    assert list(api.fetch_job_logs(job_id=made.id)) == ["one line"]
    assert "t4-small" in [flavor.name for flavor in api.list_jobs_hardware()]


@pytest.mark.testbed
def test_the_testbed_is_served_under_real_ids(hub: RunningHub, testbed: Path) -> None:
    from datasets import load_dataset
    from huggingface_hub import HfApi

    revision = HfApi().dataset_info("openai/gsm8k").sha
    assert load_dataset("openai/gsm8k", "main", revision=revision, split="test").num_rows == 1319
    reviews = load_dataset("cornell-movie-review-data/rotten_tomatoes")
    assert {name: split.num_rows for name, split in reviews.items()} == {
        "train": 8530,
        "validation": 1066,
        "test": 1066,
    }
    streamed = load_dataset("juletxara/mgsm", "ja", split="test", streaming=True)
    assert next(iter(streamed))["answer_number"] == 18


@pytest.mark.testbed
def test_the_testbed_cannot_be_written(hub: RunningHub, testbed: Path) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with pytest.raises(HfHubHTTPError):
        HfApi(token="hf_alice").delete_repo("openai/gsm8k", repo_type="dataset")
    assert (testbed / "datasets" / "openai" / "gsm8k" / "README.md").is_file()


def test_started_by_hand_it_listens_on_loopback(tmp_path: Path, hub: RunningHub) -> None:
    from huggingface_hub import HfApi

    (tmp_path / "models" / "me" / "model").mkdir(parents=True)
    (tmp_path / "models" / "me" / "model" / "config.json").write_text("{}")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.hub", str(tmp_path)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split("HF_ENDPOINT=")[1].split()[0]
        assert url.startswith("http://127.0.0.1:")
        assert HfApi(endpoint=url).list_repo_files("me/model") == ["config.json"]
    finally:
        server.terminate()
        server.wait(timeout=20)
