"""From a spec as a person writes it to a run that can start: pinned, checked, small enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from morphing.devices import check_memory, resolve_device
from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.notes import note_once
from morphing.runs.chat_templates import Told, check_tokenizers, choose_template
from morphing.runs.progress import Progress, megabytes, quiet
from morphing.runs.run import Run
from morphing.runs.seeds import pin_seeds
from morphing.runs.spec import RunSpec, refuse_inverted_constraints
from morphing.runs.spec_parts import Constraint
from morphing.runs.stages import Stage, stages
from morphing.search.space import SearchSpace

if TYPE_CHECKING:
    from morphing.sources.source import Inspection


def prepare(
    spec: RunSpec,
    token: str | None = None,
    progress: Progress = quiet,
    told: Told = note_once,
) -> RunSpec:
    """Pin every revision; check that sources, memory, search space, seeds and benchmarks fit.

    Of models on the Hub only headers are read; those on this machine are pinned by the content of
    their files, which ``progress`` is told of, since gigabytes take a while. Of each benchmark a
    sample of each split is made, so that a wrong column is told now and not after that. ``told``
    is called with what whoever starts the search should read: what is unusual about the models,
    whose chat template merges have.

    Raises:
        MorphingError: an unknown or gated id, sources that do not fit, too little memory, a search
            space or a seed that cannot be, a benchmark that does not fit its dataset or runs code
            where that is not allowed or not safe, a model that holds something else than the
            spec's own digests say.
    """
    import torch

    from morphing.benchmarks.data.samples import load_samples
    from morphing.benchmarks.leave import require_leave
    from morphing.merging.morph import required_memory
    from morphing.sources.compatibility import check
    from morphing.sources.find import inspect, pin, read_tokens

    refuse_inverted_constraints(spec)
    for use in spec.benchmarks:
        require_leave(use.declaration)
    device = resolve_device(spec.device)
    base = inspect(pin(spec.base, token), token)
    sources = [inspect(pin(name, token), token) for name in spec.sources]
    for remark in check(
        base,
        sources,
        allow_unrelated_base=spec.allow_unrelated_base,
        vocabularies_aligned=spec.tokenizer_source is not None,
        vocabulary=cache(partial(read_tokens, token=token)),
    ):
        told(remark)
    check_tokenizers(base, sources)
    dtype = spec.dtype if spec.dtype != "auto" else base.dtype
    loaded = _with_stage_model(spec, base, sources, getattr(torch, dtype).itemsize)
    check_memory(required_memory(base, loaded, getattr(torch, dtype), spec.placement), device)
    pinned = _pinned(spec.model_copy(update={"dtype": dtype}), base, sources, token, told)
    _check_space(stages(pinned, base.layers, base.architecture), base)
    _check_chats(pinned, base)
    _check_room(pinned, base)
    for use in pinned.benchmarks:
        for part in ("search", "holdout"):
            load_samples(use.declaration, part, 1, token=token)
    digests = _digests(pinned, spec.digests, progress)
    _check_sources(pinned, digests, told)
    return RunSpec.model_validate(pinned.model_dump() | {"digests": digests})


def _pinned(
    spec: RunSpec, base: Inspection, sources: Sequence[Inspection], token: str | None, told: Told
) -> RunSpec:
    """The spec with every model, seed and benchmark named by what it was pinned to."""
    from morphing.benchmarks.data.dataset import pin_benchmark
    from morphing.sources.find import pin

    models, written = (base, *sources), (spec.base, *spec.sources)
    names = {name: model.name for name, model in zip(written, models, strict=True)}
    seeds = pin_seeds(spec.search.seeds, names, partial(pin, token=token))
    for number, seed in enumerate(seeds):
        for remark in Recipe(seed).remarks if isinstance(seed, dict) else ():
            told(f"Seed {number}: {remark}")
    return spec.model_copy(
        update={
            "base": base.name,
            "sources": tuple(source.name for source in sources),
            "chat_template": choose_template(spec.chat_template, base, sources, names, told),
            "search": spec.search.model_copy(update={"seeds": seeds}),
            "constraints": tuple(_with_names(bound, names) for bound in spec.constraints),
            "benchmarks": tuple(
                use.model_copy(update={"benchmark": pin_benchmark(use.declaration, token)})
                for use in spec.benchmarks
            ),
        }
    )


def create_run(
    folder: Path,
    spec: RunSpec,
    token: str | None = None,
    progress: Progress = quiet,
    told: Told = note_once,
) -> Run:
    """Prepare ``spec`` and make its run folder.

    Raises:
        MorphingError: as :func:`prepare` and :meth:`Run.create` do.
    """
    return Run.create(folder, prepare(spec, token, progress, told))


def _digests(pinned: RunSpec, before: Mapping[str, str], progress: Progress) -> dict[str, str]:
    """By name, what the files of those models hold that no commit pins."""
    from morphing.sources.content import digest
    from morphing.sources.find import folder_of

    digests = {}
    for name in (pinned.base, *pinned.sources):
        if (folder := folder_of(name)) is None:
            continue
        read = partial(megabytes, partial(progress, f"reading what is in {name} (MB)"))
        digests[name] = digest(folder, read)
        if before.get(name, digests[name]) != digests[name]:
            raise MorphingError(
                f"{name} holds something else than the spec's digests say: put its old files back,"
                " or leave the digests out to take it as it is."
            )
    return digests


def _with_names(constraint: Constraint, names: Mapping[str, str]) -> Constraint:
    """The constraint with the run's own name for the model that bounds it, where one does."""

    def pinned(limit: float | str | None) -> float | str | None:
        return names.get(limit, limit) if isinstance(limit, str) else limit

    limits = {"at_least": pinned(constraint.at_least), "at_most": pinned(constraint.at_most)}
    return constraint.model_copy(update=limits)


def _with_stage_model(
    spec: RunSpec, base: Inspection, sources: Sequence[Inspection], itemsize: int
) -> list[Inspection]:
    """The sources, and the model that a search in two stages makes and keeps beside them."""
    if spec.search.space.strategy != "ps+dfs":
        return list(sources)
    return [*sources, replace(base, bytes=base.parameters * itemsize)]


def _check_sources(spec: RunSpec, digests: Mapping[str, str], told: Told) -> None:
    """Refuse sources that are all the base itself, or a copy of it; tell of one that is."""
    content = digests.get(spec.base, spec.base)
    same = [source for source in spec.sources if digests.get(source, source) == content]
    if len(same) == len(spec.sources) and spec.search.space.strategy != "dfs":
        raise MorphingError(
            f"All sources hold the same as the base {spec.base}, and so do all their merges: name a"
            " model that was made from it."
        )
    for source in same:
        told(f"{source} holds the same as the base {spec.base}, and changes no merge it is in.")


def _check_chats(pinned: RunSpec, base: Inspection) -> None:
    """Refuse a benchmark that has to ask in a chat where the run's tokenizer has no template."""
    if pinned.chat_template is not None or base.chat_template is not None:
        return
    for use in pinned.benchmarks:
        if use.declaration.chat is True:
            raise MorphingError(
                f"The benchmark {use.declaration.name!r} asks in a chat, and no model of the run"
                " has a chat template: set its chat to auto to ask in plain text, or name a"
                " chat_template in the spec."
            )


def _check_room(pinned: RunSpec, base: Inspection) -> None:
    """Refuse a benchmark whose answers alone fill the context of the run's models."""
    config = base.config.get("text_config") or base.config
    context = config.get("max_position_embeddings")
    for use in pinned.benchmarks:
        answer = use.declaration.max_new_tokens
        if use.declaration.kind not in ("generation", "code") or not isinstance(context, int):
            continue
        if context <= answer:
            raise MorphingError(
                f"Answers of the benchmark {use.declaration.name!r} may have {answer} tokens, and"
                f" {base.name} has a context of {context} for the prompt and the answer together:"
                " lower the benchmark's max_new_tokens."
            )


def _check_space(found: Sequence[Stage], base: Inspection) -> None:
    for stage in found:
        if isinstance(stage.space, SearchSpace):
            stage.space.parts.check(base.tensors)
