"""What a search costs beside evaluating recipes: the loop's own seconds a trial, on the zoo.

    python perf/overhead.py [--evaluations 40] [--anyway]

The random sampler proposes in no time, so everything but morphing and scoring is the loop's:
taking a slot, the journal, the outputs, the status.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from machine import Machine, sentence

RESULTS = Path(__file__).parent / "results"


def measure(evaluations: int) -> dict[str, float]:
    """Seconds a trial, evaluating and all else."""
    from morphing.runs import loop
    from morphing.runs.prepare import create_run
    from morphing.runs.spec import parse_spec, zoo_spec

    evaluate, evaluating, moments = loop.evaluate_recipe, [], []

    def timed(*arguments: object) -> object:
        started = time.perf_counter()
        found = evaluate(*arguments)  # type: ignore[arg-type]
        moments.append(time.perf_counter())
        evaluating.append(moments[-1] - started)
        return found

    data = zoo_spec().model_dump()
    data["search"] |= {"sampler": "random", "evaluations": evaluations}
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder) / "run", parse_spec(data | {"device": "cpu"}))
        loop.evaluate_recipe = timed  # type: ignore[assignment]
        try:
            loop.Loop(run).search()
        finally:
            loop.evaluate_recipe = evaluate
    # From the end of one evaluation to the end of the next is one trial, whole.
    whole = (moments[-1] - moments[0]) / (len(moments) - 1)
    scoring = sum(evaluating[1:]) / (len(evaluating) - 1)
    return {"evaluation": scoring, "overhead": whole - scoring}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--evaluations", type=int, default=40)
    parser.add_argument("--anyway", action="store_true", help="on a busy machine too")
    options = parser.parse_args()
    machine = Machine()
    machine.check_idle(options.anyway)
    found = measure(options.evaluations)
    facts = machine.facts()
    share = found["overhead"] / found["evaluation"]
    text = (
        "# The loop's own cost\n\n"
        f"On the zoo with 128 samples a task, over {options.evaluations} trials of the random"
        f" sampler: {1000 * found['evaluation']:.0f} ms a trial to morph and score,"
        f" {1000 * found['overhead']:.1f} ms for everything else, {share:.1%} of that.\n\n"
        f"{sentence(facts)}\n"
    )
    print(text)
    results = {"seconds": found, "evaluations": options.evaluations, "machine": facts}
    (RESULTS / "overhead.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "overhead.md").write_text(text)


if __name__ == "__main__":
    main()
