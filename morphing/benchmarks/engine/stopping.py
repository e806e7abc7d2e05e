"""Where a generated text ends."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Ending:
    """Says of a row of new tokens whether it has ended: by an end token, a stop string or its
    length; and what its text is."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        stop: Sequence[str],
        most: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self.most = most
        # A chat model's generation settings name an end of turn beside the tokenizer's end of text.
        named = model.generation_config.eos_token_id if model.generation_config else None
        ends = {*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id}
        self.tokens = frozenset(end for end in ends if end is not None)
        # As many tokens as a stop string has bytes hold it, for a token stands for at least one
        # byte; and a few more for characters begun before.
        self._tail = max((len(text.encode()) for text in stop), default=0) + 4
        self._last = {text[-1] for text in stop}
        self._may_complete: dict[int, bool] = {}

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last of a row's new tokens ends it, given that none before did."""
        if len(tokens) >= self.most or tokens[-1] in self.tokens:
            return True
        if not self._stop or not self._completes(tokens[-1]):
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

    def text(self, tokens: Sequence[int]) -> str:
        """What a row's new tokens say, up to the end token or the first stop string."""
        end = next((at for at, token in enumerate(tokens) if token in self.tokens), len(tokens))
        text = str(self._tokenizer.decode(tokens[:end], skip_special_tokens=True))
        return text[: min((at for s in self._stop if (at := text.find(s)) >= 0), default=len(text))]
