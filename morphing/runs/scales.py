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
from morphing.runs.spec import SOURCES, Constraint, RunSpec

_MARGIN = 0.1


@dataclass(frozen=True)
class Bound:
    """A constraint in numbers: ``on``'s natural value is at least ``low`` and at most ``high``."""

    __pydantic_config__ = FOREIGN

    on: Name
    low: Number | None = None
    high: Number | None = None

    def limits(self, shown: Callable[[float], str]) -> str:
        """Both in words, as ``shown`` shows a value of ``on``."""
        parts = [f"at least {shown(self.low)}"] if self.low is not None else []
        parts += [f"at most {shown(self.high)}"] if self.high is not None else []
        return " and ".join(parts)


@dataclass(frozen=True)
class Scales:
    """What a run's hypervolume is measured by, and its constraints; fixed before its first trial.

    ``reference`` and ``ideal`` are (m,), natural, in the objectives' order. Per objective the
    scale goes from 0 at ``reference``, a little worse than the worst of base and sources, to 1 at
    ``ideal``, the best of them; so a hypervolume of 1 is what a model as good as the best of them
    in everything at once would have alone. The same models, samples and objectives have the same
    scales, so hypervolumes of their runs can be compared.
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
        """By how much each bound is broken, natural values by name given; at most 0 if it is kept.

        A bound's ``low`` comes before its ``high``.
        """
        found = []
        for bound in self.bounds:
            value = values[bound.on]
            if bound.low is not None:
                found.append(bound.low - value)
            if bound.high is not None:
                found.append(value - bound.high)
        return tuple(found)


_SCALES = TypeAdapter(Scales)
_MEND = "delete it, and the run makes it again from the scores of base and sources"


def scales(run: Run) -> Scales:
    """The run's scales, fixed now if they are not yet: ``scales.json``, written once.

    Raises:
        MorphingError: base and sources have not all been scored on the search split.
    """
    if (known := fixed_scales(run)) is not None:
        return known
    references = run.reference_values()
    needed = {*run.spec.objectives, *(constraint.on for constraint in run.spec.constraints)}
    models = {run.spec.base, *run.spec.sources}
    if missing := {model for model in models if not needed <= set(references.get(model, ()))}:
        raise MorphingError(
            f"The run {run.name} has no scores of {min(missing)} yet, by which objectives are"
            " scaled: start the search, it scores base and sources first."
        )
    made = make_scales(run.spec, references)
    data = {"objectives": run.spec.objectives, **asdict(made)}
    write_atomically(_path(run), json.dumps(data, ensure_ascii=False).encode())
    return made


def fixed_scales(run: Run) -> Scales | None:
    """The run's scales; None before they were fixed.

    Raises:
        MorphingError: the file that says so holds something else, or is another search's.
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
    """Scales from the natural values, by name, of base and sources on the search split.

    An objective's scale is the range of these values; where they are all equal, 1 for a score and
    the value itself for a measure. ``ideal`` is the best of them, ``reference`` a tenth of the
    scale worse than the worst. A reference in the spec is taken as it is; else a constraint on the
    objective raises it to its bound. Where that is no worse than ``ideal``, ``ideal`` is moved to
    a tenth of the scale beyond it.
    """
    bounds = tuple(_bound(spec, constraint, references) for constraint in spec.constraints)
    given = [*(use.reference for use in spec.tasks), *(use.reference for use in spec.measures)]
    reference, ideal = [], []
    for name, sign, wanted in zip(spec.objectives, signs(spec), given, strict=True):
        known = [float(sign * values[name]) for values in references.values()]
        worst, best = min(known), max(known)
        unit = abs(best) or 1.0 if name in MEASURES else 1.0
        margin = _MARGIN * (best - worst or unit)
        if wanted is not None:
            start = float(sign * wanted)
        else:
            limits = (b.low if sign > 0 else b.high for b in bounds if b.on == name)
            kept = [float(sign * limit) for limit in limits if limit is not None]
            start = max(worst - margin, *kept) if kept else worst - margin
        reference.append(float(sign * start))
        ideal.append(float(sign * (best if best > start else start + margin)))
    return Scales(tuple(reference), tuple(ideal), bounds)


def bounds_told(spec: RunSpec, scales: Scales) -> tuple[str, ...]:
    """The constraints in words."""
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
