"""What a merge to disk costs in memory and time, against mergekit and against ``cp``.

``python perf/export.py`` makes a base and two sources of 3 GB each in shards of 1 GB, merges them
with ``morphing merge`` and with ``mergekit-yaml`` from the same YAML, and writes
results/export.json and results/export.md. perf/README.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import report
from machine import Machine, sentence

# Nothing that imports torch: a child's peak begins at its parent's.
_RESULTS = Path(__file__).parent / "results"
_METHODS = ("linear", "ties")
_SOURCES = 2
_TARGET = 1.5e9
_PARAMETERS_A_LAYER = 45.1e6
_POLL_SECONDS = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0, help="of each checkpoint")
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--methods", default=",".join(_METHODS))
    parser.add_argument("--work", type=Path, help="where models are made (default: temporary)")
    parser.add_argument("--ours-only", action="store_true", help="no mergekit and no cp")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--anyway", action="store_true", help="measure though the machine is busy")
    parser.add_argument("--results", type=Path, default=_RESULTS)
    arguments = parser.parse_args()
    machine = Machine()
    machine.check_idle(arguments.anyway)
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        results = _measure(Path(work), arguments)
    results["machine"] = {**machine.facts(), "threads": arguments.threads}
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "export.json").write_text(json.dumps(results, indent=2) + "\n")
    (arguments.results / "export.md").write_text(_report(results))
    print(_report(results))


def _measure(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    sizes = _sizes(arguments.gigabytes, arguments.vocabulary)
    needed = (_SOURCES + 3) * arguments.gigabytes * 1.1e9
    free = shutil.disk_usage(work).free
    if free < needed:
        sys.exit(f"{needed / 1e9:.0f} GB are needed in {work} and {free / 1e9:.0f} GB are free.")
    _say("making models")
    shard = max(1, round(arguments.gigabytes * 1000 / 3))
    command = [sys.executable, str(Path(__file__).with_name("checkpoints.py")), str(work)]
    subprocess.run([*command, str(_SOURCES), str(shard), json.dumps(sizes)], check=True)
    inputs = [work / "base", *(work / f"source{i}" for i in range(_SOURCES))]
    read = sum(_bytes(folder) for folder in inputs)
    written = _bytes(inputs[0])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(arguments.threads),
        "HF_HUB_OFFLINE": "1",
    }
    methods: dict[str, Any] = {}
    for method in arguments.methods.split(","):
        recipe = work / f"{method}.yml"
        recipe.write_text(_recipe(method, inputs))
        out = work / "merged"
        ours = ["/usr/bin/env", sys.executable, "-m", "morphing", "merge", str(recipe), str(out)]
        theirs = [str(Path(sys.executable).with_name("mergekit-yaml")), str(recipe), str(out)]
        theirs += ["--num-threads", str(arguments.threads), "--quiet"]
        commands = {"morphing": [*ours, "--device", "cpu"]}
        if not arguments.ours_only:
            commands["mergekit"] = theirs
            # Inputs and output are (sources + 2) checkpoints: half are read here, half written.
            commands["cp"] = ["cp", "-r", *map(str, inputs[: (_SOURCES + 2) // 2]), str(out)]
        methods[method] = {}
        for name, command in commands.items():
            _say(f"{method} by {name}")
            if name == "cp":
                out.mkdir()
            _forget(inputs)
            methods[method][name] = _run(command, environment, out)
            shutil.rmtree(out)
    return {
        "gigabytes": round(written / 1e9, 3),
        "files": len(list(inputs[0].glob("*.safetensors"))),
        "sources": _SOURCES,
        "largest_tensor": max(sizes["vocab_size"], sizes["intermediate_size"])
        * sizes["hidden_size"],
        "read": read,
        "written": written,
        "methods": methods,
    }


def _sizes(gigabytes: float, vocabulary: int) -> dict[str, Any]:
    """A Llama of that many bytes in bfloat16: as wide as usual with 1 to 2 G parameters."""
    width = 2048
    layers = (gigabytes * 1e9 / 2 - 2 * vocabulary * width) / _PARAMETERS_A_LAYER
    return {
        "hidden_size": width,
        "intermediate_size": 5632,
        "num_hidden_layers": max(1, round(layers + 0.5)),
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
    }


def _recipe(method: str, inputs: Sequence[Path]) -> str:
    """mergekit YAML, which is a superset of JSON. The base is merged too where it has no part."""
    base, *sources = map(str, inputs)
    own = {"weight": 0.4} if method == "linear" else {"weight": 0.4, "density": 0.3}
    merged = [base, *sources] if method == "linear" else sources
    config: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": name, "parameters": own} for name in merged],
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }
    if method != "linear":
        config |= {"base_model": base, "parameters": {"normalize": False}}
    return json.dumps(config, indent=2)


def _run(command: Sequence[str], environment: Mapping[str, str], out: Path) -> dict[str, float]:
    """Seconds until the output is on the disk, and peak memory of the process."""
    with tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True)
        peaks: dict[str, int] = {}
        watch = threading.Thread(target=_watch, args=(process.pid, peaks))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        elapsed = time.perf_counter() - started
        _sync(out)
        durable = time.perf_counter() - started
        watch.join()
        if process.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{log.read()}")
    return {
        "seconds": round(durable, 2),
        "process_seconds": round(elapsed, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_bytes": usage.ru_maxrss * 1024,
        "peak_anonymous_bytes": peaks.get("RssAnon", 0),
        "peak_file_bytes": peaks.get("RssFile", 0),
    }


def _watch(pid: int, peaks: dict[str, int]) -> None:
    """Until the process ends, the most it holds of its own and of mapped files (Linux)."""
    status = Path(f"/proc/{pid}/status")
    while True:
        try:
            lines = status.read_text().splitlines()
        except OSError:
            return
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        if "RssAnon" not in fields:  # it has ended and waits to be asked how
            return
        for name in ("RssAnon", "RssFile"):
            peaks[name] = max(peaks.get(name, 0), int(fields[name].split()[0]) * 1024)
        time.sleep(_POLL_SECONDS)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _forget(folders: Sequence[Path]) -> None:
    """Drop the files from the system's cache, so that they are read from the disk again."""
    for folder in folders:
        _sync(folder)
        for path in folder.iterdir():
            with path.open("rb") as file:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _report(results: Mapping[str, Any]) -> str:
    moved = results["read"] + results["written"]
    rows = []
    for method, programs in results["methods"].items():
        for name, figures in programs.items():
            share = ""
            if "cp" in programs:
                share = f"{programs['cp']['seconds'] / figures['seconds']:.2f}"
            rows.append(
                [
                    f"{method}, {name}",
                    f"{figures['seconds']:.1f}",
                    f"{figures['cpu_seconds']:.1f}",
                    f"{moved / figures['seconds'] / 1e9:.2f}",
                    share,
                    f"{figures['peak_bytes'] / 1e9:.2f}",
                    f"{figures['peak_anonymous_bytes'] / 1e9:.2f}",
                    f"{figures['peak_file_bytes'] / 1e9:.2f}",
                ]
            )
    head = ["", "seconds", "CPU seconds", "GB/s", "of cp's rate", "peak RSS, GB", "own", "mapped"]
    ours = [programs["morphing"]["peak_bytes"] for programs in results["methods"].values()]
    verdict = "met" if max(ours) < _TARGET else "**missed**"
    parts = [
        "# A merge to disk",
        f"A base and {results['sources']} sources of {results['gigabytes']:.2f} GB each, bfloat16,"
        f" in {results['files']} files; the largest tensor has"
        f" {results['largest_tensor'] / 1e6:.0f} M elements. {results['read'] / 1e9:.1f} GB are"
        f" read and {results['written'] / 1e9:.1f} GB written; `cp` copies half the sum, so that"
        " it reads and writes as many together. Inputs are not in the system's cache, and every"
        " time ends when the output is on the disk.",
        sentence(results["machine"]),
        report.table(head, rows),
        "*Peak RSS* is all that was resident at once; *own* memory cannot be dropped, *mapped*"
        " pages of checkpoints can, so the system takes them back when it needs room (their peaks"
        " need not be at one time).",
        f"Target: a peak below {_TARGET / 1e9:.1f} GB, {verdict}: {max(ours) / 1e9:.2f} GB.",
    ]
    return "\n\n".join(parts) + "\n"


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
