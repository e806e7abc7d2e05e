"""Told exactly once, in whatever order workers do what they do, whoever is taken for dead."""

from __future__ import annotations

import pytest

from tests.runs.crew import check_all_told_once
from tests.runs.schedules import play

SLOTS = 2


@pytest.mark.parametrize("first", [0, 100])
def test_every_slot_is_told_once_in_any_schedule(first: int) -> None:
    for seed in range(first, first + 100):
        check_all_told_once(play(seed, SLOTS, workers=5, kills=3), SLOTS)
