"""What the tabs show: one reading of the run and of what the visitor has chosen in it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gradio.components import Component

from morphing.runs.figures import Figures
from morphing.runs.records import Record
from morphing.runs.run import Run
from morphing.runs.selection import Selection
from morphing.runs.status import Status
from morphing.runs.trial import Trial
from morphing.ui import session
from morphing.ui.cards import short_name
from morphing.ui.objectives import Objectives
from morphing.ui.plots import ORDER, Subject

TRAY_SIZE = 4
"""As many models are compared side by side as fit on a wide screen."""


@dataclass(frozen=True)
class Scene:
    """A moment of a run, and the visitor's choices: focused trial, tray of members."""

    run: Run
    status: Status
    figures: Figures
    references: dict[str, Record]
    """What is known of base and sources on the search split."""
    held: session.Held = ()
    """Which models have been scored on the holdout."""
    tray: tuple[str, ...] = ()
    chosen: int | None = None
    axes: tuple[str, str, str] | None = None

    @classmethod
    def read(
        cls, name: str, tray: list[str], chosen: int | None, axes: tuple[str, str, str] | None
    ) -> Scene | None:
        """The scene of the run called ``name``; None where there is no such run."""
        run = session.find_run(name)
        if run is None:
            return None
        status = run.status()
        figures = session.figures(run, status.done)
        known = session.references(run), session.held(run)
        return cls(run, status, figures, *known, tuple(tray), chosen, axes)

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
    def objectives(self) -> Objectives:
        return Objectives.of(self.run.spec)

    @property
    def shown_axes(self) -> tuple[str, str, str]:
        """Objectives across and up, and what gives the colour: as chosen, else the first ones."""
        names = self.objectives.names
        default = (names[0], names[min(1, len(names) - 1)], names[2] if names[2:] else ORDER)
        known = self.axes and set(self.axes) <= {*names, ORDER}
        return self.axes if self.axes and known else default

    @cached_property
    def selection(self) -> Selection | None:
        """The front on the holdout, as far as it has been scored there."""
        return session.selection(self.run, self.figures, self.held)

    @property
    def models(self) -> tuple[str, ...]:
        """Base and sources."""
        return (self.run.spec.base, *self.run.spec.sources)

    @property
    def mark(self) -> tuple[Hashable, ...]:
        """Changes when trials or references do."""
        return self.run.name, self.figures.evaluations, len(self.references)

    @property
    def subject(self) -> Subject:
        """What the plots are given."""
        named = {short_name(model): record.values for model, record in self.references.items()}
        total = self.run.spec.search.evaluations
        return Subject(self.run.name, self.objectives, self.figures, named, total, self.focus)

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
