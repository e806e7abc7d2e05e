"""What there is to search in each merge method: numbers, their ranges, how many sources it takes.

Light to import: the run spec and the app ask it before anything is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any


@dataclass(frozen=True)
class Number:
    """A parameter of mergekit's, and the range it is searched in."""

    parameter: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    of_source: bool = True
    """Named after its source; otherwise one number goes for all sources."""
    shared: bool = False
    """mergekit reads it from the whole recipe, not from a model's entry."""
    allowed: tuple[float, float] = (-inf, inf)
    """The least and the greatest value that means something to mergekit."""
    whole: float | None = None
    """The value at which its source counts as it is, if there is one."""
    absent: float | None = None
    """The value at which its source does not count; None where another number decides that."""


@dataclass(frozen=True)
class Method:
    """How a merge method is searched."""

    numbers: tuple[Number, ...]
    extras: tuple[Number, ...] = ()
    """Numbers that are searched only where the search space names them."""
    fewest: int = 1
    most: int | None = None
    """How many sources, the base not counted."""
    based: bool = True
    """Whether the base is given to the method."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the recipe says besides."""


_POSITIVE, _SHARE = (0.0, inf), (0.0, 1.0)


def _shared(
    parameter: str,
    low: float = 0.0,
    high: float = 1.0,
    log: bool = False,
    allowed: tuple[float, float] = _POSITIVE,
) -> Number:
    return Number(parameter, low, high, log, of_source=False, shared=True, allowed=allowed)


_WEIGHT = Number("weight", whole=1.0, absent=0.0)
_DENSITY = Number("density", allowed=_SHARE, whole=1.0)
# Weights of which only the proportions count, or whose sum is divided by: not all may be 0.
_PROPORTION = Number("weight", low=0.01)
# A fraction of a tensor's entries, the largest ones; the default is 0.01.
_GAMMA = Number("gamma", 0.0, 0.1, allowed=_SHARE, whole=0.0)
# density - epsilon and density + epsilon must lie inside (0, 1), epsilon's default is 0.15: the
# widest densities for which any epsilon up to that will do.
_DELLA = (
    _WEIGHT,
    replace(_DENSITY, low=0.16, high=0.84),
    Number("epsilon", 0.0, 0.15, allowed=_SHARE, whole=0.0),
)
# What the sum of task vectors is multiplied by, which weights can do as well.
_LAMBDA = Number("lambda", 0.5, 1.5, of_source=False, shared=True, whole=1.0)
# Below it an entry of a task vector counts as unchanged (the default is 1e-5). The entries of
# fine-tuned language models are spread over these decades, their median at 1e-4 to 1e-3 for
# adapters; what matters is the order of magnitude.
_UNCHANGED = _shared("epsilon", 1e-6, 1e-2, log=True)


def _onto_base(*numbers: Number) -> Method:
    return Method(numbers, extras=(_LAMBDA,), settings={"normalize": False})


METHODS: Mapping[str, Method] = {
    "linear": Method(
        (replace(_PROPORTION, whole=1.0, absent=0.0),), based=False, settings={"normalize": True}
    ),
    "slerp": Method((Number("t", shared=True, whole=1.0),), most=1),
    "nuslerp": Method((_PROPORTION,), fewest=2, most=2),
    # Unnormalised, the result goes from the base in the sources' mean direction, as far as the
    # weighted sum of their task vectors' lengths. A single source is returned as it is.
    "multislerp": Method((_PROPORTION,), fewest=2, settings={"normalize_weights": False}),
    "karcher": Method(()),
    "task_arithmetic": _onto_base(_WEIGHT),
    "ties": _onto_base(_WEIGHT, _DENSITY),
    "dare_linear": _onto_base(_WEIGHT, _DENSITY),
    "dare_ties": _onto_base(_WEIGHT, _DENSITY),
    "della": _onto_base(*_DELLA),
    "della_linear": _onto_base(*_DELLA),
    "breadcrumbs": _onto_base(_WEIGHT, _DENSITY, _GAMMA),
    "breadcrumbs_ties": _onto_base(_WEIGHT, _DENSITY, _GAMMA),
    # Selects by the variance between sources, of which a single one has none.
    "sce": Method((_shared("select_topk", allowed=_SHARE),), fewest=2),
    "model_stock": Method(()),
    # No entry moves from the base towards the source by more than t, so t is in units of weights,
    # and only its order of magnitude matters: at 1e-5 hardly anything moves, at 0.1 the result is
    # the source. Its author published merges at 1e-4.
    "nearswap": Method((_shared("t", 1e-5, 1e-1, log=True),), most=1),
    "arcee_fusion": Method(()),
    "ram": Method((_UNCHANGED,)),
    # Entries that one source alone changed grow by 1 + r * min(alpha, its shared entries over its
    # own), which is 1 for a single source; the defaults are r = 0.1 and alpha = 0.2.
    "ramplus_tl": Method((_shared("r"), _shared("alpha"), _UNCHANGED), fewest=2),
    "passthrough": Method((Number("scale", 0.5, 1.5, whole=1.0),), most=1, based=False),
}
"""Every method mergekit has.

Methods on task vectors say ``normalize: false``, as MM-MO does. Normalising (mergekit's default for
TIES and DELLA) divides by the sum of weights, so weights would only mean proportions and how far to
go from the base could not be searched.
"""

SEARCHABLE = tuple(name for name, method in METHODS.items() if method.numbers)
"""The methods with something to search."""


def refusal(method: str, sources: int) -> str | None:
    """Why ``method`` cannot be searched with so many sources, in one sentence; None if it can."""
    if method not in METHODS:
        return f"There is no merge method '{method}' to search: choose one of {_names()}."
    found = METHODS[method]
    if not found.numbers:
        return (
            f"{method} has no numbers to search, so these models have a single merge of its kind:"
            " make that one with `morphing merge RECIPE.yaml OUT`, or choose one of"
            f" {_names()}."
        )
    if sources < found.fewest or (found.most is not None and sources > found.most):
        wanted = f"exactly {_count(found.fewest)}"
        if found.most is None:
            wanted = f"at least {_count(found.fewest)}"
        return (
            f"{method} merges {wanted} {'with the base' if found.based else 'without a base'}, and"
            f" the run names {sources}: change its sources or choose another method."
        )
    return None


def _count(sources: int) -> str:
    return "one source" if sources == 1 else f"{sources} sources"


def _names() -> str:
    return ", ".join(SEARCHABLE)
