"""Models whose vocabularies differ: the output's tokenizer, and token rows in its order.

The rules are mergekit's (`mergekit.tokenizer`); its own code walks every token of every tensor in
Python, which here is an index made once for a set of models. It differs where mergekit 0.1.5 stops
with a KeyError, follows the order of a hash table, or writes a tokenizer with ids past the rows:

- A token whose id lies past a model's rows (padding, or added after training) is one the model
  does not have.
- Of such tokens the base's are taken out, but its ``pad_token`` and the like, which come back
  whenever its tokenizer is loaded, get a row of zeros, not an id without a row.
- A token that ``tokens`` adds to the vocabulary is new to the base too, under ``source: base``.
- A union numbers new tokens by model and id, so that it is the same each time. It adds them
  together: one by one, as mergekit does, takes time in the square of their number.
- Ids of the output that no token has (some tokenizers leave holes) count as padding.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.merging.vocabulary.alignment import ZERO, Alignment, make_alignment, spare_targets
from morphing.merging.vocabulary.tokenizers import (
    load_tokenizer,
    load_tokenizers,
    unite,
    without_tokens_past,
)
from morphing.sources import local, metadata

if TYPE_CHECKING:
    from mergekit.tokenizer.config import TokenEmbeddingConfig, TokenizerConfig
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The output's vocabulary, and where each model keeps the rows of its tokens."""

    tokenizer: PreTrainedTokenizerBase
    """Of the output; its chat template is the one it came with."""
    donor_tokenizer: PreTrainedTokenizerBase
    """Of the model whose configuration the output has."""
    size: int
    """Rows of the output's embeddings, padded to the multiple the recipe asks for."""
    _ids: Mapping[str, int] = field(repr=False)
    """The output's tokens and their ids."""
    _vocabularies: Mapping[str, Mapping[str, int]] = field(repr=False)
    """Every model's own tokens and their ids."""
    _places: Mapping[str, Tensor] = field(repr=False)
    """For every model, int64 of shape (ids,): the id it gives to the output's token, or -1."""
    _configured: Mapping[str, TokenEmbeddingConfig] = field(repr=False)
    _donor: str = field(repr=False)
    _alignments: dict[tuple[Any, ...], Alignment] = field(
        default_factory=dict, init=False, repr=False
    )

    def align(
        self, models: Sequence[str], tensors: Sequence[Tensor], base: str | None, axis: int = 0
    ) -> list[Tensor]:
        """Every model's token-indexed tensor in the output's vocabulary, as mergekit aligns it.

        A model's own row stands wherever it has the token. Where it has not, or the recipe forces
        the token's row, it gets: the row the recipe names; or that of the only model that has the
        token; or the base's; or the average over the models that have it; or zeros. Padding rows
        are the mean of the model's others.

        Args:
            models: names as the recipe writes them.
            tensors: one a model, floating point on one device, of any dtypes (mergekit casts to the
                recipe's dtype first), tokens along ``axis``: embeddings or a head's rows
                (tokens, width), a head's bias (tokens,). Numbers of rows may differ.
            base: the base of this merge, None if it has none.
            axis: along which tokens lie.

        Returns:
            One tensor a model, ``size`` long along ``axis``, in the dtype all dtypes promote to. A
            tensor that is so already is returned itself, not a copy.

        Raises:
            MorphingError: shapes differ off ``axis``, or a row the recipe names is not there.
        """
        from mergekit.vocabulary import vocabulary_views

        try:
            views = vocabulary_views(tensors, axis)
        except ValueError as error:
            raise MorphingError(
                f"Token embeddings of {', '.join(models)} do not fit together ({error}): merge"
                " models of the same architecture and width."
            ) from error
        dtype = functools.reduce(torch.promote_types, (view.dtype for view in views))
        key = (tuple(models), base, tuple(len(view) for view in views))
        device = views[0].device
        if (*key, device) not in self._alignments:
            self._alignments[*key, device] = self._alignment(*key).to(device)
        aligned = self._alignments[*key, device].apply(views, dtype)
        return [view.movedim(0, axis).contiguous() for view in aligned]

    def config_updates(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What changes in the donor's config.json: the vocabulary's size and the special tokens.

        mergekit sets ``vocab_size`` alone. This goes further, see `token_id_updates`.

        Returns:
            Top-level keys and their new values; a nested ``text_config`` is given whole.
        """
        text = _nested(config)
        updates = self.token_id_updates(config)
        if text is None:
            return {"vocab_size": self.size} | updates
        nested = {"vocab_size": self.size} | self.token_id_updates(text)
        return {"text_config": {**text, **nested}} | updates

    def token_id_updates(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """New values of the ids of special tokens (``eos_token_id``, ...) that moved.

        mergekit leaves the donor's ids as they are. Where the tokenizer is another model's, they
        then mean other tokens, and generation does not stop where it should. Here an id follows
        its token; the id of a token that the output has not becomes the tokenizer's own for that
        part, or None. Also for generation_config.json.
        """
        moved = {old: new for new, old in enumerate(self._places[self._donor].tolist())}
        updates: dict[str, Any] = {}
        for key, value in config.items():
            old: list[Any] = value if isinstance(value, list) else [value]
            # A negative id is an old way to say none.
            if not key.endswith("_token_id") or any(type(i) is not int or i < 0 for i in old):
                continue
            found = [moved[i] for i in old if i in moved]
            new: Any = found if isinstance(value, list) else next(iter(found), None)
            if not found:
                new = getattr(self.tokenizer, key, None)
            if new != value:
                updates[key] = new
        return updates

    def _alignment(
        self, models: tuple[str, ...], base: str | None, rows: tuple[int, ...]
    ) -> Alignment:
        """How to align tensors of so many rows.

        Raises:
            MorphingError: a row the recipe names is not there.
        """
        places = torch.stack([self._places[model] for model in models])
        places = places.masked_fill(places >= torch.tensor(rows).unsqueeze(1), -1)
        used = torch.tensor(sorted(set(self._ids.values())))
        forced = [self._ids[token] for token, config in self._configured.items() if config.force]
        forced_rows = torch.tensor(forced, dtype=torch.int64)
        needed = set(spare_targets(places, used, forced_rows).tolist())
        named = {
            self._ids[token]: self._named_row(token, config, models, rows, places)
            for token, config in self._configured.items()
            if self._ids[token] in needed
        }
        place = models.index(base) if base in models else None
        return make_alignment(places, used, forced_rows, self.size, place, named)

    def _named_row(
        self,
        token: str,
        config: TokenEmbeddingConfig,
        models: tuple[str, ...],
        rows: tuple[int, ...],
        places: Tensor,
    ) -> tuple[int, int]:
        """The place of the model, and the row there, that the recipe names for ``token``."""
        from mergekit.tokenizer.config import ModelTokenEmbedding, ZeroEmbedding

        source = config.source
        where = f"The recipe's tokenizer.tokens[{token!r}]"
        if isinstance(source, ZeroEmbedding):
            return ZERO, 0
        if source is None:
            raise MorphingError(
                f"{where} names no source, but not every model has an embedding of its own for"
                " this token: set its source to a model, to a model_token or to zero."
            )
        of_token = isinstance(source, ModelTokenEmbedding)
        model = str(source.model if of_token else source)
        if model not in models:
            raise MorphingError(
                f"{where} takes its embedding from {model}, which is not merged there: name one of"
                f" {', '.join(models)}."
            )
        place = models.index(model)
        if not of_token:
            wanted, row = repr(token), int(places[place, self._ids[token]])
        elif source.token is None:
            wanted, row = f"id {source.token_id}", source.token_id
        else:
            wanted, row = repr(source.token), self._vocabularies[model].get(source.token, -1)
        if not 0 <= row < rows[place]:
            raise MorphingError(
                f"{where} takes the embedding of token {wanted} from {model}, which has none: name"
                " a token that model has."
            )
        return place, row


def build_vocabulary(recipe: Recipe, folders: Mapping[str, Path]) -> Vocabulary | None:
    """The vocabulary of the recipe's output; None if the recipe has no tokenizer setting.

    A model without a tokenizer is taken to have the base's, and without a base the first model's.
    A union begins with that one too.

    Args:
        recipe: with ``tokenizer_source`` or ``tokenizer``.
        folders: local folders of all models the recipe names. An adapter's may be its own, if that
            holds a tokenizer, or its base's. Nothing is downloaded and no model's code is run.

    Raises:
        MorphingError: a tokenizer is missing where one is needed, or cannot be read; an embedding
            the recipe names is not there.
    """
    settings = _settings(recipe)
    if settings is None:
        return None
    models = recipe.inputs
    donor = models[0] if recipe.base is None else recipe.base
    limits = {model: _limit(folders[model]) for model in models}
    tokenizers = load_tokenizers(models, folders)
    first = tokenizers[donor] if donor in tokenizers else load_tokenizer(donor, folders)
    first = without_tokens_past(limits[donor], donor, folders[donor], first)
    tokenizers[donor] = first
    own = {model: tokenizer.get_vocab() for model, tokenizer in tokenizers.items()}
    vocabularies = {model: own.get(model, own[donor]) for model in models}

    if settings.source == "union":
        order = [donor, *(model for model in tokenizers if model != donor)]
        output = unite([(tokenizers[model], limits[model]) for model in order])
    elif settings.source == "base":
        output = first
    else:
        output = load_tokenizer(str(settings.source), folders)
    present = output.get_vocab()
    output.add_tokens([token for token in settings.tokens or {} if token not in present])

    ids = output.get_vocab()
    count = max(len(ids), 1 + max(ids.values()))
    multiple = settings.pad_to_multiple_of or 1
    vocabulary = Vocabulary(
        tokenizer=output,
        donor_tokenizer=first,
        size=-(-count // multiple) * multiple,
        _ids=ids,
        _vocabularies=vocabularies,
        _places={m: _places(ids, count, vocabularies[m], limits[m]) for m in models},
        _configured=settings.tokens or {},
        _donor=donor,
    )
    # An embedding the recipe names and no model has is found now, not when weights are read.
    vocabulary._alignment(models, recipe.base, tuple(limits[m] or sys.maxsize for m in models))
    return vocabulary


def _settings(recipe: Recipe) -> TokenizerConfig | None:
    """The recipe's tokenizer setting, of which ``tokenizer_source`` is the short form.

    Raises:
        MorphingError: the recipe is not one for mergekit.
    """
    if recipe.config.get("tokenizer") is None and not recipe.config.get("tokenizer_source"):
        return None
    from mergekit.tokenizer.config import TokenizerConfig

    configuration = recipe.check()
    settings = configuration.tokenizer or TokenizerConfig(source=configuration.tokenizer_source)
    multiple = settings.pad_to_multiple_of
    if multiple is not None and multiple < 0:
        raise MorphingError(f"The recipe's pad_to_multiple_of is {multiple}: make it positive.")
    return settings


def _limit(folder: Path) -> int | None:
    """The vocabulary's size in config.json; None where there is none, as beside an adapter."""
    if not (folder / metadata.CONFIG).is_file():
        return None
    config = local.read_json(folder / metadata.CONFIG)
    size = (_nested(config) or config).get("vocab_size")
    return size if isinstance(size, int) else None


def _nested(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The part of a composite configuration that has the vocabulary's size, if it is one."""
    text = config.get("text_config")
    return text if "vocab_size" not in config and isinstance(text, Mapping) else None


def _places(
    ids: Mapping[str, int], count: int, vocabulary: Mapping[str, int], limit: int | None
) -> Tensor:
    """A model's id for every id of the output, int64 of shape (count,); -1 where it has none."""
    places = torch.full((count,), -1, dtype=torch.int64)
    places[list(ids.values())] = torch.tensor([vocabulary.get(token, -1) for token in ids])
    return places if limit is None else places.masked_fill_(places >= limit, -1)
