"""The run spec: what a search is asked to do, as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from morphing.benchmarks.benchmark import get_benchmark
from morphing.devices import DEVICES
from morphing.errors import MorphingError
from morphing.inert import visible, whole
from morphing.merging.methods import METHODS, refusal
from morphing.names import PlainName
from morphing.runs.measures import MEASURES, SPARSITY, Direction
from morphing.runs.spec_parts import (
    SEEDS,
    SOURCES,
    BenchmarkUse,
    Constraint,
    MeasureUse,
    SearchOptions,
    SpecModel,
    plain_model_name,
)
from morphing.yaml_files import complaints, read_document, read_text, refuse_other, write_yaml
from morphing.zoo import BENCHMARKS as ZOO_BENCHMARKS
from morphing.zoo import SPECIALISTS


class RunSpec(SpecModel):
    """One search: sources, base, method, benchmarks, budget and device."""

    name: Annotated[PlainName, Field(max_length=81)] = "run"
    base: str
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    method: str = "dare_ties"
    benchmarks: Annotated[tuple[BenchmarkUse, ...], Field(min_length=1)]
    measures: tuple[MeasureUse, ...] = (MeasureUse(measure=SPARSITY),)
    """Objectives beside the benchmarks."""
    constraints: tuple[Constraint, ...] = ()
    search: SearchOptions = SearchOptions()
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Storage dtype of the merged model; arithmetic is float32 whatever it is."""
    tokenizer_source: Literal["base", "union"] | None = None
    """Whose vocabulary the merges have, where the models' vocabularies differ."""
    chat_template: str | None = "auto"
    """Whose chat template the merges have, with its end tokens: ``auto`` (that of the sources where
    they agree, else the base's), ``base``, a model of the run, a name of mergekit's, or Jinja.
    Pinned it is what recipes say; None: nothing, each model has its own."""
    placement: Literal["auto", "device", "host", "disk"] = "auto"
    """Where base and sources are kept while the search runs; ``auto`` takes the first of the others
    that has room."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    allow_unrelated_base: bool = False
    digests: dict[str, Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]] = Field(
        default_factory=dict
    )
    """Of models that no commit pins, by name, what their files held when the run was made
    (`sources.content`); written by pinning, and kept to where a spec has it."""

    @field_validator("base", "sources", mode="before")
    @classmethod
    def _as_people_type_them(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [plain_model_name(each) for each in value]
        return plain_model_name(value)

    @field_validator("benchmarks", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [{"benchmark": v} if isinstance(v, str) else v for v in value]
        return value

    @field_validator("measures", mode="before")
    @classmethod
    def _measures_alone(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [{"measure": v} if isinstance(v, str) else v for v in value]
        return value

    @field_validator("base", "sources")
    @classmethod
    def _writable(cls, value: Any) -> Any:
        for name in (value,) if isinstance(value, str) else value:
            if whole(name) != name:
                raise ValueError(f"{name!r} has half of a character, which no file's name can")
        return value

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        if value not in METHODS:
            raise ValueError(visible(str(refusal(value, 1))))
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if value not in DEVICES:
            raise ValueError(f"unknown device {value!r}: choose one of {', '.join(DEVICES)}")
        return value

    @model_validator(mode="after")
    def _each_benchmark_once(self) -> RunSpec:
        names = [use.declaration.name for use in self.benchmarks]
        if repeated := _repeated(names):
            raise ValueError(f"the benchmark {repeated!r} is listed twice")
        if taken := set(names) & set(MEASURES):
            raise ValueError(f"a benchmark may not be called {min(taken)!r}: a measure is")
        if not any(use.objective for use in self.benchmarks):
            raise ValueError("no benchmark is an objective: set `objective: true` on at least one")
        return self

    @model_validator(mode="after")
    def _measures_that_can_be_had(self) -> RunSpec:
        names = [use.measure for use in self.measures]
        if repeated := _repeated(names):
            raise ValueError(f"the measure {repeated!r} is listed twice")
        asked = {*names, *(constraint.on for constraint in self.constraints)} & MEASURES.keys()
        generated = {name for name in asked if MEASURES[name].generated}
        silent = ("multiple_choice", "perplexity")
        if generated and all(use.declaration.kind in silent for use in self.tasks):
            raise ValueError(
                f"{min(generated)!r} needs a benchmark that is an objective and has answers"
                " generated: none of these has"
            )
        whole = [name for name in names if not MEASURES[name].by_part]
        if self.search.racing and whole:
            raise ValueError(
                "search.racing cannot tell from a part of the samples which recipe has the better"
                f" {whole[0]}: leave out one of the two"
            )
        return self

    @model_validator(mode="after")
    def _constraints_on_what_is_known(self) -> RunSpec:
        tasks = [use.declaration.name for use in self.tasks]
        for constraint in self.constraints:
            if constraint.on not in (*tasks, *MEASURES):
                raise ValueError(
                    f"a constraint is on {constraint.on!r}: it must be on a benchmark that is an"
                    f" objective or on one of {', '.join(MEASURES)}"
                )
            for limit in (constraint.at_least, constraint.at_most):
                if isinstance(limit, str) and limit not in (SOURCES, self.base, *self.sources):
                    raise ValueError(
                        f"the constraint on {constraint.on!r} is bound by {limit!r}: write a"
                        f" number, a model of the run, or {SOURCES}"
                    )
        return self

    @model_validator(mode="after")
    def _weights_of_objectives(self) -> RunSpec:
        if unknown := set(self.search.weights) - set(self.objectives):
            raise ValueError(f"search.weights names {min(unknown)!r}, which is no objective")
        return self

    @model_validator(mode="after")
    def _sources_that_the_method_takes(self) -> RunSpec:
        if repeated := _repeated(self.sources):
            raise ValueError(f"the source {repeated!r} is listed twice")
        if problem := refusal(self.method, len(self.sources)):
            raise ValueError(problem)
        return self

    @property
    def template(self) -> str | None:
        """What recipes of a pinned spec say in ``chat_template``; of earlier versions nothing."""
        return None if self.chat_template == "auto" else self.chat_template

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the objectives in order: the benchmarks', then the measures."""
        tasks = tuple(use.declaration.name for use in self.tasks)
        return (*tasks, *(use.measure for use in self.measures))

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Which way each objective is better."""
        measures = (use.direction or MEASURES[use.measure].direction for use in self.measures)
        tasks = (use.direction or use.declaration.direction for use in self.tasks)
        return (*tasks, *measures)

    @property
    def tasks(self) -> tuple[BenchmarkUse, ...]:
        """The benchmarks that are objectives."""
        return tuple(use for use in self.benchmarks if use.objective)

    def to_yaml(self) -> str:
        """The spec as YAML, without the fields left at their defaults."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        return write_yaml(data, short_lists=False)


def _repeated(names: Sequence[str]) -> str | None:
    """The name that is there more than once, the first by alphabet of several."""
    return min((name for name in names if names.count(name) > 1), default=None)


def refuse_inverted_constraints(spec: RunSpec) -> None:
    """Refuse a constraint that would keep only what is worse than every source.

    Raises:
        MorphingError: ``sources`` bounds from below what is better when lower, or from above what
            is better when higher.
    """
    ways = {name: measure.direction for name, measure in MEASURES.items()}
    ways |= dict(zip(spec.objectives, spec.directions, strict=True))
    for constraint in spec.constraints:
        lower = ways[constraint.on] == "minimize"
        wrong, right = ("at_least", "at_most") if lower else ("at_most", "at_least")
        if getattr(constraint, wrong) == SOURCES:
            raise MorphingError(
                f"The constraint on {constraint.on} says `{wrong}: {SOURCES}`, and"
                f" {'lower' if lower else 'higher'} is better there, so only what is no better than"
                f" any source would be kept: write `{right}: {SOURCES}`."
            )


def first_evaluations(spec: RunSpec) -> int:
    """How many evaluations of a ``ps+dfs`` search go to merge parameters; both stages get one.

    Raises:
        MorphingError: there are fewer than two.
    """
    total = spec.search.evaluations
    if spec.search.space.strategy == "ps+dfs" and total < 2:
        raise MorphingError(
            "search.evaluations is 1 and ps+dfs searches twice: set it to 2 or more."
        )
    return min(max(total - round(spec.search.space.path_share * total), 1), max(total - 1, 1))


def with_evaluations(spec: RunSpec, evaluations: int) -> RunSpec:
    """The spec with another budget of evaluations.

    In a ``ps+dfs`` search the second stage gets longer or shorter. The first stage keeps its slots,
    since the second stage may use what it found.
    """
    search = spec.search.model_copy(update={"evaluations": evaluations})
    if search.space.strategy == "ps+dfs" and evaluations > (first := first_evaluations(spec)):
        share = 1 - first / evaluations
        space = search.space.model_copy(update={"path_share": share})
        search = search.model_copy(update={"space": space})
    return spec.model_copy(update={"search": search})


def parse_spec(data: Any, where: str = "the spec") -> RunSpec:
    """A spec from plain data.

    Raises:
        MorphingError: a field is missing, unknown or out of range; names ``where`` and the field.
    """
    if not isinstance(data, Mapping):
        raise MorphingError(f"{where} has no fields: start from `base:` and `sources:`.")
    try:
        return RunSpec.model_validate(data)
    except ValidationError as error:
        raise MorphingError(f"{where}: {complaints(error, RunSpec)[0]}.") from error


def load_spec(path: Path) -> RunSpec:
    """Read a spec file.

    Raises:
        MorphingError: the file cannot be read, is not YAML, or is not a valid spec.
    """
    data = read_document(read_text(path, "spec"), str(path))
    refuse_other(data, "spec", str(path))
    try:
        return _with_seeds_beside(parse_spec(data, str(path)), path.parent)
    except MorphingError as error:
        if str(path) in str(error):
            raise
        raise MorphingError(f"{path}: {error}") from error


def _with_seeds_beside(spec: RunSpec, folder: Path) -> RunSpec:
    """The spec with its seeds' files found beside the spec's own file, where they are there."""

    def found(seed: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(seed, str) and seed not in SEEDS and (folder / seed).is_file():
            return str(folder / seed)
        return seed

    search = spec.search.model_copy(update={"seeds": tuple(map(found, spec.search.seeds))})
    return spec.model_copy(update={"search": search})


def zoo_spec() -> RunSpec:
    """The embedded default: the zoo's specialists and benchmarks, on any machine."""
    return RunSpec(
        name="zoo",
        base="zoo:base",
        sources=tuple(f"zoo:{name}" for name in SPECIALISTS),
        benchmarks=tuple(
            BenchmarkUse(
                benchmark=f"zoo-{name}",
                samples=128,
                objective=not get_benchmark(f"zoo-{name}").cross_domain,
            )
            for name in ZOO_BENCHMARKS
        ),
    )
