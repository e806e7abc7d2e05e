"""What is held is what would be worked out now."""

from __future__ import annotations

from pathlib import Path

import pytest

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.budget import seconds_per_trial
from morphing.runs.progress import duration
from morphing.runs.spec import zoo_spec
from morphing.runs.trial import Trial
from morphing.ui import session
from morphing.ui.cache import Cache
from morphing.ui.compose import choice
from tests.runs.recording import tell_values
from tests.runs.whole_run import make_run


def test_a_value_is_made_once_until_its_stamp_or_its_place_is_gone() -> None:
    cache, made = Cache[int](2), []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    assert [cache.get("a", 1, make) for _ in range(3)] == [0, 0, 0]
    assert cache.get("a", 2, make) == 1
    cache.get("b", 1, make)
    assert cache.get("a", 2, make) == 1, "used last"
    cache.get("c", 1, make)
    assert cache.get("a", 2, make) == 1 and cache.get("b", 1, make) == 4

    def fails() -> int:
        raise ValueError

    with pytest.raises(ValueError):
        cache.get("d", 1, fails)
    assert cache.get("d", 1, make) == 5, "a failure is not held"


def test_a_runs_figures_follow_its_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHING_RUNS", str(tmp_path))
    make_run(tmp_path / "mine")
    run = session.find_run("mine")
    assert run is not None and session.find_run("mine") is run
    before = session.figures(run, 4)
    assert session.figures(run, 4) is before
    known = session.references(run)
    assert session.references(run) is known
    tell_values(run, 1.0, 1.0, -0.2)
    after = session.figures(run, 4)
    assert len(after.trials) == len(before.trials) + 1
    path = next((run.folder / "references" / "search").glob("*.json"))
    path.write_bytes(path.read_bytes() + b" ")
    assert session.references(run) is not known, "written again"
    (run.folder / "spec.yaml").write_bytes((run.folder / "spec.yaml").read_bytes() + b"\n")
    anew = session.find_run("mine")
    assert anew is not None and anew is not run
    assert session.figures(anew, 4) is not after


def test_no_token_and_nobody_elses_view_of_a_model_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str | None] = []

    def inspect(name: str, token: str | None) -> str:
        asked.append(token)
        if token is None:
            raise MorphingError("gated")
        return f"seen by {token}"

    monkeypatch.setattr(choice, "inspect", inspect)
    monkeypatch.setattr(choice, "_FOUND", Cache(9))
    monkeypatch.setattr(choice, "_TRIED", Cache(9))
    monkeypatch.setattr(choice.time, "monotonic", lambda: 100.0)
    assert choice.inspected("org/gated", "hf_alice") == "seen by hf_alice"
    for _ in range(2):
        with pytest.raises(MorphingError, match="gated"):
            choice.inspected("org/gated", None)
    assert choice.inspected("org/gated", "hf_alice") == "seen by hf_alice"
    assert asked == ["hf_alice", None], "a refusal is not asked for again at every redraw"
    monkeypatch.setattr(choice.time, "monotonic", lambda: 200.0)
    with pytest.raises(MorphingError):
        choice.inspected("org/gated", None)
    assert asked == ["hf_alice", None, None]
    assert "hf_alice" not in repr(list(choice._FOUND._held))


def test_a_trials_time_is_that_of_a_run_alike() -> None:
    spec = zoo_spec()
    trials = [Trial(n, {}, Recipe({}), seconds=seconds) for n, seconds in enumerate((2.0, 4.0))]
    tasks = {use.declaration.name for use in spec.tasks}
    other = spec.model_copy(update={"base": "zoo:word-games"})
    known = [(other, trials), (spec, []), (spec, trials)]
    assert seconds_per_trial(known, "zoo:base", tasks, 128) == 3.0
    assert seconds_per_trial(known, "zoo:base", tasks, 64) is None
    assert seconds_per_trial(known, "zoo:base", {"gsm8k"}, 128) is None


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "under a second"), (9.6, "10 s"), (72, "1 min 12 s"), (7500, "2 h 5 min")],
)
def test_a_time_is_told_alike_everywhere(seconds: float, told: str) -> None:
    assert duration(seconds) == told
