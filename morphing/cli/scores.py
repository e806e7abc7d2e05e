"""The verbs about benchmarks: evaluate, benchmarks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from morphing.cli.common import AllowCode, allow_code, say, show
from morphing.errors import MorphingError

if TYPE_CHECKING:
    from morphing.benchmarks.benchmark import Benchmark
    from morphing.benchmarks.data.sample import Sample
    from morphing.benchmarks.results import Score
    from morphing.runs.single import Single

_NAMES = "A name of the catalogue, a YAML file, lm_eval:TASK, or a dataset (Hub id or file)."


def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A Hub id, folder, zoo:NAME or model+adapter."),
    ],
    benchmark: Annotated[
        list[str], typer.Option("--benchmark", "-b", metavar="NAME", help=f"{_NAMES} Repeatable.")
    ],
    samples: Annotated[
        int, typer.Option(min=1, help="At most so many of each benchmark; a run's are 500.")
    ] = 500,
    part: Annotated[
        Literal["search", "holdout"], typer.Option(help="Which samples: a report's, or a search's.")
    ] = "holdout",
    base: Annotated[
        str | None, typer.Option(help="Of an adapter, where its own configuration names none.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Default: what fits the memory.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu.")] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Default: the model's own."),
    ] = "auto",
    thinking: Annotated[
        Literal["auto", "on", "off"] | None,
        typer.Option(help="Whether the model thinks first. Default: as the benchmark says."),
    ] = None,
    outputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every answer: .jsonl, or .jsonl.gz, compressed."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, nothing else.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Trust what is guessed of a dataset's columns.")
    ] = False,
    code: AllowCode = False,
) -> None:
    """Score one model or adapter by itself."""
    from morphing.cli.tables import print_scores, scores_data
    from morphing.cli.terminal import step_bar
    from morphing.runs.outputs import write_outputs
    from morphing.runs.single import load_single

    allow_code(code)
    if outputs is not None and not outputs.name.endswith((".jsonl", ".jsonl.gz")):
        raise MorphingError(f"--outputs {outputs} must end in .jsonl or .jsonl.gz.")
    chosen = [_trusted(name, yes) for name in benchmark]
    if thinking is not None:
        chosen = [each.with_thinking(thinking) for each in chosen]
    names = [each.name for each in chosen]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise MorphingError(f"The benchmark {min(repeated)!r} is named twice: name each once.")
    try:
        with step_bar() as progress:
            asked = []
            for each in chosen:
                progress(f"reading {each.name}", 0, 0)
                asked.append(_ready(each, part, samples))
            single = load_single(model, base, device, dtype, progress=progress)
            scores = {
                each.name: _score(single, each, drawn, batch_size, progress)
                for each, drawn in asked
            }
    except KeyboardInterrupt:
        say("Interrupted; nothing was written.")
        raise typer.Exit(130) from None
    if outputs is not None:
        write_outputs(outputs, {name: score.outputs for name, score in scores.items()})
    declared = [each for each, _ in asked]
    if as_json:
        data = scores_data(single, declared, scores, part)
        show(json.dumps(data, ensure_ascii=False, indent=2))
    else:
        print_scores(single, declared, scores, part)


def benchmarks(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help=f"{_NAMES} Default: list the catalogue.")
    ] = None,
) -> None:
    """List the catalogue, or show one benchmark as YAML with three filled-in examples."""
    from morphing.benchmarks.find import examples, find_benchmark
    from morphing.cli.tables import described, example_text, print_catalogue

    if name is None:
        print_catalogue()
        return
    found = find_benchmark(name)
    show(described(found.benchmark).rstrip("\n"))
    for sample in examples(found.benchmark):
        # As comments, so that the whole can be kept as a benchmark of one's own.
        lines = example_text(sample).splitlines()
        show("\n" + "\n".join(f"# {line}".rstrip() for line in lines))


def _trusted(name: str, trusted: bool) -> Benchmark:
    """The benchmark, once what was guessed of it has been seen and found right."""
    from morphing.benchmarks.find import examples, find_benchmark
    from morphing.cli.tables import described, example_text

    found = find_benchmark(name)
    if not found.guessed or trusted:
        return found.benchmark
    say(f"What {name} seems to be:\n\n{described(found.benchmark)}")
    for sample in examples(found.benchmark):
        say(f"{example_text(sample)}\n")
    mend = (
        f"`morphing benchmarks {quote(name)} > mine.yaml` writes it down, to be changed and named"
    )
    if not sys.stdin.isatty():
        raise MorphingError(
            f"The columns of {name} were guessed: say --yes if the examples above are right, or"
            f" {mend} as --benchmark mine.yaml."
        )
    if not typer.confirm("Score on this?", default=True, err=True):
        say(f"{mend[0]}{mend[1:]} as --benchmark mine.yaml.")
        raise typer.Exit(1)
    return found.benchmark


def _ready(
    benchmark: Benchmark, part: Literal["search", "holdout"], samples: int
) -> tuple[Benchmark, list[Sample]]:
    """The benchmark with its data pinned, and its samples; or why it cannot be scored here."""
    from morphing.benchmarks.data.dataset import pin_benchmark
    from morphing.benchmarks.data.samples import load_samples
    from morphing.benchmarks.leave import require_leave

    require_leave(benchmark)
    pinned = pin_benchmark(benchmark)
    return pinned, load_samples(pinned, part, samples)


def _score(
    single: Single,
    benchmark: Benchmark,
    samples: list[Sample],
    batch_size: int | None,
    progress: Any,
) -> Score:
    from functools import partial

    from morphing.benchmarks.evaluate import evaluate as scored

    return scored(
        single.model,
        single.tokenizer,
        benchmark,
        samples,
        batch_size=batch_size,
        progress=partial(progress, benchmark.name),
    )
