"""Results as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from machine import sentence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def morph(results: Mapping[str, Any]) -> str:
    """Everything `morph.py` measured."""
    parts = [
        "# A morph against a memory copy and against mergekit",
        f"{results['parameters'] / 1e6:.1f} M parameters of {results['base']}, a base and"
        f" {results['sources']} sources in bfloat16 (slerp: one source). Best of the repeats, in"
        " seconds, medians in brackets; every merge has other parameters. *Copy* is a copy of the"
        " same bytes: base and sources read, one model written.",
        sentence(results["machine"]),
        _times(results["methods"]),
        "## What comes first",
        "In seconds. Preparing (rank tables, norms) happens once a search; compiling once a"
        " process, and with nothing in the cache once a machine. *Repaid after*: the number of"
        " morphs from which compiling with an empty cache was worth it against eager kernels, and"
        " from which preparing and compiling were against mergekit in memory.",
        _first(results["methods"]),
        *_loras(results),
        *_steps(results),
    ]
    return "\n\n".join(parts) + "\n"


def _times(methods: Mapping[str, Any]) -> str:
    rows = []
    for name, m in methods.items():
        copy, compiled, peer = m["copy"], m["compiled"], m["mergekit_memory"]
        program = m.get("mergekit_yaml")
        distance = m["distance_to_mergekit"]
        ratios = [compiled[kind] / copy[kind] for kind in ("best", "median")]
        rows.append(
            [
                name,
                _both(copy),
                _both(compiled),
                f"{ratios[0]:.2f} ({ratios[1]:.2f})",
                _both(m["eager"]),
                f"{_both(peer)} {peer['by'].removeprefix('merge_')}",
                f"{peer['best'] / compiled['best']:.0f}×",
                "" if program is None else _both(program),
                "" if program is None else f"{program['best'] / compiled['best']:.0f}×",
                "random" if distance is None else f"{distance:.1e}",
            ]
        )
    head = ["method", "copy", "morph", "morph / copy", "morph, eager", "mergekit in memory"]
    head += ["/ morph", "mergekit-yaml", "/ morph", "difference"]
    note = (
        "*Difference*: L1 distance between our model and mergekit's of one recipe, over how far the"
        " recipe moves from the base (linear: from its first source). TIES cuts among equal"
        " magnitudes, of which bfloat16 sources have many, at another place than mergekit; DARE"
        " drops at random."
    )
    return f"{table(head, rows)}\n\n{note}"


def _first(methods: Mapping[str, Any]) -> str:
    rows = []
    for name, m in methods.items():
        first = m["compiling"]
        usual = m["compiled"]["median"]
        own = m["eager"]["median"] - usual
        peer = m["mergekit_memory"]["median"] - usual
        rows.append(
            [
                name,
                f"{first['loading']:.1f}",
                f"{first['preparing']:.2f}",
                f"{first['cold']:.1f}",
                f"{first['warm']:.1f}",
                _repaid(first["cold"], own),
                _repaid(first["cold"] + first["preparing"], peer),
            ]
        )
    head = ["method", "loading", "preparing", "compiling", "with a cache"]
    return table([*head, "repaid after (eager)", "repaid after (mergekit)"], rows)


def _loras(results: Mapping[str, Any]) -> list[str]:
    loras = results["loras"]
    full = results["full_sources_held"]
    held = loras["held"]
    rows = [
        [
            name,
            _both(m),
            f"{m['best'] / m['copy']:.2f}",
            f"{m['best'] / results['methods'][name]['compiled']['best']:.2f}",
        ]
        for name, m in loras["methods"].items()
    ]
    megabytes = {key: value / 1e6 for key, value in held.items()}
    return [
        "## LoRA sources",
        f"The same with three adapters of rank {loras['rank']} on all linear layers, kept as"
        f" factors: {megabytes['checkpoints'] + megabytes['adapters']:.0f} MB are held"
        f" ({megabytes['checkpoints']:.0f} MB the base, {megabytes['adapters']:.0f} MB the"
        f" adapters), where full sources are {full['checkpoints'] / 1e6:.0f} MB. Rank tables, where"
        f" TIES needs them: {megabytes['rank_tables']:.1f} MB, of full sources"
        f" {full['rank_tables'] / 1e6:.1f} MB.",
        table(["method", "morph", "/ copy as above", "/ morph of full sources"], rows),
    ]


def _steps(results: Mapping[str, Any]) -> list[str]:
    loras = {f"{name} (LoRA)": m for name, m in results["loras"]["methods"].items()}
    rows = [
        [name, ", ".join(f"{step} {1000 * value:.1f}" for step, value in m["steps"].items())]
        for name, m in {**results["methods"], **loras}.items()
        if "steps" in m
    ]
    return ["## Steps", "Mean milliseconds.", table(["method", "steps"], rows)] if rows else []


def _both(figures: Mapping[str, Any]) -> str:
    return f"{_seconds(figures['best'])} ({_seconds(figures['median'])})"


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _repaid(cost: float, gain: float) -> str:
    return f"{math.ceil(cost / gain)}" if gain > 0 else "never"
