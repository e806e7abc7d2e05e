"""Whose chat template a search's merges have: decided before anything is fetched.

A pretrained base has no chat template, and what was trained on it has. Merges then speak as their
sources do, with the sources' end tokens (`merging.vocabulary.speech`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from morphing.errors import MorphingError
from morphing.merging.recipe_checks import CHAT_TEMPLATES, TEMPLATE_OF
from morphing.sources.compatibility import vocabulary_rows
from morphing.sources.names import model_name

if TYPE_CHECKING:
    from morphing.runs.spec import RunSpec
    from morphing.sources.source import Inspection

AUTO, BASE = "auto", "base"
Told = Callable[[str], None]
"""Called with a sentence that whoever starts a search should read."""


def choose_template(
    wanted: str | None,
    base: Inspection,
    sources: Sequence[Inspection],
    names: Mapping[str, str],
    told: Told,
) -> str | None:
    """What a search's recipes say in ``chat_template``.

    ``auto`` takes the template that all sources agree on that have one of their own. Where they
    differ it takes the base's, and where the base has none the commonest, of equals the first.

    Args:
        wanted: the spec's: ``auto``, ``base``, a model of the run, a name of mergekit's or Jinja.
        base: the run's.
        sources: the run's.
        names: the models' pinned names by those the spec writes.
        told: of a template that is not plainly the only one.

    Returns:
        None where every model speaks with that template anyway, or none has one.

    Raises:
        MorphingError: the spec names a model that is not the run's or has no template.
    """
    if wanted is None:
        return None
    if wanted == AUTO:
        chosen = _agreed(base, sources, told)
    elif wanted == BASE:
        chosen = base
    elif wanted in CHAT_TEMPLATES or "{" in wanted:
        return wanted
    else:
        named = model_name(wanted.removeprefix(TEMPLATE_OF))
        chosen = _named(named, (base, *sources), names)
    text = chosen.chat_template if chosen is not None else None
    models = (model for model in (base, *sources) if _speaks_for_itself(model))
    if chosen is None or all(model.chat_template == text for model in models):
        return None
    return f"{TEMPLATE_OF}{chosen.name}"


def _speaks_for_itself(model: Inspection) -> bool:
    """An adapter without a template speaks as its base does."""
    return not model.adapter or model.chat_template is not None


def _agreed(base: Inspection, sources: Sequence[Inspection], told: Told) -> Inspection | None:
    speaking = [source for source in sources if source.chat_template is not None]
    counts = Counter(source.chat_template for source in speaking)
    if not speaking:
        return base if base.chat_template is not None else None
    first = next(s for s in speaking if s.chat_template == counts.most_common(1)[0][0])
    mend = "`chat_template` in the spec chooses another"
    if len(counts) == 1 and first.chat_template == base.chat_template:
        return base
    if len(counts) == 1:
        other = (
            "The base has no chat template"
            if base.chat_template is None
            else ("The base has another chat template than its sources")
        )
        told(f"{other}: merges take that of {first.name}, with its end tokens; {mend}.")
        return first
    if base.chat_template is not None:
        told(f"The sources' chat templates differ: merges keep that of the base; {mend}.")
        return base
    told(
        "The base has no chat template and the sources' differ: merges take that of"
        f" {first.name}, with its end tokens; {mend}."
    )
    return first


def _named(wanted: str, models: Sequence[Inspection], names: Mapping[str, str]) -> Inspection:
    pinned = names.get(wanted, wanted)
    for model in models:
        if model.name == pinned:
            if model.chat_template is None:
                raise MorphingError(
                    f"chat_template names {wanted}, which has none: name another model of the run,"
                    f" one of {', '.join(CHAT_TEMPLATES)}, or write a Jinja template."
                )
            return model
    raise MorphingError(
        f"chat_template is {wanted!r}: write {BASE}, a model of the run, one of"
        f" {', '.join(CHAT_TEMPLATES)}, or a Jinja template."
    )


def check_tokenizers(base: Inspection, sources: Sequence[Inspection]) -> None:
    """Refuse models without a tokenizer where it is not plain which they have.

    A source without one has the base's if its vocabulary has the same size.

    Raises:
        MorphingError: the base has none, or a source of another vocabulary.
    """
    if not base.has_tokenizer:
        rows = vocabulary_rows(base)
        lender = next((s for s in sources if s.has_tokenizer and vocabulary_rows(s) == rows), None)
        mend = (
            "choose a base that has one"
            if lender is None
            else f"put that of {lender.name}, whose vocabulary has the same size, in its folder, or"
            " choose a base that has one"
        )
        raise MorphingError(
            f"The base {base.name} has no tokenizer, without which nothing can be scored: {mend}."
        )
    for source in sources:
        if source.adapter or source.has_tokenizer:
            continue
        if vocabulary_rows(source) != vocabulary_rows(base):
            raise MorphingError(
                f"{source.name} has no tokenizer and another vocabulary than the base, so nobody"
                " knows which token each of its embeddings is: put its tokenizer files in its"
                " folder, or choose another source."
            )


def template_sentence(spec: RunSpec) -> str:
    """Whose chat template a run's merges have, where it is not each model's own; else nothing."""
    template = spec.template
    if template is None:
        return ""
    if template.startswith(TEMPLATE_OF):
        model = template.removeprefix(TEMPLATE_OF)
        return f"All are asked in the chat template of {model}, and merges have it."
    named = f"chat template {template}" if template in CHAT_TEMPLATES else "spec's chat template"
    return f"All are asked in the {named}, and merges have it."
