"""Benchmarks: their declarations and data, and the scores of a loaded model on them."""
