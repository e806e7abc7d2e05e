"""What a terminal shows: progress bars and the table of the front.

Nothing that comes from outside is markup here: `plain_console` shows strings as they are written,
and what is to stand out is given as `rich.text.Text` or a style.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from morphing.benchmarks.find import CONTAMINATION
from morphing.cli.common import show
from morphing.inert import one_line, visible
from morphing.runs.chat_templates import template_sentence
from morphing.runs.conditions import conditions_of, mixed, unfinished_remark
from morphing.runs.figures import Figures, figures_of
from morphing.runs.objectives import averaged, shown_value, signs
from morphing.runs.progress import duration
from morphing.runs.selection import Interval, Selection, selection
from morphing.runs.trial import Trial

if TYPE_CHECKING:
    from morphing.merging.writing.lora import AdapterReport
    from morphing.runs.progress import Progress
    from morphing.runs.run import Run


class _Plain(Console):
    """A console to which no string is markup, an emoji or a control sequence."""

    def render_str(self, text: str, **options: Any) -> Text:
        """The string as it is written, lines kept."""
        plain = {"markup": False, "emoji": False, "highlight": False}
        return super().render_str(visible(text, lines=True), **{**options, **plain})


def _progress(
    columns: Sequence[rich_progress.ProgressColumn], console: Console
) -> rich_progress.Progress:
    """Bars that vanish when done, and leave no blank lines where the output is a file."""
    return rich_progress.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    )


def step_columns() -> tuple[rich_progress.ProgressColumn, ...]:
    """What the line of a step shows: its name, a bar, the share done, the time left."""
    return (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TimeRemainingColumn(),
    )


@contextmanager
def step_bar() -> Iterator[Progress]:
    """One progress line that follows whatever step is being done."""
    with _progress(step_columns(), _Plain(stderr=True)) as bar:
        task = bar.add_task("starting", total=None)
        current = ""

        def progress(step: str, done: int, total: int) -> None:
            nonlocal current
            if step != current:
                current = step
                bar.reset(task, description=one_line(step), total=total or None)
            bar.update(task, completed=done, total=total or None)

        yield progress


@contextmanager
def search_bar(run: Run) -> Iterator[Callable[[], None]]:
    """The search's own progress: evaluations, time left, the step, new trials' objectives."""
    console = _Plain(stderr=True)
    columns = (
        rich_progress.TextColumn("{task.description}", style="bold", markup=False),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[left]}", markup=False),
        rich_progress.TextColumn("{task.fields[step]}", style="dim", markup=False),
    )
    shown = {trial.number for trial in run.trials()}
    done = len(shown)
    with _progress(columns, console) as bar:
        task = bar.add_task(run.spec.search.sampler, total=None, left="", step="")

        def changed() -> None:
            nonlocal done
            status = run.status()
            step = _step(status.step, status.step_done, status.step_total)
            if len(status.workers) > 1:
                each = (_step(w.step, w.step_done, w.step_total) for w in status.workers)
                step = " · ".join(each)
            left = "" if status.seconds_left is None else f"{duration(status.seconds_left)} left"
            bar.update(
                task,
                completed=status.done,
                total=status.total or None,
                left=status.state if status.state != "running" else left,
                step=one_line(step),
            )
            if status.done > done:
                done = status.done
                for trial in run.trials():
                    if trial.number not in shown:
                        shown.add(trial.number)
                        console.print(_line(run, trial), soft_wrap=True)

        yield changed


def _line(run: Run, trial: Trial) -> Text:
    """A trial that was told, in a line: when, its number, what came of it."""
    drawn = f"  (drawn at random: the sampler failed, {trial.drawn})" if trial.drawn else ""
    outcome = one_line((trial.error or _outcome(run, trial)) + drawn)
    return Text.assemble((time.strftime("%H:%M:%S"), "dim"), f" trial {trial.number:>3}  {outcome}")


def _step(step: str, done: int, total: int) -> str:
    return f"{step} {done}/{total}" if total else step


def _outcome(run: Run, trial: Trial) -> str:
    if trial.raced is not None:
        scored = sum(trial.raced.samples.values())
        return f"given up after {scored} samples: a member of the front is better at everything"
    values = zip(run.spec.objectives, trial.values, strict=True)
    text = "  ".join(f"{name} {shown_value(run.spec, name, value)}" for name, value in values)
    return text if trial.feasible else f"{text}  (breaks a constraint)"


def front_data(run: Run) -> dict[str, object]:
    """All that `print_front` says and more, as plain data; values are natural."""
    figures, names = figures_of(run), run.spec.objectives
    chosen = selection(run)
    return {
        "run": run.name,
        "objectives": list(names),
        "directions": dict(zip(names, run.spec.directions, strict=True)),
        "scales": asdict(figures.scales) if figures.scales else None,
        "evaluations": figures.evaluations,
        "complete": len(figures.trials),
        "failed": figures.failed,
        "raced": figures.raced,
        "hypervolume": figures.hypervolume[-1] if figures.hypervolume else 0.0,
        "knee": figures.knee,
        "remark": figures.remark,
        "front": [
            {
                "trial": trial.number,
                "values": dict(zip(names, trial.values, strict=True)),
                "search": {name: asdict(r) for name, r in (trial.results or {}).items()},
                "holdout": {
                    name: asdict(r) for name, r in (run.holdout(trial.number) or {}).items()
                },
                "params": dict(trial.params),
                "recipe": dict(trial.recipe.config),
                "mask_seed": trial.recipe.mask_seed,
            }
            for trial in figures.members
        ],
        "references": {
            part: {
                model: {name: asdict(r) for name, r in results.items()}
                for model, results in run.reference_scores(part).items()
            }
            for part in ("search", "holdout")
        },
        "selection": asdict(chosen) if chosen else None,
    }


def print_front(run: Run) -> None:
    """The front on the search split and, where it has been scored there, on the holdout."""
    figures = figures_of(run)
    if figures.remark:
        show(figures.remark)
        return
    names, scales = run.spec.objectives, figures.scales
    table = Table(
        title=f"{run.name}: {len(figures.front)} on the front of {_spent(figures)}",
        caption="★ knee, the best balance of the scores; all on the search split"
        + (f"; hypervolume {figures.hypervolume[-1]:.4f}, in which" if scales else "")
        + (" a model as good as the best of base and sources at everything is 1" if scales else ""),
    )
    table.add_column("trial", justify="right")
    for name, direction in zip(names, run.spec.directions, strict=True):
        table.add_column(f"{name}\n{'↑' if direction == 'maximize' else '↓'}", justify="right")
    for trial in _ranked(run, figures.members):
        star = "★ " if trial.number == figures.knee else ""
        row = [f"{star}{trial.number}"]
        row += [shown_value(run.spec, n, v) for n, v in zip(names, trial.values, strict=True)]
        table.add_row(*row)
    table.add_section()
    known = run.references("search")
    for model, record in known.items():
        values = record.values
        row = [model] + [shown_value(run.spec, n, values[n]) if n in values else "-" for n in names]
        table.add_row(*row, style="dim")
    if scales is not None:
        for label, ends in (("scale 0", scales.reference), ("scale 1", scales.ideal)):
            row = [label, *(shown_value(run.spec, n, v) for n, v in zip(names, ends, strict=True))]
            table.add_row(*row, style="dim italic")
    console().print(table)
    for constraint in figures.constraints:
        show(f"Constraint: {constraint}.")
    for remark in _remarks(run, figures):
        show(remark)
    if (chosen := selection(run)) is not None:
        _print_selection(run, figures, chosen)


def _remarks(run: Run, figures: Figures) -> Iterator[str]:
    """What one must know of the benchmarks and how they were asked to read the scores."""
    if told := template_sentence(run.spec):
        yield told
    for use in run.spec.tasks:
        name = use.declaration.name
        if use.declaration.contaminates:
            yield f"{name} {CONTAMINATION}"
        found = [trial.results[name] for trial in figures.members if trial.results]
        if most := max((result.truncated for result in found), default=0):
            yield f"{name}: {most} of {found[0].n} prompts lost their beginning, too long to fit."
        if told := unfinished_remark(name, found):
            yield told
        for remark in dict.fromkeys(remark for result in found for remark in result.remarks):
            yield f"{name}: {remark}"
    if differing := mixed(conditions_of(run)):
        yield differing


def _print_selection(run: Run, figures: Figures, chosen: Selection) -> None:
    tasks = [use.declaration.name for use in run.spec.tasks]
    others = [use.declaration.name for use in run.spec.benchmarks if not use.objective]
    raw = [use.declaration.name for use in run.spec.benchmarks if not use.declaration.share]
    low = [name for name in tasks if name not in (*raw, *averaged(run.spec))]
    table = Table(
        title=f"{run.name}: the front on the holdout",
        caption=f"percent, 95 % bootstrap intervals over samples ({chosen.draws} draws);"
        " ● no other member is better here",
    )
    table.add_column("trial", justify="right")
    table.add_column("mean", justify="right")
    table.add_column("above the\nbest source", justify="right")
    for name in (*tasks, *others):
        table.add_column(name if name in tasks else f"{name}\n(no objective)", justify="right")
    best = chosen.best_of(run.spec.sources)
    for standing in (*chosen.ranked, *chosen.models):
        member = standing.trial is not None
        name = str(standing.trial) if member else standing.name
        mark = ("★ " if standing.trial == figures.knee else "") + (
            "● " if standing.on_front else ""
        )
        above = standing.against[best.name].mean if member and best else None
        table.add_row(
            mark + name if member else name,
            _interval(mean) if (mean := standing.estimates.mean) else "",
            _interval(above, signed=True) if above else "",
            *(_interval(standing.estimates.scores[n], n not in raw) for n in (*tasks, *others)),
            style=None if member else "dim",
        )
    console().print(table)
    if chosen.hypervolume is not None:
        show(
            f"Hypervolume on the holdout, of the members scored there: {chosen.hypervolume:.4f}"
            f" (of the front in the search: {figures.hypervolume[-1]:.4f})."
        )
    if chosen.optimism is not None and chosen.models_optimism is not None:
        show(
            f"Scores on the search split are {_signed(chosen.optimism)} points from those on the"
            f" holdout for the front, {_signed(chosen.models_optimism)} for base and sources."
        )
    if raw:
        show(f"Not in percent and in no mean: {', '.join(raw)}.")
    if low:
        show(f"Better when lower and in no mean: {', '.join(low)}.")
    if chosen.unscored:
        numbers = ", ".join(map(str, chosen.unscored))
        show(f"Not scored on the holdout yet: {numbers} (`morphing front RUN --holdout`).")


def _interval(interval: Interval, share: bool = True, *, signed: bool = False) -> str:
    if not share:
        return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    ends = (interval.value, interval.low, interval.high)
    value, low, high = (_signed(end) if signed else f"{100 * end:.1f}" for end in ends)
    return f"{value} [{low}, {high}]"


def _signed(share: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def _ranked(run: Run, trials: Sequence[Trial]) -> list[Trial]:
    """The best at the first objective first."""
    sign = signs(run.spec)
    return sorted(trials, key=lambda trial: tuple(sign * trial.values), reverse=True)


def _spent(figures: Figures) -> str:
    """The evaluations and how they ended, in words."""
    parts = [f"{figures.failed} failed"] if figures.failed else []
    parts += [f"{figures.raced} given up early"] if figures.raced else []
    ended = f" ({', '.join(parts)})" if parts else ""
    return f"{figures.evaluations} evaluations{ended}"


def console() -> Console:
    """Where tables go: as wide as the terminal, or as a wide file."""
    return _Plain(width=None if sys.stdout.isatty() else 160)


def print_report(report: AdapterReport) -> None:
    """How far an adapter is from the merge it was made of."""
    ranked = sorted(report.tensors.items(), key=lambda item: item[1].error, reverse=True)
    show(f"It misses {_share(report.error)} of what the merge changes in its base:")
    table = Table(caption="error: norm of what is missing over the norm of the change")
    table.add_column("worst of the tensors approximated")
    table.add_column("rank", justify="right")
    table.add_column("error", justify="right")
    for name, approximation in ranked[:5]:
        table.add_row(name, str(approximation.rank), _share(approximation.error))
    if len(ranked) > 5:
        table.add_row(f"{len(ranked) - 5} more", "", f"up to {_share(ranked[5][1].error)}")
    console().print(table)
    if report.whole:
        show(f"Held whole, which few serving engines load: {_counted(report.whole)}.")
    if report.left_out:
        show(f"Left out of the adapter: {_counted(report.left_out)}.")


def _counted(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} tensors such as {names[0]}"


def _share(value: float) -> str:
    return f"{100 * value:.2g} %"
