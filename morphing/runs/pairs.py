"""Two models on the same samples: what each answered, and how far one scores above the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from morphing.runs.outputs import Row


@dataclass(frozen=True)
class Pair:
    """What two models answered to one sample."""

    mine: Row
    other: Row

    @property
    def verdict(self) -> str:
        """Who scored more: ``ahead`` (mine) or ``behind``; of equals ``both`` or ``neither``."""
        mine, other = self.mine["score"], self.other["score"]
        if mine == other:
            return "both" if mine >= 1 else "neither"
        return "ahead" if mine > other else "behind"

    @property
    def differs(self) -> bool:
        """Whether the answers are not the same."""
        return bool(
            self.mine["score"] != self.other["score"] or self.mine["answer"] != self.other["answer"]
        )


def pairs_of(mine: Sequence[Row], other: Sequence[Row]) -> list[Pair]:
    """The samples both have answered, in the first one's order."""
    known = {row["id"]: row for row in other}
    return [Pair(row, known[row["id"]]) for row in mine if row["id"] in known]


def lead(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Mine less the other's in the mean, and that difference's standard error, by pairs."""
    differences = [pair.mine["score"] - pair.other["score"] for pair in pairs]
    mean = math.fsum(differences) / len(differences)
    spread = math.fsum((each - mean) ** 2 for each in differences)
    count = len(differences)
    return mean, math.sqrt(spread / (count - 1) / count) if count > 1 else 0.0
