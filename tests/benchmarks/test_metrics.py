"""Metrics of our own and of the evaluate library."""

from pathlib import Path

import pytest

from morphing.benchmarks.metrics import get_metric
from morphing.errors import MorphingError

MODULE = """
import datasets
import evaluate


class Overlap(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description="",
            citation="",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions, references):
        pairs = list(zip(predictions, references))
        shared = [len(set(p) & set(r)) / len(set(p) | set(r)) for p, r in pairs]
        return {"jaccard": sum(shared) / len(shared), "count": len(pairs)}
"""


@pytest.mark.parametrize(
    ("name", "answer", "target", "score"),
    [
        ("exact_match", " a ", "a", 1.0),
        ("exact_match", "A", "a", 0.0),
        ("numeric", "42", "42.0", 1.0),
        ("numeric", "1450000", "1,450,000", 1.0),
        ("numeric", "", "0", 0.0),
        ("numeric", "1", "one", 0.0),
    ],
)
def test_own(name: str, answer: str, target: str, score: float) -> None:
    assert get_metric(name)(answer, target) == score


def test_evaluate_module_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "overlap"
    folder.mkdir()
    (folder / "overlap.py").write_text(MODULE)
    metric = get_metric(f"evaluate:{folder}#jaccard")
    assert metric("abc", "abd") == pytest.approx(0.5)
    with pytest.raises(MorphingError, match="choose one of jaccard, count"):
        get_metric(f"evaluate:{folder}")("a", "a")


def test_evaluate_module_that_is_not_there() -> None:
    with pytest.raises(MorphingError, match="can't be loaded from the evaluate library") as caught:
        get_metric("evaluate:no_such_metric")
    assert "\n" not in str(caught.value)
