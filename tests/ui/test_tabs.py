"""What the tabs do, without a browser: each handler is a method that takes and gives values."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from safetensors.torch import load_file, save_file

from morphing import zoo
from morphing.errors import MorphingError
from morphing.runs import launch
from morphing.runs.run import Run, list_runs
from morphing.ui import app, session
from morphing.ui.compare.tab import Compare, compare_tab
from morphing.ui.compose import cards
from morphing.ui.compose.choice import Choice, Settings
from morphing.ui.compose.own import Own
from morphing.ui.compose.tab import Compose, compose_tab
from morphing.ui.compose.tab import pick as pick_card
from morphing.ui.publish.tab import Publish, publish_tab, suggested
from morphing.ui.watch import differences, holdout, trials
from morphing.ui.watch import tab as watch
from tests.runs.whole_run import A, make_run

HERE = SimpleNamespace(client=SimpleNamespace(host="127.0.0.1"), query_params={})


def event(action: str, value: str) -> Any:
    """A click on an element that says so."""
    return SimpleNamespace(action=action, value=value)


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page for its owner alone, with a root of its own."""
    for name in ("SPACE_ID", "MORPHING_PUBLIC", "GRADIO_SERVER_NAME", "GRADIO_SHARE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MORPHING_RUNS", str(tmp_path / "runs"))
    return tmp_path


@pytest.fixture
def compose() -> Compose:
    with gr.Blocks():
        return compose_tab(gr.Textbox(), gr.State([]), gr.Tabs())


@pytest.fixture
def publishing() -> Publish:
    with gr.Blocks():
        return publish_tab(gr.Textbox())


@pytest.fixture
def comparing() -> Compare:
    with gr.Blocks():
        return compare_tab(gr.Textbox(), gr.State([]))


def values(tab: Compose, choice: Choice, **settings: Any) -> dict[Any, Any]:
    """What Gradio hands to a handler of the tab."""
    said = {**Settings().__dict__, "evaluations": 5, "samples": 8, "holdout": 8, **settings}
    return {
        tab.choice: choice,
        tab.own: [],
        **{control: said[name] for name, control in tab.controls.items()},
    }


# --- Compose


def test_a_model_is_put_where_it_was_asked_for(compose: Compose) -> None:
    bare = Choice("zoo:base", (), ())
    added = compose.put_source(bare, " zoo:word-games ", None)
    assert added[compose.choice].sources == ("zoo:word-games",) and added[compose.wanted] == ""
    based = compose.put_base(bare, "zoo:english-math", None)
    assert based[compose.choice].base == "zoo:english-math"
    hit = compose.take_hit(bare, event("add", "zoo:word-games"), None)
    assert hit[compose.choice] == added[compose.choice]
    for text, told in (("", "Write the model's"), ("no/such model", "no/such model")):
        with pytest.raises(MorphingError, match=told):
            compose.put_source(bare, text, None)


def test_a_click_in_the_catalogue_filters_or_takes(compose: Compose) -> None:
    start = Choice.zoo()
    assert compose.look_through(start, event("skill", "Maths")) == {compose.skill: "Maths"}
    taken = compose.look_through(start, event("objective", "gsm8k"))
    assert taken[compose.choice].roles["gsm8k"] == "objective"
    assert pick_card(start, event("method", "ties")).method == "ties"


def test_what_is_shown_follows_the_choice(compose: Compose) -> None:
    shown = compose.show(Choice.zoo().after("strategy", "dfs"), None)
    assert shown[compose.weights].visible is False and "Layer paths" in shown[compose.space]
    told = compose.sum_up(values(compose, Choice.zoo(), evaluations=7), None)
    assert "proposes 7 recipes" in told


def test_a_launch_makes_a_run_of_what_was_chosen(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, int]] = []
    monkeypatch.setattr(
        launch, "start", lambda run, token, own_login, workers: started.append((run.name, workers))
    )
    steps = list(compose.start_run(values(compose, Choice.zoo(), workers=2), None, None, HERE))  # type: ignore[arg-type]
    (run,) = list_runs(session.runs_root())
    assert started == [(run.name, 2)]
    assert run.spec.search.evaluations == 5
    assert steps[-1][compose.current] == run.name and steps[-1][compose.own] == [run.name]
    assert steps[-1][compose.go].interactive is True


def test_a_launch_that_fails_leaves_the_run_and_says_why(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise MorphingError("No <room>.")

    monkeypatch.setattr(launch, "start", fails)
    *_, last = compose.start_run(values(compose, Choice.zoo()), None, None, HERE)  # type: ignore[arg-type]
    assert "No &lt;room&gt;." in last[compose.note] and last[compose.current]


def test_what_was_mended_of_a_model_is_said(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On its card, and as the search is launched; tensors' names are text from outside."""
    folder = Path(shutil.copytree(zoo.model_folder("english-math"), tmp_path / "math"))
    tensors = load_file(folder / "model.safetensors")
    tensors["v_head.<img src=x>.weight"] = torch.ones(2)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    choice = Choice.zoo().after("add", str(folder))
    assert "stores v_head.&lt;img src=x&gt;.weight" in cards.models(choice, None)
    said: list[str] = []
    monkeypatch.setattr(gr, "Info", lambda text, **_: said.append(text))
    monkeypatch.setattr(launch, "start", lambda *_, **__: None)
    list(compose.start_run(values(compose, choice), None, None, HERE))  # type: ignore[arg-type]
    assert ["v_head.&lt;img src=x&gt;.weight" in text for text in said] == [True]


def test_visitors_launch_within_limits(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    monkeypatch.setattr(
        launch, "start", lambda run, token, own_login, workers: started.append(own_login)
    )
    monkeypatch.setenv("MORPHING_PUBLIC", "1")
    monkeypatch.setenv("MORPHING_LIMIT_HOURS", "3")
    list(compose.start_run(values(compose, Choice.zoo()), None, None, HERE))  # type: ignore[arg-type]
    (run,) = list_runs(session.runs_root())
    assert run.spec.search.hours == 3 and started == [False]
    with pytest.raises(MorphingError, match="2 workers"):
        list(compose.start_run(values(compose, Choice.zoo(), workers=5), None, None, HERE))  # type: ignore[arg-type]
    folder = values(compose, Choice.zoo().after("add", str(run.folder)))
    with pytest.raises(MorphingError, match="no model on the Hub"):
        list(compose.start_run(folder, None, None, HERE))  # type: ignore[arg-type]


# --- data of one's own


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Own, dict[Any, Any]]]:
    """The panel, and what it holds after a table was uploaded."""
    from morphing.ui.compose import own as module

    file = tmp_path / "sums.csv"
    rows = "".join(f"{n} plus {n}?,{2 * n},hint {n}\n" for n in range(12))
    file.write_text(f"question,answer,hint\n{rows}")
    with gr.Blocks():
        panel = module.own_panel(gr.State(Choice.zoo()))
    yield panel, panel.receive(str(file), None, HERE)  # type: ignore[arg-type]


def test_a_table_is_seen_mapped_and_taken(own: tuple[Own, dict[Any, Any]]) -> None:
    panel, held = own
    assert "0 plus 0?" in held[panel.view]
    mapped = panel.pick(held[panel.draft], event("role", "prompt:hint"))
    assert "hint 0" in mapped[panel.view]
    asked = panel.changed("prompt", held[panel.draft], "Sum: {{ question }}", None)
    assert "Sum: 0 plus 0?" in asked[panel.view] and panel.controls["prompt"] not in asked
    for take, role in ((panel.take_it, "objective"), (panel.report_it, "report")):
        taken = take(Choice.zoo(), held[panel.draft])
        assert taken[panel.choice].roles["sums"] == role and taken[panel.draft] is None
    assert panel.closed()[panel.panel].visible is False


@pytest.mark.parametrize("value", ["x:hint", "__class__:hint", ":", "", "prompt"])
def test_clicks_that_no_card_offers_change_no_draft(
    own: tuple[Own, dict[Any, Any]], value: str
) -> None:
    panel, held = own
    before = held[panel.draft]
    made = panel.pick(before, event("role", value))
    assert made == gr.skip() or made[panel.draft].fields["kind"] == before.fields["kind"]


def test_nothing_is_taken_before_it_was_looked_at(own: tuple[Own, dict[Any, Any]]) -> None:
    panel, _ = own
    with pytest.raises(MorphingError, match="Have a look"):
        panel.take_it(Choice.zoo(), None)
    with pytest.raises(MorphingError, match="Write a dataset's id"):
        panel.open_it("  ", None)
    assert panel.changed("prompt", None, "x", None) == gr.skip()


# --- Watch, Publish, Compare


@pytest.fixture
def run() -> Run:
    return make_run(session.runs_root() / "mine")


def test_a_run_is_asked_to_pause_and_to_stop(run: Run) -> None:
    watch.pause("mine")
    assert run.requested() == "pause"
    watch.go_on("mine", None, None, HERE)  # type: ignore[arg-type]
    assert run.requested() == "run"
    watch.stop("mine")
    assert run.requested() == "stop"
    for name in ("../mine", "no such run", ""):
        watch.pause(name)  # nothing to ask
        watch.go_on(name, None, None, HERE)  # type: ignore[arg-type]


def test_answers_are_listed_and_compared(run: Run) -> None:
    assert trials.peek("mine", 0, A, False).count("<tr>") == 5
    assert trials.peek("mine", 0, A, True).count("<tr>") == 2  # the head and the wrong one
    assert trials.peek("mine", None, A, False) == trials.peek("other", 0, A, False) == ""
    told = differences.compare("mine", 0, A, "zoo:english-math", "differ")
    assert "on the same 4 samples" in told
    with pytest.raises(MorphingError, match="no model of this run"):
        differences.compare("mine", 0, A, "zoo:word-games", "differ")


def test_there_must_be_a_front_to_score(run: Run) -> None:
    with gr.Blocks():
        panel = holdout.Holdout(gr.Button(), gr.HTML(), gr.HTML())
    with pytest.raises(MorphingError, match="no front"):
        list(panel.score_it("no such run", None))
    assert panel.ready()[panel.score].interactive is True


def test_what_cannot_be_pushed_or_exported_is_said_first(
    run: Run, publishing: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MorphingError, match="Choose a merge first"):
        list(publishing.push_it("mine", None, "alice/x", True, None))
    with pytest.raises(MorphingError, match="Name a new folder"):
        list(publishing.export_it("mine", 0, " "))
    assert str(suggested("mine", 0, None)).endswith("/mine-0")
    monkeypatch.setenv("MORPHING_PUBLIC", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_the_owner")
    with pytest.raises(MorphingError, match="Sign in first"):
        list(publishing.push_it("mine", 0, "alice/x", True, None))
    with pytest.raises(MorphingError, match="no folder of yours"):
        list(publishing.export_it("mine", 0, "/tmp/x"))
    assert str(suggested("mine", 0, None)).startswith("you/") and "mine" not in str(
        suggested("mine", 0, None)
    )


def test_models_answer_and_what_they_said_is_kept(comparing: Compare, run: Run) -> None:
    said = "1 + 1 \x1b[2J<b>"
    steps = list(comparing.reply("mine", ["zoo:english-math"], said, {}, None))
    talks = [step[comparing.histories] for step in steps if comparing.histories in step][-1]
    asked, answered = talks["zoo:english-math"]
    assert asked == {"role": "user", "content": said} and answered["role"] == "assistant"
    chat = steps[-2][comparing.chats[0]]
    assert chat[0]["content"] == "1 + 1 \\u001b[2J&lt;b&gt;" and chat[1]["content"]
    assert steps[-1] == {comparing.status: ""}
    shown = comparing.shown(["zoo:english-math"], talks)
    assert len(shown[comparing.chats[0]]) == 2 and shown[comparing.chats[1]] == []
    assert comparing.emptied()[comparing.histories] == {}


def test_what_cannot_be_asked_is_said(comparing: Compare, run: Run) -> None:
    for members, text, told in (
        ([], "hello", "Pick at least one"),
        (["zoo:word-games"], "hello", "no model of this run"),
        (["trial 99"], "hello", "no completed trial 99"),
        (["zoo:base"], "x" * 8001, "longer than 8000"),
    ):
        with pytest.raises(MorphingError, match=told):
            list(comparing.reply("mine", members, text, {}, None))
    assert list(comparing.reply("mine", ["zoo:base"], "  ", {}, None)) == []


# --- the page


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> app.Page:
    made: list[app.Page] = []
    wire = app._wire
    monkeypatch.setattr(app, "_wire", lambda page, *rest: (made.append(page), wire(page, *rest)))
    app.build()
    return made[0]


def test_only_what_changed_is_drawn_anew(page: app.Page, run: Run) -> None:
    first = page.refresh("mine", [], None, None, {})
    seen = first.pop(page.seen)
    assert len(first) == len(page.views)
    assert page.refresh("mine", [], None, None, seen) == gr.skip()
    picked = page.refresh("mine", ["trial 0"], None, None, seen)
    assert 1 < len(picked) < len(page.views)
    (run.folder / "spec.yaml").write_text("nonsense")
    told = page.refresh("mine", [], None, None, seen)
    assert list(told) == [page.seen] and "error" in told[page.seen]
    assert page.refresh("mine", [], None, None, told[page.seen]) == gr.skip(), "told once"


def test_clicks_and_addresses_lead_where_they_say(page: app.Page, run: Run) -> None:
    assert page.pick([], event("focus", "3")) == {page.chosen: 3}
    assert page.pick(["a"], event("toggle", "trial 1")) == {page.tray: ["a", "trial 1"]}
    many = "\n".join(f"trial {n}" for n in range(9))
    assert len(page.pick([], event("pair", many))[page.tray]) == 4
    assert page.pick([], event("publish", "2"))[page.tabs].selected == "publish"
    assert page.arrive(HERE)[page.current] == "mine"  # type: ignore[arg-type]
    for asked in ("../mine", "<img>", "other"):
        request = SimpleNamespace(query_params={"run": asked})
        assert page.arrive(request)[page.current] == "mine"  # type: ignore[arg-type]


def test_a_page_for_others_offers_no_folder_no_login_and_no_pattern_of_ones_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    blocks = list(app.build().blocks.values())
    # Gradio would show the machine's login as every visitor's.
    assert gr.LoginButton not in {type(block) for block in blocks}
    (export,) = (b for b in blocks if getattr(b, "value", "") == "Export to a folder")
    assert not export.parent.visible
    (rule,) = (b for b in blocks if getattr(b, "label", "") == "The answer is")
    assert not rule.allow_custom_value
    (limit,) = (b for b in blocks if getattr(b, "elem_id", "") == "workers")
    assert limit.maximum == 2
