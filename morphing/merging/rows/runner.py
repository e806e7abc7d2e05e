"""How kernels are run: compiled once and kept, or eagerly by blocks of rows."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from morphing.merging.workers import Workers

Rows = Tensor | Sequence[Tensor]
"""An argument of a kernel: a tensor or a list of them, all with the same number of rows."""
Kernel = Callable[..., list[Tensor]]

_BLOCK = 32
"""Rows an eager block on the CPU: half a megabyte of float32, so that temporaries stay in cache."""
_ACCELERATOR_BLOCK = 1 << 12
_FEW = 64
"""Fewer rows than this are not worth a compiled call, nor a compilation for their shape."""
_LARGE = 1 << 25
"""Elements of a model from which compiling (10 to 30 s a method, once) is repaid by a search."""

log = logging.getLogger(__name__)


class Runner:
    """Runs kernels on one device.

    Compiled and eager give the same weights bit for bit. A compilation that fails, for want of a
    C++ compiler for example, is logged once and everything goes on eagerly.

    Args:
        device: of the tensors.
        workers: threads for eager blocks.
        compiled: whether to compile; by default where it can and the models are large.
        elements: of one model.
    """

    def __init__(
        self, device: torch.device, workers: Workers, compiled: bool | None, elements: int
    ) -> None:
        self._device = device
        self._workers = workers
        self.compiled = compiled if compiled is not None else _worth_compiling(device, elements)
        self._compiled: dict[Kernel, Kernel] = {}

    def run(self, kernel: Kernel, *rows: Rows, **options: bool) -> list[Tensor]:
        """Call a kernel on all rows."""
        count = _count(rows)
        if self.compiled and count >= _FEW:
            try:
                return self._run_compiled(kernel, rows, options)
            except Exception as error:  # whatever the compiler stumbles over, eager does not
                if not _is_compile_error(error):
                    raise
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                log.warning("Merging goes on without compiled kernels: %s", reason)
                self.compiled = False
        return self._run_eager(kernel, rows, options)

    def _run_compiled(
        self, kernel: Kernel, rows: Sequence[Rows], options: Mapping[str, bool]
    ) -> list[Tensor]:
        if kernel not in self._compiled:
            _keep_cache()
            self._compiled[kernel] = torch.compile(kernel, fullgraph=True)
        for tensor in _flat(rows):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        # One graph for each combination of dtypes and number of sources; more than dynamo's eight.
        with torch._dynamo.config.patch(recompile_limit=256), torch.no_grad():
            return self._compiled[kernel](*rows, **options)

    def _run_eager(
        self, kernel: Kernel, rows: Sequence[Rows], options: Mapping[str, bool]
    ) -> list[Tensor]:
        size = _BLOCK if self._device.type == "cpu" else _ACCELERATOR_BLOCK

        def call(start: int) -> list[Tensor]:
            with torch.no_grad():
                return kernel(*_block(rows, start, start + size), **options)

        blocks = list(self._workers.map(call, range(0, _count(rows), size)))
        return [torch.cat(parts) for parts in zip(*blocks, strict=True)]


def _worth_compiling(device: torch.device, elements: int) -> bool:
    choice = os.environ.get("MORPHING_COMPILE")
    if choice is not None:
        return choice == "1"
    if elements < _LARGE:
        return False
    if device.type == "cpu":
        return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++"))
    return device.type == "cuda"


def _keep_cache() -> None:
    """Compiled kernels outlive the process: compiling again then takes a few seconds."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "morphing" / "kernels"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))


def _is_compile_error(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException) or type(error).__module__.startswith(
        ("torch._inductor", "torch._dynamo")
    )


def _flat(rows: Sequence[Rows]) -> Iterator[Tensor]:
    for argument in rows:
        if isinstance(argument, Tensor):
            yield argument
        else:
            yield from argument


def _count(rows: Sequence[Rows]) -> int:
    return next(_flat(rows)).shape[0]


def _block(rows: Sequence[Rows], start: int, stop: int) -> list[Rows]:
    return [
        argument[start:stop]
        if isinstance(argument, Tensor)
        else [tensor[start:stop] for tensor in argument]
        for argument in rows
    ]
