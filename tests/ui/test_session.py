"""Which run a visitor may see, and whose login they act with."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morphing.errors import MorphingError
from morphing.runs.run import Run, list_runs
from morphing.runs.spec import zoo_spec
from morphing.ui import session
from morphing.ui.quotas import QUOTAS, uploads_root


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "runs"
    monkeypatch.setenv("MORPHING_RUNS", str(root))
    for name in ("SPACE_ID", "MORPHING_PUBLIC", "GRADIO_SERVER_NAME", "GRADIO_SHARE"):
        monkeypatch.delenv(name, raising=False)
    Run.create(root / "mine", zoo_spec())
    Run.create(tmp_path / "outside", zoo_spec())
    return root


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", fullmatch=True)
PUBLIC = (
    {"SPACE_ID": "org/morphing"},
    {"GRADIO_SERVER_NAME": "0.0.0.0"},
    {"GRADIO_SHARE": "True"},
    {"MORPHING_PUBLIC": "1"},
)


@pytest.fixture(params=PUBLIC, ids=lambda said: next(iter(said)))
def others(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Every way in which others reach the app; set by the test, after what comes before."""
    return request.param


def expose(monkeypatch: pytest.MonkeyPatch, others: dict[str, str]) -> None:
    for name, value in others.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", ["../outside", "..", ".", "", "/etc", "mine/..", "mine/", "no"])
def test_only_folders_in_the_root_are_runs(runs: Path, name: str) -> None:
    assert session.find_run(name) is None


def test_a_link_out_of_the_root_is_no_run(runs: Path) -> None:
    (runs / "link").symlink_to(runs.parent / "outside")
    assert session.find_run("link") is None
    found = session.find_run("mine")
    assert found is not None and found.folder == (runs / "mine").resolve()


def test_without_a_run_in_the_address_the_newest_is_shown(runs: Path) -> None:
    assert session.first_run(None) == "mine"
    assert session.first_run("mine") == "mine"
    assert session.first_run("../outside") == "mine"


def test_where_others_come_visitors_see_no_runs_of_others(
    runs: Path, monkeypatch: pytest.MonkeyPatch, others: dict[str, str]
) -> None:
    expose(monkeypatch, others)
    assert session.first_run(None) == ""
    assert session.first_run("mine") == "mine"  # who has its address has the run
    assert session.recent_runs(["own"], "") == ["own"]
    assert session.recent_runs([], "") == []
    first, second = session.new_folder("zoo"), session.new_folder("zoo")
    assert first != second and len(first.name) > len("zoo-") + 16


def test_on_a_space_only_the_visitors_token_is_used(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = gr.OAuthToken(token="hf_visitor", scope="", expires_at=2**40)
    assert session.token_of(visitor) is None  # this machine's own login
    for others in PUBLIC[1:]:
        with monkeypatch.context() as patched:
            expose(patched, others)
            patched.setenv("HF_TOKEN", "hf_the_owner")
            # Gradio shows the machine's login as the visitor's wherever there is no Space.
            assert session.token_of(visitor) is None and session.user_name(visitor) is None
    monkeypatch.setenv("SPACE_ID", "org/morphing")
    monkeypatch.setenv("HF_TOKEN", "hf_the_space")
    assert session.token_of(visitor) == "hf_visitor"
    assert session.token_of(None) is None
    assert session.user_name(None) is None


def test_where_others_come_folders_of_the_machine_are_no_models(
    runs: Path, monkeypatch: pytest.MonkeyPatch, others: dict[str, str]
) -> None:
    assert session.check_model(str(runs)) == str(runs)
    expose(monkeypatch, others)
    for name in ("zoo:base", "org/name", "org/name@main"):
        assert session.check_model(name) == name
    for name in (str(runs), "../outside", "~/models", "./x", "org/../../etc"):
        with pytest.raises(MorphingError, match="no model on the Hub"):
            session.check_model(name)


def test_where_others_come_files_of_the_machine_are_no_datasets(
    runs: Path, monkeypatch: pytest.MonkeyPatch, others: dict[str, str]
) -> None:
    upload = runs.parent / "My data; v2.csv"
    upload.write_text("question,answer\n1,2\n")
    assert session.check_dataset(str(upload)) == str(upload)
    kept = QUOTAS.keep_upload(upload)
    assert kept == QUOTAS.keep_upload(upload) and kept.read_text() == upload.read_text()
    assert kept.name == "My-data-v2.csv"
    expose(monkeypatch, others)
    for name in ("org/name", "gsm8k", "lm_eval:arc_easy", "lm_eval:ifeval#acc", str(kept)):
        assert session.check_dataset(name) == name
    linked = kept.with_name("linked.csv")
    linked.symlink_to(runs / "mine" / "spec.yaml")
    outside = f"{uploads_root()}/../mine/spec.yaml"
    for name in (
        str(upload),
        outside,
        "../outside",
        "~/data",
        "./x.csv",
        "org/../../etc",
        "org/name.yaml",
        "mine.yaml",
        "lm_eval:mine.yaml",
        "lm_eval:../mine",
        # A folder is a dataset with configs and splits: an upload is a file and nothing else.
        str(kept.parent),
        str(session.uploads_root()),
        f"{kept.parent}/../{kept.parent.name}",
        f"{kept}/../{kept.name}",
        str(linked),
    ):
        with pytest.raises(MorphingError, match="no dataset on the Hub"):
            session.check_dataset(name)
    with pytest.raises(MorphingError, match="convert it"):
        QUOTAS.keep_upload(runs / "mine" / "spec.yaml")
    assert [run.name for run in list_runs(runs)] == ["mine"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", fullmatch=True),
    number=st.integers(0, 10**6),
)
def test_a_name_proposed_for_the_hub_is_one_and_holds_no_key_of_the_run(
    tmp_path_factory: pytest.TempPathFactory, name: str, number: int
) -> None:
    from huggingface_hub.utils import validate_repo_id

    from morphing.publishing.push import check_name

    spec = zoo_spec().model_copy(update={"name": name})
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MORPHING_RUNS", str(tmp_path_factory.mktemp("runs")))
        for others in ({"MORPHING_PUBLIC": "0"}, {"SPACE_ID": "org/morphing"}):
            expose(patched, others)
            run = Run.create(session.new_folder(name), spec)
            proposed = session.public_name(run, number)
            assert len(proposed) <= 96 and proposed.endswith(f"-{number}")
            validate_repo_id(f"alice/{proposed}")
            check_name(f"alice/{proposed}")
    key = run.name.removeprefix(name)
    assert key and all(part not in proposed for part in (run.name, run.name[-16:]))
