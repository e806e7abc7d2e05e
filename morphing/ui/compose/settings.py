"""The sliders and switches under Compose, one for each field of `choice.Settings`."""

from __future__ import annotations

import os
from typing import Any

import gradio as gr
from gradio.components import Component

from morphing.ui.cards import heading
from morphing.ui.compose import cards as cards
from morphing.ui.compose.choice import Choice, Settings
from morphing.ui.limits import limits

Controls = dict[str, Component]
"""Field of `Settings` to the component that sets it."""

_START = Settings()
_MOST_WORKERS = 8


def space_controls() -> Controls:
    """How fine the search space is; each is shown where it applies (`shown`)."""
    with gr.Row(elem_classes="m-sliders"):
        return {
            "groups": _slider("Groups of layers", 2, 8, _START.groups, visible=False),
            "points": _slider("Points of the curve", 2, 6, _START.points, visible=False),
            "repeats": _slider(
                "Times the sources' layers are laid out",
                1,
                4,
                _START.repeats,
                visible=False,
                elem_id="repeats",
            ),
            "largest": gr.Number(
                0,
                label="Million parameters at most (0: any)",
                minimum=0,
                visible=False,
                min_width=180,
            ),
        }


def shown(choice: Choice, controls: Controls) -> dict[Any, Any]:
    """Which of the space's controls a choice needs."""
    visible = {
        "groups": choice.merges_weights and choice.depth == "groups",
        "points": choice.merges_weights and choice.depth == "curve",
        "repeats": choice.lays_paths,
        "largest": choice.lays_paths,
    }
    return {
        controls[name]: type(controls[name])(visible=wanted) for name, wanted in visible.items()
    }


def main_controls() -> Controls:
    """Budget and machine."""
    workers = int(min(_MOST_WORKERS, max(2, os.cpu_count() or 1), max(2, limits().workers)))
    return {
        "evaluations": _slider("Evaluations", 5, 300, _START.evaluations, elem_id="budget"),
        "samples": _slider(
            "Samples per objective", 8, 512, _START.samples, step=8, elem_id="samples"
        ),
        "device": gr.Radio(cards.devices(), value=_START.device, label="Device"),
        "workers": _slider(
            "Workers",
            1,
            workers,
            _START.workers,
            info="Recipes scored side by side, each with the models in memory of its own.",
            elem_id="workers",
        ),
    }


def more_controls() -> Controls:
    """What most searches leave as it is."""
    controls: Controls = {
        "name": gr.Textbox(_START.name, label="Name", max_lines=1, elem_id="run-name"),
        "holdout": _slider("Holdout samples", 32, 2000, _START.holdout, step=4, elem_id="holdout"),
    }
    gr.HTML(heading("Try first"), apply_default_css=False)
    controls |= {
        "sources_first": gr.Checkbox(label="Each source alone", elem_id="sources-first"),
        "average_first": gr.Checkbox(label="The sources' average"),
    }
    gr.HTML(
        heading("End early", "0 means never; a standstill is evaluations in a row without gain."),
        apply_default_css=False,
    )
    with gr.Row():
        controls |= {
            "hours": gr.Number(0, label="After hours", minimum=0, min_width=110),
            "stalled": gr.Number(
                0,
                label="After a standstill of",
                precision=0,
                minimum=0,
                min_width=110,
            ),
        }
    controls["racing"] = gr.Checkbox(
        label="Racing", info="Give a recipe up once a part of the samples shows it is beaten."
    )
    gr.HTML(heading("Fine print"), apply_default_css=False)
    with gr.Row():
        controls |= {
            "seed": gr.Number(0, precision=0, minimum=0, label="Seed", min_width=110),
            "dtype": gr.Dropdown(
                ["auto", "float32", "bfloat16", "float16"],
                value=_START.dtype,
                label="Dtype",
                min_width=110,
            ),
        }
    controls["unrelated"] = gr.Checkbox(label="Allow a base that is no ancestor")
    return controls


def settings_of(controls: Controls, data: dict[Any, Any]) -> Settings:
    """What the controls say."""
    return Settings(**{name: data[component] for name, component in controls.items()})


def _slider(
    label: str, low: int, high: int, value: int, step: int = 1, **options: Any
) -> gr.Slider:
    return gr.Slider(low, high, value, step=step, label=label, buttons=[], min_width=180, **options)
