"""Models and datasets as people type and paste them."""

from __future__ import annotations

from pathlib import Path

import pytest

from morphing.errors import MorphingError
from morphing.hub_names import dataset_name, hub_id, is_published
from morphing.merging.recipe import Recipe
from morphing.runs.spec import parse_spec
from morphing.sources.find import inspect, pin
from morphing.sources.names import model_and_adapter, model_name, reference_name

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:8080/hub")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("org/name", "org/name"),
        ("  org/name\n", "org/name"),
        ("'org/name'", "org/name"),
        ('"org/name@v1"', "org/name@v1"),
        ("org/name/", "org/name"),
        ("org / name", "org/name"),
        ("org/name @ v1", "org/name@v1"),
        ("org/name@main", "org/name@main"),
        ("gpt2", "gpt2"),
        ("https://huggingface.co/org/name", "org/name"),
        ("http://huggingface.co/org/name/", "org/name"),
        ("HTTPS://HuggingFace.co/org/Name", "org/Name"),
        ("https://www.huggingface.co/org/name", "org/name"),
        ("huggingface.co/org/name", "org/name"),
        ("hf.co/org/name", "org/name"),
        ("https://hf.co/org/name?library=transformers", "org/name"),
        ("https://huggingface.co/org/name#model-card", "org/name"),
        ("https://huggingface.co/org/name/tree/main", "org/name"),
        ("https://huggingface.co/org/name/tree/v1.0", "org/name@v1.0"),
        (f"https://huggingface.co/org/name/commit/{COMMIT}", f"org/name@{COMMIT}"),
        ("https://huggingface.co/org/name/blob/v2/config.json", "org/name@v2"),
        ("https://huggingface.co/org/name/resolve/v2/model.safetensors", "org/name@v2"),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F1", "org/name@refs/pr/1"),
        ("https://huggingface.co/org/name/tree/refs/pr/1", "org/name@refs/pr/1"),
        ("https://huggingface.co/org/name/discussions/3", "org/name"),
        ("https://huggingface.co/org/name.git", "org/name"),
        ("git@hf.co:org/name.git", "org/name"),
        ("https://user:secret@huggingface.co/org/name", "org/name"),
        ("https://huggingface.co/api/models/org/name", "org/name"),
        ("https://huggingface.co/gpt2", "gpt2"),
        ("https://huggingface.co/gpt2/tree/main", "gpt2"),
        ("http://127.0.0.1:8080/hub/org/name/tree/v1", "org/name@v1"),
        ("hf://org/name", "org/name"),
        ("hf://org/name@v1", "org/name@v1"),
        ("org/name/tree/v1", "org/name@v1"),
        ("ZOO:Base", "zoo:base"),
        ("zoo: base", "zoo:base"),
        ("zoo:English_Math", "zoo:english-math"),
        ("zoo:base/", "zoo:base"),
        ("./folder", "./folder"),
        ("/a/folder/", "/a/folder/"),
        ("file:///a/folder%20b", "/a/folder b"),
        ("", ""),
        ("a b", "a b"),
        ("org/name/more", "org/name/more"),
    ],
)
def test_what_people_type_is_one_name(typed: str, meant: str) -> None:
    assert model_name(typed) == meant
    assert model_name(meant) == meant


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("https://huggingface.co/datasets/openai/gsm8k", "a dataset, and a model is asked for"),
        ("hf.co/datasets/openai/gsm8k", "a dataset, and a model is asked for"),
        ("hf://datasets/openai/gsm8k", "a dataset"),
        ("https://huggingface.co/spaces/org/app", "a Space"),
        ("https://huggingface.co/collections/org/best-1", "a collection"),
        ("https://huggingface.co/papers/2311.03099", "a paper"),
        ("https://huggingface.co/", "no address of a model"),
        ("https://huggingface.co/org/na me<b>", "no address of a model"),
        ("https://example.com/org/name", "another site than the Hub"),
        ("https://huggingface.co.example.com/org/name", "another site than the Hub"),
        ("https://github.com/org/name", "another site than the Hub"),
        ("s3://bucket/model", "another site than the Hub"),
        ("git@github.com:org/name.git", "another site than the Hub"),
    ],
)
def test_an_address_of_something_else_is_said(typed: str, said: str) -> None:
    with pytest.raises(MorphingError, match=said):
        model_name(typed)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("openai/gsm8k", "openai/gsm8k"),
        (" https://huggingface.co/datasets/openai/gsm8k ", "openai/gsm8k"),
        ("hf.co/datasets/openai/gsm8k/viewer/main/test", "openai/gsm8k"),
        ("https://huggingface.co/datasets/openai/gsm8k/tree/v1/main", "openai/gsm8k"),
        ("https://huggingface.co/datasets/imdb", "imdb"),
        ("hf://datasets/openai/gsm8k", "openai/gsm8k"),
        ("http://127.0.0.1:8080/hub/datasets/openai/gsm8k", "openai/gsm8k"),
        ("gsm8k", "gsm8k"),
        ("lm_eval:piqa", "lm_eval:piqa"),
        ("my data.csv", "my data.csv"),
        ("./folder/data.csv", "./folder/data.csv"),
    ],
)
def test_datasets_too(typed: str, meant: str) -> None:
    assert dataset_name(typed) == meant


def test_a_models_address_is_no_datasets() -> None:
    with pytest.raises(MorphingError, match="a model, and a dataset is asked for"):
        dataset_name("https://huggingface.co/org/name")


def test_a_folder_that_exists_stays_what_it_is(tmp_path: Path) -> None:
    for name in ("hf.co/org/name", "a+b", "org/name", "zoo:base"):
        (tmp_path / name).mkdir(parents=True)
        assert model_name(name) == reference_name(name) == name


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("org/name", "org/name", None),
        ("gpt2", "gpt2", None),
        ("org/name@refs/pr/1", "org/name", "refs/pr/1"),
        (f"Org-1/na.me_2@{COMMIT}", "Org-1/na.me_2", COMMIT),
    ],
)
def test_ids(name: str, repo: str, revision: str | None) -> None:
    assert hub_id(name) == (repo, revision)
    assert is_published(name) == ("/" in repo)


@pytest.mark.parametrize(
    "name",
    [
        *("", "a b", "org/name/more", "org/name@", "/org/name", "../name", "org/..", "org/na..me"),
        *("org/na--me", "a/b<script>", "a/b@<img>", "a/b\n", "zoo:base", "ört/name", "a/b@c d"),
    ],
)
def test_what_is_no_id(name: str) -> None:
    assert hub_id(name) is None
    assert not is_published(name)


def test_models_with_adapters() -> None:
    pasted = "https://huggingface.co/org/base + https://huggingface.co/org/lora/tree/v1"
    assert reference_name(pasted) == "org/base+org/lora@v1"
    assert model_and_adapter("org/base+org/lora") == ("org/base", "org/lora")
    assert model_and_adapter("org/base") == ("org/base",)


def test_specs_and_recipes_are_read_so() -> None:
    data = {
        "base": "https://huggingface.co/org/base/",
        "sources": [" org/one/ ", "Zoo:Word-Games"],
        "benchmarks": ["zoo-word-puzzles"],
        "constraints": [{"on": "sparsity", "at_least": "https://hf.co/org/one"}],
    }
    spec = parse_spec(data)
    assert (spec.base, spec.sources) == ("org/base", ("org/one", "zoo:word-games"))
    assert spec.constraints[0].at_least == "org/one"
    with pytest.raises(MorphingError, match=r"sources.*a dataset, and a model is asked for"):
        parse_spec(data | {"sources": ["https://hf.co/datasets/org/data"]})
    with pytest.raises(MorphingError, match="listed twice"):
        parse_spec(data | {"sources": ["org/one", "https://huggingface.co/org/one"]})
    recipe = Recipe.from_yaml(
        """
merge_method: linear
models:
- {model: https://huggingface.co/org/one/tree/v1, parameters: {weight: 1}}
- {model: ' ZOO:base ', parameters: {weight: 1}}
"""
    )
    assert recipe.references == ("org/one@v1", "zoo:base")


def test_a_misspelt_name_of_the_zoo_is_guessed() -> None:
    with pytest.raises(MorphingError, match=r"did you mean zoo:english-math\?"):
        pin("zoo:englishmaths")
    with pytest.raises(MorphingError, match="choose one of zoo:base"):
        pin("zoo:lion")
    assert pin(" ZOO:Base ") == "zoo:base"


def test_a_file_of_a_model_is_not_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MorphingError, match=f"is a file: give the model's folder, {tmp_path}"):
        inspect(str(tmp_path / "config.json"))
