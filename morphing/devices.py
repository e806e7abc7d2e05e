"""The one place where a device is chosen and its free memory is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from morphing.errors import MorphingError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
_SMALL_MODEL = 10_000_000


def resolve_device(name: str) -> torch.device:
    """The torch device for ``name``; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Of several CUDA devices, ``cuda:1`` is the second.

    Raises:
        MorphingError: the name is unknown, or the device is not usable on this machine.
    """
    import torch

    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if usable[device])
    kind, colon, index = name.partition(":")
    if kind not in usable or (colon and not (kind == "cuda" and index.isdecimal())):
        raise MorphingError(f"Unknown device {name!r}: choose one of {', '.join(DEVICES)}.")
    if not usable[kind] or (colon and int(index) >= torch.cuda.device_count()):
        raise MorphingError(
            f"The device {name!r} is not usable on this machine: choose --device auto or cpu."
        )
    return torch.device(name)


def share_out(name: str, workers: int) -> list[str]:
    """The devices of so many workers: the CUDA devices in turn, else all the same one.

    Raises:
        MorphingError: as :func:`resolve_device`.
    """
    import torch

    device = resolve_device(name)
    if device.type != "cuda" or device.index is not None:
        return [str(device)] * workers
    return [f"cuda:{worker % torch.cuda.device_count()}" for worker in range(workers)]


def available_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on ``device`` (MPS shares the machine's memory)."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def described(device: torch.device) -> str:
    """The device's kind and, of a GPU, its name: "cpu", "cuda (NVIDIA H100)"."""
    if device.type != "cuda":
        return device.type
    import torch

    return f"cuda ({torch.cuda.get_device_name(device)})"


@contextmanager
def suitable_threads(parameters: int, device: torch.device) -> Iterator[None]:
    """One thread for a model so small that sharing its operations costs more than it brings.

    Measured with the zoo (0.7 M parameters) on two cores: two threads took 4 to 10 times as long
    as one while other programs ran. The setting before is put back.
    """
    import torch

    before = torch.get_num_threads()
    if device.type == "cpu" and parameters < _SMALL_MODEL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_memory(required: int, device: torch.device) -> None:
    """Refuse work that needs more than the free memory, before anything is loaded.

    Raises:
        MorphingError: ``required`` bytes are not free on ``device``.
    """
    free = available_memory(device)
    if required > free:
        raise MorphingError(
            f"This run needs about {required / 2**30:.1f} GiB on {device.type} and"
            f" {free / 2**30:.1f} GiB are free: choose fewer or smaller sources, or a larger"
            " device."
        )
