"""What the tabs show: one reading of the run and of what the visitor has chosen in it."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gradio.components import Component

from morphing.runs.run import Figures, Run, Status
from morphing.runs.spec import SPARSITY
from morphing.runs.trial import Result, Trial
from morphing.ui import session
from morphing.ui.cards import short_name
from morphing.ui.plots import ORDER, Subject

TRAY_SIZE = 4
"""As many models are compared side by side as fit on a wide screen."""


@dataclass(frozen=True)
class Scene:
    """A moment of a run, and the visitor's choices: focused trial, tray of members."""

    run: Run
    status: Status
    figures: Figures
    references: dict[str, dict[str, Result]]
    tray: tuple[str, ...] = ()
    chosen: int | None = None
    axes: tuple[str, str, str] | None = None

    @classmethod
    def read(
        cls, name: str, tray: list[str], chosen: int | None, axes: tuple[str, str, str] | None
    ) -> "Scene | None":
        """The scene of the run called ``name``; None where there is no such run."""
        run = session.find_run(name)
        if run is None:
            return None
        figures, references = session.figures(run), session.references(run)
        return cls(run, run.status(), figures, references, tuple(tray), chosen, axes)

    @property
    def focus(self) -> int | None:
        """The trial in focus: the one chosen, else the knee."""
        return self.figures.knee if self.chosen is None else self.chosen

    @cached_property
    def trials(self) -> dict[int, Trial]:
        return {trial.number: trial for trial in self.figures.trials}

    @property
    def trial(self) -> Trial | None:
        """The trial in focus."""
        return None if self.focus is None else self.trials.get(self.focus)

    @cached_property
    def titles(self) -> dict[str, str]:
        """Objective to title, in order."""
        declared = [use.declaration for use in self.run.spec.tasks]
        titles = {benchmark.name: benchmark.title or benchmark.name for benchmark in declared}
        return {**titles, SPARSITY: "Sparsity"} if self.run.spec.sparsity else titles

    @property
    def shown_axes(self) -> tuple[str, str, str]:
        """Objectives across and up, and what gives the colour: as chosen, else the first ones."""
        names = list(self.titles)
        default = (names[0], names[min(1, len(names) - 1)], names[2] if names[2:] else ORDER)
        known = self.axes and set(self.axes) <= {*names, ORDER}
        return self.axes if self.axes and known else default

    @property
    def models(self) -> tuple[str, ...]:
        """Base and sources."""
        return (self.run.spec.base, *self.run.spec.sources)

    @property
    def mark(self) -> tuple[Hashable, ...]:
        """Changes when trials or references do."""
        return self.run.name, len(self.figures.trials), len(self.references)

    @property
    def subject(self) -> Subject:
        """What the plots are given."""
        named = {short_name(model): results for model, results in self.references.items()}
        total = self.run.spec.search.evaluations
        return Subject(self.run.name, self.titles, self.figures, named, total, self.focus)

    def title(self, member: str) -> str:
        """A tray member's name for people."""
        number = trial_number(member)
        if number is None:
            name = short_name(member)
            return name if member != self.run.spec.base or name == "base" else f"{name} (base)"
        return f"Trial {number}" + (" ★" if number == self.figures.knee else "")


@dataclass(frozen=True)
class View:
    """A component drawn from the scene (None: no run), again only when ``depends`` changes."""

    component: Component
    depends: Callable[[Scene], Hashable]
    render: Callable[[Scene | None], Any]


def trial_number(member: str) -> int | None:
    """The trial a tray member is, or None where it is a model of its own."""
    number = member.removeprefix("trial ")
    return int(number) if number != member and number.isdecimal() else None


def toggled(tray: list[str], member: str) -> list[str]:
    """The tray with ``member`` put in or taken out; the oldest makes room."""
    if member in tray:
        return [other for other in tray if other != member]
    return [*tray, member][-TRAY_SIZE:]
