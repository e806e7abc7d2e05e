"""The stages of a search: which recipes are looked for in which slots.

Most searches have one stage. With the strategy ``ps+dfs`` the first slots look for merge parameters
and the rest for layer paths through the best merge of the first stage and the sources (arXiv
2403.13187, section 3.3). That merge is written into the run as a model of its own, which recipes
call ``stage:ps``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.spec import RunSpec, first_evaluations
from morphing.runs.stage_model import STAGE_MODEL
from morphing.search.path_space import PathSpace
from morphing.search.samplers import SAMPLERS
from morphing.search.space import SearchSpace

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution


class Space(Protocol):
    """A map between named numbers and recipes."""

    def distributions(self) -> dict[str, FloatDistribution]:
        """The numbers that are searched, by name."""
        ...

    def recipe(self, params: Mapping[str, float]) -> Recipe:
        """The recipe at a point; raises MorphingError where there is none."""
        ...

    def start(self) -> dict[str, float] | None:
        """The point at which evolution begins; None for the middle of every range."""
        ...

    def alone(self, source: str) -> dict[str, float] | None:
        """The point that is one source as it is, where the space has it."""
        ...

    def uniform(self) -> dict[str, float] | None:
        """The point at which all sources count alike, where the space has it."""
        ...

    def knows(self, field: str, pattern: str) -> bool:
        """Whether a name in the options' ``ranges``, ``fixed`` or ``tied`` names a number here."""
        ...


@dataclass(frozen=True)
class Stage:
    """A part of a search, over slots ``first_slot`` to ``end_slot`` (not included)."""

    name: str
    """``ps`` (merge parameters) or ``dfs`` (layer paths)."""
    space: Space
    first_slot: int
    end_slot: int


def stages(spec: RunSpec, layers: int, architecture: str | None) -> tuple[Stage, ...]:
    """The stages of a pinned spec, in order.

    Args:
        spec: the run's.
        layers: how many layers each model has.
        architecture: the models' class, as ``config.json`` names it.

    Raises:
        MorphingError: the space cannot be, for example with more layer groups than layers or with a
            range for a number it has not; ``ps+dfs`` has fewer than two evaluations; or the sampler
            would try nothing but paths that are too long.
    """
    options, total = spec.search.space, spec.search.evaluations
    boundary = {"ps": total, "dfs": 0, "ps+dfs": first_evaluations(spec)}[options.strategy]
    parts: list[Stage] = []
    if options.strategy != "dfs":
        merges = SearchSpace(
            method=spec.method,
            base=spec.base,
            sources=spec.sources,
            layers=layers,
            options=options,
            architecture=architecture,
            dtype="float32",
            out_dtype=spec.dtype,
            tokenizer_source=spec.tokenizer_source,
            chat_template=spec.template,
            mask_seed=spec.search.seed,
        )
        parts.append(Stage("ps", merges, 0, boundary))
    if options.strategy != "ps":
        paths = PathSpace(
            base=spec.base,
            sources=(*((STAGE_MODEL,) if parts else ()), *spec.sources),
            layers=layers,
            options=options,
            architecture=architecture,
            dtype="float32",
            out_dtype=spec.dtype,
            tokenizer_source=spec.tokenizer_source,
            chat_template=spec.template,
        )
        _check_lengths(paths, spec.search.sampler)
        parts.append(Stage("dfs", paths, boundary, total))
    _check_patterns(spec, [stage.space for stage in parts])
    return tuple(parts)


def _check_patterns(spec: RunSpec, spaces: list[Space]) -> None:
    """Refuse a name in ``ranges``, ``fixed`` or ``tied`` that is no number's: it is mistyped."""
    options = spec.search.space
    for field in ("ranges", "fixed", "tied"):
        for pattern in getattr(options, field):
            if not any(space.knows(field, pattern) for space in spaces):
                names = [name for space in spaces for name in space.distributions()]
                shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
                raise MorphingError(
                    f"search.space.{field} names {pattern!r}, which is none of this search's"
                    f" numbers ({shown}) and no parameter of them: correct it or leave it out."
                )


def _check_lengths(space: PathSpace, sampler: str) -> None:
    """Samplers that look everywhere, and not about the start alone, switch every other slot on."""
    usual = space.slots // 2
    if SAMPLERS[sampler].everywhere and usual >= space.longest:
        raise MorphingError(
            f"The sampler {sampler} tries paths of about {usual} layers, of {space.slots} slots,"
            f" and {space.longest} at most are tried: lower search.space.repeats, or choose the"
            " sampler evolve or nsga2, which begin at the first source's own path."
        )
