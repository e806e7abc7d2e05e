"""Tokenizers of a recipe's models: loading them, joining them, and the output's chat template."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.rendering.chat import render_chat
from morphing.rendering.process import TemplateFailed, TemplateMalformed, TemplateUnbounded
from morphing.sources import tokenizer_files

if TYPE_CHECKING:
    from transformers import AddedToken, PreTrainedTokenizerBase


def load_tokenizer(model: str, folders: Mapping[str, Path]) -> PreTrainedTokenizerBase:
    """The tokenizer of ``model``.

    Raises:
        MorphingError: its folder is not known, holds no tokenizer, or one that cannot be read.
    """
    if model not in folders:
        raise MorphingError(
            f"The recipe takes a tokenizer from {model}, which is not among its models: name one of"
            f" {', '.join(folders)}."
        )
    if not has_tokenizer(folders[model]):
        raise MorphingError(
            f"{model} has no tokenizer, and the recipe needs it: choose another model for it, or"
            " put tokenizer files in its folder."
        )
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folders[model], trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises nothing narrower
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MorphingError(f"The tokenizer of {model} cannot be read: {reason}") from error


def load_tokenizers(
    models: Iterable[str], folders: Mapping[str, Path]
) -> dict[str, PreTrainedTokenizerBase]:
    """The tokenizers of those models that have one; models of one folder share theirs.

    Raises:
        MorphingError: one cannot be read.
    """
    by_folder: dict[Path, PreTrainedTokenizerBase] = {}
    tokenizers: dict[str, PreTrainedTokenizerBase] = {}
    for model in models:
        folder = folders[model]
        if has_tokenizer(folder):
            if folder not in by_folder:
                by_folder[folder] = load_tokenizer(model, folders)
            tokenizers[model] = by_folder[folder]
    return tokenizers


def without_tokens_past(
    limit: int | None, model: str, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase:
    """The tokenizer of ``model`` without the tokens whose ids are ``limit`` or more.

    A special token that is a tokenizer's ``pad_token`` or the like is given a new id.

    Raises:
        MorphingError: there are some, and the tokenizer is of a kind they cannot be taken out of.
    """
    if limit is None or max(tokenizer.get_vocab().values()) < limit:
        return tokenizer
    from mergekit.common import ModelPath
    from mergekit.tokenizer.build import get_stripped_tokenizer

    try:
        stripped = get_stripped_tokenizer(ModelPath(path=str(folder)), trust_remote_code=False)
    except RuntimeError as error:
        raise MorphingError(
            f"The tokenizer of {model} has tokens past the {limit} rows of its embeddings, and"
            " those can be taken out of BPE tokenizers only: choose another model as the base."
        ) from error
    # Whoever loads the output's tokenizer would get those special tokens back, so they come now.
    return _reloaded(stripped)


def unite(
    tokenizers: Sequence[tuple[PreTrainedTokenizerBase, int | None]],
) -> PreTrainedTokenizerBase:
    """The first tokenizer with the tokens of the others added, in their order.

    Each comes with its limit: tokens with that id and more have no row and do not count. What is an
    added token anywhere (special tokens are) is one here, with the settings it has first.
    """
    tokens: dict[str, None] = {}
    added: dict[str, AddedToken] = {}
    for tokenizer, limit in tokenizers:
        vocabulary = tokenizer.get_vocab()  # in the order of a hash table
        for token in sorted(vocabulary, key=vocabulary.__getitem__):
            if limit is None or vocabulary[token] < limit:
                tokens.setdefault(token)
        for token_id, added_token in sorted(tokenizer.added_tokens_decoder.items()):
            if limit is None or token_id < limit:
                added.setdefault(added_token.content, added_token)
    first, _ = tokenizers[0]
    known = first.get_vocab()
    union = _reloaded(first)
    # Together: one by one, as mergekit does, takes time in the square of their number.
    new = [token for token in tokens if token not in added and token not in known]
    union.add_tokens([*new, *added.values()])
    return union


def set_chat_template(
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
) -> str | None:
    """Give ``tokenizer`` the chat template the recipe asks for, if it asks for one.

    ``auto`` is the commonest among the merged models' ``tokenizers``, of equals the first, and
    changes nothing where none has a template; ``model:NAME`` is that model's; a name is one of
    mergekit's templates; anything else must be a Jinja template.

    Returns:
        The first model that has this template, None where none has.

    Raises:
        MorphingError: it is none of these, or not well-formed.
    """
    wanted = recipe.config.get("chat_template")
    if not wanted:
        return None
    own = {model: _default_template(each) for model, each in tokenizers.items()}
    if wanted == "auto":
        templates = (own[model] for model in recipe.inputs if own.get(model))
        commonest = Counter(templates).most_common(1)
        if commonest:
            tokenizer.chat_template = commonest[0][0]
    elif (model := recipe.template_model) is not None:
        if model not in tokenizers or not tokenizers[model].chat_template:
            raise MorphingError(
                f"The recipe takes its chat template from {model}, which has none: name another"
                " model, or write the template."
            )
        tokenizer.chat_template = tokenizers[model].chat_template
        return model
    else:
        tokenizer.chat_template = _written_template(wanted)
        _check_syntax(tokenizer)
    text = _default_template(tokenizer)
    return next((model for model, theirs in own.items() if theirs and theirs == text), None)


def _default_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template a tokenizer uses where none is named, without white space about it."""
    template = tokenizer.chat_template
    text = template.get("default") if isinstance(template, dict) else template
    return text.strip() if text else None


def _written_template(wanted: str) -> str:
    """The template that a recipe writes out or calls by mergekit's name."""
    named = _named_templates()
    if wanted not in named and (len(wanted) < 20 or "{" not in wanted):
        raise MorphingError(
            f"The recipe's chat_template is {wanted!r}: write auto, one of"
            f" {', '.join(sorted(named))}, model: and a model's name, or a Jinja template."
        )
    return named.get(wanted, wanted)


def _reloaded(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy, saved and loaded."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _check_syntax(tokenizer: PreTrainedTokenizerBase) -> None:
    try:
        render_chat(tokenizer, [{"role": "user", "content": "?"}])
    except TemplateMalformed as error:
        raise MorphingError(
            f"The recipe's chat_template is not a Jinja template: {error}."
        ) from error
    except TemplateUnbounded as error:
        raise MorphingError(
            f"The recipe's chat_template can't be used, for {error}: mend it."
        ) from error
    except TemplateFailed:
        pass  # it compiles; which conversations it takes is its own affair


def _named_templates() -> dict[str, str]:
    import importlib.resources

    from mergekit._data import chat_templates

    files = importlib.resources.files(chat_templates).iterdir()
    return {
        file.name.removesuffix(".jinja"): file.read_text(encoding="utf-8")
        for file in files
        if file.name.endswith(".jinja")
    }


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer, of whatever kind."""
    return tokenizer_files.has_tokenizer(path.name for path in folder.iterdir())


def has_chat_template(folder: Path) -> bool:
    """Whether a folder holds a tokenizer with a chat template of its own."""
    return has_tokenizer(folder) and tokenizer_files.chat_template(folder) is not None
