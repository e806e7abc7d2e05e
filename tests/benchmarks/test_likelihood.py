"""Likelihoods that share computation against one plain forward pass a request."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from transformers import PreTrainedModel

from morphing.benchmarks.engine import likelihood
from morphing.benchmarks.engine.encode import Request
from morphing.benchmarks.engine.likelihood import Likelihood, log_likelihoods
from morphing.benchmarks.engine.reader import Reader
from tests.benchmarks.architectures import KEEPING, MAKERS, VOCABULARY, make

Groups = list[list[Request]]


def questions(seed: int, header: int) -> Groups:
    """Contexts that begin alike and have up to four answers, some of which begin alike too."""
    drawn = random.Random(seed)

    def tokens(most: int) -> list[int]:
        return [drawn.randrange(3, VOCABULARY) for _ in range(drawn.randrange(1, most))]

    beginning = [drawn.randrange(3, VOCABULARY) for _ in range(header)]
    groups = []
    for number in range(8):
        context, same = beginning + tokens(9), tokens(3) if number % 3 == 0 else []
        answers = [same + tokens(6) for _ in range(drawn.randrange(1, 5))]
        groups.append([Request((*context, *answer), len(answer)) for answer in answers])
    context = tuple(beginning + tokens(9))
    # Answers of one token, one of them the other's beginning; continuations after an option.
    groups.append(
        [Request((*context, 5), 1), Request((*context, 7), 1), Request((*context, 7, 8), 2)]
    )
    groups.append([Request((*context, 9, 4, 4), 2), Request((*context, 8, 4, 4), 2)])
    # One that was cut, and one without anything in common.
    groups.append([Request((*context[3:], 9, 4), 1, truncated=True)])
    groups.append([Request((4, 9, 9), 2), Request((5, 9), 1)])
    return groups


def plainly(model: PreTrainedModel, request: Request) -> tuple[float, bool]:
    with torch.no_grad():
        logits = model(torch.tensor([request.ids])).logits[0]
    scores = logits.log_softmax(-1)
    at = range(len(request.ids) - request.answer, len(request.ids))
    greedy = all(int(scores[i - 1].argmax()) == request.ids[i] for i in at)
    return sum(float(scores[i - 1, request.ids[i]]) for i in at), greedy


def score(
    model: PreTrainedModel, groups: Groups, batch_size: int | None = None
) -> list[Likelihood]:
    shares: list[float] = []
    found = log_likelihoods(model, groups, batch_size, shares.append)
    assert shares == sorted(shares) and shares[-1] == 1
    return found


def agree(found: Sequence[Likelihood], groups: Groups, model: PreTrainedModel) -> None:
    requests = [request for group in groups for request in group]
    for each, request in zip(found, requests, strict=True):
        logprob, greedy = plainly(model, request)
        assert each.logprob == pytest.approx(logprob, abs=1e-4)
        assert (each.greedy, each.tokens) == (greedy, request.answer)


@pytest.mark.parametrize("name", MAKERS)
def test_shared_computation_gives_the_plain_likelihoods(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(name)
    assert Reader(model).keeps is (name in KEEPING)
    for header in (0, 20):
        groups = questions(header, header)
        for batch_size in (None, 1, 3):
            agree(score(model, groups, batch_size), groups, model)
    # So little room for logits that rows are read in pieces.
    monkeypatch.setattr(likelihood, "_LOGITS_BYTES", 4 * VOCABULARY * 5)
    agree(score(model, groups), groups, model)


def test_the_same_requests_give_the_same_numbers() -> None:
    model = make("llama").float()
    groups = questions(1, 20)
    assert score(model, groups) == score(model, groups)


class Counter:
    """Counts the tokens and the logits that a model computes."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.tokens = self.logits = self.widest = 0
        model.get_input_embeddings().register_forward_hook(self._embedded)
        model.get_output_embeddings().register_forward_hook(self._headed)

    def _embedded(self, module: object, inputs: object, output: torch.Tensor) -> None:
        self.tokens += output.shape[0] * output.shape[1]
        self.widest = max(self.widest, output.shape[0])

    def _headed(self, module: object, inputs: object, output: torch.Tensor) -> None:
        self.logits += output.shape[0] * output.shape[1]


def test_nothing_is_computed_twice_or_for_nobody() -> None:
    """Ten contexts of 30 and 6 tokens with four answers of 5, the first 2 of them the same."""
    drawn = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(drawn.randrange(3, VOCABULARY) for _ in range(count))

    header, same = tokens(30), tokens(2)
    groups = []
    for number in range(10):
        context = (*header, *tokens(5), number)
        groups.append([Request((*context, *same, *tokens(2), n), 5) for n in range(4)])
    model = make("llama")
    counter = Counter(model)
    agree(found := score(model, groups), groups, make("llama"))
    assert len(found) == 40
    # The header once, the rest of a context and the common tokens once a question. An answer's
    # last token is not read.
    assert counter.tokens == 30 + 10 * (6 + 2) + 40 * 2
    assert counter.logits == 1 + 10 * 3 + 40 * 2


def test_one_token_options_cost_one_row_and_one_position() -> None:
    model = make("llama")
    counter = Counter(model)
    groups = [
        [Request((*range(3, 3 + length), option), 1) for option in (5, 6, 7)]
        for length in (4, 6, 9)
    ]
    score(model, groups, batch_size=3)
    assert (counter.tokens, counter.logits) == (3 * 9, 3)
