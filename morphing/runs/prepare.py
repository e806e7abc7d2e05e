"""From a spec as a person writes it to a run that can start: pinned, checked, small enough."""

from __future__ import annotations

from pathlib import Path

from morphing.devices import check_memory, resolve_device
from morphing.runs.run import Run
from morphing.runs.spec import RunSpec
from morphing.search.space import SearchSpace


def prepare(spec: RunSpec, token: str | None = None) -> RunSpec:
    """Pin every revision; check that the sources fit each other, the memory and the benchmarks.

    Of models only headers are read. Of each benchmark a sample of each split is made, so that a
    wrong column is told now and not after gigabytes of weights.

    Raises:
        MorphingError: an unknown or gated id, sources that do not fit, too little memory, a
            benchmark that does not fit its dataset.
    """
    import torch

    from morphing.benchmarks.benchmark import pin_benchmark
    from morphing.benchmarks.load import load_samples
    from morphing.merging.morph import required_memory
    from morphing.sources.compatibility import check
    from morphing.sources.source import inspect, pin

    device = resolve_device(spec.device)
    base = inspect(pin(spec.base, token), token)
    sources = [inspect(pin(name, token), token) for name in spec.sources]
    check(
        base,
        sources,
        allow_unrelated_base=spec.allow_unrelated_base,
        vocabularies_aligned=spec.tokenizer_source is not None,
    )
    dtype = spec.dtype if spec.dtype != "auto" else base.dtype
    needed = required_memory(base, sources, getattr(torch, dtype), spec.placement)
    check_memory(needed, device)
    pinned = spec.model_copy(
        update={
            "base": base.name,
            "sources": tuple(source.name for source in sources),
            "dtype": dtype,
            "benchmarks": tuple(
                use.model_copy(update={"benchmark": pin_benchmark(use.declaration, token)})
                for use in spec.benchmarks
            ),
        }
    )
    search_space(pinned, base.layers)
    for use in pinned.benchmarks:
        for part in ("search", "holdout"):
            load_samples(use.declaration, part, 1, token=token)
    return RunSpec.model_validate(pinned.model_dump())


def create_run(folder: Path, spec: RunSpec, token: str | None = None) -> Run:
    """Prepare ``spec`` and make its run folder.

    Raises:
        MorphingError: as :func:`prepare` and :meth:`Run.create` do.
    """
    return Run.create(folder, prepare(spec, token))


def search_space(spec: RunSpec, layers: int) -> SearchSpace:
    """The search space of a pinned spec over a model with ``layers`` layers.

    Raises:
        MorphingError: the method cannot merge this many sources, or has too few layers to group.
    """
    return SearchSpace(
        method=spec.method,
        base=spec.base,
        sources=spec.sources,
        layers=layers,
        layer_groups=spec.search.layer_groups,
        dtype="float32",
        out_dtype=spec.dtype,
        tokenizer_source=spec.tokenizer_source,
        mask_seed=spec.search.seed,
    )
