"""Serve Morphing's app: ``python app.py``, then http://127.0.0.1:7860."""

from __future__ import annotations

from morphing.ui.app import launch

if __name__ == "__main__":
    launch()
