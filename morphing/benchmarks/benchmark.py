"""What a benchmark is: its declaration, read from YAML, and the catalogue that ships with it."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from morphing.errors import MorphingError

COMMIT = re.compile(r"[0-9a-f]{40}")
DATA_SUFFIXES = (".jsonl", ".csv", ".parquet")


class Benchmark(BaseModel):
    """A dataset, how a row becomes a prompt and an answer, and the metric that compares them.

    ``prompt``, ``target`` and each of ``choices`` are Jinja templates over a row's columns; the row
    itself is there too as ``row``, for columns whose names are no identifiers. A trailing newline
    counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    title: str = ""
    description: str = ""
    license: str | None = None
    language: str | None = None
    """Of the answers, as BCP 47 ("en", "ja"); says how their numbers are written."""
    cross_domain: bool = False
    """No source was trained on it: it takes skills of several."""

    dataset: str = Field(min_length=1)
    """A Hub id, ``zoo:<name>``, or a local folder or file (.jsonl, .csv, .parquet)."""
    config: str | None = None
    revision: str | None = None
    split: str = "test"
    """What the search may see; shared by search and holdout when there is no ``holdout_split``."""
    holdout_split: str | None = None

    kind: Literal["generation", "multiple_choice"]
    prompt: str
    target: str
    """Generation: the expected answer. Multiple choice: the right option's index, from 0."""
    choices: tuple[str, ...] | None = None
    normalize: bool = False
    """Multiple choice: divide an option's log-likelihood by its number of tokens."""
    chat: bool = False
    """Ask through the tokenizer's chat template, where it has one."""
    max_new_tokens: int = Field(default=256, ge=1)
    stop: tuple[str, ...] = ()
    """A generated text is cut where the first of these begins."""
    extract: str = "strip"
    """``strip``, ``first_line``, ``last_number`` or ``regex:<pattern>`` (its last match)."""
    metric: str = "exact_match"

    @model_validator(mode="before")
    @classmethod
    def _metric_by_kind(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("kind") == "multiple_choice":
            return {"metric": "accuracy", **data}
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> "Benchmark":
        from morphing.benchmarks.extract import check_rule
        from morphing.benchmarks.metrics import check_metric
        from morphing.benchmarks.prompt import check_template

        check_rule(self.extract)
        check_metric(self.metric)
        for field in ("prompt", "target"):
            check_template(field, getattr(self, field))
        for choice in self.choices or ():
            check_template("choices", choice)
        if any(not stop for stop in self.stop):
            raise ValueError("stop has an empty string")
        if self.kind == "generation" and self.choices is not None:
            raise ValueError("choices are for kind multiple_choice only")
        if self.kind == "multiple_choice":
            if len(self.choices or ()) < 2:
                raise ValueError("kind multiple_choice needs two or more choices")
            if self.metric != "accuracy":
                raise ValueError("kind multiple_choice has the metric accuracy only")
        return self

    @property
    def local(self) -> bool:
        """Whether the data lies on this machine: a zoo dataset, a folder or a file."""
        if self.dataset.startswith(("zoo:", "/", "./", "../", "~")):
            return True
        return self.dataset.endswith(DATA_SUFFIXES) or Path(self.dataset).exists()


def parse_benchmark(data: Any, where: str) -> Benchmark:
    """A declaration from plain data; ``where`` says in an error what was being read.

    Raises:
        MorphingError: not a mapping, an unknown or missing field, a value of the wrong kind.
    """
    if not isinstance(data, Mapping):
        raise MorphingError(f"{where} is not a benchmark: write it as fields and values.")
    try:
        return Benchmark.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_problem(entry) for entry in error.errors())
        raise MorphingError(f"{where} is not a valid benchmark: {problems}.") from error


def _problem(entry: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "extra_forbidden":
        near = get_close_matches(field, Benchmark.model_fields, n=1)
        return f"unknown field {field!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    if entry["type"] == "missing":
        return f"the field {field!r} is missing"
    message = entry["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message


def read_benchmark(path: Path) -> Benchmark:
    """A declaration from a YAML file; a relative local ``dataset`` is looked for beside the file.

    Raises:
        MorphingError: the file can't be read, is no YAML or is no benchmark.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise MorphingError(f"The benchmark file {path} can't be read: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it can't be parsed"
        raise MorphingError(f"{path} is not valid YAML{line}: {problem}.") from error
    benchmark = parse_benchmark(data, str(path))
    beside = path.parent / benchmark.dataset
    if not benchmark.dataset.startswith("zoo:") and beside.exists():
        return benchmark.model_copy(update={"dataset": str(beside.resolve())})
    return benchmark


@cache
def catalogue() -> Mapping[str, Benchmark]:
    """The benchmarks that ship with Morphing, by name."""
    folder = resources.files("morphing.benchmarks") / "catalogue"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            data = yaml.safe_load(file.read_text(encoding="utf-8"))
            benchmark = parse_benchmark(data, f"catalogue/{file.name}")
            found[benchmark.name] = benchmark
    return found


def get_benchmark(name_or_path: str) -> Benchmark:
    """A benchmark of the catalogue by name, or of your own by the path of its YAML file.

    Raises:
        MorphingError: no such name (near matches are given) or no valid file.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return read_benchmark(path)
    known = catalogue()
    if name_or_path in known:
        return known[name_or_path]
    near = get_close_matches(name_or_path, known, n=3) or sorted(known)
    raise MorphingError(
        f"There is no benchmark {name_or_path!r}: choose {', '.join(near)}, or give the path of"
        " a YAML file."
    )


def pin_benchmark(benchmark: Benchmark, token: str | None = None) -> Benchmark:
    """The same benchmark with its data fixed: a Hub revision as a commit, a local path absolute.

    Raises:
        MorphingError: unknown or gated dataset, unknown revision, missing file, no network.
    """
    if benchmark.dataset.startswith("zoo:"):
        return benchmark
    if benchmark.local:
        path = Path(benchmark.dataset).expanduser().resolve()
        if not path.exists():
            raise MorphingError(
                f"The dataset {path} of benchmark {benchmark.name!r} does not exist."
            )
        return benchmark.model_copy(update={"dataset": str(path)})
    if benchmark.revision and COMMIT.fullmatch(benchmark.revision):
        return benchmark
    from huggingface_hub import HfApi

    from morphing.benchmarks.hub import hub_errors

    with hub_errors(benchmark):
        info = HfApi(token=token).dataset_info(benchmark.dataset, revision=benchmark.revision)
    return benchmark.model_copy(update={"revision": info.sha})
