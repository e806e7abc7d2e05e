"""YAML from people: read safely, with lines in errors, and told apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from morphing.benchmarks.benchmark import read_benchmark
from morphing.errors import MorphingError
from morphing.merging.merge import read_recipe
from morphing.runs.spec import load_spec, zoo_spec
from morphing.yaml_files import (
    kind_of,
    read_document,
    read_documents,
    read_text,
    refuse_other,
    write_yaml,
)

READERS = {"recipe": read_recipe, "spec": load_spec, "benchmark": read_benchmark}
"""What reads each kind of file."""
RECIPE = "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n"
FILES = {
    "recipe": RECIPE,
    "spec": zoo_spec().to_yaml(),
    "benchmark": "name: mine\ndataset: zoo:english-math\nkind: generation\nprompt: x\ntarget: y\n",
}


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a: 1e-4", 1e-4),
        ("a: 1E3", 1000.0),
        ("a: .5", 0.5),
        ("a: -2.", -2.0),
        ("a: 010", 10),
        ("a: 0x10", 16),
        ("a: 0o10", 8),
        ("a: no", "no"),
        ("a: Off", "Off"),
        ("a: 2024-02-30", "2024-02-30"),
        ("a: 12:30", "12:30"),
        ("a: True", True),
        ("a: ~", None),
        ("a:", None),
        ("a: '1e-4'", "1e-4"),
        ("a: org/model@12e4", "org/model@12e4"),
        ("\ufeffa: 1", 1),
    ],
)
def test_scalars_are_yaml_1_2s(text: str, data: Any) -> None:
    assert read_document(text, "it") == {"a": data}


def test_keys_are_text_whatever_they_look_like() -> None:
    text = "on: 1\nno: 2\n3: 4\n1.5: 6\nnull: 7\ntrue: 8"
    assert list(read_document(text, "it")) == ["on", "no", "3", "1.5", "null", "true"]


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8) | st.sampled_from(
    ["1e5", "on", "no", "0o7", "12:30", "2024-01-01", "~", ".inf", "<<", "", " ", "1_0", "0b1", "="]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_written_is_read_back_here_and_by_others(data: Any) -> None:
    text = write_yaml({"data": data})
    assert read_document(text, "it") == {"data": data}
    assert yaml.safe_load(text) == {"data": data}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "in line 1"),
        ("a: 1\nb: [1, 2\nc: 3\n", "in line 3"),
        ("a:\n\t- b\n", "in line 2: a tab stands where spaces must"),
        ("a: 1\nb: 2\na: 3\n", "'a' twice in one mapping, in lines 1 and 3"),
        ("a:\n- {b: 1, c: 2,\n   b: 3}\n", "'b' twice in one mapping, in lines 2 and 3"),
        ("a: {b: 1, b: 1}\n", "'b' twice in one mapping, in line 1"),
        ("a: !!python/object/apply:os.system [ls]\n", "in line 1"),
        ("a: &a {b: *a}\n", "an alias stands inside of what it names"),
        ("a: " + "[" * 5000, "nested more than"),
        ("a: *gone\n", "in line 1"),
        ("? [a]\n: b\n", "a key is a list or a mapping"),
        ("a: \x00", "is not valid YAML"),
        ("x: &a0 [1, 1]\n" + "".join(f"x{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
         "aliases are written out"),
        ("```yaml\na: 1\na: 2\n```\n", "in lines 2 and 3"),
    ],
)  # fmt: skip
def test_every_kind_of_file_is_refused_alike(
    tmp_path: Path, kind: str, text: str, words: str
) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(MorphingError) as refused:
        READERS[kind](file)
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("form", ["fence", "prose", "indented", "tildes", "utf-16", "marked"])
def test_every_kind_of_file_may_be_in_markdown_or_of_another_encoding(
    tmp_path: Path, kind: str, form: str
) -> None:
    text, encoding = FILES[kind], "utf-8"
    if form == "fence":
        text = f"```yaml\n{text}```\n"
    elif form == "prose":
        text = f"# A title\n\nUse it: so\n\n```python\nx = 1\n```\n\n```yaml\n{text}```\nAnd run.\n"
    elif form == "indented":
        lines = "".join(f"   {line}\n" for line in text.splitlines())
        text = f"1. Run:\n\n   ```yml\n{lines}   ```\n"
    elif form == "tildes":
        text = f"~~~\n{text}"
    else:
        encoding = {"utf-16": "utf-16", "marked": "utf-8-sig"}[form]
    (tmp_path / "plain.yaml").write_text(FILES[kind])
    (tmp_path / "file.yaml").write_text(text, encoding=encoding)
    read = READERS[kind]
    assert read(tmp_path / "file.yaml") == read(tmp_path / "plain.yaml")


@pytest.mark.parametrize("read", [load_spec, read_benchmark])
def test_one_document_is_expected_of_what_has_no_stages(tmp_path: Path, read: Any) -> None:
    (tmp_path / "file.yaml").write_text("a: 1\n---\nb: 2\n")
    with pytest.raises(MorphingError, match="2 YAML documents"):
        read(tmp_path / "file.yaml")


def test_a_fence_inside_a_text_stays_there() -> None:
    text = "prompt: |\n  Write:\n  ```python\n  x\n  ```\n"
    assert read_document(text, "it") == {"prompt": "Write:\n```python\nx\n```\n"}


def test_several_fences_are_several_documents_and_empty_ones_none() -> None:
    assert read_documents("```yaml\na: 1\n```\nthen\n```yaml\nb: 2\n```\n", "it") == [
        {"a": 1},
        {"b": 2},
    ]
    assert read_documents("---\na: 1\n---\n---\n# nothing\n", "it") == [{"a": 1}]
    assert read_documents("", "it") == []


def test_merged_keys_may_be_overridden() -> None:
    text = "a: {inner: &d {<<: &c {x: 1, y: 2}, y: 3}}\nb: {<<: *d}\nc: {<<: [*c, *d], z: 1}"
    assert read_document(text, "it") == {
        "a": {"inner": {"x": 1, "y": 3}},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2, "z": 1},
    }


KINDS = {
    **FILES,
    "evolve": "genome: {models: [a], merge_method: linear}\ntasks: [{name: x}]\n",
    "moe": "base_model: a\nexperts: [{source_model: b}]\n",
    "task": "task: mine\ndataset_path: org/data\ndoc_to_text: x\n",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, kind: str, reader: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(KINDS[kind])
    assert kind_of(read_document(KINDS[kind], "it")) == kind
    if kind == reader:
        READERS[reader](file)
        return
    with pytest.raises(MorphingError) as refused:
        READERS[reader](file)
    words = {
        "recipe": "is a recipe, which says one merge: `morphing merge",
        "spec": "is a run spec, which says what to search: `morphing search",
        "benchmark": "is a benchmark: `morphing evaluate",
        "evolve": "is a configuration of mergekit-evolve",
        "moe": "is a configuration of mergekit-moe",
        "task": "is a task of lm-evaluation-harness",
    }
    assert words[kind] in str(refused.value)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"merge-method": "ties", "models": []}, "recipe"),
        ({"Merge Method": "ties"}, "recipe"),
        ({"slices": []}, "recipe"),
        ({"models": []}, "recipe"),
        ({"base": "a", "models": ["b"]}, "spec"),
        ({"anything": 1}, "unknown"),
        ([], "unknown"),
        (None, "unknown"),
    ],
)
def test_kinds_are_told_by_keys(data: Any, kind: str) -> None:
    assert kind_of(data) == kind
    refuse_other(data, kind, "it")  # type: ignore[arg-type]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("a: 1\n# gemäßigt\n".encode("latin-1"))
    said = {"gone": r"\(.*\): check the path", ".": r"\(.*\): check the path"}
    said["latin"] = r", for it is not text in UTF-8 \(line 2\): save it as UTF-8\."
    for name, words in said.items():
        with pytest.raises(MorphingError, match=f"The recipe .* cannot be read ?{words}"):
            read_text(tmp_path / name, "recipe")


def test_a_constraint_as_the_document_writes_it_is_read(tmp_path: Path) -> None:
    text = FILES["spec"] + "constraints:\n- {on: sparsity, at_least: sources}\n"
    (tmp_path / "spec.yaml").write_text(text)
    assert load_spec(tmp_path / "spec.yaml").constraints[0].on == "sparsity"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sampler: x", "unknown field 'sampler'"),
        ("souces: [a]", "unknown field 'souces' (did you mean 'sources'?)"),
        ("search: {evalutions: 3}", "'search.evalutions' (did you mean 'evaluations'?)"),
        ("search: {space: {layer_group: 3}}", "(did you mean 'layer_groups'?)"),
        ("measures: [{mesure: x}]", "measure"),
        ("benchmarks: [{benchmark: zoo-english-math, sample: 3}]", "(did you mean 'samples'?)"),
        ("sources: null\nsource: [a, b]", "unknown field 'source' (did you mean 'sources'?)"),
        ("sources: zoo:english-math", "sources: input should be a list"),
        ("benchmarks: zoo-kanji-numbers", "benchmarks: input should be a list"),
        ("search: nsga2", "search: input should be fields with values"),
        ("search: {space: {layer_groups: 0}}", "search.space.layer_groups: input should be g"),
        ("search: {space: {layer_groups: all}}", "or input should be 'each', or input should be a"),
        ("search: {space: {layer_groups: [[a, 3]]}}", "search.space.layer_groups.0.0: input"),
        ("search: {space: {module_kinds: [mlps]}}", "search.space.module_kinds.0: input should be"),
        ("search: {seeds: [3]}", "search.seeds.0: input should be"),
    ],
)
def test_a_mistaken_field_of_a_spec_is_named_with_what_was_meant(
    tmp_path: Path, text: str, words: str
) -> None:
    data = {**read_document(FILES["spec"], "it"), **read_document(text, "it")}
    (tmp_path / "spec.yaml").write_text(write_yaml(data))
    with pytest.raises(MorphingError) as refused:
        load_spec(tmp_path / "spec.yaml")
    assert words in str(refused.value)
    assert not re.search(r"tuple|dict|constrained|literal|Errno", str(refused.value))
