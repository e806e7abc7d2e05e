"""A search on rented hardware: what is asked of the Hub, and that what is asked does run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from morphing.errors import MorphingError
from morphing.jobs.launch import flavors, launch
from morphing.runs.spec import RunSpec, zoo_spec
from morphing.runs.spec_parts import SearchOptions
from tests.hub.server import CHECKOUT, RunningHub

ALICE = "hf_alice"
IMAGE = "hf.co/spaces/alice/morphing"


def start(spec: RunSpec, results: str, token: str | None = ALICE, flavor: str = "t4-small"):
    return launch(spec, results, image=IMAGE, flavor=flavor, timeout="90m", token=token)


def test_the_token_travels_as_a_secret_only(hub: RunningHub) -> None:
    job = start(zoo_spec(), "alice/zoo-results")
    spec = hub.jobs[job.id].spec
    assert spec.pop("secrets") == {"HF_TOKEN": ALICE}
    assert ALICE not in str(spec)
    assert (spec["spaceId"], spec["flavor"], spec["timeoutSeconds"]) == (
        "alice/morphing",
        "t4-small",
        5400,
    )
    assert spec["environment"]["MORPHING_RESULTS"] == "alice/zoo-results"


def test_the_results_of_a_job_go_to_no_public_dataset(hub: RunningHub) -> None:
    from huggingface_hub import HfApi

    HfApi(token=ALICE).create_repo("alice/open-results", repo_type="dataset", private=False)
    known = set(hub.jobs)
    with pytest.raises(MorphingError, match="alice/open-results is public already"):
        start(zoo_spec(), "alice/open-results")
    assert set(hub.jobs) == known


def test_code_is_allowed_there_only_if_asked(hub: RunningHub, tmp_path: Path) -> None:
    for options, passed in (([], None), (["--allow-code"], "1")):
        command = [
            sys.executable,
            "-m",
            "morphing",
            "job",
            "alice/code",
            "--image",
            IMAGE,
            *options,
        ]
        environment = {**hub.environ(), "HF_TOKEN": ALICE, "PYTHONPATH": str(CHECKOUT)}
        known = set(hub.jobs)
        done = subprocess.run(
            [*command, *options],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        (job,) = set(hub.jobs) - known
        assert hub.jobs[job].spec["environment"].get("MORPHING_ALLOW_CODE") == passed


def test_the_results_repository_is_private(hub: RunningHub) -> None:
    from huggingface_hub import HfApi

    start(zoo_spec(), "alice/private-results")
    info = HfApi(token=ALICE).dataset_info("alice/private-results")
    assert info.private


@pytest.mark.slow
def test_the_command_searches_and_leaves_its_results(hub: RunningHub, tmp_path: Path) -> None:
    """The Job's own command, run here: the Hub only adds a machine to it."""
    from huggingface_hub import HfApi

    spec = zoo_spec()
    small = tuple(use.model_copy(update={"samples": 8}) for use in spec.benchmarks)
    search = SearchOptions(sampler="random", evaluations=2)
    job = start(spec.model_copy(update={"benchmarks": small, "search": search}), "alice/two-trials")
    posted = hub.jobs[job.id].spec
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {"PATH": path, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        posted["command"],
        cwd=tmp_path,
        env={**hub.environ(), **environment, **posted["environment"], **posted["secrets"]},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert ALICE not in done.stdout + done.stderr
    files = HfApi(token=ALICE).list_repo_files("alice/two-trials", repo_type="dataset")
    assert {"spec.yaml", "journal.log"} <= set(files)


def test_what_a_job_cannot_see_is_refused(hub: RunningHub, tmp_path: Path) -> None:
    spec = zoo_spec()
    with pytest.raises(MorphingError, match="cannot see the model /home/me/model"):
        start(spec.model_copy(update={"base": "/home/me/model"}), "alice/x")
    data = tmp_path / "rows.jsonl"
    data.write_text('{"question": "1+1", "answer": "2"}\n')
    use = spec.benchmarks[0]
    local = use.declaration.model_copy(update={"dataset": str(data)})
    uses = (use.model_copy(update={"benchmark": local}),)
    with pytest.raises(MorphingError, match="cannot see the dataset"):
        start(spec.model_copy(update={"benchmarks": uses}), "alice/x")
    assert not hub.jobs


@pytest.mark.parametrize(
    ("results", "token", "flavor", "words"),
    [
        ("alice/x", None, "t4-small", "no Hub login"),
        ("alice/x", "hf_expired", "t4-small", "does not accept the login"),
        ("bob/x", ALICE, "t4-small", "refused the Job"),
        ("alice/y", ALICE, "quantum", "Invalid flavor: quantum"),
        ("a b", ALICE, "t4-small", "refused the Job"),
    ],
)
def test_refusals(
    hub: RunningHub, results: str, token: str | None, flavor: str, words: str
) -> None:
    with pytest.raises(MorphingError, match=words) as caught:
        start(zoo_spec(), results, token, flavor)
    assert "\n" not in str(caught.value) and "hf_" not in str(caught.value)
    assert not hub.jobs


def test_flavors_have_prices(hub: RunningHub) -> None:
    names = {flavor.name: flavor.unit_cost_usd for flavor in flavors()}
    assert names["t4-small"] > names["cpu-basic"] > 0
