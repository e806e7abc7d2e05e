"""How long a morph takes, against a copy of the same bytes and against mergekit.

``python perf/morph.py`` writes results/morph.json and results/morph.md; perf/README.md says what is
measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import checkpoints
import recipes
import report
from machine import Machine
from timing import Task, in_turn, seconds, summary

_RESULTS = Path(__file__).parent / "results"
_LORA_METHODS = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties")
_MERGEKIT_SECONDS = 45.0
"""mergekit's slower merges are repeated no further than this."""


@dataclass(frozen=True)
class Family:
    """What is merged."""

    base: Path
    sources: tuple[Path, ...]
    adapters: tuple[Path, ...]
    work: Path


@dataclass(frozen=True)
class Options:
    methods: tuple[str, ...]
    threads: int
    repeats: int
    quick: bool
    profile: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, help="a real SmolLM2-135M (default: random weights)")
    parser.add_argument("--work", type=Path, help="where models are made (default: temporary)")
    parser.add_argument("--layers", type=int, help="fewer layers than the model's, to try it out")
    parser.add_argument("--methods", default=",".join(recipes.METHODS))
    parser.add_argument("--threads", type=int, help="for everything (default: one a core)")
    parser.add_argument("--repeats", type=int, default=9, help="of morphs and copies")
    parser.add_argument("--quick", action="store_true", help="no mergekit-yaml, mergekit once")
    parser.add_argument("--profile", action="store_true", help="also where a morph's time goes")
    parser.add_argument("--anyway", action="store_true", help="measure though the machine is busy")
    parser.add_argument("--results", type=Path, default=_RESULTS)
    parser.add_argument("--cold", nargs=2, metavar=("METHOD", "FAMILY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.base and arguments.layers:
        parser.error("--layers is for random weights, not for --base")
    threads = arguments.threads or os.cpu_count() or 1
    methods = tuple(arguments.methods.split(","))
    if unknown := set(methods) - set(recipes.METHODS):
        parser.error(f"--methods: {', '.join(unknown)} is none of {', '.join(recipes.METHODS)}")
    options = Options(methods, threads, arguments.repeats, arguments.quick, arguments.profile)
    if arguments.cold:
        print(json.dumps(_compile(arguments.cold[0], _read_family(arguments.cold[1]), threads)))
        return
    machine = Machine()
    machine.check_idle(arguments.anyway)
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        family = _make_family(Path(work), arguments.base, arguments.layers)
        results = _measure(family, options)
    results["machine"] = {**machine.facts(), "threads": threads}
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "morph.json").write_text(json.dumps(results, indent=2) + "\n")
    (arguments.results / "morph.md").write_text(report.morph(results))
    print(report.morph(results))


def _make_family(work: Path, base: Path | None, layers: int | None) -> Family:
    _say("making models")
    if base is None:
        sizes = dict(checkpoints.SMOLLM2_135M)
        sizes["num_hidden_layers"] = layers or sizes["num_hidden_layers"]
        base = work / "base"
        checkpoints.make_base(base, sizes)
    names = ("one", "two", "three")
    for i, name in enumerate(names):
        checkpoints.make_source(work / name, base, i + 1)
        checkpoints.make_adapter(work / f"{name}-lora", base, i + 1)
    sources = tuple(work / name for name in names)
    return Family(base.resolve(), sources, tuple(work / f"{n}-lora" for n in names), work)


def _read_family(text: str) -> Family:
    base, work, *sources = map(Path, text.split(os.pathsep))
    return Family(base, tuple(sources), (), work)


def _measure(family: Family, options: Options) -> dict[str, Any]:
    import torch

    torch.set_num_threads(options.threads)
    # Compilation first: each in a process of its own, while this one holds nothing yet.
    compiling = {name: _compilation(name, family, options.threads) for name in options.methods}
    # What those processes compiled is not compiled again here.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(family.work / "kernels")
    loaded = {str(p): checkpoints.load(p) for p in (family.base, *family.sources)}
    parameters = sum(tensor.numel() for tensor in loaded[str(family.base)].values())
    _say("loading base and sources")
    compiled = _morpher(family.base, family.sources, compiled=True)
    eager = _morpher(family.base, family.sources, compiled=False)
    methods = {}
    for method in options.methods:
        _say(method)
        methods[method] = {
            "compiling": compiling[method],
            **_measure_method(method, family, options, loaded, compiled, eager),
        }
    del eager
    held = _held(compiled)
    del compiled
    loras = _measure_loras(family, options, loaded)
    return {
        "base": "SmolLM2-135M's weights" if family.base.parent != family.work else "random weights",
        "parameters": parameters,
        "sources": len(family.sources),
        "quick": options.quick,
        "methods": methods,
        "full_sources_held": held,
        "loras": loras,
    }


def _measure_method(
    method: str,
    family: Family,
    options: Options,
    loaded: Mapping[str, Mapping[str, Any]],
    compiled: Any,
    eager: Any,
) -> dict[str, Any]:
    """All the ways to one merge in turn; the first morph, which prepares, is told apart."""
    import peer

    recipe = partial(recipes.draw, method, family.base, family.sources)
    first = {
        name: seconds(morpher.morph, recipe(-1))
        for name, morpher in (("compiled", compiled), ("eager", eager))
    }
    # Once more: a second density may need a kernel that the first did not.
    for number in (-2, -3):
        compiled.morph(recipe(number))
    copies = _copies(len(recipe(0).sources) + 2, loaded[str(family.base)], options.threads)
    mergekit_repeats = 1 if options.quick else 3
    tasks = {f"copy {name}": Task(copy, options.repeats) for name, copy in copies.items()}
    tasks["compiled"] = Task(partial(_morph, compiled, recipe), options.repeats)
    tasks["eager"] = Task(partial(_morph, eager, recipe), min(options.repeats, 5))
    for name, merge in peer.IN_MEMORY.items():
        tasks[f"mergekit {name}"] = Task(
            partial(_merge, merge, loaded, recipe), mergekit_repeats, _MERGEKIT_SECONDS
        )
    if not options.quick:
        tasks["mergekit-yaml"] = Task(
            lambda i: peer.program(recipe(i), family.work / "merged", options.threads),
            2,
            _MERGEKIT_SECONDS / 3,
        )
    taken = in_turn(tasks)
    best_copy = min((n for n in taken if n.startswith("copy ")), key=lambda n: min(taken[n]))
    fastest = min((n for n in taken if n.startswith("mergekit ")), key=lambda n: min(taken[n]))
    result = {
        "bytes": _model_bytes(loaded[str(family.base)]) * (len(recipe(0).sources) + 2),
        "copy": {"by": best_copy.removeprefix("copy "), **summary(taken[best_copy])},
        "compiled": summary(taken["compiled"]),
        "eager": summary(taken["eager"]),
        "first_morph": {name: round(value, 4) for name, value in first.items()},
        "mergekit_memory": {
            "by": fastest.removeprefix("mergekit "),
            **summary(taken[fastest]),
            "all": {
                n.removeprefix("mergekit "): round(min(t), 3)
                for n, t in taken.items()
                if n.startswith("mergekit ")
            },
        },
        "distance_to_mergekit": _distance(recipe(0), loaded, compiled),
    }
    if "mergekit-yaml" in taken:
        result["mergekit_yaml"] = summary(taken["mergekit-yaml"])
    if options.profile:
        result["steps"] = _steps(compiled, [recipe(i) for i in range(options.repeats)])
    return result


def _measure_loras(
    family: Family, options: Options, loaded: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    _say("LoRA sources")
    morpher = _morpher(family.base, family.adapters, compiled=True)
    methods: dict[str, dict[str, Any]] = {}
    for method in (m for m in _LORA_METHODS if m in options.methods):
        recipe = partial(recipes.draw, method, family.base, family.adapters)
        for number in (-1, -2, -3):  # prepares and compiles
            morpher.morph(recipe(number))
        copies = _copies(len(family.adapters) + 2, loaded[str(family.base)], options.threads)
        tasks = {f"copy {name}": Task(copy, options.repeats) for name, copy in copies.items()}
        tasks["compiled"] = Task(partial(_morph, morpher, recipe), options.repeats)
        taken = in_turn(tasks)
        methods[method] = dict(summary(taken.pop("compiled")))
        methods[method]["copy"] = round(min(map(min, taken.values())), 5)
        if options.profile:
            methods[method]["steps"] = _steps(morpher, [recipe(i) for i in range(3)])
    return {"rank": checkpoints.RANK, "held": _held(morpher), "methods": methods}


def _morph(morpher: Any, recipe: Callable[[int], Any], number: int) -> None:
    morpher.morph(recipe(number))


def _merge(merge: Callable[..., object], loaded: Any, recipe: Callable[[int], Any], i: int) -> None:
    merge(loaded, recipe(i))


def _compilation(method: str, family: Family, threads: int) -> dict[str, float]:
    """In a process with an empty cache, and in another that finds the first one's."""
    _say(f"compiling {method}")
    cache = family.work / f"kernels-{method}"
    taken: dict[str, float] = {}
    for kind in ("cold", "warm"):
        places = os.pathsep.join(map(str, (family.base, family.work, *family.sources)))
        command = [sys.executable, __file__, "--threads", str(threads), "--cold", method, places]
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"compiling {method} failed")
        figures = json.loads(done.stdout.splitlines()[-1])
        taken[kind] = figures["compiling"]
        taken["preparing"] = min(figures["preparing"], taken.get("preparing", float("inf")))
        taken["loading"] = figures["loading"]
    shutil.copytree(cache, family.work / "kernels", dirs_exist_ok=True)
    return taken


def _compile(method: str, family: Family, threads: int) -> dict[str, float]:
    """What comes before the second morph of a process: loading, preparing, compiling."""
    import torch

    torch.set_num_threads(threads)
    morphers: list[Any] = []

    def load() -> None:
        morphers.append(_morpher(family.base, family.sources, compiled=True))

    loading = seconds(load)

    def morph(morpher: Any, number: int) -> float:
        recipe = recipes.draw(method, family.base, family.sources, number)
        return seconds(morpher.morph, recipe)

    started = [morph(morphers[0], number) for number in range(3)]
    usual = min(morph(morphers[0], number) for number in range(3, 8))
    # Another morpher finds everything compiled and nothing prepared.
    load()
    preparing = max(0.0, morph(morphers[1], 0) - usual)
    compiling = sum(started) - 3 * usual - preparing
    return {
        "loading": round(loading, 2),
        "preparing": round(preparing, 3),
        "compiling": round(max(0.0, compiling), 2),
    }


def _morpher(base: Path, sources: Sequence[Path], compiled: bool) -> Any:
    import torch
    from transformers.utils import logging

    from morphing.merging.morph import Morpher
    from morphing.sources.find import download

    logging.disable_progress_bar()
    found = [download(str(folder)) for folder in (base, *sources)]
    device = torch.device("cpu")
    return Morpher(found[0], found[1:], device, torch.bfloat16, "device", compiled)


def _copies(models: int, tensors: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Two ways to copy so many bytes that as many are read and written as by a merge.

    A merge of ``models - 1`` inputs reads them and writes one; half of that is read here and half
    written. Torch's own copy, and one copy a thread: the faster counts.
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch

    size = _model_bytes(tensors) * models // 2
    source = torch.ones(size // 8, dtype=torch.int64)
    target = torch.zeros_like(source)
    parts = list(zip(target.chunk(threads), source.chunk(threads), strict=True))
    pool = ThreadPoolExecutor(threads)

    def whole(_: int) -> None:
        target.copy_(source)

    def shared(_: int) -> None:
        list(pool.map(lambda pair: pair[0].copy_(pair[1]), parts))

    whole(0)
    shared(0)
    return {"torch": whole, "threads": shared}


def _model_bytes(tensors: Mapping[str, Any]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _distance(recipe: Any, loaded: Mapping[str, Mapping[str, Any]], morpher: Any) -> float | None:
    """Relative L1 distance between the two models of one recipe, as a check that both did it.

    DARE drops at random, each its own way.
    """
    import peer

    if recipe.method.startswith("dare"):
        return None
    theirs = peer.tensor_by_tensor(loaded, recipe)
    base = loaded[recipes.models(recipe)[0]]
    apart = moved = 0.0
    for name, tensor in morpher.tensors(recipe):
        apart += float((tensor.float() - theirs[name].float()).abs().sum())
        moved += float((theirs[name].float() - base[name].float()).abs().sum())
    return apart / moved


def _held(morpher: Any) -> dict[str, int]:
    """Bytes of the models as they are kept, and of what is kept about them."""
    import gc

    from morphing.merging.rows.ties_ranks import Ranks

    engine = morpher.engine
    checkpoints_ = {m.weights.source.folder: m.weights.bytes for m in engine.models.values()}
    adapters = sum(m.adapter.bytes for m in engine.models.values() if m.adapter is not None)
    gc.collect()  # tables of another morpher, that is gone, do not count
    ranks = [thing for thing in gc.get_objects() if type(thing) is Ranks]
    tables = sum(table.values.nbytes + table.counts.nbytes for table in ranks)
    return {"checkpoints": sum(checkpoints_.values()), "adapters": adapters, "rank_tables": tables}


def _steps(morpher: Any, drawn: Sequence[Any]) -> dict[str, float]:
    """Mean seconds of each step of a morph."""
    from steps import profiled

    with profiled() as spent:
        whole = sum(seconds(morpher.morph, recipe) for recipe in drawn)
    spent["everything else"] = whole - sum(spent.values())
    ordered = sorted(spent.items(), key=lambda item: -item[1])
    return {name: round(value / len(drawn), 5) for name, value in ordered}


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
