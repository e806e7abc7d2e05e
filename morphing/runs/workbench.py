"""A run's models in memory: score, export or talk to any of its recipes."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter

from morphing.devices import available_memory, check_memory, resolve_device
from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.files import MEBIBYTE, read_json, write_atomically
from morphing.runs.measures import measured, text_layers
from morphing.runs.models import fetch, made_by_stage
from morphing.runs.objectives import finite
from morphing.runs.plain_recipes import alone, layer_count
from morphing.runs.progress import Progress, megabytes, prefixed, quiet
from morphing.runs.racing import first_part
from morphing.runs.records import Record, is_whole, write_record
from morphing.runs.run import Part, Run
from morphing.runs.spec_parts import BenchmarkUse
from morphing.runs.stage_model import STAGE_MODEL
from morphing.runs.trial import Result

if TYPE_CHECKING:
    from morphing.benchmarks.data.sample import Sample
    from morphing.benchmarks.results import Prepared, Score
    from morphing.merging.writing.lora import AdapterReport

Piece = Literal["all", "first", "rest"]
_LONGEST_DRAW = 1024 * MEBIBYTE


class Workbench:
    """Base and sources of a run resident in memory, and one model that is morphed in place.

    Once a search in two stages has written the model its second stage needs (`runs.second_stage`),
    that model is one of the sources.

    Raises:
        ModelChanged: a source's files hold something else than when the run was made, or are gone.
        MorphingError: a source cannot be had, or the memory is too small (said before loading).
    """

    def __init__(
        self,
        run: Run,
        token: str | None = None,
        progress: Progress = quiet,
        device: str | None = None,
    ) -> None:
        from transformers.utils import logging

        from morphing.sources.find import inspect

        logging.disable_progress_bar()  # ``progress`` shows the loading
        spec = run.spec
        self.run = run
        self.device = resolve_device(device or spec.device)
        self._sources = [fetch(run, name, token, progress) for name in (spec.base, *spec.sources)]
        base = inspect(str(self._sources[0].folder), token)
        self.layers, self.architecture = base.layers, base.architecture
        self.token = token
        """With which it reads from the Hub; who shares it sets their own for their work."""
        # One load a benchmark and split: datasets read and split them anew each time.
        self._samples = cache(self._load_samples)
        self._tokens: dict[tuple[str, Part, Piece], list[tuple[object, Prepared]]] = {}
        self._load(progress)

    def _load(self, progress: Progress) -> None:
        import torch

        from morphing.merging.morph import Morpher, required_memory
        from morphing.sources.find import inspect

        sources = list(self._sources)
        if (made := made_by_stage(self.run)) is not None:
            sources.append(made)
        base, *others = (inspect(str(source.folder), self.token) for source in sources)
        dtype, placement = getattr(torch, self.run.spec.dtype), self.run.spec.placement
        self._layer_bytes = base.parameters * dtype.itemsize // max(base.layers, 1)
        check_memory(required_memory(base, others, dtype, placement), self.device)
        progress("loading", 0, 0)
        self.morpher = Morpher(sources[0], sources[1:], self.device, dtype, placement)
        self.check_models()  # they may have changed between the first look and now

    def check_models(self) -> None:
        """Refuse to go on with models whose files are no longer what they were; costs milliseconds.

        Raises:
            ModelChanged: naming the first of them.
        """
        from morphing.merging.models import check_contents

        check_contents(self.morpher.engine.models.values())

    def add_stage_model(self, progress: Progress = quiet) -> None:
        """Load the model that a second stage needs, if it is not loaded yet.

        Raises:
            MorphingError: the memory is too small; nothing is loaded then.
        """
        if STAGE_MODEL in self.morpher.engine.models:
            return
        del self.morpher  # there may not be the room for both
        gc.collect()
        self._load(progress)

    def _load_samples(self, use: BenchmarkUse, part: Part) -> list[Sample]:
        from morphing.benchmarks.data.samples import Draw, load_samples

        # Kept in the run: it goes on without the Hub, and on the same samples whatever happens.
        benchmark = use.declaration
        path = self.run.folder / "samples" / part / f"{benchmark.name}.json"
        draw = TypeAdapter(Draw)
        if path.exists():
            mend = "delete it, and the same samples are drawn again"
            kept = read_json(path, draw, mend, _LONGEST_DRAW).samples
            if not kept or any(_is_unanswerable(sample) for sample in kept):
                raise MorphingError(f"{path} has a sample without its answer, or none: {mend}.")
            return list(kept)
        count = use.samples if part == "search" else use.holdout
        loaded = load_samples(benchmark, part, count, token=self.token)
        write_atomically(path, draw.dump_json(Draw.of(benchmark, part, loaded)))
        return loaded

    def morph(self, recipe: Recipe) -> float:
        """Change the loaded model into ``recipe``; returns its relative L1 distance to the base.

        Raises:
            MorphingError: the recipe cannot be merged, or has so many layers more than the loaded
                model that there is no memory for them.
        """
        layers = layer_count(recipe)
        loaded = text_layers(self.morpher.model)
        needed = (layers - loaded) * self._layer_bytes
        if needed > (free := available_memory(self.device)):
            raise MorphingError(
                f"The recipe has {layers} layers, for which {needed / 2**30:.1f} GiB more are"
                f" needed on {self.device.type} and {free / 2**30:.1f} GiB are free: try fewer"
                " layers."
            )
        return self.morpher.morph(recipe)

    def score(
        self, part: Part, progress: Progress = quiet, piece: Piece = "all"
    ) -> dict[str, Score]:
        """Score the loaded model on the objectives' search split or on every holdout split.

        ``piece`` is the first part of the search split's samples that racing compares recipes on,
        or the rest, which may be nothing. Where recipes race, all is the two joined, so that every
        model is scored in the same batches.
        """
        from morphing.benchmarks.evaluate import evaluate

        spec = self.run.spec
        if piece == "all" and part == "search" and spec.search.racing:
            first, rest = (self.score(part, progress, each) for each in ("first", "rest"))
            return join(first, rest)
        scores = {}
        for use in spec.tasks if part == "search" else spec.benchmarks:
            prepared = self._prepared(use, part, piece)
            if prepared is not None:
                name = use.declaration.name
                scores[name] = evaluate(
                    self.morpher.model,
                    self.morpher.tokenizer,
                    use.declaration,
                    prepared,
                    batch_size=spec.batch_size,
                    progress=partial(progress, name),
                )
        return scores

    def _prepared(self, use: BenchmarkUse, part: Part, piece: Piece) -> Prepared | None:
        """The samples as tokens, which are kept for the next model; None where there are none."""
        from morphing.benchmarks.evaluate import prepare

        tokenizer, key = self.morpher.tokenizer, (use.declaration.name, part, piece)
        known = self._tokens.setdefault(key, [])
        for one, prepared in known:
            if one is tokenizer:
                return prepared
        samples = self._samples(use, part)
        cut = first_part(len(samples))
        chosen = {"all": samples, "first": samples[:cut], "rest": samples[cut:]}[piece]
        if not chosen:
            return None
        prepared = prepare(tokenizer, use.declaration, chosen)
        known.append((tokenizer, prepared))
        return prepared

    def sample_count(self, benchmark: str) -> int:
        """How many samples of the search split an objective has."""
        (use,) = (use for use in self.run.spec.tasks if use.declaration.name == benchmark)
        return len(self._samples(use, "search"))

    def reference_results(
        self, part: Part, progress: Progress = quiet, models: Sequence[str] | None = None
    ) -> Mapping[str, Mapping[str, Result]]:
        """Results of the base and every source on ``part``; scored once, then read back.

        ``models`` are those of them to be scored, by default all.
        """
        spec = self.run.spec
        for name in (spec.base, *spec.sources) if models is None else models:
            path = self.run.reference_path(part, name)
            if not is_whole(path):
                self._record(path, alone(name, spec), part, prefixed(f"{name} on ", progress), name)
        return self.run.reference_scores(part)

    def holdout_results(self, number: int, progress: Progress = quiet) -> Mapping[str, Result]:
        """A trial's results on the holdout splits; scored once, then read back."""
        path = self.run.holdout_path(number)
        if not is_whole(path):
            self._record(path, self.run.trial(number).recipe, "holdout", progress)
        return self.run.holdout_record(number).results

    def _record(
        self, path: Path, recipe: Recipe, part: Part, progress: Progress, model: str = ""
    ) -> None:
        distance = self.morph(recipe)
        scores = self.score(part, progress)
        objectives = {use.declaration.name for use in self.run.spec.tasks}
        asked = {name: score for name, score in scores.items() if name in objectives}
        self.check_models()
        whose = f"The model {model}" if model else "The trial"
        measures = measured(self.morpher.model, distance, asked)
        record = Record(
            {name: Result.of(score) for name, score in scores.items()},
            finite(self.run.spec, measures, whose),
            model,
        )
        write_record(path, record, {name: score.outputs for name, score in scores.items()})

    def export(self, number: int, folder: Path, progress: Progress = quiet) -> None:
        """Write a trial's model to ``folder`` as an ordinary checkpoint."""
        self.write(self.run.trial(number).recipe, folder, progress)

    def write(self, recipe: Recipe, folder: Path, progress: Progress = quiet) -> None:
        """Write a recipe's model to ``folder``, whole or not at all, as an ordinary checkpoint."""
        from morphing.merging.writing.checkpoint import export

        written = partial(megabytes, partial(progress, "writing (MB)"))
        export(self.morpher.engine, recipe, folder, written)

    def export_adapter(
        self, number: int, folder: Path, rank: int, progress: Progress = quiet
    ) -> AdapterReport:
        """Write a trial's model to ``folder`` as a LoRA adapter of the base."""
        from morphing.merging.writing.adapter import export_adapter

        recipe = self.run.trial(number).recipe
        merged = partial(megabytes, partial(progress, "merging (MB)"))
        return export_adapter(self.morpher.engine, recipe, folder, rank, merged)


def _is_unanswerable(sample: Sample) -> bool:
    """Whether the sample's target is the number of a choice that does not exist."""
    return isinstance(sample.target, int) and not 0 <= sample.target < len(sample.choices)


def join(first: Mapping[str, Score], rest: Mapping[str, Score]) -> dict[str, Score]:
    """The scores on all samples, from those on the first part and on the rest."""
    return {
        name: score.joined(rest[name]) if name in rest else score for name, score in first.items()
    }
