"""The app as a process of its own, and a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.hub.server import RunningHub
from tests.ui.process import CHROMIUM_ARGUMENTS, serve_app


@dataclass(frozen=True)
class RunningApp:
    """The app's address and the folder of its runs."""

    url: str
    runs: Path


@pytest.fixture
def app(hub: RunningHub, tmp_path: Path) -> Iterator[RunningApp]:
    """``python app.py`` with alice's login, talking to the local Hub."""
    runs = tmp_path / "runs"
    environment = {**hub.environ(), "HF_TOKEN": "hf_alice", "MORPHING_RUNS": str(runs)}
    with serve_app(environment, tmp_path / "app.log") as url:
        yield RunningApp(url, runs)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, headless: ``MORPHING_CHROMIUM``, else the one on the path."""
    path = os.environ.get("MORPHING_CHROMIUM") or shutil.which("chromium")
    if path is None:
        message = "no chromium: install it or set MORPHING_CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield running
        running.close()
