"""Benchmarks of kind ``lm_eval``: any task of lm-evaluation-harness, scored by our engine.

The harness makes the prompts, extracts the answers and computes the metric; the model's part, the
likelihoods and the generated texts, is ours. A sample's requests are built once, when the samples
are loaded (`harness.docs`), so a trial needs neither the task's dataset nor the Hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.engine.encode import Request
from morphing.benchmarks.kinds.generation import room_for_thoughts
from morphing.benchmarks.kinds.turns import is_chat
from morphing.benchmarks.results import Output, Prepared, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def check(benchmark: Benchmark) -> None:
    """Nothing to check: a task's own code was met when its documents were made (`harness.docs`)."""


def requests(
    tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark, samples: Sequence[Sample]
) -> list[list[Request]]:
    """For each sample the requests that its row holds, as tokens.

    Raises:
        MorphingError: the chat template fails.
    """
    from morphing.benchmarks.harness.model import EngineLM, encode
    from morphing.benchmarks.harness.task import instances, said

    render = None
    if is_chat(tokenizer, benchmark):
        kinds = {kind for sample in samples for kind, *_ in (sample.row or {})["chat"]["requests"]}
        # Before given answers no thought may be open.
        thinking = benchmark.thinking if kinds == {"generate_until"} else "off"
        render = partial(EngineLM.render, tokenizer, thinking=thinking)
    with said(benchmark, "can't be asked through this model's chat template"):
        groups = [instances(sample.row or {}, at, render) for at, sample in enumerate(samples)]
    encoded = iter(encode(tokenizer, [one for group in groups for one in group]))
    return [[next(encoded) for _ in group] for group in groups]


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    batch_size: int | None,
    progress: Progress,
) -> tuple[list[Output], int]:
    """The outputs of the samples, and of how many the beginning was cut.

    A score is the metric's aggregation of one sample alone: for a mean it is that sample's value;
    of corpus metrics (BLEU, perplexity) the mean over samples differs from the harness's figure.

    Raises:
        MorphingError: the task can't be loaded, or can't score an answer.
    """
    from morphing.benchmarks.harness.model import EngineLM
    from morphing.benchmarks.harness.task import Scoring, held_task, instances

    benchmark, samples = prepared.benchmark, prepared.samples
    rows = [sample.row or {} for sample in samples]
    groups = [instances(row, at) for at, row in enumerate(rows)]
    lm = EngineLM(
        model,
        tokenizer,
        benchmark.max_new_tokens,
        batch_size,
        lambda share: progress(int(share * len(samples)), len(samples)),
        room_for_thoughts(tokenizer, benchmark),
    )
    asked = [request for group in prepared.requests for request in group]
    replies = iter(lm.replies([one for group in groups for one in group], asked))
    answered = [[next(replies) for _ in group] for group in groups]
    outputs = Scoring(benchmark, held_task(benchmark, rows)).outputs(samples, groups, answered)
    return outputs, sum(any(reply.truncated for reply in group) for group in answered)
