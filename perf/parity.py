"""Every merge method through mergekit-yaml and through morphing merge, at SmolLM2-135M's size.

    nice python perf/parity.py [--methods ties,sce] [--dtypes float32,bfloat16] [--folder DIR]

Models are random, of SmolLM2-135M's shapes: a bfloat16 base and three sources at a hundredth of its
spread. What is in parity.json beside the results is not run again; parity.md is made from it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from morphing.merging.methods import METHODS  # noqa: E402
from morphing.merging.recipe import Recipe  # noqa: E402
from tests.merging.comparing import (  # noqa: E402
    STEP,
    STOCHASTIC,
    StableSorts,
    agreement,
    errors_apart,
    read,
    recipe_text,
    run_mergekit,
    save_random_models,
    spread,
    undecided,
)

RESULTS = ROOT / "perf" / "results"
SOURCES = ("one", "two", "three")
DTYPES = ("float32", "bfloat16")
NEEDED = {"float32": 0.9999, "bfloat16": 0.97}

CONFIG: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100000,
}


def main() -> None:
    arguments = _arguments()
    logging.getLogger("mergekit").setLevel(logging.CRITICAL)  # it misses the tokenizer
    store = RESULTS / "parity.json"
    done = json.loads(store.read_text()) if store.is_file() else {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(arguments.folder or temporary)
        folders = [root / name for name in ("base", *SOURCES)]
        if not all((folder / "config.json").is_file() for folder in folders):
            save_random_models(folders, CONFIG)
        for dtype in arguments.dtypes.split(","):
            for method in arguments.methods.split(","):
                if method in done.get(dtype, {}):
                    continue
                print(f"{method}, dtype {dtype} ...", end=" ", flush=True)
                try:
                    result = compare(method, dtype, folders, root / "work")
                except RuntimeError as error:
                    print(error, flush=True)
                    continue
                print(f"{result['share']:.4%} within one ulp", flush=True)
                done.setdefault(dtype, {})[method] = result
                RESULTS.mkdir(exist_ok=True)
                store.write_text(json.dumps(done, indent=1) + "\n")
    (RESULTS / "parity.md").write_text(table(done))


def compare(method: str, dtype: str, folders: list[Path], work: Path) -> dict[str, Any]:
    """Merge by both commands and compare what they wrote."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    recipe = work / "recipe.yaml"
    # Rescaling is by chance too. A step of few quanta is scaled to about half a quantum, and which
    # half a whole tensor is rounded to is chance again: distributions are compared in float32.
    out = dtype if method in STOCHASTIC else "bfloat16"
    recipe.write_text(recipe_text(method, folders, dtype, out))
    mergekit = Path(sys.executable).with_name("mergekit-yaml")
    morphing = (sys.executable, "-m", "morphing", "merge")
    seconds = {
        "morphing": _run(*morphing, recipe, work / "ours", "--device", "cpu"),
        "mergekit": _run(mergekit, recipe, work / "theirs", "--quiet", "--random-seed", 1),
    }
    ours, theirs = read(work / "ours"), read(work / "theirs")
    dtypes = {torch.float32, getattr(torch, dtype)}
    free = dict(undecided(Recipe.from_yaml(recipe.read_text()), sorted(dtypes, key=str)))
    found = agreement(ours, theirs, free)
    result: dict[str, Any] = {
        "share": found.share,
        "excluded": found.excluded,
        "compared": found.compared,
        "worst": found.worst,
        "seconds": seconds,
    }
    if dtype != "float32" and found.share < NEEDED[dtype] and method not in STOCHASTIC:
        recipe.write_text(recipe_text(method, folders, "float32", "bfloat16"))
        run_mergekit(recipe, work / "precise")
        result["own"] = agreement(read(work / "precise"), theirs, free).share
        recipe.write_text(recipe_text(method, folders, dtype, "bfloat16"))
    if free:
        with StableSorts():
            run_mergekit(recipe, work / "stable")
        stable = read(work / "stable")
        result["stable"] = agreement(ours, stable, {n: ~tied for n, tied in free.items()}).share
    if method in STOCHASTIC:
        base = read(folders[0])
        mine, other = spread(ours, base), spread(theirs, base)
        apart = errors_apart(mine, other)
        result["spread"] = {
            name: [mine.statistics()[name][0], other.statistics()[name][0], apart[name]]
            for name in apart
        }
    shutil.rmtree(work)
    return result


def _run(*command: object) -> float:
    start = time.perf_counter()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"A merge failed:\n{done.stderr[-2000:]}")
    return round(time.perf_counter() - start, 1)


def table(done: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "# Parity with mergekit at SmolLM2-135M's size",
        "",
        "The same YAML through `mergekit-yaml` and `morphing merge`, with `out_dtype: bfloat16`:"
        " random models of SmolLM2-135M's shapes in bfloat16, a base and three sources a normal"
        f" step of {STEP:g} of its spread away. Made by `perf/parity.py`.",
        "",
        f"Machine: {_machine()}.",
        "",
        "*Within one ulp*: of the elements compared, those equal or neighbours in bfloat16. *Ties*:"
        " elements not compared, because their magnitude is exactly a threshold's and more of them"
        " are than are to be kept; mergekit's choice among them is its sort's, ours the first by"
        " index. Steps of bfloat16 models are multiples of few quanta, so such groups are large;"
        " the last column compares these, with a mergekit made to sort stably. *Most ulps* are many"
        " where terms cancel to a result near zero.",
    ]
    for dtype in DTYPES:
        results = done.get(dtype, {})
        if not results:
            continue
        lines += ["", f"## `dtype: {dtype}`, methods without chance", ""]
        if dtype == "bfloat16":
            lines += ["mergekit computes in bfloat16, Morphing in float32 whatever is asked.", ""]
        share = f"Within one ulp (needed {NEEDED[dtype]:.2%})"
        lines += [
            f"| Method | {share} | Most ulps | Ties | Ties, with a stable sort |",
            "|---|---|---|---|---|",
        ]
        for method in METHODS:
            if method in results and method not in STOCHASTIC:
                lines.append(_row(method, results[method]))
        lines += ["", f"## `dtype: {dtype}`, methods of chance", "", *_spreads(results)]
    return "\n".join(lines) + "\n"


def _row(method: str, result: dict[str, Any]) -> str:
    total = result["compared"] + result["excluded"]
    ties = f"{result['excluded']} ({result['excluded'] / total:.2%})" if result["excluded"] else "0"
    stable = f"{result['stable']:.5%}" if "stable" in result else ""
    share = f"{result['share']:.5%}"
    if "own" in result:
        share += f" (of mergekit's own float32 {result['own']:.4%})"
    return f"| {method} | {share} | {result['worst']} | {ties} | {stable} |"


def _spreads(results: dict[str, Any]) -> list[str]:
    lines = [
        "Of the step from the base, over all elements: Morphing / mergekit, and by how many"
        " standard errors of independent draws they differ. The output's dtype is the recipe's;"
        " in bfloat16 a whole tensor's entries of half a quantum are rounded up or down by the"
        " chance of its rescaling, which these errors do not count.",
        "",
        "| Method | Changed elements | L1 norm an element | Mean | Variance |",
        "|---|---|---|---|---|",
    ]
    for method in STOCHASTIC:
        if method in results:
            cells = [
                f"{mine:.5g} / {other:.5g} ({apart:.1f})"
                for mine, other, apart in results[method]["spread"].values()
            ]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _machine() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0].partition(":")[2].strip() if names else model
    from importlib.metadata import version

    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()},"
        f" torch {torch.__version__}, mergekit {version('mergekit')}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="comma-separated")
    parser.add_argument("--folder", help="where to keep the models; a temporary one by default")
    return parser.parse_args()


if __name__ == "__main__":
    main()
