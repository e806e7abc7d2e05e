"""The loaded models are used by one at a time, in order, each with their own token."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphing.errors import MorphingError
from morphing.runs.holdout import score_holdout
from morphing.runs.prepare import create_run
from morphing.runs.progress import quiet
from morphing.runs.run import Run
from morphing.runs.spec import parse_spec
from morphing.runs.trial import Trial
from morphing.runs.workbench import alone
from morphing.ui.bench import Bench, Turns

DATA = {
    "base": "zoo:base",
    "sources": ["zoo:english-math"],
    "benchmarks": [{"benchmark": "zoo-english-arithmetic", "samples": 2, "holdout": 2}],
    "method": "task_arithmetic",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return create_run(tmp_path_factory.mktemp("bench") / "run", parse_spec(DATA))


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    turns, order = Turns(), []
    asked = [threading.Event() for _ in range(3)]

    def take(place: int) -> None:
        with turns.mine(lambda *_: asked[place].set()):
            order.append(place)

    waiting = []
    with turns.mine(quiet):
        for place in range(3):
            thread = threading.Thread(target=take, args=(place,), daemon=True)
            thread.start()
            waiting.append(thread)
            assert asked[place].wait(60), "it is told that it waits"
    # Who asks again at once comes after those who waited.
    with turns.mine(quiet):
        order.append("again")
    for thread in waiting:
        thread.join(60)
    assert order == [0, 1, 2, "again"]


def test_who_gives_up_waiting_leaves_the_others_their_turn() -> None:
    turns = Turns()

    def leave(*_: object) -> None:
        raise InterruptedError

    with turns.mine(quiet), pytest.raises(InterruptedError), turns.mine(leave):
        pass
    with turns.mine(quiet):
        pass


def test_too_many_who_wait_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHING_LIMIT_WAITING", "1")
    turns, waits, left = Turns(), threading.Event(), threading.Event()

    def wait() -> None:
        with turns.mine(lambda *_: waits.set()):
            left.set()

    with turns.mine(quiet):
        threading.Thread(target=wait, daemon=True).start()
        assert waits.wait(60)
        with pytest.raises(MorphingError, match="1 requests wait already"), turns.mine(quiet):
            pass
    assert left.wait(60)


def test_each_acts_with_their_own_token_and_none_is_kept(run: Run) -> None:
    bench, seen = Bench(), []
    for token in ("hf_alice", "hf_bob", None, "hf_alice"):
        with bench.use(run, token, quiet) as loaded:
            seen.append((loaded, loaded.token))
        assert loaded.token is None
    assert [token for _, token in seen] == ["hf_alice", "hf_bob", None, "hf_alice"]
    assert len({id(loaded) for loaded, _ in seen}) == 1, "the models stay loaded"
    with pytest.raises(InterruptedError), bench.use(run, "hf_alice", quiet) as loaded:
        raise InterruptedError
    assert loaded.token is None


def test_the_holdout_is_scored_in_turns_between_which_others_come(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, between = Bench(), []

    class Counted(Bench):
        def use(self, *given: object) -> Iterator[object]:  # type: ignore[override]
            between.append(None)
            return bench.use(*given)  # type: ignore[arg-type,return-value]

    recipe = alone("zoo:english-math", run.spec)
    monkeypatch.setattr(Run, "trial", lambda self, number: Trial(number, {}, recipe))
    using = Counted()
    score_holdout(run, [3, 4], lambda: using.use(run, None, quiet), quiet)  # type: ignore[arg-type]
    assert len(between) == 4, "base, source and two trials"
    assert run.holdout(3) and run.holdout(4)
    score_holdout(run, [3, 4], lambda: using.use(run, None, quiet), quiet)  # type: ignore[arg-type]
    assert len(between) == 4, "scored once"


def test_models_that_stay_loaded_are_looked_at_again_before_each_use(tmp_path: Path) -> None:
    import shutil

    from morphing import zoo
    from morphing.runs.prepare import create_run
    from morphing.runs.spec import parse_spec
    from morphing.sources.content import ModelChanged

    for name in ("base", "english-math"):
        shutil.copytree(zoo.model_folder(name), tmp_path / name)
        (tmp_path / name / "README.md").unlink()
    data = {
        "base": str(tmp_path / "base"),
        "sources": [str(tmp_path / "english-math")],
        "benchmarks": [{"benchmark": "zoo-english-arithmetic", "samples": 2, "holdout": 2}],
        "method": "task_arithmetic",
        "device": "cpu",
    }
    run, bench = create_run(tmp_path / "run", parse_spec(data)), Bench()
    with bench.use(run, None, lambda *_: None) as loaded:
        pass
    with bench.use(run, None, lambda *_: None) as again:
        assert again is loaded
    template = tmp_path / "base" / "chat_template.jinja"
    kept = template.read_text()
    template.write_text("{{ messages }}")
    for _ in range(2):
        with pytest.raises(ModelChanged), bench.use(run, None, lambda *_: None):
            pass
    template.write_text(kept)
    with bench.use(run, None, lambda *_: None) as loaded:
        loaded.check_models()
