"""A search over a pretrained base speaks as its sources do: chat template, end tokens, exports."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from morphing import zoo
from morphing.errors import MorphingError
from morphing.publishing.card import model_card
from morphing.publishing.publish import card_facts, write_export
from morphing.runs.chat_templates import check_tokenizers, choose_template, template_sentence
from morphing.runs.loop import Loop
from morphing.runs.plain_recipes import alone
from morphing.runs.prepare import create_run, prepare
from morphing.runs.seeds import average
from morphing.runs.single import load_single
from morphing.runs.spec import RunSpec, parse_spec
from morphing.runs.workbench import Workbench
from morphing.sources.find import inspect
from morphing.sources.source import Inspection

OTHER = "{% for m in messages %}<user>{{ m.content }}</s>{% endfor %}"


def model(name: str, template: str | None = None, rows: int = 10, **changes: Any) -> Inspection:
    found = Inspection(name, "LlamaForCausalLM", {}, False, (), 160, 40, 1, None)
    return replace(found, chat_template=template, config={"vocab_size": rows}, **changes)


A, B = "{{ messages[0].content }} A", "{{ messages[0].content }} B"


@pytest.mark.parametrize(
    ("base", "sources", "chosen", "said"),
    [
        (None, [A], "model:s0", "The base has no chat template: merges take that of s0"),
        (None, [A, A], "model:s0", "The base has no chat template"),
        (None, [None, A], "model:s1", "that of s1"),
        (None, [None, None], None, ""),
        (A, [A, A], None, ""),
        (A, [None, None], "model:base", ""),
        (A, [A, None], "model:base", ""),
        (A, [B, B], "model:s0", "another chat template than its sources"),
        (A, [A, B], "model:base", "differ: merges keep that of the base"),
        (A, [B, "C" + B], "model:base", "differ: merges keep that of the base"),
        (None, [A, B], "model:s0", "the sources' differ: merges take that of s0"),
        (None, [A, B, B], "model:s1", "the sources' differ: merges take that of s1"),
    ],
)
def test_whose_template_a_search_has(
    base: str | None, sources: list[str | None], chosen: str | None, said: str
) -> None:
    told: list[str] = []
    models = [model(f"s{i}", template) for i, template in enumerate(sources)]
    found = choose_template("auto", model("base", base), models, {}, told.append)
    assert found == chosen
    assert [said in sentence for sentence in told] == ([True] if said else [])


def test_an_adapter_without_a_template_speaks_as_its_base() -> None:
    lora = model("lora", adapter=True, has_tokenizer=False)
    assert choose_template("auto", model("base", A), [lora], {}, print) is None
    trained = model("trained", B, adapter=True)
    told: list[str] = []
    found = choose_template("auto", model("base"), [lora, trained], {}, told.append)
    assert found == "model:trained" and len(told) == 1


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("base", "model:base"),
        ("org/one", "model:one@pinned"),
        ("model:one@pinned", "model:one@pinned"),
        ("chatml", "chatml"),
        (OTHER, OTHER),
        (None, None),
    ],
)
def test_a_spec_may_choose(wanted: str | None, chosen: str | None) -> None:
    told: list[str] = []
    names = {"org/base": "base", "org/one": "one@pinned"}
    sources = [model("one@pinned", B)]
    assert choose_template(wanted, model("base", A), sources, names, told.append) == chosen
    assert not told


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("org/absent", "write base, a model of the run, one of"),
        ("chatlm", "write base, a model of the run, one of"),
        ("one", "names one, which has none"),
    ],
)
def test_a_choice_that_is_none_is_refused(wanted: str, said: str) -> None:
    with pytest.raises(MorphingError, match=said):
        choose_template(wanted, model("base", A), [model("one")], {}, print)


def test_models_without_tokenizers() -> None:
    bare = model("bare", has_tokenizer=False)
    check_tokenizers(model("base"), [bare, model("lora", rows=0, adapter=True)])
    with pytest.raises(MorphingError, match=r"base bare has no tokenizer.*put that of one"):
        check_tokenizers(bare, [model("large", rows=12), model("one")])
    with pytest.raises(MorphingError, match=r"base bare has no tokenizer.*: choose a base"):
        check_tokenizers(bare, [model("large", rows=12)])
    with pytest.raises(MorphingError, match=r"bare has no tokenizer and another vocabulary"):
        check_tokenizers(model("base", rows=12), [bare])


# --- a search ------------------------------------------------------------------------------------


def save_models(folder: Path) -> None:
    """The zoo's base as a pretrained one would be, and two children that end turns otherwise."""
    for name in ("base", "english-math", "word-games"):
        shutil.copytree(zoo.model_folder(name), folder / name)
        (folder / name / "README.md").unlink()
    (folder / "base" / "chat_template.jinja").unlink()
    for name in ("english-math", "word-games"):
        path = folder / name / "generation_config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({**settings, "eos_token_id": [2, 4]}))


def spec(folder: Path, **changes: Any) -> RunSpec:
    data = {
        "base": str(folder / "base"),
        "sources": [str(folder / "english-math"), str(folder / "word-games")],
        "benchmarks": [{"benchmark": "zoo-english-arithmetic", "samples": 8, "holdout": 8}],
        "method": "task_arithmetic",
        "search": {"sampler": "random", "evaluations": 2, "seed": 1},
        "device": "cpu",
    }
    return parse_spec(data | changes)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    save_models(tmp_path)
    return tmp_path


@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
def test_a_merge_is_exported_as_it_was_scored(method: str, models: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from morphing.benchmarks.data.samples import load_samples
    from morphing.benchmarks.evaluate import evaluate

    told: list[str] = []
    run = create_run(models / "run", spec(models, method=method), told=told.append)
    assert told == [
        "The base has no chat template: merges take that of"
        f" {models / 'english-math'}, with its end tokens; `chat_template` in the spec chooses"
        " another."
    ]
    Loop(run).search()
    trial = run.complete()[-1]
    assert trial.recipe.template_model == str(models / "english-math")
    write_export(run, trial.number, models / "out")

    tokenizer = AutoTokenizer.from_pretrained(models / "out")
    loaded = AutoModelForCausalLM.from_pretrained(models / "out")
    theirs = AutoTokenizer.from_pretrained(models / "english-math")
    assert tokenizer.chat_template == theirs.chat_template
    assert set(loaded.generation_config.eos_token_id) == {2, 4}
    (use,) = run.spec.tasks
    samples = load_samples(use.declaration, "search", use.samples)
    score = evaluate(loaded, tokenizer, use.declaration, samples)
    answers = [(row["id"], row["text"]) for row in run.outputs(trial.number)[use.declaration.name]]
    assert answers == [(output.id, output.text) for output in score.outputs]
    card = model_card(card_facts(run, trial.number, "Merged"), "merged")
    assert "The chat template, and what ends an answer, are those of `english-math`" in card
    assert str(models) not in card


def test_all_of_a_run_are_asked_in_one_template(models: Path) -> None:
    run = create_run(models / "run", spec(models))
    bench = Workbench(run)
    for recipe in (
        *(alone(name, run.spec) for name in (run.spec.base, *run.spec.sources)),
        average(run.spec.sources, run.spec),
    ):
        bench.morph(recipe)
        assert bench.morpher.tokenizer.chat_template
        assert set(bench.morpher.model.generation_config.eos_token_id) == {2, 4}


@pytest.mark.parametrize("strategy", ["dfs", "ps+dfs"])
def test_paths_have_it_too(strategy: str, models: Path) -> None:
    search = {
        "sampler": "evolve",
        "evaluations": 2,
        "space": {"strategy": strategy, "repeats": 1},
    }
    run = create_run(models / "run", spec(models, search=search))
    Loop(run).search()
    for trial in run.complete():
        assert trial.recipe.template_model == str(models / "english-math")


def test_a_spec_says_otherwise_and_a_pinned_one_again(models: Path) -> None:
    (models / "word-games" / "chat_template.jinja").write_text(OTHER)
    told: list[str] = []
    auto = prepare(spec(models), told=told.append)
    assert auto.chat_template == f"model:{models / 'english-math'}" and len(told) == 1
    chosen = prepare(spec(models, chat_template=str(models / "word-games")), told=told.append)
    assert chosen.chat_template == f"model:{models / 'word-games'}" and len(told) == 1
    assert prepare(chosen).chat_template == chosen.chat_template
    assert str(models / "word-games") in template_sentence(chosen)
    assert parse_spec({**chosen.model_dump(), "chat_template": None}).template is None


def test_the_zoo_needs_no_word_of_it() -> None:
    from morphing.runs.spec import zoo_spec

    told: list[str] = []
    assert (
        choose_template("auto", inspect("zoo:base"), [inspect("zoo:word-games")], {}, told.append)
        is None
    )
    assert not told and not template_sentence(zoo_spec())


def test_a_base_without_a_tokenizer_is_refused_before_there_is_a_run(models: Path) -> None:
    (models / "base" / "tokenizer.json").unlink()
    with pytest.raises(MorphingError, match=f"The base {models / 'base'} has no tokenizer"):
        create_run(models / "run", spec(models))
    assert not (models / "run").exists()
    with pytest.raises(MorphingError, match=f"{models / 'base'} has no tokenizer"):
        load_single(str(models / "base"), device="cpu")


def test_a_source_without_a_tokenizer_has_the_bases(models: Path) -> None:
    (models / "word-games" / "tokenizer.json").unlink()
    (models / "word-games" / "chat_template.jinja").unlink()
    run = create_run(models / "run", spec(models))
    bench = Workbench(run)
    bench.morph(alone(str(models / "word-games"), run.spec))
    assert bench.morpher.tokenizer.chat_template
