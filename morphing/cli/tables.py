"""What is printed of benchmarks and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from morphing import __version__
from morphing.benchmarks.benchmark import Benchmark, catalogue
from morphing.benchmarks.find import asked_and_expected
from morphing.cli.common import show
from morphing.cli.terminal import console
from morphing.inert import visible
from morphing.runs.conditions import unfinished_remark
from morphing.runs.objectives import shown_score
from morphing.runs.trial import Result

if TYPE_CHECKING:
    from morphing.benchmarks.data.sample import Sample
    from morphing.benchmarks.results import Score
    from morphing.runs.single import Single


def print_catalogue() -> None:
    """Every benchmark that ships with Morphing."""
    table = Table(caption="◐ halves a split that others report scores on, for search and report")
    for head in ("name", "title", "language", "kind", "search split", "holdout split", ""):
        table.add_column(head)
    for benchmark in catalogue().values():
        searched, held = benchmark.split, benchmark.holdout_split
        table.add_row(
            benchmark.name,
            benchmark.title,
            benchmark.language or "",
            benchmark.kind.replace("_", " "),
            f"{searched}, half" if held is None else searched,
            f"{searched}, half" if held is None else held,
            "◐" if benchmark.contaminates else "",
        )
    console().print(table)


def described(benchmark: Benchmark) -> str:
    """The declaration as YAML, without what is left at its default."""
    import yaml

    class Readable(yaml.SafeDumper):
        """Texts of several lines as such, quotes that need no doubling."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        # Only in double quotes is U+202E, shown as \u202e, the same character when read again.
        live = visible(value, lines=True) != value
        style = '"' if live else "|" if "\n" in value else '"' if "'" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)

    Readable.add_representer(str, text)
    data = benchmark.model_dump(mode="json", exclude_defaults=True)
    return yaml.dump(data, None, Readable, sort_keys=False, allow_unicode=True, width=10**6)


def example_text(sample: Sample) -> str:
    """A filled-in sample: what is asked, and what is expected."""
    prompt, target = asked_and_expected(sample)
    lines = [f"[{sample.id}]", *([f"(system) {sample.system}"] if sample.system else []), prompt]
    if sample.choices:
        lines += [
            f"  {'✓' if index == sample.target else '·'} {choice.strip()}{sample.continuation}"
            for index, choice in enumerate(sample.choices)
        ]
    elif target:
        lines.append(f"  ✓ {target}")
    return "\n".join(lines)


def print_scores(
    single: Single, benchmarks: Sequence[Benchmark], scores: Mapping[str, Score], part: str
) -> None:
    """A table of scores with their standard errors."""
    on = f" on {single.base}" if single.base else ""
    table = Table(title=f"{single.name}{on}", caption=f"{part} samples; ± one standard error")
    table.add_column("benchmark")
    table.add_column("metric")
    for head in ("score", "±", "samples", "cut prompts", "seconds"):
        table.add_column(head, justify="right")
    for benchmark in benchmarks:
        score = scores[benchmark.name]
        value, error = _shown(benchmark, score)
        table.add_row(
            benchmark.name,
            _metric(benchmark),
            value,
            error,
            str(score.n),
            str(score.truncated) if score.truncated else "",
            f"{score.seconds:.1f}",
        )
    console().print(table)
    if cut := sum(score.truncated for score in scores.values()):
        show(f"{cut} prompts were longer than the model's context and lost their beginning.")
    for benchmark in benchmarks:
        score = scores[benchmark.name]
        if told := unfinished_remark(benchmark.name, [Result.of(score)]):
            show(told)
        for remark in score.remarks:
            show(f"{benchmark.name}: {remark}")


def scores_data(
    single: Single, benchmarks: Sequence[Benchmark], scores: Mapping[str, Score], part: str
) -> dict[str, Any]:
    """All that `print_scores` says, and what it takes to repeat it, as plain data."""
    from importlib.metadata import version

    libraries = ["torch", "transformers", "datasets"]
    libraries += ["lm_eval"] if any(each.kind == "lm_eval" for each in benchmarks) else []
    return {
        "model": single.name,
        "base": single.base,
        "part": part,
        "dtype": str(single.model.dtype).removeprefix("torch."),
        "device": str(single.model.device),
        "versions": {
            "morphing": __version__,
            **{name: version(name) for name in libraries},
        },
        "scores": {
            benchmark.name: _score_data(benchmark, scores[benchmark.name])
            for benchmark in benchmarks
        },
    }


def _score_data(benchmark: Benchmark, score: Score) -> dict[str, Any]:
    return {
        "score": score.value,
        "stderr": score.stderr,
        "n": score.n,
        "metric": _metric(benchmark),
        "kind": benchmark.kind,
        "truncated": score.truncated,
        "unfinished": score.unfinished,
        "remarks": list(score.remarks),
        "conditions": asdict(score.conditions) if score.conditions else None,
        "tokens": score.tokens,
        "seconds": score.seconds,
        "dataset": benchmark.dataset,
        "config": benchmark.config,
        "revision": benchmark.revision,
        "rows": [output.id for output in score.outputs],
    }


def _metric(benchmark: Benchmark) -> str:
    return benchmark.metric or benchmark.task or ""


def _shown(benchmark: Benchmark, score: Score) -> tuple[str, str]:
    """Percent, but of what is no share: bits per byte, some metrics of lm-eval's."""
    if not benchmark.share:
        return shown_score(score.value, False), f"{score.stderr:.3f}"
    return shown_score(score.value, True), f"{100 * score.stderr:.1f}"
