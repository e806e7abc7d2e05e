"""When a search ends beside its evaluations, and how much time is left."""

from __future__ import annotations

import pytest

from morphing.runs.budget import hours_of_work, hours_together, seconds_left, used_up
from morphing.runs.leases import Worker
from morphing.runs.spec_parts import SearchOptions


def worker(*spans: tuple[float, float]) -> Worker:
    """One that worked from hour to hour."""
    return Worker("w", "host", 1, spans=tuple((3600 * a, 3600 * b) for a, b in spans))


@pytest.mark.parametrize(
    ("workers", "of_work", "together"),
    [
        ([], 0, 0),
        ([worker((0, 2))], 2, 2),
        ([worker((0, 1), (5, 6))], 2, 2),  # paused in between
        ([worker((0, 2)), worker((0, 2))], 2, 4),  # side by side
        ([worker((0, 2)), worker((1, 3))], 3, 4),
        ([worker((0, 4)), worker((1, 2))], 4, 5),
        ([worker((5, 6)), worker((0, 1), (7, 7))], 2, 2),
    ],
)
def test_hours(workers: list[Worker], of_work: float, together: float) -> None:
    assert hours_of_work(workers) == of_work
    assert hours_together(workers) == together


@pytest.mark.parametrize(
    ("options", "stalled", "words"),
    [
        ({}, 10**6, ""),
        ({"hours": 3.1}, 0, ""),
        ({"hours": 3}, 0, "ended after 3 hours of work"),
        ({"gpu_hours": 4.1}, 0, ""),
        ({"gpu_hours": 4}, 0, "ended after 4 hours of all workers together"),
        ({"hours": 9, "gpu_hours": 4}, 0, "ended after 4 hours of all workers together"),
        ({"stalled": 5}, 4, ""),
        ({"stalled": 5}, 5, "ended after 5 evaluations in a row without hypervolume"),
        ({"hours": 1, "stalled": 5}, 5, "ended after 1 hours of work"),
    ],
)
def test_which_part_of_the_budget_is_used_up(
    options: dict[str, float], stalled: int, words: str
) -> None:
    workers = [worker((0, 2)), worker((1, 3))]
    assert used_up(SearchOptions(**options), workers, stalled) == words


@pytest.mark.parametrize(
    ("options", "durations", "busy", "seconds"),
    [
        ({}, [], 1, None),
        ({"hours": 9}, [], 1, None),
        ({}, [10.0], 1, 60),
        ({}, [10.0, 20.0], 1, 90),
        ({}, [999.0, *[10.0] * 10], 1, 60),  # the last ten count
        ({}, [10.0], 3, 20),
        ({"hours": 3.01}, [10.0], 1, 36),
        ({"hours": 1}, [10.0], 1, 0),
        ({"hours": 99}, [10.0], 1, 60),
        ({"gpu_hours": 4.01}, [10.0], 1, 36),
        ({"gpu_hours": 4.01}, [10.0], 2, 18),
        ({"gpu_hours": 1}, [10.0], 2, 0),
    ],
)
def test_how_much_time_is_left(
    options: dict[str, float], durations: list[float], busy: int, seconds: float | None
) -> None:
    workers = [worker((0, 2)), worker((1, 3))]
    found = seconds_left(SearchOptions(**options), workers, durations, 6, busy)
    assert found == (None if seconds is None else pytest.approx(seconds))
