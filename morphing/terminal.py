"""What a terminal shows: progress bars and the table of the front."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table

from morphing.runs.spec import SPARSITY

if TYPE_CHECKING:
    from morphing.merging.lora import AdapterReport
    from morphing.runs.run import Run
    from morphing.runs.workbench import Progress


def _progress(
    columns: Sequence[rich_progress.ProgressColumn], console: Console
) -> rich_progress.Progress:
    """Bars that vanish when done, and leave no blank lines where the output is a file."""
    return rich_progress.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    )


@contextmanager
def step_bar() -> Iterator[Progress]:
    """One progress line that follows whatever step is being done."""
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with _progress(columns, Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=None)
        current = ""

        def progress(step: str, done: int, total: int) -> None:
            nonlocal current
            if step != current:
                current = step
                bar.reset(task, description=step, total=total or None)
            bar.update(task, completed=done, total=total or None)

        yield progress


@contextmanager
def search_bar(run: Run) -> Iterator[Callable[[], None]]:
    """The search's own progress: evaluations, time left, the step, the last trial's objectives."""
    console = Console(stderr=True)
    columns = (
        rich_progress.TextColumn("[bold]{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[left]}"),
        rich_progress.TextColumn("[dim]{task.fields[step]}"),
    )
    seen = len(run.trials())
    with _progress(columns, console) as bar:
        task = bar.add_task(run.spec.search.sampler, total=None, left="", step="")

        def changed() -> None:
            nonlocal seen
            status = run.status()
            step = status.step
            if status.step_total:
                step += f" {status.step_done}/{status.step_total}"
            left = "" if status.seconds_left is None else f"{_duration(status.seconds_left)} left"
            bar.update(
                task,
                completed=status.done,
                total=status.total or None,
                left=status.state if status.state != "running" else left,
                step=step,
            )
            if status.done > seen:
                seen = status.done
                trial = run.trials()[-1]
                text = trial.error or "  ".join(
                    f"{name} {_number(name, value)}"
                    for name, value in zip(run.spec.objectives, trial.values, strict=True)
                )
                console.print(
                    f"[dim]{time.strftime('%H:%M:%S')}[/] trial {trial.number:>3}  {text}",
                    highlight=False,
                    soft_wrap=True,
                )

        yield changed


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _number(objective: str, value: float) -> str:
    return f"{value:.4f}" if objective == SPARSITY else f"{100 * value:.1f}"


def front_data(run: Run) -> dict[str, object]:
    figures = run.figures()
    members = [t for t in figures.trials if t.number in figures.front]
    return {
        "run": run.name,
        "objectives": list(run.spec.objectives),
        "evaluations": len(run.trials()),
        "hypervolume": figures.hypervolume[-1] if figures.hypervolume else 0.0,
        "knee": figures.knee,
        "front": [
            {
                "trial": trial.number,
                "values": dict(zip(run.spec.objectives, trial.values, strict=True)),
                "search": {name: asdict(r) for name, r in (trial.results or {}).items()},
                "holdout": {
                    name: asdict(r) for name, r in (run.holdout(trial.number) or {}).items()
                },
                "params": dict(trial.params),
                "recipe": dict(trial.recipe.config),
                "mask_seed": trial.recipe.mask_seed,
            }
            for trial in members
        ],
        "references": {
            part: {
                model: {name: asdict(r) for name, r in results.items()}
                for model, results in run.reference_scores(part).items()
            }
            for part in ("search", "holdout")
        },
    }


def print_front(run: Run) -> None:
    figures = run.figures()
    if not figures.front:
        print("No trial is complete yet.")
        return
    names = run.spec.objectives
    table = Table(
        title=f"{run.name}: {len(figures.front)} on the front of {len(figures.trials)} trials",
        caption=f"hypervolume {figures.hypervolume[-1]:.4g}; ★ knee; scores in percent on the"
        " search split",
    )
    table.add_column("trial", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    held = {number: run.holdout(number) for number in figures.front}
    with_holdout = any(held.values())
    if with_holdout:
        for use in run.spec.benchmarks:
            table.add_column(f"{use.declaration.name}\n(holdout)", justify="right")
    members = [t for t in figures.trials if t.number in figures.front]
    for trial in sorted(members, key=lambda t: t.values, reverse=True):
        star = "★ " if trial.number == figures.knee else ""
        row = [f"{star}{trial.number}"]
        row += [_number(n, v) for n, v in zip(names, trial.values, strict=True)]
        results = held[trial.number]
        if with_holdout:
            row += [
                _number("", results[use.declaration.name].value) if results else "-"
                for use in run.spec.benchmarks
            ]
        table.add_row(*row)
    for model, results in run.reference_scores("search").items():
        row = [model] + [_number("", results[n].value) if n in results else "-" for n in names]
        table.add_row(*row, style="dim")
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def print_report(report: AdapterReport) -> None:
    """How far an adapter is from the merge it was made of."""
    ranked = sorted(report.tensors.items(), key=lambda item: item[1].error, reverse=True)
    print(f"It misses {_share(report.error)} of what the merge changes in its base:")
    table = Table(caption="error: norm of what is missing over the norm of the change")
    table.add_column("worst of the tensors approximated")
    table.add_column("rank", justify="right")
    table.add_column("error", justify="right")
    for name, approximation in ranked[:5]:
        table.add_row(name, str(approximation.rank), _share(approximation.error))
    if len(ranked) > 5:
        table.add_row(f"{len(ranked) - 5} more", "", f"up to {_share(ranked[5][1].error)}")
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if report.whole:
        print(f"Held whole, which few serving engines load: {_counted(report.whole)}.")
    if report.left_out:
        print(f"Left out of the adapter: {_counted(report.left_out)}.")


def _counted(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} tensors such as {names[0]}"


def _share(value: float) -> str:
    return f"{100 * value:.2g} %"
