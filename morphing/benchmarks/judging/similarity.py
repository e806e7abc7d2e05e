"""How alike an answer and its target are, between 0 and 1, whatever language they are in."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
    from sacrebleu.metrics import BLEU, CHRF

# Written without spaces between words, so that each character is taken for one: Thai, Lao, Burmese,
# Khmer, kana, and the CJK ideographs.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")

ROUGE = ("rouge1", "rouge2", "rougeL")
# What sacrebleu splits with; its splitter for Japanese needs a dictionary that few have installed.
_SPLITTERS = {"zh": "zh", "ja": "char", "th": "char"}


class Words:
    """Lower-case words, as ROUGE's own splitter finds them in English; see ``_UNSPACED`` too."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text in their order."""
        return _WORD.findall(text.lower())


def f1(answer: str, target: str) -> float:
    """The harmonic mean of the shares of words that answer and target have in common (SQuAD's)."""
    found, wanted = (Counter(Words().tokenize(text)) for text in (answer, target))
    if not found or not wanted:
        return float(found == wanted)
    shared = (found & wanted).total()
    return 2 * shared / (found.total() + wanted.total())


def rouge(kind: str, answer: str, target: str) -> float:
    """ROUGE's F-measure (Lin, 2004), by the library `rouge_score`; ``kind`` is one of ROUGE."""
    return float(_rouge(kind).score(target, answer)[kind].fmeasure)


def bleu(answer: str, target: str, language: str | None = None) -> float:
    """Sentence BLEU by the library `sacrebleu`, smoothed, over as many words as there are."""
    splitter = _SPLITTERS.get((language or "").split("-")[0].lower(), "13a")
    return min(float(_bleu(splitter).sentence_score(answer, [target]).score) / 100, 1.0)


def chrf(answer: str, target: str) -> float:
    """Sentence chrF (Popović, 2015) by the library `sacrebleu`: characters, so of any language."""
    return min(float(_chrf().sentence_score(answer, [target]).score) / 100, 1.0)


@cache
def _rouge(kind: str) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], tokenizer=Words())


@cache
def _bleu(splitter: str) -> BLEU:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=splitter, effective_order=True, force=True)


@cache
def _chrf() -> CHRF:
    from sacrebleu.metrics import CHRF

    return CHRF()
