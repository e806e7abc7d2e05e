"""Morphing: multi-objective search over merge recipes for fine-tuned language models."""

__version__ = "0.1.0"
