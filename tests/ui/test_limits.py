"""What visitors may take of a machine that others reach, and what they are told beyond it."""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from morphing.errors import MorphingError
from morphing.runs.run import Run
from morphing.runs.spec import zoo_spec
from morphing.ui import quotas
from morphing.ui.limits import PREFIX, Limits, limits, within_limits
from morphing.ui.quotas import Quotas, uploads_root, visitor_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A page that others reach, with a root of its own; its limits can be set."""
    monkeypatch.setenv("MORPHING_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MORPHING_PUBLIC", "1")
    return monkeypatch


def table(folder: Path, name: str, megabytes: float) -> Path:
    path = folder / f"{name}.csv"
    head = f"question,answer\n{name},1\n".encode()
    path.write_bytes(head + b"x" * (int(megabytes * 10**6) - len(head)))
    return path


def test_every_limit_is_documented_with_its_default_and_can_be_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MORPHING_PUBLIC", "1")
    told = dict(re.findall(rf"`({PREFIX}\w+)` \| (\d+)", DOCUMENT.read_text()))
    names = {f"{PREFIX}{field.name.upper()}": field.name for field in fields(Limits)}
    assert {name: float(value) for name, value in told.items()} == {
        name: getattr(Limits(), field) for name, field in names.items()
    }
    for variable, name in names.items():
        with monkeypatch.context() as patched:
            for text, number in (("3", 3), ("0.5", 0.5), ("inf", math.inf)):
                patched.setenv(variable, text)
                assert getattr(limits(), name) == number
            for text in ("0", "-1", "many", "nan", ""):
                patched.setenv(variable, text)
                with pytest.raises(MorphingError, match=variable):
                    limits()


def test_who_is_alone_has_no_limits_but_an_uploads_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHING_PUBLIC", "0")
    found = {field.name: getattr(limits(), field.name) for field in fields(Limits)}
    assert found.pop("upload_mb") == 256
    assert set(found.values()) == {math.inf}
    assert within_limits(zoo_spec(), 64) == zoo_spec()


def test_a_search_of_a_visitor_ends_and_has_few_workers(public: pytest.MonkeyPatch) -> None:
    public.setenv("MORPHING_LIMIT_HOURS", "2")
    assert within_limits(zoo_spec(), 2).search.hours == 2
    long, short = (
        zoo_spec().model_copy(
            update={"search": zoo_spec().search.model_copy(update={"hours": hours})}
        )
        for hours in (9.0, 0.5)
    )
    assert within_limits(long, 1).search.hours == 2
    assert within_limits(short, 1).search.hours == 0.5
    with pytest.raises(MorphingError, match="2 workers"):
        within_limits(zoo_spec(), 3)


def test_searches_at_once_of_a_visitor_and_of_all(
    public: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    public.setenv("MORPHING_LIMIT_SEARCHES", "3")
    taken, root = Quotas(), tmp_path / "runs"

    def launch(visitor: str, name: str) -> Run:
        with taken.starting(visitor) as started:
            run = Run.create(root / name, zoo_spec())
            started(run.name)
        return run

    running: set[str] = set()
    public.setattr(
        Run, "status", lambda self: SimpleNamespace(active=self.name in running), raising=True
    )
    for name in ("a1", "a2"):
        launch("alice", name)
        running.add(name)
    with pytest.raises(MorphingError, match="You have 2 searches running"):
        launch("alice", "a3")
    told = pytest.raises(MorphingError, match="This machine is busy: 3 searches")
    with taken.starting("bob"), told:  # while it is being checked it counts as well
        launch("carol", "c1")
    running.remove("a1")
    launch("alice", "a4")
    running.add("a4")
    launch("bob", "b1")
    running.add("b1")
    with pytest.raises(MorphingError, match="busy"):
        launch("bob", "b2")
    assert sorted(path.name for path in root.iterdir()) == ["a1", "a2", "a4", "b1"]


def test_a_search_that_could_not_be_started_does_not_count(public: pytest.MonkeyPatch) -> None:
    public.setenv("MORPHING_LIMIT_SEARCHES_EACH", "1")
    taken = Quotas()
    for _ in range(3):
        with pytest.raises(ValueError), taken.starting("alice"):
            raise ValueError
    with taken.starting("alice"):
        pass


def test_uploads_have_a_size_a_sum_and_an_age(public: pytest.MonkeyPatch, tmp_path: Path) -> None:
    public.setenv("MORPHING_LIMIT_UPLOAD_MB", "0.2")
    public.setenv("MORPHING_LIMIT_UPLOADS_MB_EACH", "0.3")
    public.setenv("MORPHING_LIMIT_UPLOADS_MB", "0.5")
    taken = Quotas()
    kept = taken.keep_upload(table(tmp_path, "one", 0.2), "alice")
    assert taken.keep_upload(table(tmp_path, "one", 0.2), "alice") == kept, "kept once"
    with pytest.raises(MorphingError, match=r"large\.csv has 0 MB, and an upload may have 0"):
        taken.keep_upload(table(tmp_path, "large", 0.21), "alice")
    with pytest.raises(MorphingError, match="You have uploaded 0 MB"):
        taken.keep_upload(table(tmp_path, "two", 0.2), "alice")
    taken.keep_upload(table(tmp_path, "two", 0.2), "bob")
    with pytest.raises(MorphingError, match="no room for more uploads"):
        taken.keep_upload(table(tmp_path, "three", 0.2), "carol")
    long_ago = time.time() - 8 * 86_400
    os.utime(kept, (long_ago, long_ago))
    taken.keep_upload(table(tmp_path, "three", 0.2), "carol")
    assert not kept.exists() and not kept.parent.exists()
    assert len([path for path in uploads_root().rglob("*") if path.is_file()]) == 2


def test_an_upload_that_does_not_fit_the_disk_leaves_nothing(
    public: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    public.setattr(quotas.shutil, "copyfile", full)
    with pytest.raises(OSError):
        Quotas().keep_upload(table(tmp_path, "one", 0.1), "alice")
    assert not [path for path in uploads_root().rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["rows.docx", "rows", "rows.csv.exe", "rows.YAML"])
def test_only_data_files_are_kept(public: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("question,answer\n1,2\n")
    with pytest.raises(MorphingError, match="convert it"):
        Quotas().keep_upload(tmp_path / name, "alice")


def test_a_visitor_is_a_login_on_a_space_and_an_address_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = gr.Request(client=SimpleNamespace(host="10.1.2.3"))  # type: ignore[arg-type]
    profile = SimpleNamespace(username="alice")
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert visitor_of(profile, request) == "10.1.2.3"  # type: ignore[arg-type]
    monkeypatch.setenv("SPACE_ID", "org/app")
    assert visitor_of(profile, request) == "@alice"  # type: ignore[arg-type]
    assert visitor_of(None, request) == "10.1.2.3"
