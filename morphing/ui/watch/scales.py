"""What a run's hypervolume is measured by, stated."""

from html import escape

from morphing.ui.scene import Scene


def scales_note(scene: Scene | None) -> str:
    """Where each objective's scale begins and ends, to unfold; constraints at once."""
    if scene is None or scene.figures.scales is None:
        return ""
    scales, volume = scene.figures.scales, scene.figures.hypervolume
    rows = "".join(
        f"<tr><td>{escape(objective.title)} {objective.arrow}</td><td>{objective.shown(start)}</td>"
        f"<td>{objective.shown(end)}</td></tr>"
        for objective, start, end in zip(
            scene.objectives.all, scales.reference, scales.ideal, strict=True
        )
    )
    kept = "; ".join(scene.objectives.bound(bound) for bound in scales.bounds)
    bounds = f'<p class="m-step">Counted only if kept: {escape(kept)}.</p>' if kept else ""
    now = f"<b>{volume[-1]:.4f}</b> now · " if volume else ""
    return (
        f'<details class="m-more m-scales"><summary>{now}its scales</summary>'
        '<table class="m-table"><thead><tr><th>Objective</th><th>0 at</th><th>1 at</th></tr>'
        f"</thead><tbody>{rows}</tbody></table><p class='m-step'>From a tenth of the range below"
        " the worst of base and sources to the best of them; fixed before the first trial.</p>"
        f"</details>{bounds}"
    )
