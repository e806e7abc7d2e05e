"""Thoughts in generated texts: what a model writes for itself before it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Thinking = Literal["auto", "on", "off"]
"""Whether a model is to think before it answers: as its chat template has it, or as said."""


@dataclass(frozen=True)
class Marks:
    """What a family of models writes before and after a thought.

    ``anywhere``: they mean a thought anywhere in a text. Others, which a text may have for reasons
    of its own, do so at its beginning alone.
    """

    opening: str
    closing: str
    anywhere: bool = True


MARKS = (
    Marks("<think>", "</think>"),  # Qwen3, DeepSeek-R1, SmolLM3, GLM, Nemotron, Phi-4-reasoning
    Marks("<thinking>", "</thinking>", anywhere=False),
    Marks("<thought>", "</thought>", anywhere=False),  # EXAONE Deep
    Marks("<reasoning>", "</reasoning>", anywhere=False),
    Marks("<reason>", "</reason>", anywhere=False),
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Marks("[THINK]", "[/THINK]"),  # Magistral
    Marks("◁think▷", "◁/think▷"),  # Kimi-VL
    Marks("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
    Marks("<|channel>thought", "<channel|>"),  # Gemma 4
    Marks("<unused94>thought", "<unused95>"),  # MedGemma
    Marks("Here is my thought process:", "Here is my response:", anywhere=False),  # Granite 3.2
    Marks("Here's my thought process:", "Here's my response:", anywhere=False),
)
# What some of these write around the answer that follows.
_AROUND_ANSWERS = (
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<response>", "</response>"),
    ("<answer>", "</answer>"),
)
_LONGEST_MARK = max(len(m) for marks in MARKS for m in (marks.opening, marks.closing))


@dataclass(frozen=True)
class Reply:
    """A generated text in two: the thought before the answer, and the answer.

    ``unfinished``: the text ends inside a thought; then there is no answer.
    """

    answer: str
    thought: str = ""
    unfinished: bool = False

    def without(self, tokens: Iterable[str]) -> Reply:
        """The reply without these special tokens' texts."""
        answer, thought = self.answer, self.thought
        for token in tokens:
            answer, thought = answer.replace(token, ""), thought.replace(token, "")
        return Reply(answer, thought, self.unfinished)


def split_thought(text: str, opened: Marks | None = None) -> Reply:
    """A text with its special tokens as a thought and an answer.

    ``opened`` are the marks of a thought that the prompt has begun. A closing mark without an
    opening one closes a thought that began with the text.
    """
    thoughts: list[str] = []
    inside = opened
    while True:
        if inside is None:
            head = text.lstrip()
            inside = next((marks for marks in MARKS if head.startswith(marks.opening)), None)
            if inside is None:
                break
            text = head[len(inside.opening) :]
        thought, mark, text = text.partition(inside.closing)
        thoughts.append(thought.strip())
        if not mark:
            return Reply("", _joined(thoughts), unfinished=True)
        inside = None
    for marks in MARKS:
        if not marks.anywhere:
            continue
        before, mark, after = text.rpartition(marks.closing)
        if mark:
            thoughts.append(before.replace(marks.opening, "").strip())
            text = after
        before, mark, after = text.partition(marks.opening)
        if mark:
            return Reply("", _joined([*thoughts, before.strip(), after.strip()]), unfinished=True)
    return Reply(_unwrapped(text) if thoughts else text, _joined(thoughts))


def _joined(thoughts: Iterable[str]) -> str:
    return "\n\n".join(filter(None, thoughts))


def _unwrapped(answer: str) -> str:
    """The answer without empty lines before it and what its family writes around it."""
    answer = answer.lstrip("\r\n")
    for before, after in _AROUND_ANSWERS:
        if answer.lstrip().startswith(before):
            return answer.lstrip()[len(before) :].partition(after)[0].strip("\r\n")
    return answer


def opened_by(prompt: str) -> Marks | None:
    """The marks of the thought that a prompt ends with the beginning of, as some templates do."""
    end = prompt.rstrip()
    return next((marks for marks in MARKS if end.endswith(marks.opening)), None)


def opened_in(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> Marks | None:
    """As `opened_by`, of a prompt's tokens."""
    return opened_by(str(tokenizer.decode(ids[-_LONGEST_MARK:], skip_special_tokens=False)))


def may_think(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a model with this tokenizer may think: its template or its tokens have the marks."""
    template = tokenizer.chat_template or ""
    texts = [template] if isinstance(template, str) else list(template.values())
    added = set(tokenizer.get_added_vocab())
    return any(
        marks.opening in added
        or any(marks.opening in text or marks.closing in text for text in texts)
        for marks in MARKS
    )


class Follower:
    """Follows a row of new tokens: whether it is inside a thought, and where its answer begins."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        may_end: Callable[[int], bool],
        opened: Marks | None,
    ) -> None:
        """Follow a row from its start.

        Args:
            decode: tokens to text, special ones too.
            may_end: whether a token may end a mark; after others nothing is decoded.
            opened: of the thought that the prompt has begun.
        """
        self._decode, self._may_end, self._opened = decode, may_end, opened
        self.inside = opened is not None
        self.answer_from = 0
        """Index of the first token after the last thought."""

    def follow(self, tokens: Sequence[int]) -> None:
        """Take note of the last of ``tokens``, which are the row's so far."""
        if not self._may_end(tokens[-1]) or not has_mark(self._decode(tokens[-_LONGEST_MARK:])):
            return
        reply = split_thought(self._decode(tokens), self._opened)
        closed = not reply.unfinished and bool(reply.thought or self.inside)
        if closed and (self.inside or not self.answer_from):
            self.answer_from = len(tokens)
        self.inside = reply.unfinished

    def may_begin(self, tokens: Sequence[int]) -> bool:
        """Whether the row's last tokens may become the opening of a thought."""
        head = self._decode(tokens[self.answer_from :][-_LONGEST_MARK:]).lstrip()
        return bool(head) and any(marks.opening.startswith(head) for marks in MARKS)


def has_mark(text: str) -> bool:
    """Whether a mark of any family is in ``text``."""
    return any(mark in text for mark in _ALL_MARKS)


def may_end_mark(text: str) -> bool:
    """Whether a token that decodes to ``text`` may be or end with the end of a mark."""
    return any(character in text for character in _LAST)


_ALL_MARKS = frozenset(mark for marks in MARKS for mark in (marks.opening, marks.closing))
_LAST = frozenset(mark[-1] for mark in _ALL_MARKS)
