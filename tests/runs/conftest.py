"""A short search on the zoo, as its own process would do it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from morphing.runs.spec import RunSpec, parse_spec, zoo_spec
from tests.runs.postgres import Server, binaries, running_server


@pytest.fixture
def small_spec() -> RunSpec:
    """The zoo with few samples and a sampler that costs nothing."""
    data = zoo_spec().model_dump()
    data["search"] |= {"sampler": "random", "evaluations": 4, "seed": 7}
    for use in data["benchmarks"]:
        use |= {"samples": 12, "holdout": 20}
    return parse_spec(data | {"device": "cpu"})


@pytest.fixture
def spec_file(small_spec: RunSpec, tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(small_spec.model_dump(mode="json")))
    return path


@pytest.fixture
def morphing() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line to its end."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "morphing", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server with an empty database."""
    programs = binaries()
    if programs is None:
        message = "PostgreSQL's server is not installed: apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with running_server(programs) as server:
        yield server
