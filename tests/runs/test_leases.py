"""Leases whose writes fail for a while, or for good."""

from __future__ import annotations

import errno
import logging
import time
from pathlib import Path

import pytest

from morphing.errors import MorphingError
from morphing.runs import leases
from morphing.runs.leases import GRACE_VARIABLE, Lease, is_alive, live_workers


class Disk:
    """Refuses to write while it is broken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
        self.broken, self.refused = False, 0
        write = leases.write_atomically

        def maybe(path: Path, data: bytes, durable: bool = True) -> None:
            if self.broken:
                self.refused += 1
                raise error
            write(path, data, durable)

        monkeypatch.setattr(leases, "write_atomically", maybe)


@pytest.fixture(params=[errno.ENOSPC, errno.ESTALE, errno.EIO, errno.EACCES])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setenv(GRACE_VARIABLE, "0.3")
    return Disk(monkeypatch, OSError(request.param, "a hiccup"))


def wait_for(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        time.sleep(0.01)


def test_a_worker_lives_on_after_writes_that_failed(
    disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However many, and whatever else is renewed with it."""
    renewed = []

    def renew() -> None:
        renewed.append(1)
        if len(renewed) % 2:
            raise RuntimeError("the other renewal hiccups too")

    with Lease(tmp_path) as lease, caplog.at_level(logging.WARNING):
        lease.renewals.append(renew)
        disk.broken = True
        wait_for(lambda: disk.refused >= 5)
        assert len(renewed) >= 4
        disk.broken = False
        wait_for(lambda: is_alive(tmp_path, lease.worker) and live_workers(tmp_path))
        lease.show(step="going on")
        assert live_workers(tmp_path)[0].step == "going on"
    assert "a hiccup" in caplog.text and "hiccups too" in caplog.text


def test_a_lasting_failure_is_met_by_who_works(disk: Disk, tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        disk.broken = True
        lease.show(step="one")  # a single one is forgiven
        with pytest.raises(MorphingError, match="could not be written for"):
            while True:
                lease.show(step="another")
                time.sleep(0.01)
        disk.broken = False
