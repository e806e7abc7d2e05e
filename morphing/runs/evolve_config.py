"""mergekit-evolve's configurations as run specs, which search the same space by the same algorithm.

A ``genome`` says the models, the method and how finely its numbers differ over layers and tensors;
``tasks`` are lm-evaluation-harness' and are summed up by weights. What has no counterpart is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from morphing.errors import MorphingError
from morphing.runs.spec import RunSpec, load_spec, parse_spec
from morphing.yaml_files import complaints, kind_of, read_documents, read_text

_METHODS = ("linear", "task_arithmetic", "ties", "dare_ties", "slerp")
_EVALUATIONS = 100
"""mergekit-evolve's own default of ``--max-fevals``."""
_KINDS = {
    "attention": ("attn", "attention", "q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("mlp", "feed_forward", "gate_proj", "up_proj", "down_proj", "experts"),
    "embeddings": ("embed", "lm_head", "wte"),
    "norms": ("norm",),
}
"""Parts of the filters that people write, by the kind of module they are for."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Genome(_Model):
    """mergekit's ``ModelGenomeDefinition``."""

    models: tuple[str, ...] = Field(min_length=1)
    merge_method: str
    base_model: str | None = None
    tokenizer_source: str | None = None
    layer_granularity: int = Field(default=0, ge=0)
    normalize: bool | None = None
    allow_negative_weights: bool = False
    filters: tuple[str, ...] | None = None
    smooth: bool = False


class Task(_Model):
    """mergekit's ``TaskConfiguration``."""

    name: str
    weight: float = 1.0
    metric: str = "acc,none"

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Evolution(_Model):
    """mergekit's ``EvolMergeConfiguration``."""

    genome: Genome
    tasks: tuple[Task, ...] = Field(min_length=1)
    limit: int | None = Field(default=None, ge=1)
    num_fewshot: int | None = Field(default=None, ge=0)
    shuffle: bool = False
    random_init: bool = False
    apply_chat_template: bool = True
    fewshot_as_multiturn: bool = True


def read_search(path: Path, layers_of: Callable[[str], int]) -> tuple[RunSpec, list[str]]:
    """A run spec from a file, or from a configuration of mergekit-evolve.

    Args:
        path: YAML.
        layers_of: the number of layers of a model by its name; asked where the genome has groups.

    Returns:
        The spec, and what a person ought to know of how it was made.

    Raises:
        MorphingError: the file is neither, or what it asks for cannot be searched here.
    """
    documents = read_documents(read_text(path, "spec"), str(path))
    if len(documents) == 1 and kind_of(documents[0]) == "evolve":
        return convert(documents[0], layers_of, str(path))
    return load_spec(path), []


def convert(
    data: Mapping[str, Any], layers_of: Callable[[str], int], where: str
) -> tuple[RunSpec, list[str]]:
    """The run spec that searches what a configuration of mergekit-evolve does; see `read_search`.

    Raises:
        MorphingError: as `read_search` does; ``where`` begins the sentence.
    """
    try:
        evolution = Evolution.model_validate(data)
    except ValidationError as error:
        raise MorphingError(f"{where}: {complaints(error, Evolution)[0]}.") from error
    genome = evolution.genome
    if genome.merge_method not in _METHODS:
        raise MorphingError(
            f"{where}: genome.merge_method is {genome.merge_method!r}: mergekit-evolve has"
            f" {', '.join(_METHODS)}."
        )
    base, sources = _models(genome, where)
    space, notes = _space(genome, layers_of)
    spec = {
        "name": "evolve",
        "base": base,
        "sources": sources,
        "method": genome.merge_method,
        "benchmarks": [_benchmark(task, evolution) for task in evolution.tasks],
        "search": {
            "sampler": "evolve",
            "evaluations": _EVALUATIONS,
            "space": space,
            "weights": {task.name: task.weight for task in evolution.tasks},
        },
        "allow_unrelated_base": True,
    }
    if genome.tokenizer_source in ("base", "union"):
        spec["tokenizer_source"] = genome.tokenizer_source
    elif genome.tokenizer_source is not None:
        notes.append(
            f"tokenizer_source {genome.tokenizer_source} is left out: a search has base or union."
        )
    for task in evolution.tasks:
        if task.weight < 0:
            raise MorphingError(
                f"{where}: the task {task.name} has the weight {task.weight:g}: write 0 or more."
            )
    return parse_spec(spec, where), [*notes, *_other_notes(evolution)]


def _models(genome: Genome, where: str) -> tuple[str, list[str]]:
    """The base and the sources."""
    models = list(genome.models)
    if genome.merge_method == "slerp":
        if len(models) != 2:
            raise MorphingError(
                f"{where}: slerp between {len(models)} models, of which mergekit-evolve chooses two"
                " for each group of layers, cannot be searched here: name two models."
            )
        return models[0], models[1:]
    if genome.base_model is None:
        if genome.merge_method != "linear":
            raise MorphingError(f"{where}: {genome.merge_method} needs a genome.base_model.")
        return models[0], models
    return genome.base_model, [model for model in models if model != genome.base_model]


def _space(genome: Genome, layers_of: Callable[[str], int]) -> tuple[dict[str, Any], list[str]]:
    space: dict[str, Any] = {}
    notes = []
    if genome.layer_granularity:
        layers = layers_of(genome.models[0])
        if layers % genome.layer_granularity:
            raise MorphingError(
                f"genome.layer_granularity is {genome.layer_granularity}, and {genome.models[0]}"
                f" has {layers} layers: choose a divisor."
            )
        groups = layers // genome.layer_granularity
        if genome.smooth and groups > 1:
            space["gradient"] = groups
        else:
            space["layer_groups"] = groups
    kinds = []
    for text in genome.filters or ():
        kind = next((k for k, words in _KINDS.items() if any(w in text for w in words)), None)
        if kind is None:
            notes.append(f"The filter {text!r} is left out: it is for no kind of module.")
        elif kind not in kinds:
            kinds.append(kind)
            if text not in ("self_attn", "mlp"):
                notes.append(f"The filter {text!r} is searched as all {kind}.")
    if kinds:
        space["module_kinds"] = kinds
    if genome.merge_method != "slerp" and genome.allow_negative_weights:
        if genome.merge_method == "linear":
            notes.append("Negative weights are left out: a linear merge is searched as an average.")
        else:
            space["ranges"] = {"weight": (-1.0, 1.0)}
    if genome.normalize is not False and genome.merge_method in ("ties", "dare_ties"):
        notes.append(
            "Weights are not normalised, unlike mergekit-evolve's: they say how far to go from the"
            " base, which the search finds too."
        )
    return space, notes


def _benchmark(task: Task, evolution: Evolution) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": task.name, "kind": "lm_eval", "task": task.name}
    if "metric" in task.model_fields_set:  # else the task's own, for not every task has acc
        declared["metric"] = task.metric.removesuffix(",none")
    if evolution.num_fewshot is not None:
        declared["few_shot"] = evolution.num_fewshot
    used: dict[str, Any] = {"benchmark": declared}
    if evolution.limit is not None:
        used["samples"] = evolution.limit
    return used


def _other_notes(evolution: Evolution) -> Sequence[str]:
    notes = [
        f"The search ends after {_EVALUATIONS} evaluations, as mergekit-evolve's: --evaluations"
        " changes that."
    ]
    if evolution.random_init:
        notes.append("random_init is left out: the search begins in the middle of its ranges.")
    if evolution.limit is None:
        notes.append("The search uses 100 samples a task, and others for the report.")
    return notes
