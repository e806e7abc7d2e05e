"""What scoring gives: outputs of samples, the score over them, and the samples as tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.engine.encode import Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int], None]
"""(samples done, samples in all)"""


@dataclass(frozen=True)
class Output:
    """What a model made of one sample.

    ``prompt`` is the sample's, before any chat template. ``text`` is what was generated, or each
    choice's log-likelihood, or what a text cost; ``answer`` and ``target`` are what the metric
    compared (of a multiple choice, the choices chosen and right; of perplexity, the bits per byte
    and the text). ``tokens`` are those generated, with the end token; 0 where none are. ``thought``
    is what the model wrote for itself before its text; ``unfinished`` says that it did not come to
    an end, so that there is no answer.
    """

    id: str
    prompt: str
    text: str
    answer: str
    target: str
    score: float
    tokens: int = 0
    thought: str = ""
    unfinished: bool = False


@dataclass(frozen=True)
class Conditions:
    """What a score depends on beside weights and samples: only scores of like conditions compare.

    Sums are rounded differently in batches of other sizes, on other devices and by other versions,
    so that in half precision a close call between two tokens may go the other way.

    Attributes:
        device: Its kind and name, such as "cpu" or "cuda (NVIDIA H100)".
        dtype: Of the weights, such as "bfloat16".
        batch_size: As asked for; None where it follows from the model's configuration.
        rows: The most prompts that were in one batch, after all halving for want of memory.
        thinking: Whether the model was asked to think: "auto" is as its chat template does.
        versions: Of the libraries that compute, by name.
    """

    device: str
    dtype: str
    batch_size: int | None = None
    rows: int | None = None
    thinking: str = "auto"
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """The mean score over ``n`` samples.

    ``stderr`` is the standard error of that mean from the samples' own spread, with n - 1 (for
    right and wrong answers sqrt(p (1 - p) / (n - 1))), and 0 for a single sample. ``truncated``
    counts samples whose prompt's beginning was cut to fit the model's context. ``tokens`` is the
    mean number of generated tokens, None where none are; ``seconds`` is how long scoring
    took, prompts read included and the time spent in ``progress`` (a pause) not. ``unfinished``
    counts samples whose text ended inside a thought, which are no answers. ``remarks`` are
    sentences for whoever reads the score.
    """

    value: float
    n: int
    stderr: float
    outputs: tuple[Output, ...]
    truncated: int = 0
    tokens: float | None = None
    seconds: float = field(default=0.0, compare=False)
    unfinished: int = 0
    remarks: tuple[str, ...] = ()
    conditions: Conditions | None = None

    @classmethod
    def of(
        cls,
        outputs: Sequence[Output],
        truncated: int,
        seconds: float,
        *,
        generated: bool,
        remarks: Sequence[str] = (),
        conditions: Conditions | None = None,
    ) -> Score:
        """The figures of ``outputs``, which are one or more."""
        n = len(outputs)
        value = math.fsum(output.score for output in outputs) / n
        spread = math.fsum((output.score - value) ** 2 for output in outputs)
        stderr = math.sqrt(spread / (n - 1) / n) if n > 1 else 0.0
        tokens = sum(output.tokens for output in outputs) / n if generated else None
        unfinished = sum(output.unfinished for output in outputs)
        return cls(
            value,
            n,
            stderr,
            tuple(outputs),
            truncated,
            tokens,
            seconds,
            unfinished,
            tuple(remarks),
            conditions,
        )

    def joined(self, rest: Score) -> Score:
        """The score on these samples and on others that come after them."""
        return Score.of(
            (*self.outputs, *rest.outputs),
            self.truncated + rest.truncated,
            self.seconds + rest.seconds,
            generated=self.tokens is not None,
            remarks=tuple(dict.fromkeys((*self.remarks, *rest.remarks))),
            conditions=self.conditions,
        )


@dataclass(frozen=True)
class Prepared:
    """Samples of a benchmark as one tokenizer's tokens, to score any number of models on.

    ``requests`` are those of each sample; ``remarks`` what is to be told of how they are asked.
    """

    benchmark: Benchmark
    samples: tuple[Sample, ...]
    requests: tuple[tuple[Request, ...], ...]
    remarks: tuple[str, ...] = ()


class Scorer(Protocol):
    """What the module of a kind of benchmarks has (`kinds.table`)."""

    def check(self, benchmark: Benchmark) -> None:
        """Meet what can be known to fail before a model is asked, such as a metric that can't be
        loaded.

        Raises:
            MorphingError: the benchmark can't be scored on this machine; why and the mend.
        """

    def requests(
        self,
        tokenizer: PreTrainedTokenizerBase,
        benchmark: Benchmark,
        samples: Sequence[Sample],
    ) -> list[list[Request]]:
        """For each sample what a model is asked, as tokens.

        Raises:
            MorphingError: a chat template fails, or a sample can't be asked.
        """

    def score(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prepared: Prepared,
        batch_size: int | None,
        progress: Progress,
    ) -> tuple[list[Output], int]:
        """The outputs of the samples in their order, and how many had their beginning cut.

        Raises:
            NoRoomError: an answer alone fills the model's context.
            MorphingError: not enough memory for one sample, or an answer can't be judged.
        """
