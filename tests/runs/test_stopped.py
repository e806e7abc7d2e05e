"""Told exactly once, at whatever statement between claiming and telling a worker is stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path

import pytest

from morphing.runs.leases import GRACE_VARIABLE
from morphing.runs.storage import keep_elsewhere
from tests.runs import stopping
from tests.runs.crew import check_all_told_once, processes
from tests.runs.postgres import PASSWORD, Server

PAIRS = 8
"""Victims side by side, each with a rescuer; they mostly wait."""


@pytest.fixture(params=["journal", "postgres"])
def prepare(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], None]:
    """Where studies are kept."""
    monkeypatch.setenv(GRACE_VARIABLE, str(stopping.GRACE))
    if request.param == "journal":
        return lambda folder: None
    server: Server = request.getfixturevalue("postgres")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return lambda folder: keep_elsewhere(folder, server.url(password=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        stopping.Case("complete", died=True, failing=10**6),
        stopping.Case("failed", died=False, failing=1),
    ],
    ids=lambda case: case.name,
)
def test_a_worker_stopped_at_any_statement_and_taken_for_dead(
    prepare: Callable[[Path], None], tmp_path: Path, case: stopping.Case
) -> None:
    with Pair(tmp_path, prepare, case) as pair:
        count = pair.play(None)
    assert count > 90, "it follows too few statements"

    def play_all(statements: Sequence[int]) -> None:
        with Pair(tmp_path, prepare, case) as pair:
            for statement in statements:
                pair.play(statement)

    with ThreadPoolExecutor(PAIRS) as pool:
        list(pool.map(play_all, [range(first, count, PAIRS) for first in range(PAIRS)]))


class Pair:
    """A victim, and who rescues what it was at."""

    def __init__(self, folder: Path, prepare: Callable[[Path], None], case: stopping.Case) -> None:
        self._folder, self._prepare, self._case = folder, prepare, case
        self._orders, theirs = Pipe()
        arguments = (theirs, os.environ.get("PGPASSWORD", ""))
        self._victim = processes.Process(target=stopping.victim, args=arguments)

    def __enter__(self) -> Pair:
        self._victim.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.send(None)
        self._victim.join(timeout=10)
        self._victim.kill()

    def play(self, statement: int | None) -> int:
        """Stop the victim at a statement; returns how many it ran in the end."""
        folder = self._folder / str(statement)
        folder.mkdir()
        self._prepare(folder)
        study = stopping.new_study(folder, self._case)
        self._orders.send((folder, self._case, statement))
        assert self._victim.pid
        stopping.rescue(self._victim.pid, folder, self._case, self._orders.poll)
        count: int = self._orders.recv()
        check_all_told_once(study, 1)
        return count
