"""Metrics of our own and of the evaluate library."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from morphing.benchmarks.judging.metrics import get_metric
from morphing.benchmarks.judging.similarity import ROUGE
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


@pytest.mark.parametrize(
    ("name", "answer", "target", "score"),
    [
        ("rouge1", "the cat sat", "a cat sat down", 4 / 7),
        ("rouge2", "the cat sat", "a cat sat down", 2 / 5),
        ("rougeL", "sat cat", "cat sat", 0.5),
        ("rougeL", "猫が座る", "犬が座る", 3 / 4),
        ("f1", "The cat", "cat sat", 0.5),
        ("f1", "", "cat", 0.0),
        ("bleu", "a b c d", "a b c d", 1.0),
        ("bleu", "e f", "a b", 0.0),
        ("chrf", "hello", "hello", 1.0),
        ("chrf", "", "hello", 0.0),
    ],
)
def test_similarity(name: str, answer: str, target: str, score: float) -> None:
    assert get_metric(name)(answer, target) == pytest.approx(score)


def test_similarity_is_the_libraries_own() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import sentence_bleu, sentence_chrf

    answer, target = "It's the dog's 2nd cat, sat-down!", "The 2nd cat of it's dogs sat down."
    for kind in ROUGE:
        theirs = RougeScorer([kind]).score(target, answer)[kind].fmeasure
        assert get_metric(kind)(answer, target) == pytest.approx(theirs)
    for name, theirs in (("bleu", sentence_bleu), ("chrf", sentence_chrf)):
        assert get_metric(name)(answer, target) == pytest.approx(
            theirs(answer, [target]).score / 100
        )


def test_bleu_splits_what_has_no_spaces() -> None:
    answer, target = "猫が座っている", "犬が座っている"
    assert get_metric("bleu", "ja")(answer, target) > 0.5 > get_metric("bleu")(answer, target)
    assert get_metric("bleu", "zh-CN")("我喜欢猫和狗", "我喜欢猫与狗") > 0.3


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("evaluate:rouge", "rougeL"),
        ("evaluate:rouge#rouge2", "rouge2"),
        ("evaluate:bleu", "bleu"),
        ("evaluate:sacrebleu", "bleu"),
        ("evaluate:chrf#score", "chrf"),
        ("evaluate:exact_match", "exact_match"),
        ("evaluate:f1", "f1"),
        ("evaluate:accuracy", "accuracy"),
    ],
)
def test_names_of_evaluate_that_need_no_network(
    monkeypatch: pytest.MonkeyPatch, name: str, ours: str
) -> None:
    monkeypatch.setitem(sys.modules, "evaluate", None)
    answer, target = "the cat sat down", "a cat sat there"
    assert get_metric(name)(answer, target) == get_metric(ours)(answer, target)


def test_evaluate_module_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHING_ALLOW_CODE", "1")
    folder = tmp_path / "overlap"
    folder.mkdir()
    (folder / "overlap.py").write_text(MODULE)
    metric = get_metric(f"evaluate:{folder}#jaccard")
    assert metric("abc", "abd") == pytest.approx(0.5)
    with pytest.raises(MorphingError, match="choose one of jaccard, count"):
        get_metric(f"evaluate:{folder}")("a", "a")


def test_evaluate_module_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHING_ALLOW_CODE", "1")
    with pytest.raises(MorphingError, match="can't be loaded from the evaluate library") as caught:
        get_metric("evaluate:no_such_metric")
    assert "\n" not in str(caught.value)
