"""Per-sample outputs are read back as they were written."""

from __future__ import annotations

from pathlib import Path

from morphing.benchmarks.results import Output
from morphing.runs.outputs import read_outputs, write_outputs


def test_whatever_a_model_writes_is_read_back(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0ce\nf\r\x1c"
    output = Output("test/0", text, text, text, text, 0.5)
    path = tmp_path / "00000.jsonl.gz"
    write_outputs(path, {"one": [output, output], "two": [output]})
    assert read_outputs(path) == {"one": [vars(output)] * 2, "two": [vars(output)]}
    write_outputs(path, {"one": []})
    assert read_outputs(path) == {}
