"""One local Hub for the whole test run, started before anything imports the Hub's clients."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# `tests.hub` and `morphing` import from the checkout, whatever pytest's import mode
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.hub.server import CLEARED, RunningHub, start_hub, testbed_folder

_session = ExitStack()
_hub: RunningHub


def pytest_configure(config: pytest.Config) -> None:
    """The clients read HF_ENDPOINT and HF_HOME when they are imported, so both are set here."""
    global _hub
    root = Path(_session.enter_context(tempfile.TemporaryDirectory(prefix="morphing-hub-")))
    _hub = _session.enter_context(start_hub(root))
    for name in CLEARED:
        os.environ.pop(name, None)
    os.environ.update(_hub.env)


def pytest_unconfigure(config: pytest.Config) -> None:
    _session.close()


@pytest.fixture
def hub() -> Iterator[RunningHub]:
    """The session's Hub. Its store lasts for the session; settings and records for one test."""
    yield _hub
    _hub.settings.clear()
    _hub.jobs.clear()
    _hub.seen.clear()
    _hub.busy.clear()


@pytest.fixture(scope="session")
def testbed() -> Path:
    """The folder of real data and adapters that the Hub serves under their real ids."""
    folder = testbed_folder()
    if not folder.is_dir():
        message = f"no test-bed at {folder}: set MORPHING_TESTBED to where it is"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def llm(testbed: Path) -> str:
    """The id of the test-bed's language model, which is not kept with it but made from a package.

    Where CI=true it must be there (`.ci/run` makes it).
    """
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    if not (testbed / "models" / name).is_dir():
        message = (
            f"the test-bed at {testbed} has no {name}: make one by its build.py DEST --llm, and set"
            " MORPHING_TESTBED to DEST"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return name
