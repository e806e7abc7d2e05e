"""From a trial of a run to a folder with a truthful card, and to the Hub."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import morphing
from morphing.errors import MorphingError
from morphing.publishing.card import write_card
from morphing.publishing.facts import CardFacts, ObjectiveLine, ScoreLine, Standing
from morphing.publishing.push import check_push, push
from morphing.runs import selection
from morphing.runs.conditions import conditions_of, described_conditions, mixed
from morphing.runs.figures import figures_of
from morphing.runs.holdout import Using, own_workbench, score_holdout
from morphing.runs.objectives import shown_value
from morphing.runs.progress import Progress, quiet
from morphing.runs.run import Part, Run
from morphing.runs.scales import Scales
from morphing.runs.stage_model import STAGE_MODEL, stage_model
from morphing.runs.trial import Result, Trial
from morphing.runs.workbench import Workbench
from morphing.sources.find import inspect

if TYPE_CHECKING:
    from morphing.merging.writing.lora import AdapterReport


def card_facts(run: Run, number: int, title: str, token: str | None = None) -> CardFacts:
    """What a card may say of a trial: what the run recorded, and the licences of what it merges.

    Raises:
        MorphingError: the run has no such completed trial.
    """
    trial = run.trial(number)
    spec, figures = run.spec, figures_of(run)
    chosen = selection.selection(run, [number])
    own = chosen.of_trial(number) if chosen else None
    models = {model.name: model for model in chosen.models} if chosen else {}
    stage = stage_model(run) if STAGE_MODEL in trial.recipe.references else None
    return CardFacts(
        title=title,
        base=spec.base,
        sources=spec.sources,
        recipe=trial.recipe,
        search=_lines(run, "search", trial.results or {}),
        holdout=_lines(run, "holdout", run.holdout(number) or {}, own),
        reference_search=_references(run, "search", {}),
        reference_holdout=_references(run, "holdout", models),
        run={
            "sampler": spec.search.sampler,
            "space": spec.search.space.strategy,
            "evaluations": figures.evaluations,
            "failed": figures.failed,
            "raced": figures.raced,
            "seed": spec.search.seed,
            "trial": number,
            "front": len(figures.front),
            "on_front": number in figures.front,
        },
        version=morphing.__version__,
        licenses=_licenses(run, token),
        digests=spec.digests,
        stage=stage.recipe if stage else None,
        objectives=_objectives(run, trial, figures.scales),
        constraints=figures.constraints,
        remarks=_remarks(run, trial),
        standing=_standing(own, chosen.best_of(spec.sources) if chosen else None),
    )


def write_export(
    run: Run,
    number: int,
    folder: Path,
    *,
    workbench: Workbench | None = None,
    progress: Progress = quiet,
) -> None:
    """Write a trial's model and its card to a new folder.

    Raises:
        MorphingError: no such trial, the folder is in use, or the disk is full.
    """
    run.trial(number)
    workbench = workbench or Workbench(run, progress=progress)
    workbench.export(number, folder, progress)
    write_card(folder, card_facts(run, number, folder.resolve().name))


def write_adapter_export(
    run: Run,
    number: int,
    folder: Path,
    rank: int,
    *,
    workbench: Workbench | None = None,
    progress: Progress = quiet,
) -> AdapterReport:
    """Write a trial's model as a LoRA adapter of the base, and its card, to a new folder.

    Raises:
        MorphingError: as `write_export`, or the merge is nothing an adapter can hold.
    """
    run.trial(number)
    workbench = workbench or Workbench(run, progress=progress)
    report = workbench.export_adapter(number, folder, rank, progress)
    facts = card_facts(run, number, folder.resolve().name)
    write_card(folder, replace(facts, adapter_error=report.error))
    return report


def publish(
    run: Run,
    number: int,
    repo_id: str,
    token: str | None = None,
    *,
    private: bool = True,
    using: Using | None = None,
    progress: Progress = quiet,
) -> str:
    """Score a trial on the holdout beside its sources, export it, push it; returns its address.

    What can be refused early (no login, a name that is not yours) is refused before any work.
    ``using`` gives the workbench, by default one of its own, for each model that is scored and for
    the export; not for the upload.

    Raises:
        MorphingError: no such trial, no or a refused login, or the Hub's refusal in its words.
    """
    run.trial(number)
    repo_id = check_push(repo_id, token, private=private)
    using = using or own_workbench(run, token, progress)
    score_holdout(run, [number], using, progress)
    # Kept until the Hub has it, so that a broken upload can be tried again at once.
    folder = run.folder / "exports" / f"{number:05d}"
    if not folder.exists():
        with using() as bench:
            bench.export(number, folder, progress)
    progress("uploading", 0, 1)
    facts = card_facts(run, number, repo_id.split("/")[-1], token)
    url = push(folder, repo_id, token, private=private, facts=facts)
    shutil.rmtree(folder)
    progress("uploading", 1, 1)
    return url


def _remarks(run: Run, trial: Trial) -> tuple[str, ...]:
    """How the trial's scores were made, and whether that was always the same in the run."""
    results = [*(trial.results or {}).values(), *(run.holdout(trial.number) or {}).values()]
    known = [result.conditions for result in results if result.conditions is not None]
    told = [f"Scored in {described_conditions(known[0])}."] if known else []
    told += [mixed(conditions_of(run)) or ""]
    told += [remark for result in results for remark in result.remarks]
    return tuple(dict.fromkeys(filter(None, told)))


def _lines(
    run: Run, part: Part, results: Mapping[str, Result], known: selection.Standing | None = None
) -> tuple[ScoreLine, ...]:
    intervals = known.estimates.scores if known else {}
    lines = []
    for use in run.spec.benchmarks:
        benchmark = use.declaration
        if benchmark.name in results:
            result, interval = results[benchmark.name], intervals.get(benchmark.name)
            split = (benchmark.holdout_split if part == "holdout" else None) or benchmark.split
            lines.append(
                ScoreLine(
                    benchmark=benchmark.name,
                    title=benchmark.title or benchmark.name,
                    dataset=benchmark.dataset,
                    revision=benchmark.revision,
                    part=part,
                    split=split,
                    metric=benchmark.metric,
                    value=result.value,
                    n=result.n,
                    stderr=result.stderr,
                    interval=(interval.low, interval.high) if interval else None,
                    share=benchmark.share,
                    contaminated=use.objective and benchmark.contaminates,
                    lower_is_better=(use.direction or benchmark.direction) == "minimize",
                    unfinished=result.unfinished,
                    thinking=result.conditions.thinking if result.conditions else "auto",
                )
            )
    return tuple(lines)


def _licenses(run: Run, token: str | None) -> dict[str, str | None]:
    """Each model's declared licence; nothing where one cannot be asked, for example offline."""
    names = (run.spec.base, *run.spec.sources)
    try:
        return {name: inspect(name, token).license for name in names}
    except MorphingError:
        return {}


def _references(
    run: Run, part: Part, known: Mapping[str, selection.Standing]
) -> dict[str, tuple[ScoreLine, ...]]:
    return {
        model: _lines(run, part, results, known.get(model))
        for model, results in run.reference_scores(part).items()
    }


def _objectives(run: Run, trial: Trial, scales: Scales | None) -> tuple[ObjectiveLine, ...]:
    spec = run.spec
    lines = []
    for i, (name, direction) in enumerate(zip(spec.objectives, spec.directions, strict=True)):
        shown = partial(shown_value, spec, name)
        ends = (shown(scales.reference[i]), shown(scales.ideal[i])) if scales else ()
        lines.append(ObjectiveLine(name, direction, shown(trial.values[i]), *ends))
    return tuple(lines)


def _standing(own: selection.Standing | None, best: selection.Standing | None) -> Standing | None:
    if own is None or best is None:
        return None
    mean, ahead = own.estimates.mean, own.against[best.name].mean
    return Standing(astuple(mean), best.name, astuple(ahead)) if mean and ahead else None
