"""What the small files of a tokenizer say, without loading it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from morphing.sources import local

CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
OLD_TEMPLATE = "chat_template.json"
TEMPLATE_FILES = (TEMPLATE, CONFIG, OLD_TEMPLATE)
"""Where a chat template may be, the first that has one first."""

# A folder with none of these has no tokenizer. transformers is not asked: from a config.json alone
# it may make an empty one.
_VOCABULARIES = frozenset(
    {
        "tokenizer.json",
        "tokenizer.model",
        "vocab.json",
        "vocab.txt",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tekken.json",
    }
)


def has_tokenizer(files: Iterable[str]) -> bool:
    """Whether these files of a folder hold a tokenizer, of whatever kind."""
    return not _VOCABULARIES.isdisjoint(files)


def chat_template(folder: Path) -> str | None:
    """The chat template that a tokenizer uses where none is named, without white space about it.

    Raises:
        MorphingError: a file cannot be read.
    """
    if (folder / TEMPLATE).is_file():
        return (folder / TEMPLATE).read_text(encoding="utf-8", errors="replace").strip() or None
    for name in (CONFIG, OLD_TEMPLATE):
        if (folder / name).is_file():
            written = local.read_json(folder / name).get("chat_template")
            if isinstance(written, list):  # several by name
                named = {t.get("name"): t.get("template") for t in written if isinstance(t, dict)}
                written = named.get("default")
            if isinstance(written, str) and written.strip():
                return written.strip()
    return None
