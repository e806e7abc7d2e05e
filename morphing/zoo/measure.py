"""`python -m morphing.zoo.measure` measures the zoo and writes the tables of its README.

Merges are mergekit's own, in memory, so that the figures do not depend on this project's kernels.
The search here is a plain one (random recipes, then small steps from the best): it shows that good
recipes exist, and sets a mark for the project's samplers to pass.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from morphing.zoo import BENCHMARKS, MODELS, SPECIALISTS, dataset_folder, model_folder, tasks

TASKS = len(SPECIALISTS)
README = Path(__file__).with_name("README.md")
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """A mergekit method with its weight and density for each specialist."""

    method: str
    weight: tuple[float, ...]
    density: tuple[float, ...] = (1.0, 1.0, 1.0)
    normalize: bool = False

    def __str__(self) -> str:
        text = f"{self.method}, weights {' / '.join(f'{w:.2f}' for w in self.weight)}"
        if self.method != "linear":
            text += f", densities {' / '.join(f'{d:.2f}' for d in self.density)}"
        return text


#: A recipe and its scores on the three tasks, in percent.
Found = tuple[Recipe, tuple[float, ...]]

UNIFORM = Recipe("linear", (1 / 3,) * 3, normalize=True)
# mergekit's TIES normalises by default, has no default weight (1.0 each is the neutral choice) and
# keeps all by default (density 1.0); 0.5 is what its examples use.
TIES = Recipe("ties", (1.0,) * 3, (0.5,) * 3, normalize=True)
TIES_FULL = Recipe("ties", (1.0,) * 3, (1.0,) * 3, normalize=True)
ARITHMETIC = Recipe("task_arithmetic", (1.0,) * 3)


class Lab:
    """The zoo's models and benchmarks in memory, and one model to hold what is measured."""

    def __init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model_folder("base"))
        self.model = AutoModelForCausalLM.from_pretrained(model_folder("base")).eval()
        self.weights = {
            name: dict(AutoModelForCausalLM.from_pretrained(model_folder(name)).named_parameters())
            for name in MODELS
        }

    def rows(self, benchmark: str, split: str, count: int) -> list[tasks.Row]:
        """The first rows of a split, as the files have them."""
        lines = (dataset_folder(benchmark) / f"{split}.jsonl").read_text("utf-8").splitlines()
        return [tuple(json.loads(line).values()) for line in lines[:count]]

    @torch.no_grad()
    def merge(self, recipe: Recipe) -> Weights:
        """The merged tensors, by mergekit."""
        from mergekit.merge_methods.api import merge_state_dicts

        weight = dict(zip(SPECIALISTS, recipe.weight, strict=True))
        parameters: dict[str, object] = {"weight": weight, "normalize": recipe.normalize}
        if recipe.method == "linear":
            models = {name: self.weights[name] for name in SPECIALISTS}
            return merge_state_dicts(models, "linear", parameters=parameters)
        if recipe.method != "task_arithmetic":
            parameters["density"] = dict(zip(SPECIALISTS, recipe.density, strict=True))
        torch.manual_seed(0)  # DARE's masks
        return merge_state_dicts(self.weights, recipe.method, base="base", parameters=parameters)

    @torch.no_grad()
    def correct(self, weights: Weights, benchmark: str, split: str, count: int) -> torch.Tensor:
        """Which of the split's first rows these weights answer right: (count,) of 0 and 1."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(weights[name])
        rows = self.rows(benchmark, split, count)
        chats = [[{"role": "user", "content": question}] for question, _ in rows]
        inputs = self.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        output = self.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        answers = self.tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        right = [said.strip() == row[1] for said, row in zip(answers, rows, strict=True)]
        return torch.tensor(right, dtype=torch.float64)

    def scores(
        self, weights: Weights, split: str, count: int, benchmarks: Sequence[str] = BENCHMARKS
    ) -> torch.Tensor:
        """Answers right on each benchmark: (benchmarks, count)."""
        return torch.stack([self.correct(weights, name, split, count) for name in benchmarks])


def front(points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """The distinct points that no other is at least as good as everywhere."""
    distinct = list(dict.fromkeys(points))
    return [
        point
        for point in distinct
        if not any(q != point and all(b >= a for a, b in zip(point, q)) for q in distinct)  # noqa: B905
    ]


def search(lab: Lab, trials: int, count: int, seed: int) -> list[Found]:
    """Recipes with their task scores on the search split: a third random, others near the best."""
    rng = random.Random(seed)
    found: list[Found] = []
    for trial in range(trials):
        if trial < trials / 3:
            values = [rng.random() for _ in range(2 * TASKS)]
            method = "dare_ties" if trial % 2 else "task_arithmetic"
        else:
            parents = sorted(found, key=lambda pair: -sum(pair[1]))[:5]
            parent = rng.choice(parents)[0]
            values = [
                min(1.0, max(0.0, value + rng.gauss(0, 0.12)))
                for value in (*parent.weight, *parent.density)
            ]
            method = parent.method
        values = [round(value, 2) for value in values]
        density = (1.0,) * TASKS if method == "task_arithmetic" else tuple(values[TASKS:])
        recipe = Recipe(method, tuple(values[:TASKS]), density)
        right = lab.scores(lab.merge(recipe), "search", count, BENCHMARKS[:TASKS])
        found.append((recipe, tuple((100 * right.mean(1)).tolist())))
    return found


def interval(better: torch.Tensor, worse: torch.Tensor, draws: int = 10_000) -> str:
    """Difference in mean task score with its 95 % paired bootstrap interval over the samples."""
    generator = torch.Generator().manual_seed(0)
    gain = 100 * (better - worse)[:TASKS]  # (tasks, count); each task's samples are drawn anew
    count = gain.shape[1]
    means = torch.zeros(draws, dtype=torch.float64)
    for row in gain:
        chosen = torch.randint(count, (draws, count), generator=generator)
        means += row[chosen].mean(1) / TASKS
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return f"{gain.mean().item():+.1f} [{low:+.1f}, {high:+.1f}]"


def table(rows: Sequence[tuple[str, torch.Tensor]]) -> str:
    """Scores in percent as a Markdown table, with the mean of the three tasks."""
    head = ["", *BENCHMARKS, "mean of the three tasks"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for name, right in rows:
        percent = (100 * right.mean(1)).tolist()
        cells = [f"{value:.1f}" for value in (*percent, sum(percent[:TASKS]) / TASKS)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(trials: int, count: int, seed: int) -> str:
    """Everything the README says in figures, as Markdown."""
    lab = Lab()
    sources = [(name, lab.scores(lab.weights[name], "holdout", count)) for name in MODELS]
    baselines = [
        (label, lab.scores(lab.merge(recipe), "holdout", count))
        for label, recipe in (
            ("uniform average", UNIFORM),
            ("TIES, density 0.5", TIES),
            ("TIES, density 1", TIES_FULL),
            ("task arithmetic, weights 1", ARITHMETIC),
        )
    ]
    samples = 128
    started = time.monotonic()
    found = search(lab, trials, samples, seed)
    seconds = (time.monotonic() - started) / trials
    members = front([scores for _, scores in found])
    best = max(found, key=lambda pair: sum(pair[1]))[0]
    by_scores = {scores: recipe for recipe, scores in reversed(found)}
    again = [
        lab.scores(lab.merge(by_scores[scores]), "holdout", count, BENCHMARKS[:TASKS])
        for scores in members
    ]
    held = front([tuple(right.mean(1).tolist()) for right in again])
    merged = lab.scores(lab.merge(best), "holdout", count)
    lines = [
        f"Sources, on the first {count} holdout rows of each benchmark, in percent:",
        table(sources),
        "Merges, on the same rows:",
        table([*baselines, ("best recipe", merged)]),
        f"The best recipe by mean task score, among {trials} tried on {samples} search rows of "
        f"each task: {best}. Its difference in mean task score, with a 95 % paired bootstrap "
        "interval over the samples:",
        "\n".join(f"- from {name}: {interval(merged, right)}" for name, right in baselines[:3]),
        f"The front on the three task scores has {len(members)} distinct members on the search "
        f"split; measured again on the holdout, {len(held)} of them do not dominate each other. "
        f"A trial (merge and three benchmarks of {samples} samples) took {seconds:.1f} s here.",
    ]
    return "\n\n".join(lines)


def with_figures(readme: str, text: str) -> str:
    """The README with ``text`` between its markers.

    Raises:
        ValueError: the markers are not there.
    """
    marked = re.compile(r"(<!-- measured -->).*(<!-- end -->)", re.S)
    changed, count = marked.subn(lambda m: f"{m[1]}\n\n{text}\n\n{m[2]}", readme)
    if count != 1:
        raise ValueError("the README lacks its markers <!-- measured --> and <!-- end -->")
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=48, metavar="N")
    parser.add_argument("--count", type=int, default=500, metavar="N", help="holdout rows")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--dry-run", action="store_true", help="print, but leave the README alone")
    arguments = parser.parse_args()
    text = report(arguments.trials, arguments.count, arguments.seed)
    print(text)
    if not arguments.dry_run:
        README.write_text(with_figures(README.read_text("utf-8"), text), "utf-8")


if __name__ == "__main__":
    main()
