"""Where a generated text ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from morphing.benchmarks.engine.thinking import (
    Follower,
    Marks,
    Reply,
    has_mark,
    may_end_mark,
    split_thought,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Limit:
    """How many new tokens a row may have: ``answer`` for what is no thought or follows one, and
    ``thought`` more for thoughts.
    """

    answer: int
    thought: int = 0

    @property
    def most(self) -> int:
        """Tokens that a row may have in all."""
        return self.answer + self.thought


class Ending:
    """Says of rows of new tokens whether they have ended: by an end token, a stop string or their
    length; and what their texts are."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        # A chat model's generation settings name an end of turn beside the tokenizer's end of text.
        named = model.generation_config.eos_token_id if model.generation_config else None
        ends = {*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id}
        self.tokens = frozenset(end for end in ends if end is not None)
        # As many tokens as a stop string has bytes hold it, for a token stands for at least one
        # byte; and a few more for characters begun before.
        self._tail = max((len(text.encode()) for text in stop), default=0) + 4
        self._last = {text[-1] for text in stop}
        self._may_complete: dict[int, bool] = {}
        self._may_end_mark: dict[int, bool] = {}

    def row(self, limit: Limit, opened: Marks | None = None) -> RowEnding:
        """What says of one row whether it has ended; ``opened`` are the marks of a thought that its
        prompt has begun.
        """
        return RowEnding(self, limit, opened)

    def stops(self, tokens: Sequence[int]) -> bool:
        """Whether the last of a row's tokens completes a stop string."""
        if not self._stop or not tokens or not self._completes(tokens[-1]):
            return False
        text = self._tokenizer.decode(tokens[-self._tail :], skip_special_tokens=True)
        return any(stop in text for stop in self._stop)

    def _completes(self, token: int) -> bool:
        """Whether a stop string's last character may come with this token: few of a vocabulary's
        have it, and only after these is anything decoded."""
        known = self._may_complete.get(token)
        if known is None:
            text = self._tokenizer.decode([token])
            # A part of a character, or a space, which some tokenizers leave out at the beginning.
            unclear = not text or "\ufffd" in text or " " in self._last
            known = unclear or any(character in text for character in self._last)
            self._may_complete[token] = known
        return known

    def may_end_mark(self, token: int) -> bool:
        """Whether a thought's mark may end with this token."""
        known = self._may_end_mark.get(token)
        if known is None:
            known = self._may_end_mark[token] = may_end_mark(self.raw([token]))
        return known

    def raw(self, tokens: Sequence[int]) -> str:
        """What tokens say, special ones too."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))

    def reply(self, tokens: Sequence[int], opened: Marks | None = None) -> Reply:
        """What a row's new tokens say, up to the end token or, after any thought, the first stop
        string.
        """
        end = next((at for at, token in enumerate(tokens) if token in self.tokens), len(tokens))
        raw = self.raw(tokens[:end]) if opened or any(map(self.may_end_mark, tokens)) else ""
        if opened is None and not has_mark(raw):
            text = str(self._tokenizer.decode(tokens[:end], skip_special_tokens=True))
            return Reply(self._cut(text))
        reply = split_thought(raw, opened).without(self._tokenizer.all_special_tokens)
        return replace(reply, answer=self._cut(reply.answer))

    def _cut(self, text: str) -> str:
        return text[: min((at for s in self._stop if (at := text.find(s)) >= 0), default=len(text))]


class RowEnding:
    """Says when one row has ended."""

    def __init__(self, ending: Ending, limit: Limit, opened: Marks | None) -> None:
        self._ending, self._limit = ending, limit
        self._follower = Follower(ending.raw, ending.may_end_mark, opened)

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last of the row's new tokens ends it, given that none before did; to be asked
        after every token.
        """
        if tokens[-1] in self._ending.tokens or len(tokens) >= self._limit.most:
            return True
        self._follower.follow(tokens)
        if self._follower.inside:
            return False
        begin = self._follower.answer_from
        if self._ending.stops(tokens[begin:]):
            return True
        return len(tokens) - begin >= self._limit.answer and not self._follower.may_begin(tokens)
