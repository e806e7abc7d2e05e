"""Launching a run on hardware rented from the Hub (HF Jobs)."""
