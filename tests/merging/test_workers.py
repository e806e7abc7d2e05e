"""Merging threads compute alone and change nobody else's threads."""

from __future__ import annotations

from threading import Thread

import pytest
import torch

from morphing.merging import morph
from morphing.merging.morph import Morpher
from morphing.merging.workers import Workers
from morphing.sources.source import Source
from tests.merging.tiny import recipe


def test_workers_are_single_threaded_and_nobody_else_is() -> None:
    torch.set_num_threads(2)
    assert set(Workers(2).map(lambda _: torch.get_num_threads(), range(20))) == {1}
    assert torch.get_num_threads() == 2
    later: list[int] = []
    thread = Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


def test_results_come_in_order_and_little_ahead() -> None:
    started: list[int] = []

    def square(number: int) -> int:
        started.append(number)
        return number**2

    results = Workers(2).map(square, range(50))
    assert next(results) == 0
    assert len(started) <= 3
    assert list(results) == [number**2 for number in range(1, 50)]


def test_a_failure_reaches_the_caller() -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    with pytest.raises(ValueError, match="three"):
        list(Workers(2).map(fail, range(10)))


def test_the_number_of_workers_does_not_change_the_weights(
    family: list[Source], morpher: Morpher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(morph, "_LARGE", 0)
    torch.set_num_threads(3)
    other = Morpher(family[0], family[1:], torch.device("cpu"), torch.float32)
    wanted = recipe("dare_ties", family)
    assert other.morph(wanted) == morpher.morph(wanted)
    for name, tensor in other.model.state_dict().items():
        assert torch.equal(tensor, morpher.model.state_dict()[name])
