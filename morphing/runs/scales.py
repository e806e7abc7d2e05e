"""What a run's hypervolume is measured by, and its constraints in numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from morphing.errors import MorphingError
from morphing.runs.files import FOREIGN, Name, Number, read_json, write_atomically
from morphing.runs.measures import MEASURES
from morphing.runs.objectives import shown_value, signs
from morphing.runs.run import Run
from morphing.runs.spec import RunSpec
from morphing.runs.spec_parts import SOURCES, Constraint

_MARGIN = 0.1


@dataclass(frozen=True)
class Bound:
    """A constraint in numbers: ``on``'s natural value is at least ``low`` and at most ``high``."""

    __pydantic_config__ = FOREIGN

    on: Name
    low: Number | None = None
    high: Number | None = None

    def limits(self, shown: Callable[[float], str]) -> str:
        """Both limits in words; ``shown`` turns a value of ``on`` into text."""
        parts = [f"at least {shown(self.low)}"] if self.low is not None else []
        parts += [f"at most {shown(self.high)}"] if self.high is not None else []
        return " and ".join(parts)


@dataclass(frozen=True)
class Scales:
    """What a run's hypervolume is measured by, and its constraints; fixed before its first trial.

    Each of the m objectives has a scale. It is 0 at ``reference``, which is a little worse than the
    worst of the base and the sources, and 1 at ``ideal``, which is the best of them. So a single
    model that is as good at each objective as the best of base and sources has a hypervolume of 1.
    Runs with the same models, samples and objectives have the same scales, and their hypervolumes
    can be compared.

    ``reference`` and ``ideal`` are (m,), in the objectives' order, natural: as a person reads
    them, a minimised value is not negated.
    """

    __pydantic_config__ = FOREIGN

    reference: tuple[Number, ...]
    ideal: tuple[Number, ...]
    bounds: tuple[Bound, ...] = ()

    def normalise(self, values: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
        """Natural values (n, m) on the scales: (n, m), all maximised."""
        reference, ideal = np.array(self.reference), np.array(self.ideal)
        scaled: np.ndarray = (np.asarray(values, dtype=float) - reference) / (ideal - reference)
        return scaled

    def slacks(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """By how much a model breaks each limit: above 0 where the limit is broken.

        The limits are in the order of ``bounds``, a bound's ``low`` before its ``high``.

        Args:
            values: the model's natural values, by the name of an objective or a measure.
        """
        broken_by = []
        for bound in self.bounds:
            value = values[bound.on]
            if bound.low is not None:
                broken_by.append(bound.low - value)
            if bound.high is not None:
                broken_by.append(value - bound.high)
        return tuple(broken_by)


_SCALES = TypeAdapter(Scales)
_MEND = "delete it, and the run makes it again from the scores of base and sources"


def scales(run: Run) -> Scales:
    """The run's scales. The first call works them out and writes ``scales.json``; later calls read
    that file.

    Raises:
        MorphingError: base and sources have not all been scored on the search split.
    """
    if (fixed := fixed_scales(run)) is not None:
        return fixed
    references = run.reference_values()
    needed = {*run.spec.objectives, *(constraint.on for constraint in run.spec.constraints)}
    models = {run.spec.base, *run.spec.sources}
    if missing := {model for model in models if not needed <= set(references.get(model, ()))}:
        raise MorphingError(
            f"The run {run.name} has no scores of {min(missing)} yet, which its scales are made"
            " from: start the search, which scores base and sources first."
        )
    made = make_scales(run.spec, references)
    data = {"objectives": run.spec.objectives, **asdict(made)}
    write_atomically(_path(run), json.dumps(data, ensure_ascii=False).encode())
    return made


def fixed_scales(run: Run) -> Scales | None:
    """The run's scales; None before they were fixed.

    Raises:
        MorphingError: ``scales.json`` is damaged, or has the scales of another search.
    """
    path = _path(run)
    if not path.exists():
        return None
    fixed = read_json(path, _SCALES, _MEND)
    sizes = {len(fixed.reference), len(fixed.ideal), len(run.spec.objectives)}
    bound = [constraint.on for constraint in run.spec.constraints]
    if len(sizes) > 1 or [each.on for each in fixed.bounds] != bound:
        raise MorphingError(
            f"{path} is of other objectives or constraints than the run's: {_MEND}."
        )
    if any(start == end for start, end in zip(fixed.reference, fixed.ideal, strict=True)):
        raise MorphingError(f"{path} has a scale from a value to itself: {_MEND}.")
    return fixed


def make_scales(spec: RunSpec, references: Mapping[str, Mapping[str, float]]) -> Scales:
    """Scales from what base and sources reach on the search split.

    An objective's ``ideal`` is the best of these values, and its ``reference`` is worse than the
    worst of them by a margin: a tenth of their range or, where they are all equal, a tenth of 1 for
    a score and of the value itself for a measure. There are two exceptions:

    - A reference in the spec is taken as it is. Without one, a constraint on the objective moves
      the reference to the constraint's limit, if that is better.
    - Where ``ideal`` is then not better than ``reference``, it is moved a margin beyond it.

    Args:
        spec: the run's.
        references: natural values by model, then by the name of an objective or a measure.
    """
    bounds = tuple(_bound(spec, constraint, references) for constraint in spec.constraints)
    given = [*(use.reference for use in spec.tasks), *(use.reference for use in spec.measures)]
    reference, ideal = [], []
    for name, sign, wanted in zip(spec.objectives, signs(spec), given, strict=True):
        reached = [float(sign * values[name]) for values in references.values()]
        worst, best = min(reached), max(reached)
        unit = abs(best) or 1.0 if name in MEASURES else 1.0
        margin = _MARGIN * (best - worst or unit)
        if wanted is not None:
            start = float(sign * wanted)
        else:
            limits = (b.low if sign > 0 else b.high for b in bounds if b.on == name)
            starts = [float(sign * limit) for limit in limits if limit is not None]
            start = max([worst - margin, *starts])
        reference.append(float(sign * start))
        ideal.append(float(sign * (best if best > start else start + margin)))
    return Scales(tuple(reference), tuple(ideal), bounds)


def bounds_told(spec: RunSpec, scales: Scales) -> tuple[str, ...]:
    """The constraints in words, each a benchmark or measure and its limits."""
    return tuple(f"{b.on} {b.limits(partial(shown_value, spec, b.on))}" for b in scales.bounds)


def _bound(
    spec: RunSpec, constraint: Constraint, references: Mapping[str, Mapping[str, float]]
) -> Bound:
    def limit(given: float | str | None, strictest: Callable[..., float]) -> float | None:
        if not isinstance(given, str):
            return given
        models = spec.sources if given == SOURCES else (given,)
        return strictest(references[model][constraint.on] for model in models)

    return Bound(constraint.on, limit(constraint.at_least, max), limit(constraint.at_most, min))


def _path(run: Run) -> Path:
    return run.folder / "scales.json"
