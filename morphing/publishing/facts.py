"""All that a model card says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from morphing.merging.recipe import Recipe


@dataclass(frozen=True)
class ScoreLine:
    """One score: the mean ``value`` over ``n`` samples of a dataset's ``split``.

    ``interval`` is its 95 % bootstrap interval over samples, where it is known. ``share`` says that
    it is a share of 1; ``contaminated`` that the split is one for evaluation and the search saw
    half of it.
    """

    benchmark: str
    title: str
    dataset: str
    revision: str | None
    part: Literal["search", "holdout"]
    split: str
    metric: str
    value: float
    n: int
    stderr: float
    interval: tuple[float, float] | None = None
    share: bool = True
    contaminated: bool = False
    lower_is_better: bool = False
    unfinished: int = 0
    """Answers that ended inside a thought, and so are none."""
    thinking: str = "auto"


@dataclass(frozen=True)
class ObjectiveLine:
    """An objective of the search, values as text.

    Hypervolume is measured from ``reference`` (0) to ``ideal`` (1), empty where a run has neither.
    """

    name: str
    direction: Literal["maximize", "minimize"]
    value: str
    reference: str = ""
    ideal: str = ""


@dataclass(frozen=True)
class Standing:
    """On the holdout, the mean over the objectives that are shares of 1 and how far it is above
    that of the best source, each with its 95 % bootstrap interval: (value, low, high).
    """

    mean: tuple[float, float, float]
    best_source: str
    ahead: tuple[float, float, float]


@dataclass(frozen=True)
class CardFacts:
    """All that a card says.

    ``base`` and ``sources`` are pinned names; the ``reference_`` mappings hold the scores of base
    and sources by name. ``run`` has sampler, space, evaluations, failed, raced, seed, trial, front
    and on_front. ``licenses`` maps the names of base and sources to the licence each declares, if
    any, ``digests`` the names of models that no commit pins to what their files held
    (`sources.content`). ``adapter_error`` is set for a LoRA adapter made of the merge: its
    `AdapterReport.error`.
    ``constraints`` are as a person reads them, such as "layers at most 8".
    """

    title: str
    base: str
    sources: tuple[str, ...]
    recipe: Recipe
    search: tuple[ScoreLine, ...]
    holdout: tuple[ScoreLine, ...]
    reference_search: Mapping[str, tuple[ScoreLine, ...]]
    reference_holdout: Mapping[str, tuple[ScoreLine, ...]]
    run: Mapping[str, Any]
    version: str
    licenses: Mapping[str, str | None] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    adapter_error: float | None = None
    stage: Recipe | None = None
    """How `stage:ps` is made, where the recipe names it."""
    objectives: tuple[ObjectiveLine, ...] = ()
    constraints: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """What is to be known of how scores were made, as sentences."""
    standing: Standing | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Base and sources, each once."""
        return tuple(dict.fromkeys((self.base, *self.sources)))

    @property
    def license(self) -> str | None:
        """The licence all models share, ``other`` where they don't; None if not looked up."""
        if not self.licenses:
            return None
        names = {self.licenses.get(name) for name in self.models}
        shared = names.pop() if len(names) == 1 else None
        return shared or "other"
