"""What merges of 7B and 70B models would cost on a GPU, worked out from what was measured here.

``python perf/scale.py`` prints the tables, ``--write`` puts them into docs/scale.md. Nothing in
them was measured on a GPU; docs/scale.md says what is assumed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import table

_HERE = Path(__file__).parent
_DOCUMENT = _HERE.parent / "docs" / "scale.md"
_BEGIN, _END = "<!-- figures: perf/scale.py --write -->", "<!-- end of figures -->"
_SOURCES = 3
_BFLOAT16 = 2
_TABLE_BYTES = 12 / 64
"""Of a rank table, at most, an element."""
_STAGED_ELEMENTS = 1 << 23
_RANK = 16
_ACTIVATIONS = 0.25
"""Of the model, as `required_memory` reckons, with 256 MiB beside."""
_MARGIN = 2**28
_METHODS = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties")
_RANKED = ("ties",)


@dataclass(frozen=True)
class Model:
    """A published shape."""

    name: str
    parameters: float
    lora_parameters: float
    """Of one adapter of rank `_RANK` on all linear layers of every block."""
    largest: float
    """Elements of the largest tensor."""


@dataclass(frozen=True)
class Hardware:
    """Rates in bytes a second, one direction, as vendors state them."""

    name: str
    memory: float
    bandwidth: float
    bus: float = 32e9  # PCIe 4.0, 16 lanes
    disk_read: float = 7.45e9
    disk_write: float = 6.9e9


def _llama(name: str, width: int, inner: int, layers: int, narrow: int, vocabulary: int) -> Model:
    square, side, tall = width * width, width * narrow, width * inner
    matrices = layers * (2 * square + 2 * side + 3 * tall)
    factors = layers * _RANK * (4 * width + 2 * (width + narrow) + 3 * (width + inner))
    norms = (2 * layers + 1) * width
    embeddings = vocabulary * width
    return Model(name, matrices + norms + 2 * embeddings, factors, max(embeddings, tall))


_MODELS = (
    _llama("7B", 4096, 11008, 32, 4096, 32000),
    _llama("70B", 8192, 28672, 80, 1024, 32000),
)
_GPUS = (
    Hardware("24 GB (A10)", 24e9, 600e9),
    Hardware("80 GB (A100 SXM)", 80e9, 2039e9),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=_HERE / "results" / "morph.json")
    parser.add_argument("--write", action="store_true", help="into docs/scale.md")
    arguments = parser.parse_args()
    text = tables(json.loads(arguments.results.read_text()))
    print(text)
    if arguments.write:
        before, rest = _DOCUMENT.read_text().split(_BEGIN)
        after = rest.split(_END)[1]
        _DOCUMENT.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}")


def tables(results: Mapping[str, Any]) -> str:
    """All of them, as Markdown."""
    machine = results["machine"]
    known = [name for name in _METHODS if name in results["methods"]]
    ratios = {name: _ratio(results["methods"][name]) for name in known}
    warning = "**From a busy machine or a quick run: to be made again.**\n\n"
    measured = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    return "\n\n".join(
        [
            (warning if machine["busy"] or results["quick"] else "")
            + f"Measured on the CPU ({machine['cpu']}, {machine['threads']} threads), a compiled"
            f" morph over a copy of the same bytes: {measured}.",
            "### Memory",
            _memory(),
            "### A morph into a loaded model",
            _morphs(ratios, _lora_ratios(results)),
            "### A merge to disk",
            _merges(ratios, results),
            "### One-off preparation",
            _preparation(results),
        ]
    )


def _ratio(figures: Mapping[str, Any]) -> float:
    return figures["compiled"]["median"] / figures["copy"]["median"]


def _lora_ratios(results: Mapping[str, Any]) -> dict[str, float]:
    methods = results["loras"]["methods"]
    return {name: m["best"] / m["copy"] for name, m in methods.items()}


def _memory() -> str:
    rows = []
    for model in _MODELS:
        one = model.parameters * _BFLOAT16
        factors = model.lora_parameters * 4
        rows.append(
            [
                model.name,
                _gb(one),
                _gb((_SOURCES + 1) * one),
                _gb(one + _SOURCES * factors),
                _gb(_loaded(model)),
                _gb(_SOURCES * model.parameters * _TABLE_BYTES),
                _gb(_staged(model)),
            ]
        )
    head = ["", "one checkpoint", f"base and {_SOURCES} sources", f"base and {_SOURCES} LoRAs"]
    head += ["loaded model with room to score", "rank tables, at most", "rows while merging"]
    return f"In GB.\n\n{table(head, rows)}"


def _morphs(ratios: Mapping[str, float], lora_ratios: Mapping[str, float]) -> str:
    rows = []
    for model in _MODELS:
        one = model.parameters * _BFLOAT16
        for gpu in _GPUS:
            rows += _placements(
                f"{model.name}, {gpu.name}, full", model, gpu, (_SOURCES + 1) * one, 0, ratios
            )
            factors = _SOURCES * model.lora_parameters * 4
            name = f"{model.name}, {gpu.name}, LoRA"
            own = {method: lora_ratios.get(method) for method in ratios}
            rows += _placements(name, model, gpu, one, factors, own)
    head = ["model, GPU, sources, placement", "on the GPU, GB", "in host memory, GB", "fetching"]
    return f"Times in seconds.\n\n{table([*head, *ratios], rows)}"


def _placements(
    name: str,
    model: Model,
    gpu: Hardware,
    held: float,
    factors: float,
    ratios: Mapping[str, float | None],
) -> list[list[str]]:
    """A row for each placement of checkpoints of ``held`` bytes; factors are on the device."""
    needed = _loaded(model) + _staged(model) + factors
    if needed > gpu.memory:
        return [[name, _gb(needed), "does not fit", *("" for _ in range(len(ratios) + 1))]]
    # An adapted tensor is made from the base's, which is fetched for each adapter anew.
    fetched = (_SOURCES + 1) * model.parameters * _BFLOAT16
    over_bus = fetched / gpu.bus
    places = {
        "device": (needed + held, 0.0, 0.0),
        "host": (needed, held, over_bus),
        "disk": (needed, 0.0, over_bus + fetched / gpu.disk_read),
    }
    rows = []
    for place, (on_gpu, on_host, fetching) in places.items():
        cells = [f"{name}, {place}", _gb(on_gpu)]
        if on_gpu > gpu.memory:
            cells += ["does not fit", *("" for _ in range(len(ratios) + 1))]
        else:
            times = [
                "" if ratio is None else f"{fetching + _computing(ratio, model, gpu):.2f}"
                for ratio in ratios.values()
            ]
            cells += [_gb(on_host), f"{fetching:.2f}", *times]
        rows.append(cells)
    return rows


def _merges(ratios: Mapping[str, float], results: Mapping[str, Any]) -> str:
    rows = []
    for model in _MODELS:
        one = model.parameters * _BFLOAT16
        for gpu in _GPUS:
            reading = (_SOURCES + 1) * one / gpu.disk_read
            writing = one / gpu.disk_write
            cells = [f"{model.name}, {gpu.name}", f"{reading:.0f}", f"{writing:.0f}"]
            for name, ratio in ratios.items():
                ranking = _ranking(results, model) if name in _RANKED else 0.0
                total = reading + writing + _computing(ratio, model, gpu) + ranking
                cells.append(f"{total:.0f}")
            rows.append(cells)
    head = ["model, GPU", "reading", "writing", *ratios]
    return (
        "In seconds, from one disk, nothing overlapping. TIES' column includes ranking every source"
        f" once, on the CPU.\n\n{table(head, rows)}"
    )


def _preparation(results: Mapping[str, Any]) -> str:
    rows = []
    for name, method in results["methods"].items():
        taken = method["compiling"]["preparing"]
        scale = [model.parameters / results["parameters"] for model in _MODELS]
        rows.append([name, f"{taken:.2f}", *(f"{taken * factor:.0f}" for factor in scale)])
    head = ["method", f"{results['parameters'] / 1e6:.0f} M, measured"]
    head += [f"{model.name}, in proportion" for model in _MODELS]
    return f"In seconds, on this CPU.\n\n{table(head, rows)}"


def _loaded(model: Model) -> float:
    return model.parameters * _BFLOAT16 * (1 + _ACTIVATIONS) + _MARGIN


def _staged(model: Model) -> float:
    """Rows of every input while a segment is merged, where they are not on the device already."""
    return max(model.largest, _STAGED_ELEMENTS) * 4 * (_SOURCES + 1)


def _computing(ratio: float, model: Model, gpu: Hardware) -> float:
    return ratio * (_SOURCES + 2) * model.parameters * _BFLOAT16 / gpu.bandwidth


def _ranking(results: Mapping[str, Any], model: Model) -> float:
    taken = results["methods"]["ties"]["compiling"]["preparing"]
    return taken * model.parameters / results["parameters"]


def _gb(value: float) -> str:
    return f"{value / 1e9:.1f}"


if __name__ == "__main__":
    main()
