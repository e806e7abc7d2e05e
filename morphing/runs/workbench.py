"""A run's models in memory: score, export or talk to any of its recipes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from morphing.devices import check_memory, resolve_device
from morphing.merging.recipe import Recipe
from morphing.runs.run import Part, Run
from morphing.runs.spec import BenchmarkUse, RunSpec
from morphing.runs.trial import Result, write_atomically

if TYPE_CHECKING:
    from morphing.benchmarks.evaluate import Score
    from morphing.benchmarks.load import Sample
    from morphing.merging.lora import AdapterReport

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def quiet(step: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def prefixed(prefix: str, progress: Progress) -> Progress:
    """``progress`` with ``prefix`` before every step."""

    def report(step: str, done: int, total: int) -> None:
        progress(f"{prefix}{step}", done, total)

    return report


class Workbench:
    """Base and sources of a run resident in memory, and one model that is morphed in place.

    Raises:
        MorphingError: a source cannot be had, or the memory is too small (said before loading).
    """

    def __init__(self, run: Run, token: str | None = None, progress: Progress = quiet) -> None:
        import torch
        from transformers.utils import logging

        from morphing.merging.morph import Morpher, required_memory
        from morphing.sources.source import download, inspect

        logging.disable_progress_bar()  # ``progress`` shows the loading
        spec = run.spec
        self.run = run
        self.device = resolve_device(spec.device)
        names = (spec.base, *spec.sources)
        sources = []
        for name in names:
            progress(f"getting {name}", 0, 0)
            fetched = partial(_megabytes, partial(progress, f"downloading {name} (MB)"))
            sources.append(download(name, token, fetched))
        inspections = [inspect(str(source.folder), token) for source in sources]
        self.layers = inspections[0].layers
        dtype = getattr(torch, spec.dtype)
        needed = required_memory(inspections[0], inspections[1:], dtype, spec.placement)
        check_memory(needed, self.device)
        progress("loading", 0, 0)
        self.morpher = Morpher(sources[0], sources[1:], self.device, dtype, spec.placement)
        self._token = token
        # One load a benchmark and split: datasets read and split them anew each time.
        self._samples = cache(self._load_samples)

    def _load_samples(self, use: BenchmarkUse, part: Part) -> list[Sample]:
        from morphing.benchmarks.load import Sample, load_samples

        # Kept in the run: it goes on without the Hub, and on the same samples whatever happens.
        benchmark = use.declaration
        path = self.run.folder / "samples" / part / f"{benchmark.name}.json"
        samples = TypeAdapter(list[Sample])
        if path.exists():
            return samples.validate_json(path.read_bytes())
        count = use.samples if part == "search" else use.holdout
        loaded = load_samples(benchmark, part, count, token=self._token)
        write_atomically(path, samples.dump_json(loaded))
        return loaded

    def morph(self, recipe: Recipe) -> float:
        """Change the loaded model into ``recipe``; returns its relative L1 distance to the base."""
        return self.morpher.morph(recipe)

    def score(self, part: Part, progress: Progress = quiet) -> dict[str, Score]:
        """Score the loaded model on the objectives' search split or on every holdout split."""
        from morphing.benchmarks.evaluate import evaluate

        spec = self.run.spec
        scores = {}
        for use in spec.tasks if part == "search" else spec.benchmarks:
            benchmark = use.declaration
            scores[benchmark.name] = evaluate(
                self.morpher.model,
                self.morpher.tokenizer,
                benchmark,
                self._samples(use, part),
                batch_size=spec.batch_size,
                progress=partial(progress, benchmark.name),
            )
        return scores

    def reference_results(
        self, part: Part, progress: Progress = quiet
    ) -> Mapping[str, Mapping[str, Result]]:
        """Results of the base and every source on ``part``; scored once, then read back."""
        spec = self.run.spec
        known = self.run.reference_scores(part)
        for name in (spec.base, *spec.sources):
            if name not in known:
                self.morph(alone(name, spec))
                scores = self.score(part, prefixed(f"{name} on ", progress))
                known[name] = {b: Result.of(score) for b, score in scores.items()}
                self.run.save_reference(part, name, known[name])
        return known

    def holdout_results(self, number: int, progress: Progress = quiet) -> Mapping[str, Result]:
        """A trial's results on the holdout splits; scored once, then read back."""
        known = self.run.holdout(number)
        if known is None:
            self.morph(self.run.trial(number).recipe)
            scores = self.score("holdout", progress)
            known = {name: Result.of(score) for name, score in scores.items()}
            self.run.save_holdout(number, known)
        return known

    def export(self, number: int, folder: Path, progress: Progress = quiet) -> None:
        """Write a trial's model to ``folder`` as an ordinary checkpoint."""
        from morphing.merging.export import export

        recipe = self.run.trial(number).recipe
        written = partial(_megabytes, partial(progress, "writing (MB)"))
        export(self.morpher.engine, recipe, folder, written)

    def export_adapter(
        self, number: int, folder: Path, rank: int, progress: Progress = quiet
    ) -> AdapterReport:
        """Write a trial's model to ``folder`` as a LoRA adapter of the base."""
        from morphing.merging.adapter_export import export_adapter

        recipe = self.run.trial(number).recipe
        merged = partial(_megabytes, partial(progress, "merging (MB)"))
        return export_adapter(self.morpher.engine, recipe, folder, rank, merged)


def _megabytes(progress: Callable[[int, int], None], done: int, total: int) -> None:
    progress(done // 10**6, total // 10**6)


def alone(name: str, spec: RunSpec) -> Recipe:
    """The recipe that is one model as it is."""
    config: dict[str, Any] = {
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": 1.0}}],
        "dtype": "float32",
        "out_dtype": spec.dtype,
    }
    return Recipe(config)


class Stopwatch:
    """Seconds since it was made, without the time spent paused."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def skip(self, seconds: float) -> None:
        """Do not count ``seconds``."""
        self._start += seconds

    @property
    def seconds(self) -> float:
        """Seconds counted so far."""
        return time.monotonic() - self._start
