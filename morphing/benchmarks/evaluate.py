"""Score a loaded model on samples of a benchmark."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.samples import Sample
from morphing.benchmarks.engine.encode import NoRoomError
from morphing.benchmarks.judging.metrics import get_metric
from morphing.devices import suitable_threads
from morphing.errors import MorphingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from morphing.benchmarks.engine.encode import Request

Progress = Callable[[int, int], None]
"""(samples done, samples in all)"""


@dataclass(frozen=True)
class Output:
    """What a model made of one sample.

    ``prompt`` is the sample's, before any chat template. ``text`` is what was generated, or each
    choice's log-likelihood, or what a text cost; ``answer`` and ``target`` are what the metric
    compared (of a multiple choice, the choices chosen and right; of perplexity, the bits per byte
    and the text). ``tokens`` are those generated, with the end token; 0 where none are.
    """

    id: str
    prompt: str
    text: str
    answer: str
    target: str
    score: float
    tokens: int = 0


@dataclass(frozen=True)
class Score:
    """The mean score over ``n`` samples.

    ``stderr`` is the standard error of that mean from the samples' own spread, with n - 1 (for
    right and wrong answers sqrt(p (1 - p) / (n - 1))), and 0 for a single sample. ``truncated``
    counts samples whose prompt's beginning was cut to fit the model's context. ``tokens`` is the
    mean number of generated tokens, None where none are; ``seconds`` is how long scoring
    took, prompts read included and the time spent in ``progress`` (a pause) not.
    """

    value: float
    n: int
    stderr: float
    outputs: tuple[Output, ...]
    truncated: int = 0
    tokens: float | None = None
    seconds: float = field(default=0.0, compare=False)

    @classmethod
    def of(
        cls, outputs: Sequence[Output], truncated: int, seconds: float, *, generated: bool
    ) -> Score:
        """The figures of ``outputs``, which are one or more."""
        n = len(outputs)
        value = math.fsum(output.score for output in outputs) / n
        spread = math.fsum((output.score - value) ** 2 for output in outputs)
        stderr = math.sqrt(spread / (n - 1) / n) if n > 1 else 0.0
        tokens = sum(output.tokens for output in outputs) / n if generated else None
        return cls(value, n, stderr, tuple(outputs), truncated, tokens, seconds)

    def joined(self, rest: Score) -> Score:
        """The score on these samples and on others that come after them."""
        return Score.of(
            (*self.outputs, *rest.outputs),
            self.truncated + rest.truncated,
            self.seconds + rest.seconds,
            generated=self.tokens is not None,
        )


@dataclass(frozen=True)
class Prepared:
    """Samples of a benchmark as one tokenizer's tokens, to score any number of models on.

    ``requests`` are those of each sample.
    """

    benchmark: Benchmark
    samples: tuple[Sample, ...]
    requests: tuple[tuple[Request, ...], ...]


def prepare(
    tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark, samples: Sequence[Sample]
) -> Prepared:
    """Tokenize ``samples``, which does not depend on a model's weights.

    Raises:
        MorphingError: no samples, or a chat template that fails.
    """
    if not samples:
        raise MorphingError(f"Benchmark {benchmark.name!r} has no samples to evaluate.")
    made = _kind(benchmark).requests(tokenizer, benchmark, samples)
    return Prepared(benchmark, tuple(samples), tuple(map(tuple, made)))


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    samples: Sequence[Sample] | Prepared,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Score:
    """Score ``model`` on ``samples``; outputs come in the order of the samples.

    Greedy and deterministic: the same weights, samples and batch size give the same score exactly
    (on one kind of device). Other samples beside them make other batches, and by the rounding of
    sums in these a close call between two tokens may go the other way; so samples scored in two
    parts need not have the answers of the whole. The batch size, in rows, is chosen from the
    model's configuration where it isn't given, and halved where memory runs out. ``progress`` is
    called whenever samples are done. The model is put in evaluation mode.

    Raises:
        MorphingError: no samples, answers longer than the model's context, a chat template that
            fails, a metric of the evaluate library that can't be loaded, code that may not run, not
            enough memory for a single sample.
    """
    model.eval()
    start, aside = time.perf_counter(), 0.0

    def report(done: int, total: int) -> None:
        nonlocal aside
        if progress is not None:
            began = time.perf_counter()
            progress(done, total)
            aside += time.perf_counter() - began

    if benchmark.kind == "generation":
        get_metric(benchmark.metric)  # one that can't be had is better known before than after
    elif benchmark.kind == "code":
        from morphing.benchmarks.sandbox.run import require_code

        require_code(benchmark.name)
    if not isinstance(samples, Prepared):
        samples = prepare(tokenizer, benchmark, samples)
    with suitable_threads(model.num_parameters(), model.device):
        kind = _kind(benchmark)
        try:
            outputs, truncated = kind.score(model, tokenizer, samples, batch_size, report)
        except NoRoomError as error:
            raise MorphingError(f"Benchmark {benchmark.name!r}: {error}") from error
    seconds = time.perf_counter() - start - aside
    # A task of lm-eval may be of any kind.
    generated = benchmark.kind in ("generation", "code") or any(each.tokens for each in outputs)
    return Score.of(outputs, truncated, seconds, generated=generated)


def _kind(benchmark: Benchmark) -> Any:
    """The module that scores benchmarks of this kind: its ``requests`` and its ``score``."""
    from morphing.benchmarks.harness import bridge
    from morphing.benchmarks.kinds import generation, multiple_choice, perplexity

    modules = {"multiple_choice": multiple_choice, "perplexity": perplexity, "lm_eval": bridge}
    return modules.get(benchmark.kind, generation)
