"""Stages of a search, and the model that a second stage walks through."""

from __future__ import annotations

import json
import math
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from optuna.trial import TrialState, create_trial
from safetensors.torch import load_file

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.prepare import create_run, prepare
from morphing.runs.progress import quiet
from morphing.runs.relevance import relevance_of
from morphing.runs.run import Run
from morphing.runs.second_stage import best_merge, open_stage
from morphing.runs.spec import RunSpec, parse_spec, with_evaluations
from morphing.runs.stage_model import STAGE_MODEL, stage_folder, stage_model
from morphing.runs.stages import Stage, stages
from morphing.runs.workbench import Workbench
from morphing.search.path_space import PathSpace
from morphing.search.space import SearchSpace

LLAMA = "LlamaForCausalLM"
SOURCES = ["zoo:english-math", "zoo:word-games"]
BENCHMARKS = [
    {"benchmark": "zoo-english-arithmetic", "samples": 4, "holdout": 4},
    {"benchmark": "zoo-word-puzzles", "samples": 4, "holdout": 4},
]


def spec(space: dict[str, Any], sources: list[str] = SOURCES, **search: Any) -> RunSpec:
    return parse_spec(
        {
            "base": "zoo:base",
            "sources": sources,
            "benchmarks": BENCHMARKS,
            "method": "task_arithmetic",
            "search": {"sampler": "evolve", "evaluations": 10, **search, "space": space},
            "device": "cpu",
        }
    )


def split(given: RunSpec) -> list[tuple[str, int, int]]:
    return [(s.name, s.first_slot, s.end_slot) for s in stages(given, 3, LLAMA)]


def test_slots_of_the_stages() -> None:
    assert split(spec({})) == [("ps", 0, 10)]
    assert split(spec({"strategy": "dfs"})) == [("dfs", 0, 10)]
    both = spec({"strategy": "ps+dfs", "path_share": 0.3})
    assert split(both) == [("ps", 0, 7), ("dfs", 7, 10)]
    greedy = spec({"strategy": "ps+dfs", "path_share": 0.99})
    assert split(greedy) == [("ps", 0, 1), ("dfs", 1, 10)]
    shy = spec({"strategy": "ps+dfs", "path_share": 0.01})
    assert split(shy) == [("ps", 0, 9), ("dfs", 9, 10)]


@pytest.mark.parametrize("evaluations", [8, 11, 30, 333, 1001])
def test_a_new_budget_leaves_the_first_stage_as_it_is(evaluations: int) -> None:
    changed = with_evaluations(spec({"strategy": "ps+dfs", "path_share": 0.3}), evaluations)
    assert split(changed) == [("ps", 0, 7), ("dfs", 7, evaluations)]
    assert parse_spec(changed.model_dump()) == changed


def test_spaces_are_those_of_the_spec() -> None:
    given = spec({"strategy": "ps+dfs", "repeats": 2}, seed=4).model_copy(
        update={"dtype": "bfloat16", "tokenizer_source": "base"}
    )
    first, second = stages(given, 3, LLAMA)
    assert isinstance(first.space, SearchSpace) and isinstance(second.space, PathSpace)
    assert first.space.mask_seed == 4
    assert second.space.sources == (STAGE_MODEL, *SOURCES)
    for stage in (first, second):
        point = stage.space.start() or dict.fromkeys(stage.space.distributions(), 0.5)
        config = stage.space.recipe(point).config
        assert (config["dtype"], config["out_dtype"]) == ("float32", "bfloat16")
        assert config["tokenizer_source"] == "zoo:base"
    assert stages(spec({"strategy": "dfs"}), 3, LLAMA)[0].space.start() is not None


@pytest.mark.parametrize(
    ("space", "search", "said"),
    [
        ({"ranges": {"densty": (0, 1)}}, {}, r"ranges names 'densty', which is none.*\.weight"),
        ({"fixed": {"lambada": 1}}, {}, "fixed names 'lambada'"),
        ({"tied": ["english-math"]}, {}, "tied names 'english-math'"),
        ({"strategy": "dfs", "tied": ["layer"]}, {}, "tied names 'layer'"),
        ({"strategy": "ps+dfs"}, {"evaluations": 1}, "searches twice: set it to 2"),
        ({"strategy": "dfs", "repeats": 4}, {"sampler": "sobol"}, "choose the sampler evolve"),
        ({"layer_groups": 99}, {}, "layer_groups is 99 and the models have 3 layers"),
    ],
)
def test_impossible_spaces_are_refused_before_a_run(space: Any, search: Any, said: str) -> None:
    with pytest.raises(MorphingError, match=said):
        prepare(spec(space, **search))


def test_a_name_may_be_for_either_stage() -> None:
    given = spec({"strategy": "ps+dfs", "ranges": {"weight": (0, 2), "scale": (0.9, 1.1)}})
    first, second = stages(given, 3, LLAMA)
    assert first.space.distributions()["word-games.weight"].high == 2
    assert second.space.distributions()["ps.scale.0.0"].high == 1.1


# --- a run in two stages ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose first stage is over: three merges were scored, the second one best."""
    folder = tmp_path_factory.mktemp("stages") / "run"
    run = create_run(folder, spec({"strategy": "ps+dfs", "repeats": 1}, evaluations=6))
    Workbench(run).reference_results("search")
    first = stages(run.spec, 3, LLAMA)[0].space
    for weights, values in (
        ((0.2, 0.1), (0.1, 0.2, -0.1)),
        ((0.7, 0.5), (0.5, 0.6, -0.4)),
        ((0.9, 0.9), (0.9, 0.1, -0.5)),
    ):
        tell(run, first, weights, values)
    return run


def tell(run: Run, space: Any, weights: Any, values: Any, **system: Any) -> None:
    params = dict(zip(space.distributions(), weights, strict=True))
    recipe = space.recipe(params)
    run.study.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            values=list(values),
            params=params,
            distributions=space.distributions(),
            user_attrs={"recipe": dict(recipe.config), "mask_seed": recipe.mask_seed},
            system_attrs=system,
        )
    )


@pytest.fixture(scope="module")
def workbench(run: Run) -> Workbench:
    return Workbench(run)


@pytest.fixture(scope="module")
def second(run: Run, workbench: Workbench) -> Stage:
    first, second = stages(run.spec, workbench.layers, workbench.architecture)
    open_stage(run, first, workbench, quiet)
    assert stage_model(run) is None and not stage_folder(run).exists()
    open_stage(run, second, workbench, quiet)
    return second


def state(workbench: Workbench) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in workbench.morpher.model.state_dict().items()}


def test_the_best_merge_becomes_a_source(run: Run, workbench: Workbench, second: Stage) -> None:
    made = stage_model(run)
    assert made is not None and made.trial == 1
    assert made.recipe == run.trial(1).recipe
    workbench.morph(made.recipe)
    wanted = state(workbench)
    space = second.space
    workbench.morph(space.recipe(space.start() or {}))
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in state(workbench).items())


def test_it_is_made_once_and_found_again(run: Run, workbench: Workbench, second: Stage) -> None:
    files = {path: path.stat().st_mtime_ns for path in stage_folder(run).iterdir()}
    open_stage(run, second, workbench, quiet)
    assert {path: path.stat().st_mtime_ns for path in stage_folder(run).iterdir()} == files
    again = Workbench(run)
    assert again.morph(second.space.recipe(second.space.start() or {})) > 0


def test_a_path_through_it_is_exported_as_it_was_scored(
    run: Run, workbench: Workbench, second: Stage, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    point = dict.fromkeys(second.space.distributions(), -1.0)
    point |= {name: 1.5 for name in point if ".scale." in name}
    for slot in ("ps.layer.0", "english-math.layer.1", "word-games.layer.1", "word-games.layer.2"):
        point[slot] = 1.0
    recipe = second.space.recipe(point)
    assert recipe.sources == (STAGE_MODEL, *SOURCES)
    workbench.morph(recipe)
    assert workbench.morpher.model.config.num_hidden_layers == 4
    wanted = state(workbench)
    workbench.write(recipe, tmp_path / "path")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "path").state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.items())
    text = (tmp_path / "path" / "mergekit_config.yml").read_text()
    assert str(stage_folder(run)) in text  # so that mergekit finds it
    assert Recipe.from_yaml(text).check().slices


def test_paths_too_long_for_the_memory_are_not_tried(
    workbench: Workbench, second: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphing.runs.workbench.available_memory", lambda _: 1000)
    point = {n: 1.0 for n in second.space.distributions()}
    with pytest.raises(MorphingError, match=r"has 9 layers, for which .* are free: try fewer"):
        workbench.morph(second.space.recipe(point))


def test_the_best_keeps_constraints_and_is_of_the_first_stage(run: Run, tmp_path: Path) -> None:
    other = Run.create(tmp_path / "run", run.spec)
    for name in ("references", "samples"):
        copytree(run.folder / name, other.folder / name)
    with pytest.raises(MorphingError, match="No merge of the first stage"):
        best_merge(other, 3)
    first = stages(run.spec, 3, LLAMA)[0].space
    tell(other, first, (0.1, 0.1), (0.9, 0.9, -0.1), constraints=[0.2])
    tell(other, first, (0.2, 0.1), (0.8, 0.8, -0.1), constraints=[0.1, -1.0])
    assert best_merge(other, 3).number == 1  # breaks them least
    tell(other, first, (0.3, 0.1), (0.2, 0.3, -0.1), constraints=[-0.1, 0.0])
    assert best_merge(other, 3).number == 2
    tell(other, first, (0.3, 0.1), (0.9, 0.9, -0.1), constraints=[-0.1, 0.0])
    assert best_merge(other, 3).number == 2  # the last is not of the first stage
    assert best_merge(other, 4).number == 3


def test_relevance_is_the_norm_of_what_a_number_scales(tmp_path: Path) -> None:
    from morphing.zoo import model_folder

    given = spec({"layer_groups": "each", "module_kinds": ["embeddings"], "tied": ["*.2"]})
    run = create_run(tmp_path / "run", given)
    workbench = Workbench(run)
    space = stages(run.spec, workbench.layers, workbench.architecture)[0].space
    relevance = relevance_of(workbench, space)
    assert relevance.keys() == space.distributions().keys()
    base = load_file(model_folder("base") / "model.safetensors")

    def norm(source: str, part: str) -> float:
        tensors = load_file(model_folder(source) / "model.safetensors")
        changes = [(tensors[name] - base[name]).float().norm() for name in base if part in name]
        return math.sqrt(sum(float(change) ** 2 for change in changes))

    assert relevance["word-games.weight.0"] == pytest.approx(norm("word-games", "layers.0."))
    embeddings = norm("english-math", "embed_tokens")
    assert relevance["english-math.weight.embeddings"] == pytest.approx(embeddings)
    last = [
        math.hypot(norm(s, "layers.2."), norm(s, "model.norm"))
        for s in ("english-math", "word-games")
    ]
    assert relevance["weight.2"] == pytest.approx(math.hypot(*last))
    assert json.loads((run.folder / "relevance.json").read_text()) == relevance
    assert relevance_of(workbench, space) == relevance
    plain = stages(spec({}), 3, LLAMA)[0].space
    assert relevance_of(workbench, plain) == {}
