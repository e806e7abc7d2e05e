"""How the app looks: a gradio theme on the system's own fonts, one stylesheet, one head."""

from __future__ import annotations

from importlib import resources

import gradio as gr

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

_TEAL = gr.themes.Color(
    name="teal-ink",
    c50="#eefaf8",
    c100="#d3f2ed",
    c200="#a9e4dc",
    c300="#72cfc4",
    c400="#3bb3a7",
    c500="#17978c",
    c600="#0c7a72",
    c700="#0b625d",
    c800="#0d4e4b",
    c900="#0e403e",
    c950="#042625",
)

HEAD = '<script src="plotly.min.js" defer></script>'
"""Our own route serves it (see ``app.py``): the app works without a network."""


def asset(name: str) -> str:
    """The text of a file in ``assets/``."""
    return resources.files("morphing.ui").joinpath("assets", name).read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Quiet surfaces, one accent, generous radii; light and dark."""
    return gr.themes.Base(
        primary_hue=_TEAL,
        secondary_hue=_TEAL,
        neutral_hue="stone",
        radius_size="lg",
        font=_SANS,
        font_mono=_MONO,
    ).set(
        body_background_fill="#f7f6f3",
        body_background_fill_dark="#121413",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1b1e1d",
        background_fill_secondary="#f1efea",
        background_fill_secondary_dark="#232726",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1b1e1d",
        block_border_color="#e4e1da",
        block_border_color_dark="#2f3432",
        border_color_primary="#e4e1da",
        border_color_primary_dark="#2f3432",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_400",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_300",
        input_background_fill="#ffffff",
        input_background_fill_dark="#161918",
        input_border_color="#d9d5cc",
        input_border_color_dark="#3a403e",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#f1efea",
        button_secondary_background_fill_dark="#232726",
        button_secondary_background_fill_hover_dark="#2c3130",
        button_secondary_border_color="#d9d5cc",
        button_secondary_border_color_dark="#3a403e",
        button_border_width="1px",
        button_large_radius="12px",
        layout_gap="14px",
    )
