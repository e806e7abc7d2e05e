"""How a recipe's model speaks: its tokenizer, its chat template, and what ends its answers.

Scoring, chat and export ask here, so that a model on disk speaks as it did when it was scored. What
a template is worth depends on its end tokens: where the recipe takes a model's template, it takes
what ends that model's answers too, beside what ends those of the model whose tokenizer it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.merging.vocabulary.tokenizers import (
    has_tokenizer,
    load_tokenizer,
    load_tokenizers,
    set_chat_template,
)
from morphing.merging.vocabulary.vocabulary import Vocabulary
from morphing.rendering.chat import render_chat
from morphing.rendering.process import TemplateFailed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANSWER = "morphing's own mark"
_SPECIAL = ("bos_token", "eos_token")
"""What templates name beside text, and what ends an answer."""


@dataclass(frozen=True)
class Voice:
    """Where a model's tokenizer and its chat template are, and what ends its answers."""

    folder: Path
    """Of the tokenizer in whose order the rows of its embeddings are."""
    own: Path
    """Of the chat template: an adapter's own folder where that has one."""
    rows: int
    """Of its embeddings."""
    ends: tuple[int, ...]
    """Ids that its generation configuration, else its configuration, ends an answer with."""


@dataclass(frozen=True, eq=False)
class Speech:
    """What a recipe's model reads and writes text with."""

    tokenizer: PreTrainedTokenizerBase | None
    """With its chat template set; None where no model of the recipe has one that can be read."""
    folder: Path | None
    """Whose tokenizer files serve as they are; None where the tokenizer has to be saved."""
    ends: tuple[int, ...]
    """Ids of the tokens that end an answer, the commonest first."""
    remarks: tuple[str, ...] = ()
    """What whoever merges should know, in sentences."""


def make_speech(
    recipe: Recipe, voices: Mapping[str, Voice], donor: str, vocabulary: Vocabulary | None
) -> Speech:
    """How the recipe's model speaks.

    Args:
        recipe: what is merged.
        voices: of every model it names, and last of one that may lend its tokenizer.
        donor: the model whose configuration the output has.
        vocabulary: the output's, where the recipe says whose it is.

    Raises:
        MorphingError: the recipe takes a chat template from a model that has none, asks for one
            where no tokenizer is, or a tokenizer that is needed cannot be read.
    """
    remarks: list[str] = []
    listener = donor
    if vocabulary is None:
        listener = _with_tokenizer(voices, donor)
        if listener != donor:
            remarks.append(
                f"{donor} has no tokenizer: the merge has that of {listener}, whose vocabulary has"
                " the same size."
            )
        elif not has_tokenizer(voices[donor].folder):
            remarks.append(
                f"The merge has no tokenizer, for {donor} has none and no other model of the recipe"
                " has one: put the tokenizer files of the model it was trained from beside it."
            )
    wanted = recipe.config.get("chat_template")
    tokenizer = vocabulary.tokenizer if vocabulary is not None else None
    if tokenizer is not None and wanted:
        tokenizer = deepcopy(tokenizer)  # what it ends with is asked of the vocabulary again
    if vocabulary is None and (wanted or has_tokenizer(voices[listener].folder)):
        tokenizer = _read(listener, voices, needed=bool(wanted))
    if tokenizer is None:
        return Speech(None, voices[listener].folder, voices[donor].ends, tuple(remarks))

    speaker = _set_template(tokenizer, recipe, voices) if wanted else None
    ends: list[int] = []
    if speaker is not None and speaker != listener:
        voice = load_tokenizer(speaker, {speaker: voices[speaker].own})
        if vocabulary is None and _extends(voice, tokenizer, voices[donor].rows):
            template, tokenizer = tokenizer.chat_template, voice
            tokenizer.chat_template = template
        for name in _SPECIAL:
            token = getattr(voice, name)
            if token is not None and token in tokenizer.get_vocab():
                setattr(tokenizer, name, token)
        ends += _ends(voice, voices[speaker].ends, tokenizer)
        remarks += _lost_ends(speaker, voice, ends)
    elif wanted and speaker is None:
        ends += _end_of_turn(tokenizer)
    if vocabulary is None:
        own = [*voices[donor].ends, *_known([tokenizer.eos_token], tokenizer)]
    else:
        donor_ends = _tokens(vocabulary.donor_tokenizer, voices[donor].ends)
        own = _known([*donor_ends, tokenizer.eos_token], tokenizer)
    unchanged = vocabulary is None and not wanted
    return Speech(
        tokenizer,
        voices[listener].folder if unchanged else None,
        tuple(dict.fromkeys([*ends, *own])),
        tuple(remarks),
    )


def _with_tokenizer(voices: Mapping[str, Voice], donor: str) -> str:
    """The donor, or where it has no tokenizer another model with one and as many rows."""
    for name in (donor, *voices):
        if has_tokenizer(voices[name].folder) and voices[name].rows == voices[donor].rows:
            return name
    return donor


def _read(model: str, voices: Mapping[str, Voice], needed: bool) -> PreTrainedTokenizerBase | None:
    """A model's tokenizer; None where it cannot be read, and its files serve as they are."""
    try:
        return load_tokenizer(model, {model: voices[model].folder})
    except MorphingError:
        if needed:
            raise
        return None


def _set_template(
    tokenizer: PreTrainedTokenizerBase, recipe: Recipe, voices: Mapping[str, Voice]
) -> str | None:
    """Give the tokenizer the recipe's template; returns the model whose it is, if it is one's."""
    names = recipe.inputs if recipe.template_model is None else (recipe.template_model,)
    folders = {name: voices[name].own for name in names}
    return set_chat_template(tokenizer, recipe, load_tokenizers(folders, folders))


def _extends(voice: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase, rows: int) -> bool:
    """Whether a tokenizer has all tokens of another under the same ids, and its own have rows."""
    theirs, ours = voice.get_vocab(), tokenizer.get_vocab()
    return ours.items() <= theirs.items() and max(theirs.values(), default=0) < rows


def _ends(
    voice: PreTrainedTokenizerBase, ids: Iterable[int], tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """What ends a model's answers, as ids of another tokenizer that may lack some."""
    return _known([*_tokens(voice, ids), voice.eos_token], tokenizer)


def _tokens(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> list[str | None]:
    names = {place: token for token, place in tokenizer.get_vocab().items()}
    return [names.get(place) for place in ids]


def _known(tokens: Iterable[str | None], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[token] for token in tokens if token is not None and token in vocabulary]


def _lost_ends(speaker: str, voice: PreTrainedTokenizerBase, ends: list[int]) -> list[str]:
    if ends or voice.eos_token is None:
        return []
    return [
        f"{speaker}, whose chat template the merge has, ends its answers with {voice.eos_token},"
        " which is not in the merge's vocabulary, so it may not end its own: set tokenizer_source:"
        " union."
    ]


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token that a template writes after an answer, if that is one token of the vocabulary."""
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = render_chat(tokenizer, chat)
    except TemplateFailed:  # a template may refuse any conversation, in its own words
        return []
    after = text.rpartition(_ANSWER)[2].lstrip()
    added = sorted((t.content for t in tokenizer.added_tokens_decoder.values()), key=len)
    return _known([t for t in reversed(added) if t and after.startswith(t)][:1], tokenizer)


def same_tokenizer(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase | None) -> bool:
    """Whether two tokenizers read and write all text alike, chats included."""
    if other is None or type(one) is not type(other) or one.chat_template != other.chat_template:
        return False
    if one.special_tokens_map != other.special_tokens_map:
        return False
    ours, theirs = (deepcopy(getattr(each, "backend_tokenizer", None)) for each in (one, other))
    if ours is None or theirs is None:  # written in Python: their vocabulary is not all they are
        return one is other
    for backend in (ours, theirs):
        backend.no_padding()  # which training leaves behind, and each use sets anew
        backend.no_truncation()
    return bool(ours.to_str() == theirs.to_str())
