"""What a measurement was made on, and whether anything else was running there."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import psutil

IDLE_LOAD = 0.5
"""Load average above which a machine counts as busy before a measurement starts."""
QUIET_SHARE = 0.05
"""Share of the processors' time that others may take during one."""


class Machine:
    """Describes the machine at the start, and at the end what others did on it meanwhile."""

    def __init__(self) -> None:
        self.load = os.getloadavg()[0]
        self._busy = _busy_seconds()
        self._own = _own_seconds()
        self._started = time.monotonic()

    def check_idle(self, anyway: bool) -> None:
        """Stop here if the machine is busy, unless the figures are wanted anyway."""
        if self.load <= IDLE_LOAD:
            return
        warning = f"The machine is busy: its load average is {self.load:.2f}, not {IDLE_LOAD}."
        if not anyway:
            sys.exit(f"{warning} Wait, or say --anyway for figures that are good for nothing else.")
        print(f"!!! {warning} These figures are no measurement. !!!", file=sys.stderr)

    def facts(self) -> dict[str, Any]:
        """To be stored with the results; call at the end."""
        cores = psutil.cpu_count() or 1
        elapsed = time.monotonic() - self._started
        own = _own_seconds() - self._own
        others = max(0.0, _busy_seconds() - self._busy - own) / (elapsed * cores)
        facts = {
            "cpu": _cpu_model(),
            "cores": cores,
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "load_at_start": round(self.load, 2),
            "cpu_share_of_others": round(others, 3),
            "busy": self.load > IDLE_LOAD or others > QUIET_SHARE,
            "minutes": round(elapsed / 60, 1),
            "date": time.strftime("%Y-%m-%d"),
        }
        for package in ("torch", "mergekit", "transformers"):
            facts[package] = _version(package)
        return facts


def sentence(facts: dict[str, Any]) -> str:
    """The machine in a line of a report."""
    threads = f", {facts['threads']} threads" if "threads" in facts else ""
    text = (
        f"{facts['cpu']}, {facts['cores']} cores{threads}, {facts['memory_gib']} GiB;"
        f" Python {facts['python']}, torch {facts['torch']}, mergekit {facts['mergekit']};"
        f" {facts['date']}, {facts['minutes']} minutes, load average {facts['load_at_start']} at"
        f" the start, other programs took {facts['cpu_share_of_others']:.1%} of the processors."
    )
    if facts["busy"]:
        text = f"**The machine was busy: these figures are no measurement.** {text}"
    return text


def _busy_seconds() -> float:
    """Of all processors together, since the machine started; what a hypervisor took counts too."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    counted = ("user", "nice", "system", "irq", "softirq", "steal", "idle", "iowait")
    return sum(getattr(times, name, 0.0) for name in counted) - idle


def _own_seconds() -> float:
    """Of this process and of its children that have ended."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().split("\n\n")[0].splitlines()
        pairs = [line.split(":", 1) for line in lines if ":" in line]
        fields = {name.strip(): value.strip() for name, value in pairs}
        if fields.get("model name"):
            family = f"family {fields.get('cpu family')} model {fields.get('model')}"
            vectors = " with AVX-512" if "avx512f" in fields.get("flags", "") else ""
            return f"{fields['model name']} ({family}){vectors}"
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
