"""What a trial is made of, drawn: how much of each source, or the path through their layers."""

from __future__ import annotations

from collections.abc import Mapping

from morphing.inert import as_html
from morphing.merging.paths import LayerPath, describe, read_path
from morphing.runs.spec import RunSpec
from morphing.runs.stage_model import STAGE_MODEL
from morphing.runs.trial import Trial
from morphing.search.space import short_names
from morphing.ui.cards import chip, short_name

_HUES = 6
"""As many colours of models as theme.css has; then they come again."""
Numbers = dict[tuple[str, str], dict[str, float]]
"""By source (or no name: of all) and parameter: values by part of the model."""


def spark(trial: Trial, spec: RunSpec) -> str:
    """One small bar a source, as high as its weight; of a path a block a layer."""
    if path := read_path(trial.recipe):
        return _strip(path, spec, "small")
    weights = {
        source: sum(parts.values()) / len(parts)
        for (source, parameter), parts in numbers(trial.params, spec).items()
        if parameter == "weight"
    }
    bars = (
        f'<i title="{as_html(f"{source} {value:.2f}".strip())}"'
        f' style="height:{max(6, 100 * min(value, 1)):.0f}%"></i>'
        for source, value in weights.items()
    )
    return f'<span class="m-spark">{"".join(bars)}</span>' if weights else ""


def make_up(trial: Trial, spec: RunSpec) -> str:
    """All numbers of a trial, or its path."""
    if path := read_path(trial.recipe):
        named = read_path(trial.recipe.with_names(model_title))
        told = as_html(describe(named or path))
        models = dict.fromkeys(step.source for step in path.steps)
        legend = "".join(
            f"<li>{_block(model, spec)}{as_html(model_title(model))}</li>" for model in models
        )
        return (
            f'{_strip(path, spec, "")}<ul class="m-legend">{legend}</ul>'
            f'<p class="m-path">{told}</p><p class="m-step">{len(path.steps)} layers, from left to'
            " right; × is the scale on entering a layer.</p>"
        )
    if not trial.params:
        merged = "".join(chip(model_title(name)) for name in trial.recipe.inputs)
        return (
            f'<div class="m-row">{merged}</div><p class="m-step">A recipe from outside the search'
            " space: it has no numbers there, its YAML says what it is.</p>"
        )
    rows = (
        f"<dt>{as_html('.'.join(filter(None, group)))}</dt><dd>{_values(parts)}</dd>"
        for group, parts in numbers(trial.params, spec).items()
    )
    return f'<dl class="m-facts m-params">{"".join(rows)}</dl>'


def numbers(params: Mapping[str, float], spec: RunSpec) -> Numbers:
    """A point of a space of merge parameters, by source and parameter."""
    found: Numbers = {}
    names = sorted(short_names(spec.sources), key=len, reverse=True)
    for name, value in params.items():
        source = next((each for each in names if name.startswith(f"{each}.")), "")
        rest = name.removeprefix(f"{source}.") if source else name
        parameter, _, part = rest.partition(".")
        found.setdefault((source, parameter), {})[part] = value
    return found


def model_title(name: str) -> str:
    """A model's name for people."""
    return "best merge" if name == STAGE_MODEL else short_name(name)


def _values(parts: Mapping[str, float]) -> str:
    if len(parts) == 1:
        (value,) = parts.values()
        return f'<span class="m-meter"><i style="width:{_percent(value)}%"></i></span>{value:.3g}'
    bars = "".join(
        f'<i title="{as_html(part)}: {value:.3g}" style="height:{max(_percent(value), 4)}%"></i>'
        for part, value in parts.items()
    )
    low, high = min(parts.values()), max(parts.values())
    return f'<span class="m-spark wide">{bars}</span>{low:.2g} to {high:.2g}'


def _percent(value: float) -> int:
    return round(100 * min(max(value, 0.0), 1.0))


def _strip(path: LayerPath, spec: RunSpec, kind: str) -> str:
    blocks = (
        _block(step.source, spec, f"{model_title(step.source)}, layer {step.layer}")
        for step in path.steps
    )
    label = f"A path of {len(path.steps)} layers"
    return f'<span class="m-strip {kind}" role="img" aria-label="{label}">{"".join(blocks)}</span>'


def _block(model: str, spec: RunSpec, title: str = "") -> str:
    known = (*spec.sources, STAGE_MODEL)
    hue = known.index(model) % _HUES if model in known else 0
    return f'<i class="m-hue-{hue}" title="{as_html(title)}"></i>'
