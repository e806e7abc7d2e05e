"""The papers' story on the zoo: searches, what they chose, and that on the holdout.

    python perf/story.py [--runs runs/story]      # search and score what is missing, then report
    python perf/story.py --only ps-0,racing       # runs whose names contain one of these
    python perf/story.py --report                 # write story.json and story.md from what is there
    python perf/story.py --quick --runs /tmp/try  # does it all run

Every search is an ordinary run in a folder of its own under --runs: `morphing front FOLDER` and the
app show it. It may be stopped and started at any time. Scores do not depend on how busy the machine
is.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from morphing.runs.run import Run
    from morphing.runs.spec import RunSpec

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
LAYERWISE = {"layer_groups": "each", "module_kinds": ("embeddings",)}
"""arXiv 2403.13187's space of parameters: each layer's own, and the embeddings'."""
BASELINES = "baselines"


@dataclass(frozen=True)
class Search:
    """One run to make.

    ``method`` is what it shows, the same for all seeds. Its choice is looked at after each of
    ``checkpoints`` evaluations, the last of which is its budget.
    """

    method: str
    seed: int
    checkpoints: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `SearchOptions`."""
    sparsity: bool = True
    for_holdout: bool = True
    """False: it is about the search alone."""

    @property
    def name(self) -> str:
        """Its folder's."""
        return f"{self.method.replace('+', '-')}-{self.seed}"

    def spec(self) -> RunSpec:
        """The zoo's spec with its changes; the seed is that of DARE's masks too."""
        from morphing.runs.spec import parse_spec, zoo_spec

        plain = zoo_spec().model_dump()
        search = {"seed": self.seed, "evaluations": self.checkpoints[-1], **self.options}
        changes: dict[str, Any] = {"name": self.name, "search": search}
        if not self.sparsity:
            changes["measures"] = ()
        return parse_spec({**plain, **changes}, self.name)


def plan() -> Iterator[Search]:
    """All searches, the most telling first."""
    for seed in SEEDS:
        for sampler in ("qlognehvi", "mmmo"):
            yield Search(sampler, seed, (30, 60), {"sampler": sampler})
        yield _evolve("ps", seed, 150)
        yield _evolve("dfs", seed, 150)
        yield _evolve("ps+dfs", seed, 300)
        yield Search("random", seed, (30, 60), {"sampler": "random"})
        yield _racing("random", seed)
    for seed in SEEDS:
        yield _racing("qlognehvi", seed)


def _evolve(strategy: str, seed: int, evaluations: int) -> Search:
    options = {"sampler": "evolve", "space": {"strategy": strategy, **LAYERWISE}}
    return Search(strategy, seed, (evaluations,), options, sparsity=False)


def _racing(sampler: str, seed: int) -> Search:
    options = {"sampler": sampler, "racing": True}
    return Search(f"{sampler}-racing", seed, (60, 72), options, for_holdout=False)


def quick() -> Iterator[Search]:
    """One of each, tiny."""
    sizes = {"ps": (4,), "dfs": (4,), "ps+dfs": (4,)}
    for search in plan():
        if search.seed == 0:
            yield replace(search, checkpoints=sizes.get(search.method, (2, 4)))


def baselines() -> Search:
    """The merges of the usual tools, as seeds of a run that tries nothing else."""
    recipes = tuple(recipe for _, recipe in merges())
    options = {"sampler": "random", "seeds": recipes}
    return Search(BASELINES, 0, (len(recipes),), options)


def merges() -> list[tuple[str, dict[str, Any]]]:
    """Names and recipes of the usual tools' merges, with mergekit's defaults written out.

    mergekit has no default weight; all equal is the neutral choice. TIES normalises them and keeps
    everything by default; its examples keep half.
    """
    return [
        ("uniform average", _merge("linear", {"weight": 1.0}, {"normalize": True})),
        ("TIES, density 1", _merge("ties", {"weight": 1.0, "density": 1.0}, {"normalize": True})),
        ("TIES, density 0.5", _merge("ties", {"weight": 1.0, "density": 0.5}, {"normalize": True})),
        ("task arithmetic, weights 1", _merge("task_arithmetic", {"weight": 1.0}, {})),
        ("task arithmetic, weights 0.5", _merge("task_arithmetic", {"weight": 0.5}, {})),
    ]


def _merge(method: str, each: Mapping[str, float], all_of: Mapping[str, Any]) -> dict[str, Any]:
    from morphing.runs.spec import zoo_spec

    spec = zoo_spec()
    config: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": name, "parameters": dict(each)} for name in spec.sources],
        "parameters": dict(all_of),
    }
    if method != "linear":
        config["base_model"] = spec.base
    return config


def make(search: Search, folder: Path) -> Run:
    """The search's run, whole; what is missing of it is made."""
    from morphing.runs.loop import Loop
    from morphing.runs.prepare import create_run
    from morphing.runs.run import Run

    there = (folder / "spec.yaml").exists()
    run = Run(folder) if there else create_run(folder, search.spec())
    if len(run.trials()) < search.checkpoints[-1]:
        Loop(run).search()
    return run


def score(search: Search, run: Run, fronts: bool) -> None:
    """Score on the holdout what the report is about: baselines and choices, or the fronts."""
    from story_figures import choices, front

    from morphing.runs.workbench import Workbench

    plain = search.method == BASELINES
    if plain:
        numbers = {trial.number for trial in run.complete()}
    elif fronts:
        numbers = set(front(run, search.checkpoints[-1]))
    else:
        numbers = {trial.number for trial in choices(search, run).values()}
    left = sorted(number for number in numbers if run.holdout(number) is None)
    if left or plain:
        workbench = Workbench(run)
        if plain:
            workbench.reference_results("holdout")
        for number in left:
            workbench.holdout_results(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--runs", type=Path, default=Path("runs/story"), metavar="DIR")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--only", default="", metavar="NAME,...")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    searches = [baselines(), *(quick() if arguments.quick else plan())]
    if not arguments.report:
        parts = arguments.only.split(",")
        wanted = [search for search in searches if any(part in search.name for part in parts)]
        for fronts in (False, True):
            for search in wanted:
                started = time.monotonic()
                run = make(search, arguments.runs / search.name)
                if search.for_holdout:
                    score(search, run, fronts)
                print(f"{search.name}: {time.monotonic() - started:.0f} s", flush=True)

    from story_figures import figures
    from story_report import markdown

    found = figures(arguments.runs, searches)
    arguments.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (arguments.results / "story.json").write_text(text + "\n", encoding="utf-8")
    (arguments.results / "story.md").write_text(markdown(found), encoding="utf-8")


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Shows the text above as it is."""


if __name__ == "__main__":
    main()
