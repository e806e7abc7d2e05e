"""Where the time of a morph goes: exclusive seconds of its steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

_STEPS = (
    ("morphing.merging.engine", "Engine.output", "plan"),
    ("morphing.merging.engine", "Engine.infos", "plan"),
    ("morphing.merging.rows.merger", "RowMerger._inputs", "rows"),
    ("morphing.merging.rows.segments", "Segment.column", "columns"),
    ("morphing.merging.rows.ties_cuts", "find_cuts", "cuts"),
    ("morphing.merging.rows.ties_cuts", "settle", "ties among equals"),
    ("morphing.merging.rows.ties_cuts", "Cut.row_thresholds", "columns"),
    ("morphing.merging.rows.ties_cuts", "Cut.columns_at", "columns"),
    ("morphing.merging.rows.dare_masks", "tensor_norms", "norms of tensors"),
    ("morphing.merging.rows.dare_masks", "limit_column", "columns"),
    ("morphing.merging.rows.dare_masks", "hash_columns", "columns"),
)
"""What is no kernel; names that are gone are passed over."""


@contextmanager
def profiled() -> Iterator[dict[str, float]]:
    """Inside it steps are timed; kernels go by their names."""
    from importlib import import_module

    from morphing.merging.rows.runner import Runner

    spent: dict[str, float] = {}
    open_steps: list[float] = []  # of each step entered: seconds of the steps inside it

    def timed(function: Callable[..., Any], label: Callable[..., str]) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return function(*arguments, **options)  # within a step of the main thread's
            open_steps.append(0.0)
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                whole = time.perf_counter() - started
                name = label(*arguments)
                spent[name] = spent.get(name, 0.0) + whole - open_steps.pop()
                if open_steps:
                    open_steps[-1] += whole

        return wrapper

    replaced: list[tuple[Any, str, Any]] = []

    def replace(owner: Any, attribute: str, label: Callable[..., str]) -> None:
        original = getattr(owner, attribute)
        replaced.append((owner, attribute, original))
        setattr(owner, attribute, timed(original, label))

    for module, path, label in _STEPS:
        *outer, attribute = path.split(".")
        owner: Any = import_module(module)
        for part in outer:
            owner = getattr(owner, part, None)
        if owner is not None and hasattr(owner, attribute):
            replace(owner, attribute, lambda *_, label=label: label)
    replace(Runner, "run", lambda runner, kernel, *_: f"kernel {kernel.__name__}")
    try:
        yield spent
    finally:
        for owner, attribute, original in replaced:
            setattr(owner, attribute, original)
