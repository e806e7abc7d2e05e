"""What teachers are asked: tokens of one task each, in batches of texts of like length."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BATCH_TOKENS = 2048
"""Tokens of a batch, padding counted."""


@dataclass(frozen=True)
class Task:
    """Texts that a teacher knows, as tokens.

    Args:
        name: shown to people, such as a benchmark's.
        teacher: the model whose answers count on these texts.
        texts: token ids of each; the teacher's own answers belong to them.
    """

    name: str
    teacher: str
    texts: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """Of all texts together."""
        return sum(map(len, self.texts))


@dataclass(frozen=True)
class Batch:
    """Texts side by side, padded after their last token, where causal attention lets nobody see it.

    Args:
        tokens: (b, n) ids.
        real: (b, n) bool, false where there is padding.
    """

    tokens: Tensor
    real: Tensor

    def flat(self, states: Tensor) -> Tensor:
        """Those of states (b, n, d) or (b n, d) that are of real tokens: (tokens, d)."""
        return states[self.real] if states.ndim == 3 else states[self.real.reshape(-1)]


def batches(
    task: Task, device: torch.device, most: int | None = None, seed: int = 0
) -> list[Batch]:
    """A task's texts in batches, the longest first.

    Args:
        task: whose.
        device: of the tensors.
        most: at most so many tokens: whole texts in a random order while there is room.
        seed: of that order.
    """
    texts = sorted(_drawn(task.texts, most, seed), key=len, reverse=True)
    made, start = [], 0
    while start < len(texts):
        count = max(1, BATCH_TOKENS // len(texts[start]))
        made.append(_batch(texts[start : start + count], device))
        start += count
    return made


def _drawn(texts: Sequence[tuple[int, ...]], most: int | None, seed: int) -> list[tuple[int, ...]]:
    kept = [text for text in texts if text]
    if most is None or sum(map(len, kept)) <= most:
        return kept
    random.Random(seed).shuffle(kept)
    drawn, used = [kept[0][:most]], len(kept[0][:most])
    for text in kept[1:]:
        if used + len(text) <= most:
            drawn.append(text)
            used += len(text)
    return drawn


def _batch(texts: Sequence[tuple[int, ...]], device: torch.device) -> Batch:
    width = max(map(len, texts))
    tokens = torch.zeros(len(texts), width, dtype=torch.long)
    real = torch.zeros(len(texts), width, dtype=torch.bool)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = torch.tensor(text)
        real[row, : len(text)] = True
    return Batch(tokens.to(device), real.to(device))
