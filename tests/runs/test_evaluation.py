"""Real recipes of the zoo, evaluated with and without racing, and chosen on the holdout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from morphing.cli.terminal import front_data, print_front
from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.publishing.card import model_card
from morphing.publishing.publish import card_facts
from morphing.runs.evaluation import evaluate_recipe
from morphing.runs.figures import figures_of
from morphing.runs.plain_recipes import alone
from morphing.runs.prepare import create_run
from morphing.runs.records import outputs_beside
from morphing.runs.run import Run
from morphing.runs.scales import scales
from morphing.runs.selection import selection
from morphing.runs.spec import parse_spec, zoo_spec
from morphing.runs.workbench import Workbench
from morphing.ui import session
from morphing.ui.scene import Scene
from morphing.ui.watch.differences import compare
from morphing.ui.watch.holdout import _table
from morphing.ui.watch.trials import peek
from tests.runs.recording import tell

TASKS = ("zoo-english-arithmetic", "zoo-kanji-numbers", "zoo-word-puzzles")


def average(run: Run, weight: float) -> Recipe:
    """All specialists at once, which is good at all three tasks."""
    models = [{"model": name, "parameters": {"weight": weight}} for name in run.spec.sources]
    config = {
        "merge_method": "task_arithmetic",
        "base_model": run.spec.base,
        "models": models,
        "parameters": {"normalize": False},
        "dtype": "float32",
    }
    return Recipe(config)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """A run with racing whose one trial is the average, its references scored."""
    data = zoo_spec().model_dump()
    data["search"] |= {"racing": True}
    for use in data["benchmarks"]:
        use |= {"samples": 24, "holdout": 30}
    data |= {"device": "cpu", "measures": ["layers"]}
    run = create_run(tmp_path_factory.mktemp("evaluation") / "run", parse_spec(data))
    bench = Workbench(run)
    bench.reference_results("search")
    recipe = average(run, 0.7)
    tell(run, evaluate_recipe(run, bench, recipe), recipe)
    yield bench


def test_an_evaluation_has_all_there_is_to_tell(bench: Workbench) -> None:
    run = bench.run
    (trial,) = run.complete()
    assert run.spec.objectives == (*TASKS, "layers")
    rows = run.outputs(trial.number)
    assert trial.results is not None
    for name, value in zip(TASKS, trial.values, strict=False):
        assert value == trial.results[name].value > 0.3
        assert value == sum(row["score"] for row in rows[name]) / 24
        assert trial.results[name].tokens == sum(row["tokens"] for row in rows[name]) / 24
    base = run.reference_values()["zoo:base"]
    assert trial.values[3] == base["layers"] == 3 and base["parameters"] > 6e5
    rows = run.reference_outputs("search", "zoo:base")
    lengths = [row["tokens"] for name in TASKS for row in rows[name]]
    assert base["tokens"] == sum(lengths) / len(lengths) > 1 and base["throughput"] > 0


def test_the_two_parts_are_the_whole(bench: Workbench) -> None:
    """Every model is scored in the same two parts, so that all is repeatable to the bit."""
    bench.morph(average(bench.run, 0.7))
    whole = bench.score("search")
    first, rest = bench.score("search", piece="first"), bench.score("search", piece="rest")
    recorded = bench.run.outputs(0)
    for name in TASKS:
        assert (first[name].n, rest[name].n) == (16, 8)
        assert whole[name].outputs == (*first[name].outputs, *rest[name].outputs)
        assert [o.text for o in whole[name].outputs] == [row["text"] for row in recorded[name]]


def test_a_hopeless_recipe_is_given_up_and_a_specialist_is_not(bench: Workbench) -> None:
    run = bench.run
    rivals = run.complete()
    hopeless = evaluate_recipe(run, bench, alone("zoo:base", run.spec), rivals)
    assert hopeless.raced and hopeless.samples == dict.fromkeys(TASKS, 16)
    assert hopeless.results == {} and hopeless.constraints == ()
    assert hopeless.variances[3] == 0 < hopeless.variances[0]
    specialist = evaluate_recipe(run, bench, alone("zoo:english-math", run.spec), rivals)
    assert not specialist.raced and specialist.samples == dict.fromkeys(TASKS, 24)
    unopposed = evaluate_recipe(run, bench, alone("zoo:base", run.spec))
    assert not unopposed.raced


def test_the_front_on_the_holdout(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    run = bench.run
    assert selection(run) is None
    bench.reference_results("holdout")
    bench.holdout_results(0)
    chosen = selection(run)
    assert chosen is not None and chosen.unscored == () and chosen.hypervolume is not None
    (member,) = chosen.members
    assert [model.name for model in chosen.models] == [run.spec.base, *run.spec.sources]
    assert set(member.against) == {run.spec.base, *run.spec.sources}
    held = run.holdout(0)
    assert held is not None and set(held) == {*TASKS, "zoo-japanese-arithmetic"}
    for name, estimate in member.estimates.scores.items():
        assert estimate.value == pytest.approx(held[name].value)
        assert estimate.low <= estimate.value <= estimate.high
    # The mean is over the objectives, and differences are of the same samples.
    own = member.estimates.mean.value
    assert own == pytest.approx(sum(held[name].value for name in TASKS) / 3)
    for model in chosen.models:
        ahead = member.against[model.name].mean
        assert ahead.value == pytest.approx(own - model.estimates.mean.value)
        assert ahead.low > 0, "the average of all specialists is better over three tasks than one"
    trial = run.trial(0)
    assert trial.results is not None
    assert member.optimism[TASKS[0]] == trial.results[TASKS[0]].value - held[TASKS[0]].value
    assert member.values[:3] == tuple(held[name].value for name in TASKS) and member.on_front
    assert selection(run) == chosen, "the draws are seeded"

    data = json.loads(json.dumps(front_data(run)))
    assert data["selection"]["members"][0]["trial"] == 0
    assert data["scales"]["reference"] == list(scales(run).reference)
    assert data["directions"]["layers"] == "minimize"
    print_front(run)
    told = capsys.readouterr().out
    assert "the front on the holdout" in told and "Hypervolume on the holdout" in told

    card = model_card(card_facts(run, 0, "merge"), "you/merge")
    assert "[" in card.split("**Search split**")[0] and "| layers | lower |" in card
    assert "Less that of `zoo:" in card


def bits_per_byte(folder: Path, *others: str) -> Run:
    """A run for bits per byte, within a limit, and others; its one trial on the holdout."""
    text = {
        "name": "text",
        "dataset": "zoo:english-arithmetic",
        "split": "search",
        "kind": "perplexity",
        "target": "{{ question }}",
    }
    sizes = {"samples": 8, "holdout": 8}
    data = zoo_spec().model_dump() | {
        "device": "cpu",
        "measures": [],
        "benchmarks": [{"benchmark": name, **sizes} for name in (text, *others)],
        "constraints": [{"on": "text", "at_most": 20.0}],
    }
    run = create_run(folder, parse_spec(data))
    bench = Workbench(run)
    bench.reference_results("search")
    recipe = average(run, 0.7)
    tell(run, evaluate_recipe(run, bench, recipe), recipe)
    bench.reference_results("holdout")
    bench.holdout_results(0)
    return run


def test_bits_per_byte_are_in_no_mean_and_in_no_percent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bits_per_byte(tmp_path / "run", TASKS[0])
    chosen = selection(run)
    assert chosen is not None
    (member,) = chosen.members
    text, sums = (member.estimates.scores[name] for name in ("text", TASKS[0]))
    assert member.estimates.mean == sums and member.merit == sums.value < 1 < text.value
    assert set(member.optimism) == {TASKS[0]}
    print_front(run)
    told = capsys.readouterr().out
    assert "Constraint: text at most 20.000." in told
    assert f"{text.value:.3f} [{text.low:.3f}, {text.high:.3f}]" in told
    assert "Not in percent and in no mean: text." in told
    card = model_card(card_facts(run, 0, "merge"), "you/merge")
    assert "Mean over the search's benchmarks that are in percent" in card
    assert "text at most 20.000" in card

    references, held = session.references(run), session.held(run)
    shown = _table(Scene(run, run.status(), figures_of(run), references, held))
    assert f"<td>{text.value:.3f}<br>" in shown and f"<b>{100 * sums.value:.1f}%</b>" in shown
    assert "Not in percent, and so in no mean: text." in shown


def test_where_nothing_is_a_share_the_first_objective_ranks(tmp_path: Path) -> None:
    run = bits_per_byte(tmp_path / "run")
    chosen = selection(run)
    assert chosen is not None and chosen.optimism is None
    (member,) = chosen.members
    assert member.estimates.mean is None and member.against["zoo:base"].mean is None
    assert member.merit == -member.values[0] < 0
    best = chosen.best_of(run.spec.sources)
    assert best is not None
    assert best.values[0] == min(m.values[0] for m in chosen.models if m.name != "zoo:base")


def test_a_holdout_of_an_earlier_version_can_be_read(bench: Workbench) -> None:
    run = bench.run
    bench.holdout_results(0)
    path = run.holdout_path(0)
    results = json.loads(path.read_text())["results"]
    path.write_text(json.dumps(results))
    outputs_beside(path).unlink()
    held = run.holdout(0)
    assert held is not None and held[TASKS[0]].n == 30
    assert selection(run) is None
    assert "±" in model_card(card_facts(run, 0, "merge"), "you/merge").split("**Search")[0]
    assert bench.holdout_results(0) == held, "scored again, since it lacks outputs"
    assert outputs_beside(path).exists()


def test_a_value_that_is_not_finite_is_refused(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "morph", lambda recipe: float("nan"))
    with pytest.raises(MorphingError, match="distance from the base is nan, which is not finite"):
        evaluate_recipe(bench.run, bench, average(bench.run, 0.7))


def test_racing_off_scores_all_at_once(bench: Workbench, tmp_path: Path) -> None:
    data = bench.run.spec.model_dump()
    data["search"]["racing"] = False
    run = create_run(tmp_path / "run", parse_spec(data))
    plain = Workbench(run)
    plain.reference_results("search")
    found = evaluate_recipe(run, plain, alone("zoo:base", run.spec), bench.run.complete())
    assert not found.raced and found.samples == dict.fromkeys(TASKS, 24)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_names_its_benchmark(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """It is the recipe's failure, whichever sample of whichever benchmark has it."""
    from morphing.benchmarks.kinds import generation

    score = generation.score

    def broken(*arguments: Any) -> Any:
        outputs, cut = score(*arguments)
        return [*outputs[:-1], replace(outputs[-1], score=value)], cut

    monkeypatch.setattr(generation, "score", broken)
    with pytest.raises(MorphingError, match=f"{TASKS[0]} gave the sample .* {value}, which"):
        evaluate_recipe(bench.run, bench, average(bench.run, 0.5))


@pytest.mark.parametrize(("on", "told"), [("sparsity", False), ("layers", True)])
@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_a_measure_that_is_not_finite_fails_where_it_is_asked_for(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, on: str, told: bool, value: float
) -> None:
    """``layers`` is an objective of this run, and nothing is about its sparsity."""
    from morphing.runs import evaluation

    measure = evaluation.measured
    monkeypatch.setattr(
        evaluation, "measured", lambda *arguments: {**measure(*arguments), on: value}
    )
    if told:
        with pytest.raises(MorphingError, match=f"{value} of the measure {on}"):
            evaluate_recipe(bench.run, bench, average(bench.run, 0.5))
    else:
        assert evaluate_recipe(bench.run, bench, average(bench.run, 0.5)).values


def test_a_rival_whose_outputs_are_elsewhere_is_no_rival(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a database and no shared folder they lie where their worker ran; or they are damaged."""
    run, path = bench.run, bench.run.outputs_path(0)
    kept = path.read_bytes()
    hopeless = alone("zoo:base", run.spec)
    try:
        path.unlink()
        assert not evaluate_recipe(run, bench, hopeless, run.complete()).raced
        monkeypatch.setenv("MORPHING_RUNS", str(run.folder.parent))
        shown = peek(run.name, 0, TASKS[0], False), compare(run.name, 0, TASKS[0], "zoo:base", "")
        assert all("Not on this machine" in each and "trial 0" in each for each in shown)
        path.write_bytes(kept[:-9])
        assert not evaluate_recipe(run, bench, hopeless, run.complete()).raced
    finally:
        path.write_bytes(kept)
    assert evaluate_recipe(run, bench, hopeless, run.complete()).raced
