"""Data files as spreadsheets, programs and people write them, and what is said of broken ones."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphing.benchmarks.data.dataset import read_rows, split_names
from morphing.benchmarks.data.files import data_stem, data_suffix, read_file
from morphing.benchmarks.data.guess import guess_benchmark
from morphing.benchmarks.data.samples import load_samples
from morphing.errors import MorphingError

ROWS = [
    {"question": "Größe von 1, 2?", "answer": "drei; “vier”"},
    {"question": "Zeile\nzwei?", "answer": 'mit "Zeichen"'},
    {"question": "é\u2009?", "answer": "ü"},
]


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows = read_file(path)
    return [dict(rows[at]) for at in range(len(rows))]


def delimited(separator: str, head: str = "", quote_all: bool = False) -> str:
    import csv

    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=separator, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    )
    writer.writerow(["question", "answer"])
    writer.writerows(row.values() for row in ROWS)
    return head + text.getvalue()


CSV: dict[str, Callable[[], bytes]] = {
    "a.csv": lambda: delimited(",").encode(),
    "b.csv": lambda: delimited(";").encode("utf-8-sig"),
    "c.csv": lambda: delimited("\t").encode("utf-16"),
    "d.CSV": lambda: delimited("|", quote_all=True).encode(),
    "e.tsv": lambda: delimited("\t").encode(),
    "f.csv": lambda: delimited(";", head="sep=;\r\n").encode(),
    "g.csv.gz": lambda: gzip.compress(delimited(",").encode()),
    "h.csv": lambda: delimited(",").replace("question", '"  question "', 1).encode("utf-8-sig"),
    "i.csv": lambda: delimited(",").replace("\r\n", "\n").encode() + b"\n\n",
    "j.csv": lambda: delimited(",").replace("answer", "answer,", 1).encode(),
}


@pytest.mark.parametrize("name", CSV)
def test_delimited_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CSV[name]())
    assert rows_of(tmp_path / name) == ROWS


OBJECTS = [{"question": f"{n}?", "answer": n} for n in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in OBJECTS)
JSON: dict[str, str | bytes] = {
    "list.json": json.dumps(OBJECTS),
    "list.jsonl": json.dumps(OBJECTS, indent=1),
    "lines.json": LINES,
    "lines.jsonl": LINES,
    "lines.ndjson": LINES.replace("\n", "\n\n"),
    "mark.jsonl": b"\xef\xbb\xbf" + LINES.encode(),
    "mark.json": b"\xef\xbb\xbf" + json.dumps(OBJECTS).encode(),
    "lines.jsonl.gz": gzip.compress(LINES.encode()),
    "list.json.gz": gzip.compress(json.dumps(OBJECTS).encode()),
    "wrapped.json": json.dumps({"data": OBJECTS}),
    "split.json": json.dumps(
        {
            "columns": ["question", "answer"],
            "index": [0, 1, 2],
            "data": [list(row.values()) for row in OBJECTS],
        }
    ),
    "by name.json": json.dumps({f"id{n}": row for n, row in enumerate(OBJECTS)}),
    "by number.json": json.dumps({str(n): row for n, row in enumerate(OBJECTS)}),
    "versioned.json": json.dumps({"version": "1.1", "data": OBJECTS}),
    "columns.json": json.dumps({"question": ["0?", "1?", "2?"], "answer": [0, 1, 2]}),
    "pandas.json": json.dumps(
        {
            "question": {str(n): f"{n}?" for n in range(3)},
            "answer": {str(n): n for n in range(3)},
        }
    ),
}


@pytest.mark.parametrize("name", JSON)
def test_json(tmp_path: Path, name: str) -> None:
    content = JSON[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert rows_of(tmp_path / name) == OBJECTS


def test_one_object_is_one_row_and_texts_are_rows(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps({"q": ["a", "b"], "a": "x"}))
    assert rows_of(tmp_path / "one.jsonl") == [{"q": ["a", "b"], "a": "x"}]
    (tmp_path / "one.json").write_text(json.dumps({"q": ["a", "b"], "a": "x"}, indent=2))
    assert rows_of(tmp_path / "one.json") == [{"q": ["a", "b"], "a": "x"}]
    (tmp_path / "texts.json").write_text(json.dumps(["a", "b"]))
    (tmp_path / "texts.txt").write_text("a\n\nb\n")
    assert rows_of(tmp_path / "texts.json") == rows_of(tmp_path / "texts.txt")
    assert rows_of(tmp_path / "texts.txt") == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        (
            "cp1252",
            "Wie groß ist das? Übrigens schön – natürlich für alle Gäste, möglichst größer.",
        ),
        ("cp932", "日本の首都はどこですか。東京です。大阪ではありません。京都でもありません。"),
        ("gb18030", "中国的首都是哪里？是北京。不是上海，也不是广州。请回答这个问题。"),
        ("cp1251", "Какой город является столицей России? Столица России город Москва."),
    ],
)
def test_what_spreadsheets_save_in_other_encodings(
    tmp_path: Path, encoding: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"question;answer\r\n{text};1\r\n", *(f"{text} {n};{n}\r\n" for n in range(8))]
    (tmp_path / "rows.csv").write_bytes("".join(lines).encode(encoding))
    assert rows_of(tmp_path / "rows.csv")[0] == {"question": text, "answer": "1"}
    assert "rows.csv is not UTF-8 and is read as" in caplog.text


def test_a_first_line_of_values_is_a_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for first in ("What is 2+2?,4", "a,7", "It is true.,yes"):
        (tmp_path / "rows.csv").write_text(f"{first}\nWhat is 3+3?,6\n")
        rows = rows_of(tmp_path / "rows.csv")
        assert len(rows) == 2 and list(rows[0]) == ["column1", "column2"]
        assert "no column names" in caplog.text


def test_cells_that_are_missing_are_none_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b,c\n1,2\n\n , ,\n3,4,5\n")
    assert rows_of(tmp_path / "rows.csv") == [
        {"a": "1", "b": "2", "c": None},
        {"a": "3", "b": "4", "c": "5"},
    ]


def test_what_unicode_calls_the_end_of_a_line_ends_no_row(tmp_path: Path) -> None:
    rows = [{"q": f"a{mark}b"} for mark in "\u2028\u2029\x85"]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for name in ("r.json", "r.jsonl"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert rows_of(tmp_path / name) == rows
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert rows_of(tmp_path / "r.jsonl.gz") == rows
    (tmp_path / "r.txt").write_text("a\u2028b\r\nc\n", encoding="utf-8", newline="")
    assert rows_of(tmp_path / "r.txt") == [{"text": "a\u2028b"}, {"text": "c"}]


def test_one_column_of_texts_is_not_parted_by_commas_in_some(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("question\nWhat is it?\nWhat, then?\nWho\n")
    assert [row["question"] for row in rows_of(tmp_path / "r.csv")][1] == "What, then?"
    (tmp_path / "r.csv").write_text("a,b\n1\n2\n3\n")
    assert rows_of(tmp_path / "r.csv")[0] == {"a": "1", "b": None}


def test_a_table_with_tabs_may_have_quotes_that_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "r.tsv").write_text('q\ta\n"Hello, she said\tb\nc\td\n')
    assert rows_of(tmp_path / "r.tsv") == [
        {"q": '"Hello, she said', "a": "b"},
        {"q": "c", "a": "d"},
    ]
    (tmp_path / "r.tsv").write_text("q,a\n1,2\n")
    assert rows_of(tmp_path / "r.tsv") == [{"q": "1", "a": "2"}]


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(f"a,b\n{'x' * 300_000},1\n")
    assert len(rows_of(tmp_path / "rows.csv")[0]["a"]) == 300_000


BROKEN: dict[str, tuple[str, bytes | str, str]] = {
    "cells": ("r.csv", "a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, and there are 2 columns"),
    "twice": ("r.csv", "a,a\n1,2\n", "two columns are called 'a'"),
    "zeros": ("r.csv", b"a,b\n\0,1\n", "bytes that are 0"),
    "quote": ("r.csv", 'a,b\n1,2\n"x,3\ny,4\n', "a quote is never closed: the record after line 2"),
    **{
        f"pointer {name}": (name, "version https://git-lfs.github.com/spec/v1\noid x\n", "Git LFS")
        for name in ("r.csv", "r.jsonl", "r.json", "r.parquet", "r.jsonl.gz")
    },
    **{
        f"page {name}": (name, "\n<!DOCTYPE html><html>", "a web page")
        for name in ("r.csv", "r.json", "r.tsv", "r.txt")
    },
    "renamed sheet": ("r.csv", b"PK\x03\x04abc", "a spreadsheet or an archive"),
    "packed": ("r.jsonl", gzip.compress(b"{}"), "it is compressed"),
    "deep": ("r.json", "[" * 100_000, "too deep"),
    "deep line": ("r.jsonl", '{"a":' * 100_000, "too deep"),
    "torn": ("r.json", '[{"a": 1},', "line 1, column"),
    "torn line": ("r.jsonl", '{"a": 1}\n{"a": \n', "line 2 is no JSON object"),
    "torn line in json": ("r.json", '{"a": 1}\n{"a": \n', "line 2 is no JSON object"),
    "a number a line": ("r.jsonl", '{"a": 1}\n2\n', "line 2 is no JSON object"),
    "numbers": ("r.json", "[1, 2]", "entry 1 of its list is no object"),
    "a number": ("r.json", "1", "it is no list of objects"),
    "lengths": ("r.json", '{"a": [1, 2], "b": [1]}', "different lengths: 'a' 2, 'b' 1"),
    "splits": ("r.json", '{"x": [{"a": 1}], "y": [{"a": 1}]}', "several lists of rows ('x', 'y')"),
    "latin json": ("r.json", '[{"a": "é"}]'.encode("latin-1"), "line 1 is not UTF-8"),
    "latin lines": ("r.jsonl", '{"a": "e"}\n{"a": "é"}\n'.encode("latin-1"), "line 2 is not UTF-8"),
    "no gzip": ("r.csv.gz", b"a,b\n1,2\n", "can't be read"),
    "torn gzip": ("r.csv.gz", gzip.compress(b"a,b\n" * 999)[:40], "can't be read"),
    "parquet": ("r.parquet", b"PAR1 not", "can't be read"),
    "sheet": ("r.xlsx", b"PK", "a spreadsheet: save the sheet as CSV"),
    "pickle": ("r.pkl", b"\x80", "never opened"),
    "unknown": ("r.data", b"?", "its name ends in none of"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_one_sentence(tmp_path: Path, case: str) -> None:
    name, content, said = BROKEN[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MorphingError) as caught:
        rows_of(path)
    assert said in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morphing.benchmarks.data.files._MOST_BYTES", 1 << 20)
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(b" " * (2 << 20)))
    with pytest.raises(MorphingError, match="unpacks to more than 1 MB"):
        read_file(tmp_path / "r.jsonl.gz")


def test_names_of_data_files() -> None:
    for name in ("a/b.JSONL", "b.json.gz", "b.Parquet", "b.tsv"):
        assert data_suffix(name) and data_stem(Path(name)) == "b"
    for name in ("org/name", "a.yaml", "csv", "a.gz", "a.csv.zip"):
        assert data_suffix(name) is None


def test_a_folder_of_files_of_all_kinds_is_a_dataset(tmp_path: Path) -> None:
    from morphing.benchmarks.benchmark import parse_benchmark

    (tmp_path / "train.tsv").write_text("q\ta\n1?\t1\n")
    (tmp_path / "test.JSONL.gz").write_bytes(gzip.compress(b'{"q": "2?", "a": "2"}\n'))
    (tmp_path / "LICENSE.txt").write_text("Take it.\n")
    declared = {"dataset": str(tmp_path), "kind": "generation", "prompt": "{{ q }}"}
    benchmark = parse_benchmark({**declared, "name": "n", "target": "{{ a }}"}, "here")
    assert split_names(benchmark) == ["test", "train"]
    assert [read_rows(benchmark, split)[0]["q"] for split in ("train", "test")] == ["1?", "2?"]


def test_a_spreadsheets_labels_in_numbers_are_classes(tmp_path: Path) -> None:
    lines = "".join(f"It was {'good' if n % 2 else 'bad'} {n};{n % 2}\r\n" for n in range(12))
    (tmp_path / "reviews.csv").write_bytes(f"Text; Label\r\n{lines}".encode("utf-8-sig"))
    benchmark = guess_benchmark(str(tmp_path / "reviews.csv"))
    assert (benchmark.kind, benchmark.choices) == ("multiple_choice", (" 0", " 1"))
    (first, *_) = load_samples(benchmark, "search", 3)
    assert first.target == int("good" in first.prompt)


@pytest.mark.parametrize("turns", [False, True])
def test_preference_pairs_are_a_choice_of_two(tmp_path: Path, turns: bool) -> None:
    def answer(text: str, asked: str) -> Any:
        both = [{"role": "user", "content": asked}, {"role": "assistant", "content": text}]
        return both if turns else text

    rows = [
        {
            "prompt": f"{n}?",
            "chosen": answer(f"yes {n}", f"{n}?"),
            "rejected": answer(f"no {n}", f"{n}?"),
        }
        for n in range(12)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = guess_benchmark(str(tmp_path / "pairs.jsonl"))
    (first, *_) = load_samples(benchmark, "search", 3)
    number = first.prompt.removesuffix("?")
    assert benchmark.kind == "multiple_choice" and first.target == 0
    assert first.choices is not None
    assert [choice.strip() for choice in first.choices] == [f"yes {number}", f"no {number}"]
