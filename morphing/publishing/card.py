"""The model card of a merge: generated from what its run recorded, and from nothing else."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from morphing.merging.recipe import Recipe
from morphing.publishing.names import block, code, escape, hub_id, label, one_line, public

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

README = "README.md"
EVAL_RESULTS = ".eval_results"
TAGS = ("merge", "mergekit", "morphing")


@dataclass(frozen=True)
class ScoreLine:
    """One score: the mean ``value`` over ``n`` samples of a dataset's ``split``."""

    benchmark: str
    title: str
    dataset: str
    revision: str | None
    part: Literal["search", "holdout"]
    split: str
    metric: str
    value: float
    n: int
    stderr: float


@dataclass(frozen=True)
class CardFacts:
    """All that a card says.

    ``base`` and ``sources`` are pinned names; the ``reference_`` mappings hold the scores of base
    and sources by name. ``run`` has sampler, evaluations, seed, trial, front and on_front.
    ``licenses`` maps the names of base and sources to the licence each declares, if any.
    ``adapter_error`` is set for a LoRA adapter made of the merge: its `AdapterReport.error`.
    """

    title: str
    base: str
    sources: tuple[str, ...]
    recipe: Recipe
    search: tuple[ScoreLine, ...]
    holdout: tuple[ScoreLine, ...]
    reference_search: Mapping[str, tuple[ScoreLine, ...]]
    reference_holdout: Mapping[str, tuple[ScoreLine, ...]]
    run: Mapping[str, Any]
    version: str
    licenses: Mapping[str, str | None] = field(default_factory=dict)
    adapter_error: float | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Base and sources, each once."""
        return tuple(dict.fromkeys((self.base, *self.sources)))

    @property
    def license(self) -> str | None:
        """The licence all models share, ``other`` where they don't; None if not looked up."""
        if not self.licenses:
            return None
        names = {self.licenses.get(name) for name in self.models}
        shared = names.pop() if len(names) == 1 else None
        return shared or "other"


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
            dataset_revision=line.revision,
            notes=(
                f"{line.metric} of Morphing's benchmark {one_line(line.benchmark)}: holdout of"
                f" split {line.split}, n={line.n}, standard error {line.stderr:.4f}"
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
        license=facts.license,
        pipeline_tag="text-generation",
        tags=list(TAGS),
        model_name=one_line(facts.title) if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _hub_ids(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(repo for name in names if (repo := hub_id(name))))


def _eval_result(line: ScoreLine) -> "EvalResult":
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="text-generation",
        dataset_type=line.dataset,
        dataset_name=f"{one_line(line.title)} (holdout, n={line.n})",
        dataset_split=line.split,
        dataset_revision=line.revision,
        metric_type=line.metric,
        metric_value=round(line.value, 6),
        metric_name=f"{line.metric} (standard error {line.stderr:.4f})",
    )


def _introduction(facts: CardFacts) -> str:
    sources = "\n".join(f"- {label(name)}" for name in facts.sources)
    text = (
        f"A merge of these models onto their base {label(facts.base)}, by the method"
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


def _scores(facts: CardFacts) -> str:
    parts = ["## Scores" if facts.adapter_error is None else "## Scores of the whole merge"]
    if facts.holdout:
        parts.append(
            "**Holdout split**: samples the search never saw. Compare models by these.\n\n"
            + _table(facts, facts.holdout, facts.reference_holdout)
        )
    else:
        parts.append("This merge has not been scored on a holdout split.")
    if facts.search:
        parts.append(
            "**Search split**: the search chose this merge by these scores, so for the merge they"
            " are optimistic.\n\n" + _table(facts, facts.search, facts.reference_search)
        )
    parts.append(
        "Each number is the mean over n samples ± its standard error; accuracies are shares of"
        " right answers in percent."
    )
    return "\n\n".join(parts)


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
    if line.metric.startswith("evaluate:"):  # of any scale
        return f"{line.value:.4g} ± {line.stderr:.2g}"
    return f"{100 * line.value:.1f} ± {100 * line.stderr:.1f}"


def _about(line: ScoreLine) -> str:
    dataset = line.dataset + (f"@{line.revision}" if line.revision else "")
    where = label(dataset, "datasets/")
    return f"- {escape(line.title)}: {code(line.metric)} on {where}, split {code(line.split)}"


def _recipe(facts: CardFacts) -> str:
    text = f"## Recipe\n\n{block(published_recipe(facts.recipe), 'yaml')}\n\n"
    text += "It is a mergekit configuration"
    if facts.adapter_error is None:
        text += (
            "; `mergekit_config.yml` beside this card is the same with adapters and dtypes spelled"
            " out for mergekit"
        )
    text += "."
    if any(hub_id(name) is None for name in facts.models):
        text += " To run it, write folders where it names models that are not on the Hub."
    if facts.recipe.method.startswith(("dare", "della")):
        name = "DARE" if facts.recipe.method.startswith("dare") else "DELLA"
        text += (
            f" {name}'s masks are Morphing's, from the seed {facts.recipe.mask_seed}; mergekit"
            " draws its own at random, so it makes a model that differs in the dropped weights."
        )
    return text


def published_recipe(recipe: Recipe) -> str:
    """The recipe's YAML with no path of the machine it was made on."""
    return recipe.with_names(public).to_yaml()


def _provenance(facts: CardFacts) -> str:
    run = facts.run
    place = "on" if run["on_front"] else "not on"
    return (
        f"## Search\n\nTrial {run['trial']} of {run['evaluations']} evaluations with the sampler"
        f" {code(str(run['sampler']))}, seed {run['seed']}; it is {place} the search's Pareto front"
        f" (members: {run['front']}). Made with Morphing {escape(facts.version)}."
    )


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
