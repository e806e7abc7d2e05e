"""What the rendering of one template may use."""

from __future__ import annotations

SECONDS = 1.0
"""Of processor time, so that a machine that is busy with other things makes no template fail."""
MEMORY = 3 << 28
"""Bytes of address space of the process that renders."""
CHARACTERS = 1 << 24
"""Of what a template writes."""
SOURCE = 1 << 18
"""Characters of a template."""
