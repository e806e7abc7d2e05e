"""A search over a real LLM's adapters, all pulled by id: a short one of `perf/real_llm.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.server import CHECKOUT

pytestmark = [pytest.mark.slow, pytest.mark.testbed, pytest.mark.timeout(1200)]


def test_a_search_over_adapters_of_a_real_llm(testbed: Path, llm: str, tmp_path: Path) -> None:
    script = CHECKOUT / "perf" / "real_llm.py"
    made = subprocess.run(
        [sys.executable, script, testbed, "--quick", "--run", "run", "--results", "results"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1100,
    )
    assert made.returncode == 0, made.stderr
    found = json.loads((tmp_path / "results" / "real_llm.json").read_text())
    assert found["evaluations"] == 3
    assert found["models"][0]["name"].partition("@")[0] == llm
    assert any(member["knee"] for member in found["front"])
    # The review adapter tells reviews apart; how well, eight samples do not say.
    reviews = {model["name"].split("@")[0]: model["holdout"] for model in found["models"]}
    review_adapter = "morphing-testbed/smollm2-135m-rotten-tomatoes-lora"
    assert reviews[review_adapter]["rotten-tomatoes"][0] > 0.5
    assert {"proposing", "merging", "mawps", "rotten-tomatoes"} <= found["seconds_by_part"].keys()
    text = (tmp_path / "results" / "real_llm.md").read_text()
    assert "The front" in text and "A trial took" in text
