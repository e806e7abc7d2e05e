"""The model card of a merge: generated from what its run recorded, and from nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from morphing.inert import one_line
from morphing.merging.recipe import Recipe
from morphing.publishing.facts import CardFacts, ObjectiveLine, ScoreLine, Standing
from morphing.publishing.names import block, code, escape, hub_id, label, public
from morphing.runs.stage_model import STAGE_MODEL

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

README = "README.md"
EVAL_RESULTS = ".eval_results"
TAGS = ("merge", "mergekit", "morphing")

_SPACES = {
    "ps": "merge parameters",
    "dfs": "layer paths",
    "ps+dfs": "merge parameters, then layer paths",
}


def write_card(folder: Path, facts: CardFacts, address: str | None = None) -> None:
    """Write README.md and the evaluation results into an exported folder.

    ``address`` is what ``from_pretrained`` shall be given; by default the folder's name.
    """
    for path, text in card_files(facts, address or folder.resolve().name).items():
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")


def card_files(facts: CardFacts, address: str) -> dict[str, str]:
    """README.md and the evaluation results, as texts by their path in the repository."""
    # An adapter is not the model that was scored.
    results = eval_results(facts) if facts.adapter_error is None else {}
    return {README: model_card(facts, address), **results}


def model_card(facts: CardFacts, address: str) -> str:
    """The README: metadata for the Hub, then what was merged, how it scored and how to use it."""
    sections = (
        f"---\n{_metadata(facts)}\n---",
        f"# {escape(facts.title)}",
        _introduction(facts),
        _scores(facts),
        _recipe(facts),
        _provenance(facts),
        _licenses(facts),
        _use(address) if facts.adapter_error is None else _use_adapter(address),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def eval_results(facts: CardFacts) -> dict[str, str]:
    """`.eval_results/<benchmark>.yaml` by path, one for each holdout score on a dataset of the Hub.

    Search scores stay out of them: the search chose by those. The task is always "default", since
    a dataset's own task ids, where it defines any, are about its own way of scoring.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    files = {}
    for line in facts.holdout:
        if hub_id(line.dataset) is None:
            continue
        entry = EvalResultEntry(
            dataset_id=line.dataset,
            task_id="default",
            value=round(line.value, 6),
            dataset_revision=one_line(line.revision) if line.revision else None,
            notes=(
                f"{one_line(line.metric)} of Morphing's benchmark {one_line(line.benchmark)}:"
                f" holdout of split {one_line(line.split)}, n={line.n}, {_error(line)}"
                + (
                    "; the search chose by the other half of that split"
                    if line.contaminated
                    else ""
                )
            ),
        )
        name = re.sub(r"[^A-Za-z0-9_-]", "-", line.benchmark)
        data = eval_result_entries_to_yaml([entry])
        files[f"{EVAL_RESULTS}/{name}.yaml"] = yaml.safe_dump(
            data, sort_keys=False, allow_unicode=True
        )
    return files


def _metadata(facts: CardFacts) -> str:
    """YAML naming only what is on the Hub: zoo models and local folders are in the text."""
    from huggingface_hub import ModelCardData

    scores = (*facts.search, *facts.holdout)
    results = [_eval_result(line) for line in facts.holdout if hub_id(line.dataset)]
    models, relation, library = _hub_ids(facts.models), "merge", "transformers"
    if facts.adapter_error is not None:
        results, models, relation, library = [], _hub_ids([facts.base]), "adapter", "peft"
    data = ModelCardData(
        base_model=models or None,
        base_model_relation=relation if models else None,
        datasets=_hub_ids(line.dataset for line in scores) or None,
        library_name=library,
        license=one_line(facts.license) if facts.license else None,
        pipeline_tag="text-generation",
        tags=list(TAGS),
        model_name=one_line(facts.title) if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _hub_ids(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(repo for name in names if (repo := hub_id(name))))


def _eval_result(line: ScoreLine) -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="text-generation",
        dataset_type=line.dataset,
        dataset_name=f"{one_line(line.title)} (holdout, n={line.n})",
        dataset_split=one_line(line.split),
        dataset_revision=one_line(line.revision) if line.revision else None,
        metric_type=one_line(line.metric),
        metric_value=round(line.value, 6),
        metric_name=f"{one_line(line.metric)} ({_error(line)})",
    )


def _error(line: ScoreLine) -> str:
    if line.interval is None:
        return f"standard error {line.stderr:.4f}"
    low, high = line.interval
    return f"95 % interval {low:.4f} to {high:.4f}"


def _introduction(facts: CardFacts) -> str:
    sources = "\n".join(f"- {_identity(facts, name)}" for name in facts.sources)
    text = (
        f"A merge of these models onto their base {_identity(facts, facts.base)}, by the method"
        f" {code(facts.recipe.method)}:\n\n{sources}\n\n"
        "No training took place: every weight is computed from theirs by the recipe below, which"
        " a search by Morphing found."
    )
    if facts.adapter_error is not None:
        text = (
            f"A LoRA adapter of {label(facts.base)} that approximates a merge. It misses"
            f" {100 * facts.adapter_error:.2g} % of the merge's change of the base (Frobenius"
            f" norm; `adapter_report.json` says it by tensor), and has not been scored itself.\n\n"
            + text
        )
    return text


def _identity(facts: CardFacts, name: str) -> str:
    """A model and, where no commit says what it was, the digest of its files."""
    digest = facts.digests.get(name)
    return label(name) + (f", content {code(digest)}" if digest else "")


def _scores(facts: CardFacts) -> str:
    parts = ["## Scores" if facts.adapter_error is None else "## Scores of the whole merge"]
    if facts.holdout:
        parts.append(
            "**Holdout split**: samples the search never saw. Compare models by these.\n\n"
            + _table(facts, facts.holdout, facts.reference_holdout)
        )
        if facts.standing is not None:
            alike = all(line.share and not line.lower_is_better for line in facts.holdout)
            which = "" if alike else " that are in percent and better when higher"
            parts.append(_standing(facts.standing, which))
    else:
        parts.append("This merge has not been scored on a holdout split.")
    if facts.search:
        parts.append(
            "**Search split**: the search chose this merge by these scores, so for the merge they"
            " are optimistic.\n\n" + _table(facts, facts.search, facts.reference_search)
        )
    if told := _contamination((*facts.holdout, *facts.search)):
        parts.append(told)
    if told := _thinking((*facts.holdout, *facts.search)):
        parts.append(told)
    parts.append(
        "Each number is the mean over n samples, with its 95 % interval from a bootstrap over"
        " samples [in brackets] or ± its standard error; accuracies are shares of right answers in"
        " percent."
    )
    if facts.remarks:
        parts.append(" ".join(map(escape, facts.remarks)))
    return "\n\n".join(parts)


def _thinking(lines: Iterable[ScoreLine]) -> str:
    """Where models were asked to think or not to, and how many answers ended inside a thought."""
    told = []
    for line in lines:
        if line.thinking != "auto" or line.unfinished:
            asked = (
                "" if line.thinking == "auto" else f" asked with thinking {escape(line.thinking)}"
            )
            ended = (
                f" {line.unfinished} of {line.n} answers ended inside a thought and count as wrong"
                if line.unfinished
                else ""
            )
            both = f"{asked};{ended}" if asked and ended else asked or ended
            told.append(f"{escape(line.title)} ({line.part}):{both}.")
    return f"**Thinking**: {' '.join(told)}" if told else ""


def _contamination(lines: Iterable[ScoreLine]) -> str:
    seen = {line.benchmark: line for line in lines if line.contaminated}
    if not seen:
        return ""
    named = ", ".join(f"{escape(line.title)} ({code(line.split)})" for line in seen.values())
    return (
        f"**Contamination**: the search had no split of its own for {named}: it chose by one half,"
        " and the holdout is the other. Scores there are no fair entry in rankings on the whole"
        " split."
    )


def _standing(standing: Standing, which: str) -> str:
    value, low, high = (100 * each for each in standing.mean)
    ahead, least, most = (100 * each for each in standing.ahead)
    return (
        f"Mean over the search's benchmarks{which}: {value:.1f} [{low:.1f}, {high:.1f}]. Less that"
        f" of {label(standing.best_source)}, the best source there: {ahead:+.1f} [{least:+.1f},"
        f" {most:+.1f}] (paired by sample)."
    )


def _table(
    facts: CardFacts, own: Iterable[ScoreLine], references: Mapping[str, tuple[ScoreLine, ...]]
) -> str:
    own = tuple(own)
    rows = [("**this merge**", own)]
    rows += [(label(name), references[name]) for name in facts.models if name in references]
    header = " | ".join(f"{escape(line.title)} (n = {line.n})" for line in own)
    lines = [f"| model | {header} |", f"| --- |{' ---: |' * len(own)}"]
    for name, scores in rows:
        by_benchmark = {line.benchmark: line for line in scores}
        cells = (_cell(by_benchmark.get(line.benchmark)) for line in own)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join((*lines, "", *(_about(line) for line in own)))


def _cell(line: ScoreLine | None) -> str:
    if line is None:
        return "–"
    scale, digits, error = (100, ".1f", ".1f") if line.share else (1, ".4g", ".2g")
    value = f"{scale * line.value:{digits}}"
    if line.interval is None:
        return f"{value} ± {scale * line.stderr:{error}}"
    low, high = line.interval
    return f"{value} [{scale * low:{digits}}, {scale * high:{digits}}]"


def _about(line: ScoreLine) -> str:
    dataset = line.dataset + (f"@{line.revision}" if line.revision else "")
    where = label(dataset, "datasets/")
    better = "; lower is better" if line.lower_is_better else ""
    return (
        f"- {escape(line.title)}: {code(line.metric)} on {where}, split {code(line.split)}{better}"
    )


def _recipe(facts: CardFacts) -> str:
    text = f"## Recipe\n\n{block(published_recipe(facts.recipe), 'yaml')}\n\n"
    text += "It is a mergekit configuration"
    if facts.adapter_error is None:
        text += (
            "; `mergekit_config.yml` beside this card is the same with adapters, chat template and"
            " dtypes spelled out for mergekit"
        )
    text += "."
    if any(hub_id(name) is None for name in facts.models):
        text += " To run it, write folders where it names models that are not on the Hub."
    if (model := facts.recipe.template_model) is not None:
        text += f" The chat template, and what ends an answer, are those of {label(model)}."
    text += _masks(facts.recipe)
    if facts.stage is not None:
        text += (
            f"\n\nThe model it calls {code(STAGE_MODEL)} is itself a merge, which the search found"
            f" first, by this recipe:\n\n{block(published_recipe(facts.stage), 'yaml')}\n\nMake"
            f" that one first, and write its folder for {code(STAGE_MODEL)}.{_masks(facts.stage)}"
        )
    return text


def _masks(recipe: Recipe) -> str:
    if not recipe.method.startswith(("dare", "della")):
        return ""
    name = "DARE" if recipe.method.startswith("dare") else "DELLA"
    return (
        f" {name}'s masks are Morphing's, from the seed {recipe.mask_seed}; mergekit"
        " draws its own at random, so it makes a model that differs in the dropped weights."
    )


def published_recipe(recipe: Recipe) -> str:
    """The recipe's YAML with no path of the machine it was made on."""
    return recipe.with_names(public).to_yaml()


def _provenance(facts: CardFacts) -> str:
    run = facts.run
    place = "on" if run["on_front"] else "not on"
    ended = [f"{run['failed']} failed"] if run["failed"] else []
    ended += [f"{run['raced']} given up on a part of the samples"] if run["raced"] else []
    spent = f"{run['evaluations']} evaluations" + (f" ({', '.join(ended)})" if ended else "")
    text = (
        f"## Search\n\nTrial {run['trial']} of {spent} with the sampler"
        f" {code(str(run['sampler']))}, seed {run['seed']}, over {_SPACES[run['space']]}"
        f" ({code(run['space'])}); it is {place} the search's Pareto front"
        f" (members: {run['front']}). Made with Morphing {escape(facts.version)}."
    )
    if facts.objectives:
        text += f"\n\n{_objectives(facts.objectives)}"
    if facts.constraints:
        kept = "; ".join(map(escape, facts.constraints))
        text += f"\n\nConstraints on members of the front: {kept}."
    return text


def _objectives(lines: tuple[ObjectiveLine, ...]) -> str:
    scaled = all(line.reference and line.ideal for line in lines)
    names = ("objective", "better", "this merge", *(("reference", "ideal") if scaled else ()))
    rows = [names, ("---", "---", *["---:"] * (len(names) - 2))]
    for line in lines:
        way = "higher" if line.direction == "maximize" else "lower"
        ends = (escape(line.reference), escape(line.ideal)) if scaled else ()
        rows.append((escape(line.name), way, escape(line.value), *ends))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    about = "The objectives on the search split, scores in percent."
    if scaled:
        about += " The search's hypervolume is measured from `reference`, 0, to `ideal`, 1."
    return f"{table}\n\n{about}"


def _licenses(facts: CardFacts) -> str:
    if not facts.licenses:
        return (
            "## License\n\nNot looked up: a merge is bound by the licences of its base and sources."
        )
    if facts.license != "other":
        shared = code(str(facts.license))
        return f"## License\n\nThe base and every source declare {shared}, and so does this merge."
    rows = (
        f"- {label(name)}: {code(facts.licenses.get(name) or 'none declared')}"
        for name in facts.models
    )
    return (
        "## License\n\nThe base and the sources do not all declare the same licence, so this merge"
        " declares `other`: you need to keep to all of these.\n\n" + "\n".join(rows)
    )


def _use(address: str) -> str:
    program = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({address!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({address!r})"
    )
    return f"## Use\n\n{block(program, 'python')}"


def _use_adapter(address: str) -> str:
    program = (
        "from peft import AutoPeftModelForCausalLM\n\n"
        f"model = AutoPeftModelForCausalLM.from_pretrained({address!r})"
    )
    return f"## Use\n\n{block(program, 'python')}"
