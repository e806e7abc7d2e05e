"""Which run a visitor may see, and whose login they act with."""

from pathlib import Path

import gradio as gr
import pytest

from morphing.errors import MorphingError
from morphing.runs.run import Run, list_runs
from morphing.runs.spec import zoo_spec
from morphing.ui import session


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "runs"
    monkeypatch.setenv("MORPHING_RUNS", str(root))
    monkeypatch.delenv("SPACE_ID", raising=False)
    Run.create(root / "mine", zoo_spec())
    Run.create(tmp_path / "outside", zoo_spec())
    return root


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


def test_on_a_space_visitors_see_no_runs_of_others(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", "org/morphing")
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
    monkeypatch.setenv("SPACE_ID", "org/morphing")
    monkeypatch.setenv("HF_TOKEN", "hf_the_space")
    assert session.token_of(visitor) == "hf_visitor"
    assert session.token_of(None) is None
    assert session.user_name(None) is None


def test_on_a_space_folders_of_the_machine_are_no_models(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert session.check_model(str(runs)) == str(runs)
    monkeypatch.setenv("SPACE_ID", "org/morphing")
    for name in ("zoo:base", "org/name", "org/name@main"):
        assert session.check_model(name) == name
    for name in (str(runs), "../outside", "~/models", "./x", "org/../../etc"):
        with pytest.raises(MorphingError, match="no model on the Hub"):
            session.check_model(name)


def test_on_a_space_files_of_the_machine_are_no_datasets(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = runs.parent / "My data; v2.csv"
    upload.write_text("question,answer\n1,2\n")
    assert session.check_dataset(str(upload)) == str(upload)
    kept = session.keep_upload(upload)
    assert kept == session.keep_upload(upload) and kept.read_text() == upload.read_text()
    assert kept.name == "My-data-v2.csv"
    monkeypatch.setenv("SPACE_ID", "org/morphing")
    for name in ("org/name", "gsm8k", "lm_eval:arc_easy", "lm_eval:ifeval#acc", str(kept)):
        assert session.check_dataset(name) == name
    linked = kept.with_name("linked.csv")
    linked.symlink_to(runs / "mine" / "spec.yaml")
    outside = f"{session.uploads_root()}/../mine/spec.yaml"
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
        session.keep_upload(runs / "mine" / "spec.yaml")
    assert [run.name for run in list_runs(runs)] == ["mine"]


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
    run, bench = create_run(tmp_path / "run", parse_spec(data)), session.Bench()
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
