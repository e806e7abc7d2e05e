"""Score a loaded model on samples of a benchmark."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.engine.encode import NoRoomError, NotFiniteError
from morphing.benchmarks.engine.memory import rows_noted
from morphing.benchmarks.kinds.table import KINDS
from morphing.benchmarks.kinds.turns import remarks
from morphing.benchmarks.leave import require_leave
from morphing.benchmarks.results import Conditions, Output, Prepared, Progress, Score, Scorer
from morphing.devices import described, suitable_threads
from morphing.errors import MorphingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COMPUTING = ("torch", "transformers")
"""Libraries whose versions a score may depend on."""


def prepare(
    tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark, samples: Sequence[Sample]
) -> Prepared:
    """Tokenize ``samples``, which does not depend on a model's weights.

    Raises:
        MorphingError: no samples, or a chat template that fails.
    """
    if not samples:
        raise MorphingError(f"Benchmark {benchmark.name!r} has no samples to evaluate.")
    made = _scorer(benchmark).requests(tokenizer, benchmark, samples)
    told = remarks(tokenizer, benchmark)
    return Prepared(benchmark, tuple(samples), tuple(map(tuple, made)), told)


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

    scorer = _scorer(benchmark)
    require_leave(benchmark)
    scorer.check(benchmark)
    if not isinstance(samples, Prepared):
        samples = prepare(tokenizer, benchmark, samples)
    with suitable_threads(model.num_parameters(), model.device), rows_noted() as rows:
        try:
            outputs, truncated = scorer.score(model, tokenizer, samples, batch_size, report)
        except NoRoomError as error:
            raise MorphingError(f"Benchmark {benchmark.name!r}: {error}") from error
        except NotFiniteError as error:
            sample = samples.samples[error.at].id
            raise MorphingError(
                f"Benchmark {benchmark.name!r}, sample {sample}: {error}"
            ) from error
    _check_numbers(benchmark, outputs)
    seconds = time.perf_counter() - start - aside
    # A task of lm-eval may be of any kind.
    generated = KINDS[benchmark.kind].generates or any(each.tokens for each in outputs)
    return Score.of(
        outputs,
        truncated,
        seconds,
        generated=generated,
        remarks=samples.remarks,
        conditions=Conditions(
            device=described(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            batch_size=batch_size,
            rows=min(rows, default=None),
            thinking=benchmark.thinking if generated and benchmark.chat else "auto",
            versions={name: version(name) for name in COMPUTING},
        ),
    )


def _scorer(benchmark: Benchmark) -> Scorer:
    return cast(Scorer, import_module(f"morphing.benchmarks.{KINDS[benchmark.kind].module}"))


def _check_numbers(benchmark: Benchmark, outputs: Sequence[Output]) -> None:
    """Refuse a score that is NaN or infinite: it would make the mean so, and teach nothing."""
    for output in outputs:
        if not math.isfinite(output.score):
            raise MorphingError(
                f"The benchmark {benchmark.name} gave the sample {output.id} the score"
                f" {output.score}, which is not finite: the model's numbers may have overflowed, or"
                " its metric is wrong."
            )
