"""The merge methods: one entry each, from which recipes, search, app and documents read.

To add a method, write its entry here and, unless mergekit's code merges its tensors, the file that
does. What reads the table: `recipe` (which methods and parameters there are, in which ranges),
`search.space` (which of them are searched, and where), `rows.merger` (which have kernels of our
own), ``ui.compose.words`` (titles and sentences). Light to import: neither torch nor mergekit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from math import inf

from morphing.merging.method import POSITIVE, SHARE, Group, Method, Parameter, Span


def _switch(name: str, default: bool) -> Parameter:
    return Parameter(name, kind="switch", default=default, shared=True)


def _shared(
    name: str, default: float | None, low: float = 0.0, high: float = 1.0, log: bool = False
) -> Parameter:
    return Parameter(
        name,
        POSITIVE,
        default=default,
        required=default is None,
        shared=True,
        span=Span(low, high, log, of_source=False),
    )


_WEIGHT = Parameter("weight", required=True, span=Span(whole=1.0, absent=0.0))
# At 0 nothing of a source is kept; searches reach it.
_DENSITY = Parameter("density", SHARE, default=1.0, span=Span(whole=1.0))
# Weights of which only the proportions count, or whose sum is divided by: not all may be 0.
_PROPORTION = Parameter("weight", required=True, span=Span(low=0.01))
# Shares of a way from one direction to others, which lead nowhere below 0.
_DIRECTION = replace(_PROPORTION, allowed=POSITIVE)
# A fraction of a tensor's entries, the largest ones.
_GAMMA = Parameter("gamma", SHARE, default=0.01, span=Span(0.0, 0.1, whole=0.0))
# density - epsilon and density + epsilon must lie inside (0, 1): the widest densities for which
# any epsilon up to its default will do.
_DELLA = (
    _WEIGHT,
    replace(_DENSITY, span=Span(0.16, 0.84, whole=1.0)),
    Parameter("epsilon", SHARE, default=0.15, span=Span(0.0, 0.15, whole=0.0)),
)
# What the sum of task vectors is multiplied by, which weights can do as well.
_LAMBDA = Parameter(
    "lambda", default=1.0, shared=True, span=Span(0.5, 1.5, of_source=False, usual=False, whole=1.0)
)
# Below it an entry of a task vector counts as unchanged. The entries of fine-tuned language models
# are spread over these decades, their median at 1e-4 to 1e-3 for adapters; what matters is the
# order of magnitude.
_UNCHANGED = _shared("epsilon", 1e-5, 1e-6, 1e-2, log=True)
# It saved memory in older versions of mergekit and never changed a weight.
_INT8_MASK = _switch("int8_mask", False)


def _onto_base(
    name: str,
    title: str,
    sentence: str,
    *numbers: Parameter,
    normalize: bool = False,
    rescale: bool = False,
    fast: bool = False,
    group: Group = "",
    reference: str = "",
    others: tuple[str, ...] = (),
) -> Method:
    """A method on task vectors; ``normalize`` and ``rescale`` are mergekit's defaults.

    A search says ``normalize: false``, as MM-MO does. Normalising divides by the sum of weights, so
    weights would only mean proportions and how far to go from the base could not be searched.
    """
    switches = (_switch("normalize", normalize), _switch("rescale", rescale), _INT8_MASK)
    return Method(
        name,
        title,
        sentence,
        (*numbers, _LAMBDA, *switches),
        fast=fast,
        settings={"normalize": False},
        group=group,
        reference=reference,
        others=others,
    )


def _solved(
    name: str, title: str, sentence: str, reference: str, others: tuple[str, ...]
) -> Method:
    """A method that solves linear maps from prompts, a task for each entry of models."""
    return Method(
        name,
        title,
        sentence,
        (
            Parameter("weight", POSITIVE, required=True),
            Parameter("ridge", POSITIVE, default=0.01, shared=True),
            Parameter("most_tokens", (1.0, inf), "whole number", shared=True),
        ),
        weighs_base=True,
        group="solved",
        reference=reference,
        others=others,
        solved=True,
    )


_ALL = (
    _onto_base(
        "dare_ties",
        "DARE-TIES",
        "Drops random changes, settles sign conflicts. The usual choice.",
        _WEIGHT,
        _DENSITY,
        rescale=True,
        fast=True,
        reference="https://arxiv.org/abs/2311.03099",
    ),
    _onto_base(
        "dare_linear",
        "DARE linear",
        "Drops random changes and adds up what is left.",
        _WEIGHT,
        _DENSITY,
        rescale=True,
        fast=True,
        reference="https://arxiv.org/abs/2311.03099",
        others=("Linear DARE",),
    ),
    _onto_base(
        "ties",
        "TIES",
        "Keeps each source's largest changes and settles sign conflicts.",
        _WEIGHT,
        _DENSITY,
        normalize=True,
        fast=True,
        reference="https://arxiv.org/abs/2306.01708",
    ),
    _onto_base(
        "task_arithmetic",
        "Task arithmetic",
        "Adds the sources' changes to the base, weighted.",
        _WEIGHT,
        fast=True,
        reference="https://arxiv.org/abs/2212.04089",
        others=("Task vectors",),
    ),
    Method(
        "linear",
        "Linear",
        "A weighted average of the sources' weights.",
        (
            replace(_PROPORTION, span=Span(0.01, whole=1.0, absent=0.0)),
            _switch("normalize", True),
        ),
        based=False,
        fast=True,
        weighs_base=True,
        settings={"normalize": True},
        reference="https://arxiv.org/abs/2203.05482",
        others=("Model soup", "Average", "Weight average"),
    ),
    Method(
        "slerp",
        "SLERP",
        "Goes from the base to one source along the sphere. One source only.",
        (Parameter("t", SHARE, required=True, shared=True, span=Span(whole=1.0)),),
        most=1,
        fast=True,
        reference="https://en.wikipedia.org/wiki/Slerp",
        others=("Spherical linear interpolation",),
    ),
    _onto_base(
        "della",
        "DELLA",
        "Like DARE-TIES, but drops small changes more often than large ones.",
        *_DELLA,
        normalize=True,
        rescale=True,
        group="changes",
        reference="https://arxiv.org/abs/2406.11617",
        others=("DELLA TIES",),
    ),
    _onto_base(
        "della_linear",
        "DELLA linear",
        "Like DELLA, and adds up what is left, conflicts and all.",
        *_DELLA,
        rescale=True,
        group="changes",
        reference="https://arxiv.org/abs/2406.11617",
        others=("Linear DELLA",),
    ),
    _onto_base(
        "breadcrumbs",
        "Breadcrumbs",
        "Drops each source's smallest changes and its outliers.",
        _WEIGHT,
        _DENSITY,
        _GAMMA,
        group="changes",
        reference="https://arxiv.org/abs/2312.06795",
        others=("Model Breadcrumbs",),
    ),
    _onto_base(
        "breadcrumbs_ties",
        "Breadcrumbs TIES",
        "Like Breadcrumbs, and settles sign conflicts.",
        _WEIGHT,
        _DENSITY,
        _GAMMA,
        group="changes",
        reference="https://arxiv.org/abs/2312.06795",
        others=("Model Breadcrumbs with TIES",),
    ),
    # Selects by the variance between sources, of which a single one has none.
    Method(
        "sce",
        "SCE",
        "Keeps the entries in which the sources differ most. Two sources or more.",
        (replace(_shared("select_topk", 1.0), allowed=SHARE), _INT8_MASK),
        fewest=2,
        group="compare",
        reference="https://arxiv.org/abs/2408.07990",
    ),
    Method(
        "ram",
        "RAM",
        "Averages what sources changed together, keeps what one alone did.",
        (_UNCHANGED,),
        group="compare",
        reference="https://arxiv.org/abs/2601.13572",
        others=("Reinforced Agent Merging",),
    ),
    # Entries that one source alone changed grow by 1 + r * min(alpha, its shared entries over its
    # own), which is 1 for a single source.
    Method(
        "ramplus_tl",
        "RAM+",
        "Like RAM, but strengthens what one source alone changed. Two or more.",
        (_shared("r", 0.1), _shared("alpha", 0.2), _UNCHANGED),
        fewest=2,
        group="compare",
        reference="https://arxiv.org/abs/2601.13572",
        others=("Reinforced Agent Merging Plus", "ramplus"),
    ),
    # Unnormalised, the result goes from the base in the sources' mean direction, as far as the
    # weighted sum of their task vectors' lengths. A single source is returned as it is.
    Method(
        "multislerp",
        "Multi-SLERP",
        "A mean of the sources' directions from the base. Two or more.",
        (
            _PROPORTION,
            _switch("normalize_weights", True),
            Parameter("eps", POSITIVE, default=1e-8, shared=True),
        ),
        fewest=2,
        settings={"normalize_weights": False},
        group="directions",
        reference="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    ),
    Method(
        "nuslerp",
        "NuSLERP",
        "Goes from one source to another along the sphere. Two sources.",
        (_DIRECTION, _switch("nuslerp_row_wise", False), _switch("nuslerp_flatten", True)),
        fewest=2,
        most=2,
        group="directions",
    ),
    Method(
        "karcher",
        "Karcher mean",
        "The mean of the sources along the sphere. Nothing to search.",
        (
            Parameter("max_iter", (1.0, inf), "whole number", default=10, shared=True),
            Parameter("tol", POSITIVE, default=1e-5, shared=True),
        ),
        group="directions",
        reference="https://arxiv.org/abs/2603.04972",
    ),
    Method(
        "model_stock",
        "Model Stock",
        "The point between base and sources that their angles say. Nothing to search.",
        (_switch("filter_wise", False),),
        group="directions",
        reference="https://arxiv.org/abs/2403.19522",
    ),
    # No entry moves from the base towards the source by more than t, so t is in units of weights,
    # and only its order of magnitude matters: at 1e-5 hardly anything moves, at 0.1 the result is
    # the source. Its author published merges at 1e-4.
    Method(
        "nearswap",
        "NearSwap",
        "Takes a source's weights where they are near. One source only.",
        (_shared("t", None, 1e-5, 1e-1, log=True),),
        most=1,
        group="single",
        reference="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    ),
    Method(
        "arcee_fusion",
        "Arcee Fusion",
        "Takes a source's most important changes. Nothing to search.",
        group="single",
        reference="https://arcee.ai",
    ),
    _solved(
        "matched",
        "Matched",
        "Solves every layer so that it computes what each specialist computes on its own prompts.",
        "https://arxiv.org/abs/2508.21421",
        ("Chain of Merges",),
    ),
    _solved(
        "regmean_plus_plus",
        "RegMean++",
        "Solves every layer on what the merge feeds it, each by itself.",
        "https://arxiv.org/abs/2508.03121",
        ("RegMean plus plus",),
    ),
    _solved(
        "regmean",
        "RegMean",
        "Solves every layer on what the specialists feed theirs.",
        "https://arxiv.org/abs/2212.09849",
        ("Regression mean",),
    ),
    Method(
        "passthrough",
        "Passthrough",
        "Scales a source's weights as they are. One source only.",
        (Parameter("scale", span=Span(0.5, 1.5, whole=1.0)),),
        based=False,
        most=1,
        fast=True,
        weighs_base=True,
        group="single",
    ),
)
METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}
"""Every method by name, in the order in which it is offered: the usual ones first."""

TASK_VECTORS = tuple(m.name for m in METHODS.values() if m.fast and m.based and m.name != "slerp")
"""Methods of our own kernels that add task vectors to the base: without any it stays the base."""

MERGEKITS = tuple(name for name, method in METHODS.items() if not method.solved)
"""The methods that mergekit has too."""

FAST = tuple(name for name, method in METHODS.items() if method.fast)
"""The methods with kernels of our own."""

SEARCHABLE = tuple(name for name, method in METHODS.items() if method.numbers)
"""The methods with something to search."""


def nearest(name: object) -> str | None:
    """The method that a misspelt name most likely means: ``TIES``, ``Dare-TIES``, ``Model Stock``.

    Returns:
        The name as recipes write it; None where no method is near.
    """
    if not isinstance(name, str):
        return None
    written = _plain(name)
    known = {_plain(word): m.name for m in _ALL for word in (*m.others, m.title, m.name)}
    near = get_close_matches(written, known, n=1, cutoff=0.75)
    return known[near[0]] if near else None


def _plain(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum() or sign == "+")


def refusal(method: str, sources: int) -> str | None:
    """Why ``method`` cannot be searched with so many sources, in one sentence; None if it can."""
    if method not in METHODS:
        near = nearest(method)
        meant = f"did you mean {near!r}? Or " if near else ""
        return f"There is no merge method '{method}' to search: {meant}choose one of {_names()}."
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
