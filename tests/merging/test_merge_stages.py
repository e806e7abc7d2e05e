"""Recipes in several stages, and what is noted or refused before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from morphing.errors import MorphingError
from morphing.merging.merge import (
    merge_adapter,
    merge_recipe,
    merge_stages,
    one_spelling,
    read_merge,
    refuse_all,
)
from morphing.merging.merge_stages import read_stages
from morphing.merging.recipe import Recipe
from morphing.sources.source import Source

CPU = torch.device("cpu")


def quiet(step: str, done: int, total: int) -> None:
    """No progress."""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def stage(name: str | None, *models: str, method: str = "linear", **extra: Any) -> str:
    import yaml

    listed = [{"model": model, "parameters": {"weight": 0.5}} for model in models]
    config = {"name": name} if name else {}
    return yaml.safe_dump({**config, "merge_method": method, "models": listed, **extra})


def joined(*documents: str) -> str:
    return "---\n".join(documents)


def test_stages_are_made_in_the_order_they_need_each_other(
    family: list[Source], tmp_path: Path
) -> None:
    """As merging each by hand and naming its folder; the same again from the exported recipe."""
    base, one, two, three = (str(source.folder) for source in family)
    ties = {"method": "ties", "base_model": base}
    text = joined(
        stage("outer", "inner", three),
        stage(None, "outer", "inner", base_model=base, method="task_arithmetic"),
        stage("inner", one, two, **ties),
        stage("idle", one),
    )
    (tmp_path / "recipe.yaml").write_text(text)
    told: list[str] = []
    stages = read_merge(tmp_path / "recipe.yaml")
    assert list(stages.earlier) == ["inner", "outer"]
    merge_stages(stages, tmp_path / "out", CPU, quiet, told=told.extend)
    assert told == ["Stage idle is not made: the final merge has no use for it."]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "recipe.yaml"]

    inner, outer = str(tmp_path / "inner"), str(tmp_path / "outer")
    merge_recipe(Recipe.from_yaml(stage(None, one, two, **ties)), Path(inner), CPU, quiet)
    merge_recipe(Recipe.from_yaml(stage(None, inner, three)), Path(outer), CPU, quiet)
    last = stage(None, outer, inner, base_model=base, method="task_arithmetic")
    merge_recipe(Recipe.from_yaml(last), tmp_path / "by-hand", CPU, quiet)
    expected = weights(tmp_path / "by-hand")
    found = weights(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    again = read_merge(tmp_path / "out" / "mergekit_config.yml")
    merge_stages(again, tmp_path / "again", CPU, quiet)
    for file in (tmp_path / "out").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file


def test_a_merge_of_the_zoo_says_so_from_its_exported_recipe_too(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(stage(None, "zoo:base", "zoo:word-games"))
    merge_stages(read_merge(tmp_path / "recipe.yaml"), tmp_path / "out", CPU, quiet)
    again = read_merge(tmp_path / "out" / "mergekit_config.yml")
    merge_stages(again, tmp_path / "again", CPU, quiet)
    for file in (tmp_path / "out").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file
    assert '"zoo:word-games"' in (tmp_path / "again" / "morphing.json").read_text()


def test_an_interrupted_merge_goes_on_after_the_last_finished_stage(
    family: list[Source], tmp_path: Path
) -> None:
    base, one, two, _ = (str(source.folder) for source in family)
    text = joined(stage("first", one, two), stage(None, "first", base))
    steps: list[str] = []

    def stop(step: str, done: int, total: int) -> None:
        steps.append(step)
        if step == "merging (MB)" and "getting first" in steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_stages(read_stages(text), tmp_path / "out", CPU, stop)
    assert (tmp_path / ".out.stages" / "1" / "model.safetensors").exists()
    steps.clear()
    merge_stages(read_stages(text), tmp_path / "out", CPU, lambda step, *_: steps.append(step))
    assert "stage first" not in steps
    merge_stages(read_stages(text), tmp_path / "whole", CPU, quiet)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ([stage("a", "x"), stage("a", "y"), stage(None, "a")], "two documents with the name 'a'"),
        ([stage(None, "x"), stage(None, "y")], "2 documents without a name"),
        ([stage("a", "b"), stage("b", "a"), stage(None, "a")], "need each other (a -> b -> a)"),
        ([stage("a", "a"), stage(None, "a")], "need each other (a -> a)"),
        ([stage("a", "x"), stage("b", "y")], "a, b are used by no other"),
        ([stage("a", "b"), stage("b", "a")], "each is used by another"),
        ([stage("../a", "x"), stage(None, "b@c", "../a")], None),
        ([stage("a+b", "x"), stage(None, "x")], "text without @ and +"),
        (["name: 3\n" + stage(None, "x"), stage(None, "x")], "has the name 3"),
        ([stage("a", "x"), "base: a\nsources: [b]\n"], "document 2 is a run spec"),
        ([stage("a", "x"), stage(None, "a", method="TIES")], "did you mean 'ties'"),
    ],
)
def test_stages_that_cannot_be_made(documents: list[str], words: str | None) -> None:
    if words is None:
        assert list(read_stages(joined(*documents)).earlier) == ["../a"]  # never a path
        return
    with pytest.raises(MorphingError) as refused:
        read_stages(joined(*documents), where="it.yaml")
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_of_named_stages_the_one_no_other_uses_is_final() -> None:
    stages = read_stages(joined(stage("a", "x"), stage("b", "a", "y")))
    assert list(stages.earlier) == ["a"] and stages.final.sources == ("a", "y")
    assert read_stages(stage("alone", "x")).earlier == {}


def test_an_adapter_is_of_no_stage(family: list[Source], tmp_path: Path) -> None:
    base, one, two, _ = (str(source.folder) for source in family)
    task = {"base_model": "first", "method": "task_arithmetic"}
    text = joined(stage("first", base, one), stage(None, two, **task))
    with pytest.raises(MorphingError, match="base first is a stage"):
        merge_adapter(read_stages(text), tmp_path / "out", 4, CPU, quiet)


def test_what_is_noted_is_told_before_and_strictly_refused(
    family: list[Source], tmp_path: Path
) -> None:
    _, one, two, _ = (str(source.folder) for source in family)
    recipe = Recipe.from_yaml(stage(None, one, two, parameters={"normalise": False}))
    recipe.config["models"][0]["parameters"]["weight"] = [
        {"filter": "mpl", "value": 0.2},
        {"value": 0.5},
    ]
    told: list[Sequence[str]] = []

    def tell(remarks: Sequence[str]) -> None:
        assert not (tmp_path / "out").exists()
        told.append(remarks)

    merge_recipe(recipe, tmp_path / "out", CPU, quiet, told=tell)
    ((first, second),) = told
    assert "did you mean normalize?" in first and "'mpl'" in second
    with pytest.raises(MorphingError, match=r"Strictly.*normalise.*mpl") as refused:
        merge_recipe(recipe, tmp_path / "strict", CPU, quiet, told=refuse_all)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_folder_written_in_two_ways_is_one_model(
    family: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, source in zip(("b", "one"), family, strict=False):
        shutil.copytree(source.folder, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("one")
    ties = {"method": "ties", "base_model": "./b"}
    for spelling in ("b", "b/", "./b/", "one/../b", str(tmp_path / "b")):
        recipe = one_spelling(Recipe.from_yaml(stage(None, spelling, "one", **ties)))
        assert recipe.sources == ("one",) and recipe.inputs == ("./b", "one")
    merge_recipe(Recipe.from_yaml(stage(None, "b/", "one", **ties)), tmp_path / "out", CPU, quiet)
    for other in ("one/", "link", "./one"):
        with pytest.raises(MorphingError, match="which are one model: keep one of them"):
            one_spelling(Recipe.from_yaml(stage(None, "one", other, **ties)))
    same = Recipe.from_yaml(stage(None, "org/a", "org/b", **ties))
    assert one_spelling(same) is same
