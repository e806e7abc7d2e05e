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
    host: Annotated[
        str | None,
        typer.Option(help="The address to bind to, such as 0.0.0.0. Default: this machine only."),
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Serve it through a public link of Gradio's, too.")
    ] = False,
    code: AllowCode = False,
) -> None:
    """Serve the app. Where others can reach it, it is careful: see docs/serving.md."""
    from morphing.visitors import serve_at

    allow_code(code)
    serve_at(host, share)  # before the Hub's client is imported, which may take no login then
    from morphing.ui.app import launch

    launch(port=port, host=host, share=share)
