"""A push arrives whole, can be tried again, and is refused in one sentence naming the export."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from morphing import zoo
from morphing.errors import MorphingError
from morphing.publishing.facts import CardFacts
from morphing.publishing.push import check_push, push
from tests.hub.server import RunningHub

ALICE = "hf_alice"


def test_a_push_loads_back_by_id(hub: RunningHub, tiny_export: Path, facts: CardFacts) -> None:
    import torch
    from huggingface_hub import HfApi
    from transformers import AutoModelForCausalLM

    url = push(tiny_export, "alice/winner", ALICE, facts=facts)
    assert url == f"{hub.url}/alice/winner"
    commits = [seen for seen in hub.seen if "/commit/" in seen.path]
    assert len(commits) == 1
    info = HfApi(token=ALICE).model_info("alice/winner")
    assert info.private
    assert "base_model:merge:bob/math" in info.tags
    files = {sibling.rfilename for sibling in info.siblings}
    assert {"README.md", ".eval_results/gsm8k.yaml", "mergekit_config.yml"} <= files
    pushed = AutoModelForCausalLM.from_pretrained("alice/winner", token=ALICE).state_dict()
    local = AutoModelForCausalLM.from_pretrained(tiny_export).state_dict()
    assert all(torch.equal(pushed[name], local[name]) for name in local)


def test_what_is_published_names_no_local_path(
    hub: RunningHub, tiny_export: Path, facts: CardFacts
) -> None:
    push(tiny_export, "alice/no-paths", ALICE, facts=facts)
    folder = hub.root / "models" / "alice" / "no-paths"
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            assert b"/home/me" not in text and bytes(zoo.model_folder("base")) not in text, path
    recipe = yaml.safe_load((folder / "mergekit_config.yml").read_text())
    assert [entry["model"] for entry in recipe["models"]] == ["mine", "zoo:base"]
    assert "/home/me" in (tiny_export / "mergekit_config.yml").read_text(), "the export is ours"


def test_the_namespace_is_the_logins_own(
    hub: RunningHub, tiny_export: Path, facts: CardFacts
) -> None:
    assert check_push("short-name", ALICE) == "alice/short-name"
    assert check_push("acme/theirs", ALICE) == "acme/theirs"
    url = push(tiny_export, "public-one", ALICE, private=False, facts=facts)
    assert url.endswith("/alice/public-one")
    from huggingface_hub import HfApi

    assert not HfApi().model_info("alice/public-one").private


def test_what_shall_be_private_is_not_pushed_where_everybody_sees_it(
    hub: RunningHub, tiny_export: Path, facts: CardFacts
) -> None:
    from huggingface_hub import HfApi

    push(tiny_export, "alice/shown", ALICE, private=False, facts=facts)
    before = HfApi(token=ALICE).model_info("alice/shown").sha
    for refused in (
        lambda: check_push("alice/shown", ALICE, private=True),
        lambda: push(tiny_export, "alice/shown", ALICE, facts=facts),
    ):
        with pytest.raises(MorphingError, match="alice/shown is public already"):
            refused()
    assert HfApi(token=ALICE).model_info("alice/shown").sha == before
    push(tiny_export, "alice/shown", ALICE, private=False, facts=facts)  # as it was asked


def test_pushing_again_updates_and_clears_what_is_stale(
    hub: RunningHub, tiny_export: Path, facts: CardFacts
) -> None:
    from huggingface_hub import HfApi

    push(tiny_export, "alice/again", ALICE, facts=facts)
    api = HfApi(token=ALICE)
    for path in ("model-00002-of-00002.safetensors", "notes.txt"):
        api.upload_file(path_or_fileobj=b"x" * 8, path_in_repo=path, repo_id="alice/again")
    push(tiny_export, "alice/again", ALICE, facts=dataclasses.replace(facts, holdout=()))
    files = set(api.list_repo_files("alice/again"))
    assert "notes.txt" in files, "what the owner added stays"
    assert not {"model-00002-of-00002.safetensors", ".eval_results/gsm8k.yaml"} & files


def test_someone_elses_content_is_not_overwritten(
    hub: RunningHub, tiny_export: Path, facts: CardFacts
) -> None:
    folder = hub.root / "models" / "alice" / "thesis"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(MorphingError, match="already holds files that Morphing did not push"):
        push(tiny_export, "alice/thesis", ALICE, facts=facts)
    assert (folder / "model.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("repo_id", "token", "words"),
    [
        ("alice/x", None, "no Hub login"),
        ("alice/x", "hf_expired", "does not accept the login"),
        ("bob/x", ALICE, "logged in as alice, who cannot push to bob"),
        ("reader/x", "hf_reader", "may only read"),
        ("alice/a b", ALICE, "no name for a model"),
        ("a/b/c", ALICE, "no name for a model"),
        ("alice/a--b", ALICE, "no name for a model"),
    ],
)
def test_refusals_before_any_work(
    hub: RunningHub,
    tiny_export: Path,
    facts: CardFacts,
    repo_id: str,
    token: str | None,
    words: str,
) -> None:
    with pytest.raises(MorphingError, match=words):
        check_push(repo_id, token)
    with pytest.raises(MorphingError, match=words) as caught:
        push(tiny_export, repo_id, token, facts=facts)
    message = str(caught.value)
    assert message.endswith(f"; the export is kept at {tiny_export}.")
    assert "\n" not in message and (token is None or token not in message)
    assert not [seen for seen in hub.seen if seen.method == "PUT"], "nothing was uploaded"


def test_a_refusal_by_the_server_is_quoted_and_can_be_tried_again(
    hub: RunningHub, tiny_export: Path, facts: CardFacts
) -> None:
    words = "Private repository storage limit reached"
    hub.settings["models/alice/full"] = {"refuse_push": words}
    with pytest.raises(MorphingError, match=rf"HTTP 403\): {words}; the export is kept at"):
        push(tiny_export, "alice/full", ALICE, facts=facts)
    hub.settings.clear()
    assert push(tiny_export, "alice/full", ALICE, facts=facts).endswith("/alice/full")


def test_no_network(monkeypatch: pytest.MonkeyPatch, tiny_export: Path, facts: CardFacts) -> None:
    import socket

    from huggingface_hub import HfApi

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        init = HfApi.__init__
        monkeypatch.setattr(HfApi, "__init__", lambda self, **kw: init(self, endpoint=url, **kw))
        with pytest.raises(MorphingError, match=r"cannot be reached .* export is kept"):
            push(tiny_export, "alice/x", ALICE, facts=facts)
