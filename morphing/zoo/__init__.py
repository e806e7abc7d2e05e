"""The embedded default: tiny models and benchmarks that need no network, account or GPU.

One base and three specialists of under a million parameters each, with the benchmarks they were
made for. `python -m morphing.zoo.train` remakes all of it; `README.md` here says how well it does.
"""

from __future__ import annotations

from pathlib import Path

from morphing.errors import MorphingError

SPECIALISTS: tuple[str, ...] = ("english-math", "japanese-numerals", "word-games")
MODELS: tuple[str, ...] = ("base", *SPECIALISTS)
#: One task benchmark for each specialist, in the same order, then the cross-domain one.
BENCHMARKS: tuple[str, ...] = (
    "english-arithmetic",
    "kanji-numbers",
    "word-puzzles",
    "japanese-arithmetic",
)

_HERE = Path(__file__).resolve().parent


def model_folder(name: str) -> Path:
    """The checkpoint folder of a zoo model, as `from_pretrained` takes it."""
    return _folder("model", name, MODELS)


def dataset_folder(name: str) -> Path:
    """The folder of a zoo benchmark: `search.jsonl`, `holdout.jsonl` and a dataset card."""
    return _folder("benchmark", name, BENCHMARKS)


def _folder(kind: str, name: str, known: tuple[str, ...]) -> Path:
    if name not in known:
        raise MorphingError(f"The zoo has no {kind} named {name!r}; it has {', '.join(known)}.")
    return _HERE / ("models" if kind == "model" else "datasets") / name
