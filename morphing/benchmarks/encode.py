"""From texts to batches of tokens that fit a model's context and memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morphing.errors import MorphingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What a batch's activations and cache may take. A constant: were it read from the machine, scores
# in half precision could differ between machines by a rounding of differently padded batches.
BATCH_BYTES = 2**30
MAX_BATCH = 128


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text; ``truncated`` if its beginning was cut to fit the context."""

    ids: tuple[int, ...]
    truncated: bool = False


def encode(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], add_special_tokens: bool
) -> list[list[int]]:
    """Token ids of each text, ready to be continued: no end token, never empty."""
    rows = tokenizer(list(texts), add_special_tokens=add_special_tokens)["input_ids"]
    end = tokenizer.eos_token_id
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
    for ids in rows:
        # Some tokenizers close every text; an answer must not come after the end.
        if add_special_tokens and len(ids) > 1 and ids[-1] == end:
            ids.pop()
        if not ids:
            ids.append(0 if start is None else start)
    return rows


def truncate(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], room: int | None) -> Encoded:
    """The last ``room`` tokens, where a prompt's question stands, after its first-of-all token."""
    if room is None or len(ids) <= room:
        return Encoded(tuple(ids))
    start = tuple(ids[:1]) if room > 1 and ids[0] == tokenizer.bos_token_id else ()
    return Encoded((*start, *ids[len(ids) - room + len(start) :]), truncated=True)


def context_length(model: "PreTrainedModel", answer_tokens: int) -> int | None:
    """Tokens a prompt and its answer may have together; None where nothing limits them.

    Raises:
        MorphingError: the answer alone fills the context.
    """
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and context <= answer_tokens:
        raise MorphingError(
            f"Answers of {answer_tokens} tokens leave no room for a prompt in this model's context"
            f" of {context} tokens: lower the benchmark's max_new_tokens or shorten its choices."
        )
    return context


def default_batch_size(model: "PreTrainedModel", length: int) -> int:
    """Rows of ``length`` tokens to run at once: as many as ``BATCH_BYTES`` hold, at most 128.

    Counts the key-value cache in full and one layer's widest activations, from the configuration
    alone, so the same model always gets the same batches.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 1
    hidden = config.hidden_size
    head = getattr(config, "head_dim", None) or hidden // heads
    cached = (
        2
        * config.num_hidden_layers
        * head
        * (getattr(config, "num_key_value_heads", None) or heads)
    )
    active = 4 * hidden + 3 * (getattr(config, "intermediate_size", None) or 4 * hidden)
    row = length * (cached + active) * model.dtype.itemsize + 4 * config.vocab_size * 2
    return max(1, min(MAX_BATCH, BATCH_BYTES // row))


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices in groups of ``size``, the longest first: little padding, and memory's peak early."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for start in range(0, len(order), size):
        yield order[start : start + size]
