"""Measures: what a search may look after beside benchmarks' scores. One table, :data:`MEASURES`.

A new measure is a line there and the function that measures it; the spec, the objectives, racing,
the command line and the app read the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from morphing.benchmarks.results import Score

Direction = Literal["maximize", "minimize"]
SPARSITY = "sparsity"
PARAMETERS = "parameters"
LAYERS = "layers"
TOKENS = "tokens"
THROUGHPUT = "throughput"


@dataclass(frozen=True)
class Scored:
    """A loaded model that was scored.

    ``distance`` is its relative L1 distance from the base, Σ|θ − θ_base| / Σ|θ_base|; ``scores``
    are of the run's objectives, by benchmark.
    """

    model: PreTrainedModel
    distance: float
    scores: Mapping[str, Score]

    def lengths(self) -> list[int]:
        """Tokens of every answer it generated, the end token included."""
        return lengths(self.scores)

    def seconds(self) -> float:
        """Seconds that generating took, prompts read included."""
        return sum(score.seconds for score in self.scores.values() if score.tokens is not None)


@dataclass(frozen=True)
class Measure:
    """An objective that is no benchmark's score."""

    name: str
    direction: Direction
    """Which way it is better, where a spec does not say otherwise."""
    title: str
    sentence: str
    axis: str
    """Its title beside an axis, with the unit."""
    of: Callable[[Scored], float]
    """Its value, natural: as a person reads it, a minimised one not negated."""
    shown: Callable[[float], str]
    """A value as text, with its unit."""
    axis_unit: float = 1.0
    """What one unit on an axis is."""
    exact: bool = False
    """Whether it is the model's own, whatever samples it is scored on."""
    generated: bool = False
    """Whether it is of generated answers, so that a benchmark must have some."""
    by_part: bool = True
    """Whether a part of the samples says enough of it for racing."""


def lengths(scores: Mapping[str, Score]) -> list[int]:
    """Tokens of every generated answer, the end token included."""
    generating = (score for score in scores.values() if score.tokens is not None)
    return [output.tokens for score in generating for output in score.outputs]


def text_layers(model: PreTrainedModel) -> int:
    """How many layers a model has; of a multimodal one, how many its text model has."""
    return int(model.config.get_text_config().num_hidden_layers)


def _sparsity(scored: Scored) -> float:
    """MM-MO's sparsity metric, relative to the base: 0 is the base itself."""
    return 0.0 - scored.distance  # not -0.0


def _parameters(scored: Scored) -> float:
    return float(scored.model.num_parameters())


def _layers(scored: Scored) -> float:
    return float(text_layers(scored.model))


def _tokens(scored: Scored) -> float:
    """The mean over all generated answers; 0 where there are none."""
    answers = scored.lengths()
    return sum(answers) / len(answers) if answers else 0.0


def _throughput(scored: Scored) -> float:
    """Generated tokens a second on this machine and at the run's batch size; 0 where none are."""
    seconds = scored.seconds()
    return sum(scored.lengths()) / seconds if seconds else 0.0


def readable(count: float) -> str:
    """A count with three digits: 1_400_000 as 1.4M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(int(count))


def _share_of_base(value: float) -> str:
    return f"{value:.4f}".replace("-", "−")


def _whole(value: float) -> str:
    return f"{value:g}"


def _in_tokens(value: float) -> str:
    return f"{value:.1f} tokens"


def _in_tokens_a_second(value: float) -> str:
    return f"{value:.1f} tok/s"


MEASURES: Mapping[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            SPARSITY,
            "maximize",
            "Sparsity",
            "How little of the base is changed: it keeps more of what it could do.",
            "Sparsity (0 is the base)",
            _sparsity,
            _share_of_base,
            exact=True,
        ),
        Measure(
            PARAMETERS,
            "minimize",
            "Parameters",
            "How large the merge is. Only layer paths change it.",
            "Parameters (millions)",
            _parameters,
            readable,
            axis_unit=1e6,
            exact=True,
        ),
        Measure(
            LAYERS,
            "minimize",
            "Layers",
            "How deep the merge is. Only layer paths change it.",
            "Layers",
            _layers,
            _whole,
            exact=True,
        ),
        Measure(
            TOKENS,
            "minimize",
            "Answer length",
            "Tokens an answer takes on average: long answers cost.",
            "Answer length (tokens)",
            _tokens,
            _in_tokens,
            generated=True,
        ),
        Measure(
            THROUGHPUT,
            "maximize",
            "Throughput",
            "Tokens a second on this machine; no two timings are the same.",
            "Throughput (tokens a second)",
            _throughput,
            _in_tokens_a_second,
            generated=True,
            by_part=False,
        ),
    )
}
"""Every measure by its name, in the order in which they are offered."""

EXACT = frozenset(name for name, measure in MEASURES.items() if measure.exact)
"""Measures that are a model's own, whatever samples it is scored on."""


def measured(
    model: PreTrainedModel, distance: float, scores: Mapping[str, Score]
) -> dict[str, float]:
    """Every measure of a model, natural, by name.

    Args:
        model: as it was scored.
        distance: relative L1 distance from the base.
        scores: of the run's objectives, by benchmark.
    """
    scored = Scored(model, distance, scores)
    return {name: measure.of(scored) for name, measure in MEASURES.items()}
