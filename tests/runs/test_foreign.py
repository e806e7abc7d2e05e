"""A run's folder from a stranger, another version or a failing disk: looking at it shows what is
whole, says one sentence of what is not, and never more.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from morphing.errors import MorphingError
from morphing.runs.leases import live_workers, read_workers
from morphing.runs.outputs import read_outputs
from morphing.runs.run import Run
from morphing.runs.spec import RunSpec
from tests.runs.recording import tell
from tests.runs.whole_run import look, make_run

HTML = '<img src=x onerror="alert(1)">'
Change = Callable[[Path], object]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers that the run names live, however slow this machine is."""
    monkeypatch.setenv("MORPHING_GRACE_SECONDS", "3600")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("foreign") / "run").folder


def shown(folder: Path, spec: RunSpec | None = None) -> str | None:
    """The page, or None where one sentence is shown instead of it."""
    try:
        page = look(folder, spec)
    except MorphingError as error:
        text = str(error)
        assert "\n" not in text and text.endswith(".") and len(text) < 1000
        assert str(folder) in text and ": " in text
        return None
    assert "<img" not in page
    return page


def files(folder: Path) -> dict[str, Path]:
    """The files that are read when a run is looked at."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {str(path.relative_to(folder)): path for path in found}
    return {name: path for name, path in names.items() if not name.endswith(".lock")}


BROKEN: dict[str, Change] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "of another type": lambda path: path.write_text("[]\n"),
    "a number": lambda path: path.write_text("7\n"),
    "HTML": lambda path: path.write_text(f"{HTML}\n"),
    "HTML in JSON": lambda path: path.write_text(json.dumps(HTML) + "\n"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe{\x00\n"),
    "deeply nested": lambda path: path.write_text("[" * 100_000 + "\n"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "gzip of nothing": lambda path: path.write_bytes(gzip.compress(b"")),
    "gzip of no JSON": lambda path: path.write_bytes(gzip.compress(b"[]")),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_hides_no_more_than_itself(whole: Path, tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    spec = Run(folder).spec
    for name, path in files(folder).items():
        before = path.read_bytes()
        BROKEN[fault](path)
        page = shown(folder, None if name == "spec.yaml" else spec)
        if name.startswith("workers/") or name in ("status.json", "control"):
            assert page is not None, name
        if path.is_dir():
            path.rmdir()
        path.write_bytes(before)
    assert look(folder).count("Trial 0")


def leaves(data: Any) -> Iterator[tuple[Any, ...]]:
    """The ways into nested data, to every value in it and to the containers."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in pairs:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in leaves(value))


def changed(data: Any, way: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(data))
    inside = copy
    for key in way[:-1]:
        inside = inside[key]
    if value is MISSING:
        del inside[way[-1]]
    else:
        inside[way[-1]] = value
    return copy


MISSING = object()
VALUES: tuple[Any, ...] = (
    MISSING,
    None,
    HTML,
    "../../elsewhere",
    float("nan"),
    float("inf"),
    -(10**400),
    1e300,
    -1,
    [],
    {},
    [HTML],
    {HTML: HTML},
)


TRIED = 4
"""Of VALUES, so many in each place, others in the next: all of them would take minutes."""


def faults(data: Any) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Ways into data, what is put there, and the data then."""
    turn = cycle(VALUES)
    for way in leaves(data):
        for value in islice(turn, TRIED):
            yield way, value, changed(data, way, value)


ONE_OF_EACH = (
    "workers/0123abcd.json",
    "status.json",
    "scales.json",
    "stages/ps.json",
    "references/search/01.json",
    "references/holdout/00.json",
    "holdout/00000.json",
)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_any_field_may_hold_anything(whole: Path, tmp_path: Path, name: str) -> None:
    """Every value of a JSON file, replaced in turn: a page without markup, or a sentence."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path, spec = folder / name, Run(folder).spec
    for way, value, data in faults(json.loads(path.read_text())):
        path.write_text(json.dumps(data))
        try:
            page = shown(folder, spec)
        except Exception as error:
            pytest.fail(f"{way} as {value!r}: {error!r}")
        if name in ("workers/0123abcd.json", "status.json"):
            assert page is not None, (way, value)


def test_any_note_of_the_journal_may_hold_anything(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path, spec = folder / "journal.log", Run(folder).spec
    notes = [json.loads(line) for line in path.read_bytes().splitlines()]
    attributes = [str(note.get("user_attr", note.get("system_attr", ""))) for note in notes]
    kinds = {
        (note["op_code"], text): place
        for place, (note, text) in enumerate(zip(notes, attributes, strict=True))
    }
    for place in kinds.values():
        for way, value, note in faults(notes[place]):
            lines = [*notes[:place], note, *notes[place + 1 :]]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            try:
                shown(folder, spec)
            except Exception as error:
                pytest.fail(f"line {place + 1}, {way} as {value!r}: {error!r}")


def test_any_answer_may_be_anything(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "00000.jsonl.gz"
    first = gzip.decompress((whole / "outputs" / "00000.jsonl.gz").read_bytes()).splitlines()[0]
    data = json.loads(first)
    for way in leaves(data):
        for value in VALUES:
            path.write_bytes(gzip.compress(json.dumps(changed(data, way, value)).encode()))
            try:
                rows = [row for rows in read_outputs(path).values() for row in rows]
            except MorphingError as error:
                assert str(error).startswith(f"Line 1 of {path} cannot be used (")
            else:
                assert [type(row["score"]) for row in rows] == [float]
                assert all(isinstance(row["answer"], str) for row in rows)


def test_fields_of_another_version_are_ignored(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for path in files(folder).values():
        if path.suffix == ".json":
            path.write_text(json.dumps({**json.loads(path.read_text()), "of_tomorrow": [1]}))
    journal = folder / "journal.log"
    notes = [json.loads(line) for line in journal.read_bytes().splitlines()]
    journal.write_text("".join(json.dumps({**note, "of_tomorrow": 1}) + "\n" for note in notes))
    for path in folder.rglob("*.jsonl.gz"):
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        lines = (json.dumps({**row, "of_tomorrow": 1}) for row in rows)
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert look(folder) == look(whole)


def test_a_workers_file_that_is_none_is_left_out_and_logged(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    place = tmp_path / "run" / "workers"
    good = json.loads((place / "0123abcd.json").read_text())
    (place / "x y.json").write_text(json.dumps({**good, "id": "x y"}))
    (place / "another.json").write_text(json.dumps(good))
    (place / "4567ef01.json").write_text(json.dumps({**good, "id": "4567ef01", "state": HTML}))
    with caplog.at_level(logging.WARNING):
        assert [worker.id for worker in read_workers(tmp_path / "run")] == ["0123abcd"]
    assert "4567ef01.json" in caplog.text and "delete it" in caplog.text


def test_a_damaged_status_is_told_and_saved_anew(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "workers")
    (folder / "status.json").write_bytes(b"\x00" * 100)  # as a power cut may leave it
    status = Run(folder).status()
    assert status.state == "stopped" and "status.json" in status.message and status.done == 4
    Run(folder).save_status(state="running", message="")
    assert json.loads((folder / "status.json").read_text())["state"] == "running"


def test_words_for_people_are_cut_and_never_refused(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "workers")
    run = Run(folder)
    run.save_status(message="no " * 10_000)
    assert len(run.status().message) == 10_000
    number = tell(run, "no \ud83d " * 10_000)
    assert len(next(t.error or "" for t in run.trials() if t.number == number)) == 10_000


def test_a_broken_line_of_the_journal_is_named(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    journal = folder / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    for broken in (b'{"op_code": 99}\n', b"{\n", b"\n", b'{"op_code":4}\n'):
        journal.write_bytes(b"".join([*lines[:20], broken, *lines[20:]]))
        run = Run(folder)
        for _ in range(2):  # whoever looks again meets the same line
            with pytest.raises(MorphingError, match=r"Line 21 of .*journal\.log cannot be read"):
                run.trials()
    journal.write_bytes(b"".join(lines[:20]))  # as the sentence says
    assert Run(folder).trials() == [] or Run(folder).trials()[0].number == 0


def test_a_pipe_is_not_waited_for(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "workers")
    (folder / "scales.json").unlink()
    os.mkfifo(folder / "scales.json")
    with pytest.raises(MorphingError, match="is no file"):
        look(folder)


def test_nobody_from_the_future_lives(whole: Path, tmp_path: Path) -> None:
    """Else a stranger's run would seem to be worked on for ever."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = folder / "workers" / "0123abcd.json"
    data = json.loads(path.read_text())
    now = time.time()
    for renewed, lives in ((now, True), (now + 30, True), (now + 1e6, False), (now - 1e6, False)):
        path.write_text(json.dumps({**data, "renewed": renewed}))
        assert ("0123abcd" in {worker.id for worker in live_workers(folder)}) == lives
