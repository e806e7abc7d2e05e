"""What the Hub's client raises, in one sentence, over every answer; and a busy Hub asked again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from morphing.errors import MorphingError
from tests.hub.app import Busy
from tests.hub.server import RunningHub


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr("morphing.hub_errors.time.sleep", waited.append)
    return waited


@pytest.fixture
def repo(hub: RunningHub) -> str:
    folder = hub.root / "models" / "alice" / "asked"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    return "alice/asked"


def commit_of(repo: str) -> str:
    from morphing.sources.hub import commit

    return commit(repo, None, None)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_hub_is_asked_again(
    hub: RunningHub, repo: str, naps: list[float], status: int
) -> None:
    hub.busy.extend([Busy("/api/models/", status)] * 3)
    assert len(commit_of(repo)) == 40
    assert naps == [1, 2, 4]


def test_a_busy_hub_is_asked_again_when_it_says(
    hub: RunningHub, repo: str, naps: list[float]
) -> None:
    limit = {"ratelimit": '"api";r=0;t=7', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}
    hub.busy.extend(
        [
            Busy("/api/models/", 429, limit),
            Busy("/api/models/", 503, {"Retry-After": "3"}),
        ]
    )
    assert len(commit_of(repo)) == 40
    assert naps == [7, 3]


def test_a_hub_that_stays_busy_is_told(hub: RunningHub, repo: str, naps: list[float]) -> None:
    hub.busy.extend([Busy("/api/models/", 503)] * 9)
    with pytest.raises(MorphingError, match="HTTP 503 for the model alice/asked: try again later"):
        commit_of(repo)
    assert len(naps) == 4


def test_a_long_wait_is_told_and_not_waited_for(
    hub: RunningHub, repo: str, naps: list[float]
) -> None:
    limit = {"ratelimit": '"api";r=0;t=240', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}
    hub.busy.extend([Busy("/api/models/", 429, limit)])
    with pytest.raises(MorphingError, match=r"HTTP 429.*try again in 4 minutes; with a login"):
        commit_of(repo)
    assert naps == []


def test_what_is_wrong_with_the_question_is_not_asked_again(
    hub: RunningHub, repo: str, naps: list[float]
) -> None:
    for status in (400, 403, 404, 409):
        hub.busy.extend([Busy("/api/models/", status)])
        with pytest.raises(MorphingError):
            commit_of(repo)
    assert naps == []


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(MorphingError) as caught:
        act()
    return str(caught.value)


@pytest.mark.parametrize("writing", [False, True])
def test_every_exception_of_the_client_is_one_sentence_without_the_token(writing: bool) -> None:
    """Every exception class of the Hub's client, raised while reading and while writing."""
    import httpx2
    from huggingface_hub import errors

    from morphing.hub_errors import Subject, hub_errors

    secret = "hf_thesecrettoken"
    subject = Subject.writing("the push to alice/x") if writing else Subject.model("alice/x", "v1")
    classes = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.HfHubHTTPError)
    ]
    assert len(classes) > 8
    request = httpx2.Request("GET", "http://hub/api", headers={"authorization": f"Bearer {secret}"})
    for kind in classes:
        for status in (400, 401, 403, 404, 409, 413, 429, 500):
            response = httpx2.Response(status, request=request)

            def act(kind: type = kind, response: httpx2.Response = response) -> None:
                with hub_errors(subject):
                    raise kind("two\nlines", response=response)

            said = refusal(act)
            assert "\n" not in said and said.endswith(".") and secret not in said, said
            assert "alice/x" in said
    others = [
        errors.LocalTokenNotFoundError("no token"),
        errors.OfflineModeIsEnabled("offline"),
        errors.HFValidationError("bad id"),
        errors.LocalEntryNotFoundError("not cached"),
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
    ]
    for error in others:

        def act(error: Exception = error) -> None:
            with hub_errors(subject):
                raise error

        said = refusal(act)
        assert "\n" not in said and said.endswith(".") and "alice/x" in said, said
