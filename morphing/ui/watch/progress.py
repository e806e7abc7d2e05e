"""Where a run stands: its bar, its stage, its workers, and what its hypervolume is measured by."""

from __future__ import annotations

from morphing.inert import as_html
from morphing.runs.figures import Figures
from morphing.runs.leases import Worker
from morphing.runs.progress import duration
from morphing.runs.spec import first_evaluations
from morphing.runs.status import Status
from morphing.ui.cards import empty
from morphing.ui.scene import Scene

NO_RUN = empty(
    "Nothing to watch yet",
    "Launch a search under Compose, or choose a run at the top: its front grows here.",
)
_STATES = {
    "new": "Not started",
    "preparing": "Preparing",
    "running": "Searching",
    "paused": "Paused",
    "stopped": "Stopped",
    "finished": "Finished",
    "failed": "Failed",
}


def progress(scene: Scene | None) -> str:
    """The panel at the top of Watch."""
    if scene is None:
        return NO_RUN
    status, figures = scene.status, scene.figures
    facts = [f"<b>{status.done}</b> of {status.total} evaluations"]
    if status.state == "running" and status.seconds_left:
        facts.append(f"about {duration(status.seconds_left)} left")
    if figures.front:
        facts.append(f"{len(figures.front)} on the front")
    if figures.raced:
        facts.append(f"{figures.raced} given up early")
    if figures.failed:
        facts.append(f'<span class="m-failed">{figures.failed} failed</span>')
    step = status.message if not status.active else _step(status)
    return (
        f'<div class="m-progress {as_html(status.state)}">'
        f'<div class="m-progress-head"><span class="m-state">{_state(status)}</span>'
        f"<h1>{as_html(scene.run.name)}</h1><span>{' · '.join(facts)}</span></div>"
        f"{_bar(scene)}{_workers(status.workers)}"
        f'<p class="m-step">{as_html(step)}</p>{_remark(figures)}</div>'
    )


def _state(status: Status) -> str:
    """The state in words; of a state that is not known, its own word."""
    return as_html(_STATES.get(status.state, status.state))


def _remark(figures: Figures) -> str:
    """Why there is no front though trials are complete."""
    if not figures.trials or not figures.remark:
        return ""
    return f'<p class="m-note">{as_html(figures.remark)}</p>'


def _step(at: Worker | Status) -> str:
    counted = f" · {at.step_done}/{at.step_total}" if at.step_total else ""
    return at.step + counted if at.step else ""


def _bar(scene: Scene) -> str:
    """Evaluations done; where the search has two stages, a mark between them and their names."""
    status, spec = scene.status, scene.run.spec
    total = max(status.total, 1)
    bar = (
        f'<div class="m-bar" role="progressbar" aria-valuemin="0" aria-valuemax="{status.total}"'
        f' aria-valuenow="{status.done}" aria-label="Evaluations done">'
        f'<i style="width:{100 * min(status.done / total, 1):.1f}%"></i>'
    )
    if spec.search.space.strategy != "ps+dfs" or spec.search.evaluations < 2:
        return f"{bar}</div>"
    first = first_evaluations(spec)
    share = 100 * first / total
    second = status.done >= first
    names = (("1 · Weights", not second), ("2 · Paths through the best of them", second))
    labels = "".join(
        f'<span class="{"on" if on else ""}" style="width:{width:.1f}%">{name}</span>'
        for (name, on), width in zip(names, (share, 100 - share), strict=True)
    )
    return f'{bar}<u style="left:{share:.1f}%"></u></div><div class="m-stages">{labels}</div>'


def _workers(workers: tuple[Worker, ...]) -> str:
    """A line a worker, where there are several."""
    if len(workers) < 2:
        return ""
    return f'<ul class="m-workers">{"".join(map(_worker, workers))}</ul>'


def _worker(worker: Worker) -> str:
    place = worker.device if worker.here else f"{worker.device} on {worker.host}"
    trial = "" if worker.trial is None else f"<b>Trial {worker.trial}</b> "
    share = 100 * worker.step_done / worker.step_total if worker.step_total else 0
    return (
        f'<li class="{as_html(worker.state)}"><i></i><span>{as_html(place)}</span>'
        f"<span>{trial}{as_html(_step(worker) or worker.state)}</span>"
        f'<em style="width:{share:.0f}%"></em></li>'
    )


def state_chip(scene: Scene | None) -> str:
    """The header's chip: the run's state and how far it is."""
    if scene is None:
        return '<span class="m-run-chip"><i></i>No run</span>'
    status = scene.status
    return (
        f'<span class="m-run-chip {as_html(status.state)}"><i></i>{_state(status)}'
        f" {status.done}/{status.total}</span>"
    )


def scales_note(scene: Scene | None) -> str:
    """Where each objective's scale begins and ends, to unfold; constraints at once."""
    if scene is None or scene.figures.scales is None:
        return ""
    scales, volume = scene.figures.scales, scene.figures.hypervolume
    rows = "".join(
        f"<tr><td>{as_html(objective.title)} {objective.arrow}</td>"
        f"<td>{objective.shown(start)}</td><td>{objective.shown(end)}</td></tr>"
        for objective, start, end in zip(
            scene.objectives.all, scales.reference, scales.ideal, strict=True
        )
    )
    kept = "; ".join(scene.objectives.bound(bound) for bound in scales.bounds)
    bounds = f'<p class="m-step">Counted only if kept: {as_html(kept)}.</p>' if kept else ""
    now = f"<b>{volume[-1]:.4f}</b> now · " if volume else ""
    return (
        f'<details class="m-more m-scales"><summary>{now}its scales</summary>'
        '<table class="m-table"><thead><tr><th>Objective</th><th>0 at</th><th>1 at</th></tr>'
        f"</thead><tbody>{rows}</tbody></table><p class='m-step'>From a tenth of the range below"
        " the worst of base and sources to the best of them; fixed before the first trial.</p>"
        f"</details>{bounds}"
    )
