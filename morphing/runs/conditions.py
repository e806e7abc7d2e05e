"""What a run's scores depend on beside weights and samples, and whether it was always the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from morphing.runs.records import Record
from morphing.runs.trial import Conditions, Result, Trial

if TYPE_CHECKING:
    from morphing.runs.run import Run


def results_of(trials: Iterable[Trial], records: Iterable[Record]) -> Iterator[Result]:
    """The results of trials, and of base and sources by their records."""
    for trial in trials:
        yield from (trial.results or {}).values()
    for record in records:
        yield from record.results.values()


def conditions_of(run: Run) -> list[Conditions]:
    """The conditions of a run's scores on both splits; those of earlier versions are not known."""
    records = [*run.references("search").values(), *run.references("holdout").values()]
    results = results_of(run.complete(), records)
    return [result.conditions for result in results if result.conditions is not None]


def conditions_here(run: Run, device: str | None = None) -> Conditions:
    """The conditions that scores made by this process would have; ``device`` as in a run spec."""
    from importlib.metadata import version

    from morphing.benchmarks.evaluate import COMPUTING
    from morphing.devices import described, resolve_device

    return Conditions(
        described(resolve_device(device or run.spec.device)),
        run.spec.dtype,
        run.spec.batch_size,
        versions={name: version(name) for name in COMPUTING},
    )


def mixed(conditions: Iterable[Conditions]) -> str | None:
    """A sentence that says what differs between conditions that should be the same; None where
    nothing does. How many rows were in a batch may differ, as with the number of layers.
    """
    known = list(conditions)
    seen = {
        "devices": [each.device for each in known],
        "dtypes": [each.dtype for each in known],
        "batch sizes": [str(each.batch_size or "automatic") for each in known],
    }
    for library in sorted({name for each in known for name in each.versions}):
        seen[f"versions of {library}"] = [each.versions.get(library, "unknown") for each in known]
    told = [
        f"{what} ({', '.join(dict.fromkeys(values))})"
        for what, values in seen.items()
        if len(set(values)) > 1
    ]
    if not told:
        return None
    return (
        f"Scores of this run were made with different {' and '.join(told)}: close ones may differ"
        " by that alone."
    )


def described_conditions(conditions: Conditions) -> str:
    """One score's conditions in a few words."""
    batch = (
        f"batches of {conditions.batch_size}"
        if conditions.batch_size
        else f"batches of at most {conditions.rows}"
        if conditions.rows
        else "automatic batches"
    )
    parts = [conditions.dtype, f"on {conditions.device}", f"in {batch}"]
    parts += [f"{name} {version}" for name, version in sorted(conditions.versions.items())]
    if conditions.thinking != "auto":
        parts.append(f"thinking {conditions.thinking}")
    return ", ".join(parts)


def unfinished_remark(title: str, results: Iterable[Result]) -> str:
    """How many answers of several models on one benchmark ended inside a thought, in a sentence;
    empty where none did.
    """
    most = max(results, key=lambda result: result.unfinished, default=None)
    if most is None or not most.unfinished:
        return ""
    return (
        f"Up to {most.unfinished} of {most.n} answers to {title} ended inside a thought and count"
        " as wrong: raise thinking_tokens, or set thinking to off."
    )
