"""Matched merges: each linear map solved so that the merge computes what its specialists compute.

Knows models and prepared samples; knows neither Optuna nor run folders.
"""
