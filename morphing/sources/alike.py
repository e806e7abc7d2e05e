"""Checkpoints of one architecture that were saved in different ways, brought to one.

What is brought together are layouts (experts stacked or one by one, names of transformers 4 or 5),
rows of padding after the tokens' own, and heads that are copies of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from morphing.sources import local, naming
from morphing.sources.conversion import Link, original_layout
from morphing.sources.source import TensorInfo
from morphing.sources.weights import Made, Weights, tensor_info


def make_alike(models: Sequence[Weights], base: Weights) -> list[Weights]:
    """The same models in one layout, of the base's number of rows where others are padding.

    Args:
        models: checkpoints to merge; what cannot be brought together stays as it is, for the
            planner to refuse.
        base: one of them, whose configuration and tokenizer the merges have.
    """
    place = models.index(base)
    if not naming.same_layout(model.info for model in models):
        models = [_in_original_layout(model) for model in models]
    base = models[place]
    return [
        model if model is base else _without_copied_head(_with_rows(model, base), models)
        for model in models
    ]


def _in_original_layout(model: Weights) -> Weights:
    links = original_layout(model.config, {name: info.shape for name, info in model.info.items()})
    if links is None or links.keys() == model.info.keys():
        return model
    made = {name: _part(model, link) for name, link in links.items() if name != link.parameter}
    remark = (
        f"{model.source.name} was saved in the layout of transformers 5, and others in that of 4:"
        " the merge is in the older."
    )
    return model.remade(made, model.info.keys() - links.keys(), remark)


def _part(model: Weights, link: Link) -> Made:
    stored = model.info[link.parameter]
    if link.part is None:
        return Made(stored, partial(model.read, link.parameter))
    view = link.part
    return Made(
        TensorInfo(view.shape, stored.dtype),
        lambda: view.of(model.read(link.parameter)).contiguous(),
    )


def _with_rows(model: Weights, base: Weights) -> Weights:
    """A model whose rows of padding are as many as the base's: cut, or the base's own."""
    made = {}
    for name, info in model.info.items():
        origin = name if name in base.info else naming.embedding(base.info)
        if origin is None or not naming.is_token_indexed(name):
            continue
        wanted = base.info[origin].shape
        if info.shape[0] != wanted[0] and info.shape[1:] == wanted[1:]:
            shape = (wanted[0], *info.shape[1:])
            changed = tensor_info(shape, model.dtype(name))
            made[name] = Made(changed, partial(_resized, model, name, base, origin))
    theirs, ours = (row.shape[0] for row in _rows(model, base)) if made else (0, 0)
    if not made or not _same_tokens(model, base, min(theirs, ours)):
        return model
    return model.remade(
        made, (), naming.padding_remark(model.source.name, theirs, base.source.name, ours)
    )


def _rows(*models: Weights) -> list[TensorInfo]:
    named = [(model.info, naming.embedding(model.info)) for model in models]
    return [info[name] for info, name in named if name is not None]


def _resized(model: Weights, name: str, base: Weights, origin: str) -> torch.Tensor:
    own, padding = model.read(name), base.read(origin)
    if len(own) >= len(padding):
        return own[: len(padding)]
    return torch.cat([own, padding[len(own) :].to(own.dtype)])


def _same_tokens(model: Weights, base: Weights, rows: int) -> bool:
    """Whether two models have the same tokens, and as many rows at least."""
    known = local.read_tokens(base.source.folder)
    same = known is not None and known == local.read_tokens(model.source.folder)
    return same and known is not None and max(known.values(), default=-1) < rows


def _without_copied_head(model: Weights, models: Sequence[Weights]) -> Weights:
    """A model less a head that is a copy of its embeddings, where another model is tied."""
    head = next(filter(naming.is_head, model.info), None)
    embedding = naming.embedding(model.info)
    if head is None or embedding is None or all(any(map(naming.is_head, m.info)) for m in models):
        return model
    if not torch.equal(model.read(head), model.read(embedding)):
        return model
    remark = f"The head of {model.source.name} is a copy of its embeddings and is taken as tied."
    return model.remade({}, [head], remark, tie_word_embeddings=True)
