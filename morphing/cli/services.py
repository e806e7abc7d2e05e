"""The verbs that start something elsewhere: job, app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from morphing.cli.common import AllowCode, allow_code, say


def job(
    results: Annotated[
        str, typer.Argument(metavar="DATASET_ID", help="Private dataset for the run folder.")
    ],
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC.yaml]", help="Default: the zoo.")
    ] = None,
    image: Annotated[
        str, typer.Option(help="A Docker image or hf.co/spaces/org/name that has Morphing.")
    ] = ...,  # type: ignore[assignment]
    flavor: Annotated[str, typer.Option(help="Hardware, for example a10g-small.")] = "cpu-basic",
    timeout: Annotated[str, typer.Option(help="For example 90m or 4h.")] = "2h",
    code: AllowCode = False,
) -> None:
    """Run a search on hardware rented from the Hub; you pay for it."""
    from morphing.benchmarks.sandbox.check import code_allowed
    from morphing.jobs.launch import launch
    from morphing.runs.spec import load_spec, zoo_spec

    allow_code(code)
    asked = load_spec(spec) if spec else zoo_spec()
    started = launch(
        asked, results, image=image, flavor=flavor, timeout=timeout, allow_code=code_allowed()
    )
    say(f"Started the Job {started.url}; its run folder goes to the dataset {results}")


def app_command(
    port: Annotated[int | None, typer.Option(help="Default: 7860.")] = None,
    code: AllowCode = False,
) -> None:
    """Serve the app."""
    from morphing.ui.app import launch

    allow_code(code)
    launch(port=port)
