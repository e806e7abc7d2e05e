"""Where a run stands, for whoever watches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, TypeAdapter

from morphing.runs.files import FOREIGN, Count, Moment, Text, read_json
from morphing.runs.leases import Worker

State = Literal["new", "preparing", "running", "paused", "stopped", "finished", "failed"]


def _nobody(_: object) -> tuple[Worker, ...]:
    """Workers say themselves where they stand, each in a file of its own."""
    return ()


@dataclass(frozen=True)
class Status:
    """Where a run stands. Times are seconds since the epoch, durations seconds."""

    __pydantic_config__ = FOREIGN

    state: State = "new"
    message: Text = ""
    done: Count = 0
    total: Count = 0
    step: Text = ""
    """What is being done at this moment, for example the benchmark being scored."""
    step_done: Count = 0
    step_total: Count = 0
    seconds_left: Moment | None = None
    updated: Moment = 0.0
    workers: Annotated[tuple[Worker, ...], BeforeValidator(_nobody)] = ()
    """The workers that live, and what each does; the step above is theirs if it is one alone."""

    @property
    def active(self) -> bool:
        """Whether anybody works on the run."""
        return self.state in ("preparing", "running", "paused")

    def with_workers(self, workers: tuple[Worker, ...]) -> Status:
        """The status of a run that these workers, one or more, are at."""
        states = {worker.state for worker in workers}
        first: tuple[State, ...] = ("running", "preparing", "paused")
        state = next((state for state in first if state in states), self.state)
        status = replace(self, state=state, workers=workers, message="")
        if len(workers) > 1:
            return replace(status, step=f"{len(workers)} workers", step_done=0, step_total=0)
        (only,) = workers
        return replace(status, step=only.step, step_done=only.step_done, step_total=only.step_total)


_STATUS = TypeAdapter(Status)


def read_status(path: Path) -> Status:
    """What a status file says of a run as a whole, without its workers.

    Raises:
        MorphingError: the file holds something else.
    """
    return read_json(path, _STATUS, "delete it, or resume the run, which writes it anew")
