"""What `story.py` found, as Markdown. Scores are in percent; differences in points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from report import table

NAMES = {
    "ps": "evolve, PS",
    "dfs": "evolve, DFS",
    "ps+dfs": "evolve, PS+DFS",
    "best path": "evolve, PS+DFS, best path",
}
Found = Mapping[str, Any]


def markdown(found: Found) -> str:
    """Everything in `story.json`, in tables."""
    parts = [
        "# The papers' story on the zoo",
        _about(found),
        "## Base, sources and the usual tools' merges",
        _models(found),
        "## What the searches chose",
        _methods(found),
        "Differences of the mean over the tasks, in points:",
        _differences(found),
        _against(found),
        "## Seed by seed",
        _choices(found),
        *_recipes(found),
        *(["## Fronts", _fronts(found)] if found["fronts"] else []),
        *(["## Racing", _racing(found)] if found["racing"] else []),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(found: Found) -> str:
    searched = " / ".join(str(n) for n in sorted(set(found["samples"].values())))
    held = " / ".join(str(n) for n in sorted(set(found["holdout"].values())))
    return (
        f"By `story.py`. Searches see {searched} samples of each task; everything here but *search*"
        f" is of {held} other samples of each benchmark, the holdout. A search's choice is its best"
        " trial by the mean over the three tasks on its own samples. *Cross-domain* is"
        " zoo-japanese-arithmetic, never an objective. In brackets: 95 % paired bootstrap intervals"
        " over the holdout's samples. Where several seeds are averaged the interval is of the"
        " average of their models; *lowest to highest* says how the seeds differ."
    )


def _models(found: Found) -> str:
    head = ["", *map(_benchmark, found["tasks"]), "mean of the tasks", "cross-domain", "search"]
    return table(head, [[model["name"], *_scores(found, model)] for model in found["models"]])


def _methods(found: Found) -> str:
    head = ["search", "evaluations", "seeds", *map(_benchmark, found["tasks"])]
    head += ["mean of the tasks", "cross-domain", "search", "lowest to highest"]
    rows = [
        [*_method(entry), str(entry["seeds"]), *_scores(found, entry), _spread(entry)]
        for entry in found["methods"]
    ]
    return table(head, rows)


def _differences(found: Found) -> str:
    rivals = list(found["methods"][0]["less"])
    rows = [
        [*_method(entry), *(_gain(entry["less"][rival]) for rival in rivals)]
        for entry in found["methods"]
    ]
    names = [
        f"{name} (the best source)" if name == found["best_source"] else name for name in rivals
    ]
    return table(["search", "evaluations", *(f"less {name}" for name in names)], rows)


def _against(found: Found) -> str:
    rows = [
        [
            f"{_with_budget(*entry['method'])} less {_with_budget(*entry['rival'])}",
            str(entry["seeds"]),
            _gain(entry["less"]),
        ]
        for entry in found["against"]
    ]
    return table(["searches with each other", "seeds", "difference"], rows)


def _choices(found: Found) -> str:
    head = ["search", "evaluations", "seed", "trial", *map(_benchmark, found["tasks"])]
    head += ["mean of the tasks", "cross-domain", "search", "less best source", "less uniform"]
    rows = [
        [
            *_method(entry),
            str(entry["seed"]),
            str(entry["trial"]),
            *_scores(found, entry),
            _gain(entry["less"][found["best_source"]]),
            _gain(entry["less"]["uniform average"]),
        ]
        for entry in found["choices"]
    ]
    return table(head, rows)


def _recipes(found: Found) -> list[str]:
    """Paths, and the recipes of a weight and a density a source."""
    lines = []
    for entry in found["choices"]:
        name = f"{_with_budget(entry['method'], entry['evaluations'])}, seed {entry['seed']}"
        if entry["path"]:
            merged = entry.get("stage_model")
            where = "" if merged is None else f" (`stage:ps` is its trial {merged})"
            lines.append(f"- {name}: {entry['path']}{where}")
        elif len(entry["params"]) <= 6:
            values = ", ".join(f"{key} {value:.2f}" for key, value in entry["params"].items())
            lines.append(f"- {name}: {values}")
    return ["Layer paths (layers from 0; × is the scale on entering) and merges:", "\n".join(lines)]


def _fronts(found: Found) -> str:
    head = ["search", "evaluations", "seed", "members", "still on the front on the holdout"]
    head += ["scores' optimism", "hypervolume, search", "hypervolume, holdout"]
    rows = [
        [
            *_method(entry),
            str(entry["seed"]),
            str(entry["members"]),
            str(entry["held"]),
            f"{100 * entry['optimism']:+.1f}",
            f"{entry['hypervolume']:.3f}",
            f"{entry['holdout_hypervolume']:.3f}",
        ]
        for entry in found["fronts"]
    ]
    return (
        "Members are on the front of all objectives of the search, sparsity too where it is one."
        " *Optimism* is by how much the members' task scores are better on the search's samples"
        " than on the holdout, on average, in points.\n\n" + table(head, rows)
    )


def _racing(found: Found) -> str:
    head = ["sampler", "seed", "given up", "of the front", "samples off", "on"]
    head += ["hypervolume off", "on", "on, at as many samples as off", "(evaluations)"]
    rows = []
    for entry in found["racing"]:
        off, on = entry["hypervolume"]
        equal, harmed = entry["at_equal_samples"], entry["of_the_front"]
        rows.append(
            [
                entry["sampler"],
                str(entry["seed"]),
                f"{entry['given_up']} of {entry['evaluations']}",
                "" if harmed is None else str(harmed),
                *(f"{n:,}" for n in entry["samples"]),
                f"{off:.4f}",
                f"{on:.4f}",
                f"{equal['hypervolume']:.4f}",
                str(equal["evaluations"]),
            ]
        )
    return (
        "The same search without and with racing. Hypervolumes are of trials scored whole, on the"
        " scales of the search without. *Of the front*: how many of those given up are on the front"
        " of the search without, where both try the same recipes.\n\n" + table(head, rows)
    )


def _method(entry: Found) -> list[str]:
    method: str = entry["method"]
    return [NAMES.get(method, method), str(entry["evaluations"])]


def _with_budget(method: str, evaluations: int) -> str:
    return f"{NAMES.get(method, method)} at {evaluations}"


def _scores(found: Found, entry: Found) -> list[str]:
    tasks = [f"{100 * entry['scores'][task][0]:.1f}" for task in found["tasks"]]
    (cross,) = (name for name in entry["scores"] if name not in found["tasks"])
    search = f"{100 * entry['search_mean']:.1f}"
    return [*tasks, _estimate(entry["mean"]), _estimate(entry["scores"][cross]), search]


def _benchmark(name: str) -> str:
    return name.removeprefix("zoo-")


def _spread(entry: Found) -> str:
    low, high = entry["spread"]
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _estimate(estimate: Sequence[float]) -> str:
    value, low, high = (100 * part for part in estimate)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _gain(estimate: Sequence[float]) -> str:
    value, low, high = (100 * part for part in estimate)
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
