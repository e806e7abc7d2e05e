"""Ctrl-C at any moment ends a command in a sentence."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from morphing.runs.run import Run
from morphing.runs.spec import zoo_spec

# Where the tests themselves were started in the background, Ctrl-C is ignored by all they start.
START = """\
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import morphing.__main__ as m
print('up', flush=True)
sys.argv[0] = 'm'
m.main()
"""


@pytest.mark.parametrize("seconds", [0.03, 0.15, 0.5, 1.5])
@pytest.mark.parametrize("verb", ["search", "worker", "evaluate"])
def test_ctrl_c_soon_after_the_start(verb: str, seconds: float, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if verb == "worker":
        Run.create(folder, zoo_spec())
    arguments = {
        "search": ["--run", str(folder)],
        "worker": [str(folder)],
        "evaluate": ["zoo:base", "-b", "zoo-english-arithmetic"],
    }[verb]
    process = subprocess.Popen(
        [sys.executable, "-c", START, verb, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "up\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err.count("Interrupted") == 1 and "Traceback" not in out + err
