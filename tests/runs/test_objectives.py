"""Values, directions, scales and constraints of a run's objectives, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest

from morphing.benchmarks.results import Output, Score
from morphing.errors import MorphingError
from morphing.runs.measures import measured
from morphing.runs.objectives import best_of, shown_value, signs, variances
from morphing.runs.scales import Bound, Scales, bounds_told, make_scales
from morphing.runs.spec import RunSpec, parse_spec
from morphing.runs.trial import Trial

A, B = "zoo-english-arithmetic", "zoo-kanji-numbers"
SIZES = {"parameters": 1e6, "layers": 4.0, "throughput": 100.0}
KNOWN: dict[str, dict[str, float]] = {
    "zoo:base": {A: 0.1, B: 0.2, "sparsity": 0.0, "tokens": 8.0, **SIZES},
    "zoo:english-math": {A: 0.9, B: 0.2, "sparsity": -0.05, "tokens": 4.0, **SIZES},
    "zoo:word-games": {A: 0.5, B: 0.2, "sparsity": -0.2, "tokens": 6.0, **SIZES},
}


def spec(**fields: Any) -> RunSpec:
    return parse_spec(
        {
            "base": "zoo:base",
            "sources": ["zoo:english-math", "zoo:word-games"],
            "benchmarks": [A, B],
            **fields,
        }
    )


def score(values: list[float], tokens: int | None = None) -> Score:
    outputs = [Output(str(n), "", "", "", "", v, tokens or 0) for n, v in enumerate(values)]
    return Score.of(outputs, 0, 2.0, generated=tokens is not None)


def test_scales_go_from_a_little_worse_than_the_worst_to_the_best() -> None:
    asked = spec(measures=["sparsity", "tokens", "layers"])
    scales = make_scales(asked, KNOWN)
    # A: range 0.8; B all equal, so a tenth of 1; layers all equal, so a tenth of themselves.
    assert scales.reference == pytest.approx((0.02, 0.1, -0.22, 8.4, 4.4))
    assert scales.ideal == pytest.approx((0.9, 0.2, 0.0, 4.0, 4.0))
    ends = scales.normalise([scales.reference, scales.ideal])
    assert ends == pytest.approx(np.array([[0.0] * 5, [1.0] * 5]))
    better = (0.95, 0.3, 0.0, 3.0, 3.0)
    assert (scales.normalise([better])[0] >= 1).all()


@pytest.mark.parametrize(
    ("fields", "reference", "ideal"),
    [
        # A user's reference wins, and over a constraint too.
        ({"benchmarks": [{"benchmark": A, "reference": 0.3}, B]}, 0.3, 0.9),
        (
            {
                "benchmarks": [{"benchmark": A, "reference": 0.3}, B],
                "constraints": [{"on": A, "at_least": 0.6}],
            },
            0.3,
            0.9,
        ),
        # A bound raises the reference, never lowers it.
        ({"constraints": [{"on": A, "at_least": 0.6}]}, 0.6, 0.9),
        ({"constraints": [{"on": A, "at_least": 0.01}]}, 0.02, 0.9),
        ({"constraints": [{"on": A, "at_most": 0.6}]}, 0.02, 0.9),
        ({"constraints": [{"on": A, "at_least": "zoo:word-games"}]}, 0.5, 0.9),
        # Never below any source: the best is no longer beyond the reference, so it moves.
        ({"constraints": [{"on": A, "at_least": "sources"}]}, 0.9, 0.98),
    ],
)
def test_references_of_the_user_and_of_constraints(
    fields: dict[str, Any], reference: float, ideal: float
) -> None:
    scales = make_scales(spec(**fields), KNOWN)
    assert scales.reference[0] == pytest.approx(reference)
    assert scales.ideal[0] == pytest.approx(ideal)


def test_a_bound_on_a_minimised_objective_lowers_its_reference() -> None:
    asked = spec(measures=["tokens"], constraints=[{"on": "tokens", "at_most": 6.0}])
    scales = make_scales(asked, KNOWN)
    assert (scales.reference[2], scales.ideal[2]) == pytest.approx((6.0, 4.0))


def test_constraints_are_numbers_models_or_all_sources() -> None:
    asked = spec(
        constraints=[
            {"on": A, "at_least": "sources", "at_most": 0.95},
            {"on": "layers", "at_most": "zoo:base"},
        ]
    )
    scales = make_scales(asked, KNOWN)
    assert scales.bounds == (Bound(A, 0.9, 0.95), Bound("layers", None, 4.0))
    assert scales.slacks({A: 0.8, "layers": 5.0}) == pytest.approx((0.1, -0.15, 1.0))
    assert scales.slacks({A: 0.9, "layers": 4.0})[::2] == (0.0, 0.0)
    assert bounds_told(asked, scales) == (
        f"{A} at least 90.0% and at most 95.0%",
        "layers at most 4",
    )


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"constraints": [{"on": A, "at_least": "zoo:japanese-numerals"}]}, "a model of the run"),
        ({"search": {"racing": True}, "measures": ["throughput"]}, "leave out one of the two"),
    ],
)
def test_what_cannot_be_is_refused(fields: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(MorphingError, match=problem):
        spec(**fields)


def test_the_front_knows_directions_and_constraints() -> None:
    asked = spec(measures=["tokens"])
    assert signs(asked).tolist() == [1, 1, -1]

    def trial(number: int, values: tuple[float, ...], broken_by: float = -1.0) -> Trial:
        return Trial(number, {}, None, values, constraints=(broken_by,))  # type: ignore[arg-type]

    trials = [
        trial(0, (0.5, 0.5, 6.0)),
        trial(1, (0.5, 0.5, 5.0)),
        trial(2, (0.4, 0.6, 9.0)),
        trial(3, (0.9, 0.9, 1.0), broken_by=1e-9),
        trial(4, (0.4, 0.5, 7.0), broken_by=0.0),
    ]
    assert [t.number for t in best_of(asked, trials)] == [1, 2]
    assert best_of(asked, trials[3:4]) == []


def test_measures_of_a_loaded_model() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=3,
            num_attention_heads=2,
            tie_word_embeddings=True,
        )
    )
    scores = {"a": score([1, 0], tokens=6), "b": score([1.0]), "c": score([0] * 4, tokens=3)}
    found = measured(model, 0.25, scores)
    assert found == {
        "sparsity": -0.25,
        "parameters": float(sum(p.numel() for p in model.parameters())),
        "layers": 3.0,
        "tokens": (2 * 6 + 4 * 3) / 6,
        "throughput": (2 * 6 + 4 * 3) / 4.0,
    }
    assert measured(model, 0.0, {"b": score([1.0])})["tokens"] == 0


def test_variances_are_known() -> None:
    asked = spec(measures=["sparsity", "tokens"])
    found = variances(asked, {A: score([1, 0, 0, 0], tokens=3), B: score([1] * 16, tokens=5)})
    # All 16 right: as if one were not.
    assert found == pytest.approx(
        (0.25 * 0.75 / 4, (1 / 16) * (15 / 16) / 16, 0.0, np.var([3] * 4 + [5] * 16) / 20)
    )


def test_variances_of_scores_between_right_and_wrong() -> None:
    """Bits per byte or ROUGE vary as they vary: one answer that differed would not be 1 off."""
    each = [0.91, 0.93, 0.92, 0.94]
    found = variances(spec(measures=["sparsity"]), {A: score(each), B: score([0.5] * 4)})
    assert found == pytest.approx((np.var(each) / 4, 0.0, 0.0))


def test_a_benchmark_is_better_the_way_its_metric_is() -> None:
    text = {"name": "text", "dataset": "org/toy", "kind": "perplexity", "target": "{{ text }}"}
    uses = [{"benchmark": text}, A, {"benchmark": B, "direction": "minimize"}]
    asked = spec(benchmarks=uses, measures=[])
    assert asked.directions == ("minimize", "maximize", "minimize")


def test_values_as_text() -> None:
    text = {"name": "text", "dataset": "org/toy", "kind": "perplexity", "target": "{{ text }}"}
    shown = partial(shown_value, spec(benchmarks=[{"benchmark": text}, A]))
    assert [shown(A, 0.5123), shown("text", 0.5123)] == ["51.2%", "0.512"]
    assert shown("sparsity", -0.01234) == "−0.0123"
    assert [shown("parameters", n) for n in (656512.0, 7.24e9)] == ["657k", "7.24B"]
    told = [shown(name, 8.0) for name in ("layers", "tokens", "throughput")]
    assert told == ["8", "8.0 tokens", "8.0 tok/s"]


def test_scales_keep_slacks_in_the_order_of_their_bounds() -> None:
    scales = Scales((0.0,), (1.0,), (Bound("x", 1.0, 2.0), Bound("y", None, 5.0)))
    assert scales.slacks({"x": 3.0, "y": 4.0}) == (-2.0, 1.0, -1.0)
