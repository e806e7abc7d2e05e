"""A search over a real LLM's adapters: what it found, on the holdout, and where its time went.

    python perf/real_llm.py HUB                  # search, score the holdout, write real_llm.md
    python perf/real_llm.py HUB --quick          # a few samples and evaluations: does it run
    python perf/real_llm.py HUB --report         # write real_llm.json and real_llm.md again

HUB is a folder of a Hub's layout with SmolLM2-135M-Instruct, two LoRA adapters of it, and their
datasets, rotten_tomatoes and MAWPS. A local Hub serves it, and the run pulls all by id. The run may
be stopped and started at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import Machine, sentence

if TYPE_CHECKING:
    from morphing.runs.run import Run
    from morphing.runs.selection import Estimates, Interval

RESULTS = Path(__file__).parent / "results"
CHECKOUT = Path(__file__).resolve().parents[1]
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
ADAPTERS = tuple(
    f"morphing-testbed/smollm2-135m-{task}-lora" for task in ("rotten-tomatoes", "mawps")
)
MAWPS = {
    "name": "mawps",
    "title": "MAWPS",
    "description": "Arithmetic word problems whose answers are whole numbers.",
    "language": "en",
    "dataset": "morphing-testbed/mawps",
    "split": "train",
    "holdout_split": "test",
    "kind": "generation",
    "prompt": "Question: {{ question }}\nAnswer:",
    "target": "{{ answer }}",
    "max_new_tokens": 8,
    "stop": ["\n"],
    "extract": "last_number",
    "metric": "numeric",
}


def spec(*, quick: bool) -> dict[str, Any]:
    """MM-MO over the two adapters; its paper's 30 evaluations."""
    samples, holdout = (8, 8) if quick else (128, 200)
    sizes = {"samples": samples, "holdout": holdout}
    return {
        "name": "real-llm",
        "base": BASE,
        "sources": list(ADAPTERS),
        "method": "dare_ties",
        "dtype": "float32",
        "device": "cpu",
        "benchmarks": [
            {"benchmark": "rotten-tomatoes", **sizes},
            {"benchmark": MAWPS, **sizes},
        ],
        "search": {"sampler": "mmmo", "evaluations": 3 if quick else 30, "seed": 0},
    }


def search(hub: Path, folder: Path, *, quick: bool) -> dict[str, Any]:
    """Make the run with the project's own commands, from a local Hub; returns the machine."""
    import yaml

    sys.path.insert(0, str(CHECKOUT))
    os.environ["MORPHING_TESTBED"] = str(hub)
    from tests.hub.server import start_hub

    machine = Machine()
    with tempfile.TemporaryDirectory() as temporary, start_hub(Path(temporary)) as server:
        path = Path(temporary) / "spec.yaml"
        path.write_text(yaml.safe_dump(spec(quick=quick), allow_unicode=True), encoding="utf-8")
        begin = ["--run", folder, "--resume"] if (folder / "spec.yaml").exists() else [path]
        for command in (
            ["search", *begin, *([] if len(begin) > 1 else ["--run", folder])],
            ["front", folder, "--holdout"],
        ):
            subprocess.run(
                [sys.executable, "-m", "morphing", *map(str, command)],
                env=server.environ(),
                cwd=CHECKOUT,
                check=True,
            )
    return machine.facts()


def figures(run: Run, facts: dict[str, Any]) -> dict[str, Any]:
    """All that the report says, as plain data."""
    from morphing.runs.figures import figures_of
    from morphing.runs.selection import selection

    found, chosen = figures_of(run), selection(run)
    assert chosen is not None
    times: dict[str, float] = {}
    trials = run.complete()
    for trial in trials:
        for part, seconds in trial.times.items():
            times[part] = times.get(part, 0.0) + seconds / len(trials)
    total = sum(trial.seconds for trial in trials) / len(trials)
    times["the rest"] = total - sum(times.values())
    by_number = {trial.number: trial for trial in trials}
    return {
        "models": [
            {"name": model.name, "holdout": _estimates(model.estimates)} for model in chosen.models
        ],
        "front": [
            {
                "trial": member.trial,
                "knee": member.trial == found.knee,
                "search": dict(
                    zip(run.spec.objectives, by_number[member.trial].values, strict=True)
                ),
                "params": dict(by_number[member.trial].params),
                "holdout": _estimates(member.estimates),
                "against": {
                    name: _estimates(difference) for name, difference in member.against.items()
                },
                "on_holdout_front": member.on_front,
            }
            for member in chosen.members
            if member.trial is not None
        ],
        "evaluations": found.evaluations,
        "samples": {
            use.declaration.name: [use.samples, use.holdout] for use in run.spec.benchmarks
        },
        "optimism": chosen.optimism,
        "models_optimism": chosen.models_optimism,
        "seconds_a_trial": total,
        "seconds_by_part": times,
        "machine": facts,
    }


def _estimates(estimates: Estimates) -> dict[str, list[float]]:
    return {
        **{name: _interval(interval) for name, interval in estimates.scores.items()},
        "mean": _interval(estimates.mean),
    }


def _interval(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]


def markdown(found: dict[str, Any]) -> str:
    """The report: the sources' table, the front, the knee, and the time of a trial."""
    benchmarks = [*found["samples"], "mean"]
    head = "| " + " | ".join(["model", *benchmarks]) + " |\n" + "| --- " * 4 + "|\n"
    lines = [
        "# A search over a real LLM's adapters",
        "",
        f"`python perf/real_llm.py HUB`: MM-MO (DARE-TIES, one weight and density a source),"
        f" {found['evaluations']} evaluations, onto {BASE}. Samples of the search and of the"
        " holdout: "
        + ", ".join(f"{name} {a} and {b}" for name, (a, b) in found["samples"].items())
        + ". Percent on the holdout, with 95 % intervals (bootstrap over samples).",
        "",
        sentence(found["machine"]),
        "",
        head + "\n".join(_row(each["name"], each["holdout"]) for each in found["models"]),
        "",
        "The front, in the order it was found:",
        "",
        head
        + "\n".join(
            _row(
                f"trial {each['trial']}"
                + (", the knee" if each["knee"] else "")
                + ("" if each["on_holdout_front"] else " (not on the holdout's front)"),
                each["holdout"],
            )
            for each in found["front"]
        ),
        "",
    ]
    for each in found["front"]:
        if each["knee"]:
            lines += [
                "The knee less the others, paired:",
                "",
                head
                + "\n".join(
                    _row(name, values, sign="+")
                    for name, values in each["against"].items()
                    if name != "knee"
                ),
                "",
            ]
    parts = sorted(found["seconds_by_part"].items(), key=lambda part: -part[1])
    total = found["seconds_a_trial"]
    shares = ", ".join(f"{name} {100 * seconds / total:.1f} %" for name, seconds in parts)
    lines += [
        f"A trial took {total:.1f} s: {shares}.",
        "",
        f"The search split flatters the front by {100 * found['optimism']:+.1f} points, base and"
        f" sources, which nothing was chosen by, by {100 * found['models_optimism']:+.1f}.",
        "",
    ]
    return "\n".join(lines)


def _row(name: str, values: dict[str, list[float]], sign: str = "") -> str:
    cells = [
        f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
        for value, low, high in values.values()
    ]
    return "| " + " | ".join([name, *cells]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hub", type=Path, metavar="HUB")
    parser.add_argument("--run", type=Path, default=Path("runs/real-llm"), metavar="DIR")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    path = options.results / "real_llm.json"
    if options.report:
        facts = json.loads(path.read_text(encoding="utf-8"))["machine"]
    else:
        facts = search(options.hub.resolve(), options.run.resolve(), quick=options.quick)

    from morphing.runs.run import Run

    found = figures(Run(options.run), facts)
    options.results.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (options.results / "real_llm.md").write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main()
