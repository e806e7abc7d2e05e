"""What `evaluate.py` measured, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machine import sentence
from report import table


def evaluation(results: Mapping[str, Any]) -> str:
    """Everything `evaluate.py` measured."""
    measured = results["cases"]
    parts = [
        "# Scoring against lm-evaluation-harness's HFLM",
        f"{results['model']} in {results['dtype']}; the same loaded model, samples and threads,"
        " turn by turn, from texts to scores. Seconds are the best of the repeats, medians in"
        " brackets. HFLM runs at the batch size that was fastest for it; ours chooses its own.",
        sentence(results["machine"]),
        _times(measured),
        *(f"- *{name}*: {case['about']}." for name, case in measured.items()),
        "*The same*: the share of samples with the same text, or the same order of all options'"
        " log-likelihoods; *difference*: the largest between two log-likelihoods.",
        "## Where our time goes",
        "*Bare*: what the arithmetic of the matrices alone would take (2 operations a parameter and"
        " token that must be computed, and the head's for logits that are read) at"
        f" {results['matmul_gflops']:.0f} GFLOP/s, the most that a multiplication of 1,024 rows by"
        " one of the model's matrices reached here. *Computed*: tokens and logits over those that"
        " must be, which is what padding and unread positions cost. In a run, tokenizing is done"
        " once and not for every trial.",
        _shares(measured),
    ]
    text = "\n\n".join(parts) + "\n"
    return text.replace(".\n\n- *", ".\n- *")


def _times(measured: Mapping[str, Any]) -> str:
    rows = []
    for name, case in measured.items():
        ours, theirs, agreement = case["ours"], case["hflm"], case["agreement"]
        difference = agreement.get("largest_difference")
        rows.append(
            [
                name,
                str(case["samples"]),
                f"{ours['best']:.2f} ({ours['median']:.2f})",
                f"{theirs['best']:.2f} ({theirs['median']:.2f})",
                str(theirs["batch"]),
                f"**{case['times_faster']:.1f}×**",
                f"{agreement['same']:.1%}",
                "" if difference is None else f"{difference:.1e}",
            ]
        )
    head = ["case", "samples", "ours", "HFLM", "its batch", "faster", "the same", "difference"]
    return table(head, rows)


def _shares(measured: Mapping[str, Any]) -> str:
    names = ("tokenize", "forward", "decode", "score")
    rows = []
    for name, case in measured.items():
        tokens, logits = case["tokens"], case["logits"]
        rows.append(
            [
                name,
                *(f"{case['shares'].get(share, 0):.1%}" for share in names),
                f"{case['bare_share']:.0%}",
                f"{tokens['computed'] / tokens['needed']:.2f} of {tokens['needed']:,}",
                f"{logits['computed'] / logits['needed']:.2f} of {logits['needed']:,}",
            ]
        )
    return table(["case", *names, "bare / ours", "tokens computed", "logits computed"], rows)
