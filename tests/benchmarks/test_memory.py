"""What happens when memory runs out, with a model that has room for few rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from transformers import PreTrainedModel

from morphing.benchmarks.engine.encode import Request
from morphing.benchmarks.engine.generate import generate
from morphing.benchmarks.engine.likelihood import log_likelihoods
from morphing.benchmarks.engine.memory import Room
from morphing.errors import MorphingError
from tests.benchmarks.architectures import Letters, make
from tests.benchmarks.test_generate import prompts
from tests.benchmarks.test_likelihood import questions

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
]


@contextmanager
def little_room(model: PreTrainedModel, rows: int, error: Exception) -> Iterator[list[int]]:
    """Forward passes of more than so many rows fail; yields how many rows were tried."""
    tried: list[int] = []

    def check(module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        tried.append(len(inputs[0]))
        if len(inputs[0]) > rows:
            raise error

    hook = model.get_input_embeddings().register_forward_pre_hook(check)
    try:
        yield tried
    finally:
        hook.remove()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_the_batch_is_halved_until_it_fits(name: str, error: Exception) -> None:
    model = make(name)
    groups, asked = questions(0, 20), prompts(0, 0)
    plain = log_likelihoods(model, groups, None, lambda share: None)
    texts = generate(model, Letters(), asked, 9, (), None, lambda done: None)
    shares: list[float] = []
    done: list[int] = []
    with little_room(model, 3, error) as tried:
        found = log_likelihoods(model, groups, None, shares.append)
        assert max(tried) > 3
        assert generate(model, Letters(), asked, 9, (), None, done.append) == texts
    for a, b in zip(found, plain, strict=True):
        assert (a.logprob, a.greedy) == (pytest.approx(b.logprob, abs=1e-6), b.greedy)
    assert shares == sorted(shares) and (shares[-1], done[-1]) == (1, len(asked))


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_single_row_that_finds_no_room_is_an_error(name: str) -> None:
    model = make(name)
    request = Request((3, 4, 5, 6), 1)
    with (
        little_room(model, 0, ERRORS[0]),
        pytest.raises(MorphingError, match="not enough memory to score a single sample"),
    ):
        log_likelihoods(model, [[request]] * 3, None, lambda share: None)
    with (
        little_room(model, 0, ERRORS[1]),
        pytest.raises(MorphingError, match="not enough memory to score a single sample"),
    ):
        generate(model, Letters(), prompts(0, 0), 4, (), None, lambda done: None)


def test_other_errors_are_not_taken_for_it() -> None:
    model = make("llama")
    with (
        little_room(model, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
        pytest.raises(RuntimeError, match="mat1 and mat2"),
    ):
        log_likelihoods(model, [[Request((3, 4), 1)]], None, lambda share: None)


def test_passes_are_cut_where_padding_costs_more_than_a_pass() -> None:
    room = Room(rows=8, tokens=100, pass_cost=10)
    lengths = [40, 39, 12, 12, 11, 3, 3, 3]
    assert [part.stop for part in room.parts(lengths)] == [2, 5, 8]
    # Two passes instead of three would save a pass and pad three rows of 3 by 9 tokens each.
    assert [part.stop for part in Room(8, 100, 30).parts(lengths)] == [2, 8]
    assert [part.stop for part in Room(8, 100, 30).parts(lengths, most=48)] == [1, 2, 5, 8]
    assert [part.stop for part in Room(3).parts(lengths)] == [3, 6, 8]
    assert [part.stop for part in Room(3).parts(lengths, most=48)] == [1, 2, 5, 8]
    assert list(room.parts([500])) == [slice(0, 1)]
    assert not list(room.parts([]))
