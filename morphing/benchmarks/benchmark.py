"""What a benchmark is: its declaration, read from YAML, and the catalogue that ships with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from morphing.benchmarks.data.files import data_suffix
from morphing.benchmarks.engine.thinking import Thinking
from morphing.benchmarks.kinds.table import KINDS, kinds_with
from morphing.errors import MorphingError
from morphing.names import InnerPath, PlainName
from morphing.yaml_files import complaints, read_document, read_text, refuse_other

LM_EVAL = "lm_eval:"
COMMIT = re.compile(r"[0-9a-f]{40}")
Normalization = Literal["tokens", "characters", "bytes"]
LOWER_IS_BETTER = frozenset({"bits_per_byte"})

_PUBLIC = re.compile(r"(?i)(test|eval|val|dev)")


def _known(kind: str) -> str:
    if kind not in KINDS:
        near = get_close_matches(re.sub(r"[\s-]", "_", kind.lower()), KINDS, n=1)
        hint = f"did you mean {near[0]!r}? else " if near else ""
        raise ValueError(f"unknown kind {kind!r}: {hint}choose {', '.join(KINDS)}")
    return kind


class Benchmark(BaseModel):
    """A dataset, how a row becomes a prompt and an answer, and the metric that compares them.

    ``prompt``, ``system``, ``target``, ``continuation``, ``shot`` and each of ``choices`` are Jinja
    templates over a row's columns; the row itself is there too as ``row``, for columns whose names
    are no identifiers. A trailing newline counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainName
    title: str = ""
    description: str = ""
    license: str | None = None
    language: str | None = None
    """Of the answers, as BCP 47 ("en", "ja"); says how their numbers are written."""
    cross_domain: bool = False
    """No source was trained on it: it takes skills of several."""

    dataset: str = Field(min_length=1)
    """A Hub id, ``zoo:<name>``, or a local folder or file (.jsonl, .json, .csv, .parquet)."""
    config: InnerPath | tuple[InnerPath, ...] | None = None
    """The dataset's config; of several the rows come one config after the other."""
    revision: str | None = None
    split: InnerPath = "test"
    """What the search may see; shared by search and holdout when there is no ``holdout_split``."""
    holdout_split: InnerPath | None = None

    kind: Annotated[str, AfterValidator(_known)]
    """One of ``kinds.table.KINDS``."""
    prompt: str = ""
    system: str | None = None
    """With ``chat``: the system's turn, a template too."""
    target: str = ""
    """Generation: the expected answer. Multiple choice: the right option's index, from 0.
    Perplexity: the text that is scored."""
    choices: tuple[str, ...] | str | None = None
    """Multiple choice: a template an option, or one Jinja expression for the list of them."""
    continuation: str | None = None
    """Multiple choice whose options end the prompt: what comes after each, which is scored."""
    normalize: Normalization | None = None
    """Multiple choice: what an option's log-likelihood is divided by."""
    program: str | None = None
    """Code: the template of a program that fails where ``answer`` is wrong; the row's columns and
    ``answer`` are there."""
    task: str | None = None
    """lm_eval: the task's name."""
    include: str | None = None
    """lm_eval: a folder of YAML tasks beside the library's own."""
    few_shot: int = Field(default=0, ge=0)
    """Examples before each question, the same for all samples of a seed-fixed draw."""
    few_shot_split: InnerPath | None = None
    """Where examples come from, neither ``split`` nor ``holdout_split``."""
    shot: str | None = None
    """What follows an example's prompt; by default a space and its target, or its right option."""
    shot_separator: str = "\n\n"
    chat: bool | Literal["auto"] = False
    """Ask through the tokenizer's chat template; ``auto``: in plain text where it has none."""
    thinking: Thinking = "auto"
    """Whether a chat's model thinks before it answers: as its template has it, ``on`` or ``off``.
    A thought is never part of the answer, whatever is said here."""
    thinking_tokens: int = Field(default=2048, ge=0)
    """New tokens that a thought may take beside ``max_new_tokens``."""
    max_new_tokens: int = Field(default=256, ge=1)
    stop: tuple[str, ...] = ()
    """A generated text is cut where the first of these begins."""
    extract: str = "strip"
    """One of ``judging.extract.RULES`` or ``regex:<pattern>`` (last match)."""
    metric: str = "exact_match"
    """One of ``metrics.METRICS`` or ``evaluate:<name or folder>``; lm_eval: the task's own."""

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        written = dict(data)
        if isinstance(written.get("normalize"), bool):
            written["normalize"] = "tokens" if written["normalize"] else None
        if (kind := KINDS.get(str(written.get("kind")))) is not None:
            written.setdefault("extract", kind.extract)
            if kind.metric is not None:
                written.setdefault("metric", kind.metric)
        if written.get("kind") == "lm_eval" and isinstance(written.get("task"), str):
            from morphing.benchmarks.harness.fields import completed

            return completed(written)
        return written

    @model_validator(mode="after")
    def _fits_together(self) -> Benchmark:
        from morphing.benchmarks.judging.extract import check_rule
        from morphing.benchmarks.judging.metrics import check_metric

        kind = KINDS[self.kind]
        for field in kind.needs:
            if not getattr(self, field):
                raise ValueError(f"the field {field!r} is missing: kind {self.kind} needs it")
        for field, described in type(self).model_fields.items():
            allowed = kinds_with(field)
            if allowed and self.kind not in allowed and getattr(self, field) != described.default:
                raise ValueError(
                    f"{field} is for kind {', '.join(allowed)} only, and this is {self.kind}"
                )
        self._check_templates()
        self._check_shots()
        check_rule(self.extract)
        if kind.metric is not None and self.metric != kind.metric:
            raise ValueError(f"kind {self.kind} has the metric {kind.metric} only")
        if self.kind == "generation":
            check_metric(self.metric)
        if any(not stop for stop in self.stop):
            raise ValueError("stop has an empty string")
        if self.system is not None and not self.chat:
            raise ValueError("system is a turn of a chat: set chat to true, or leave system out")
        if self.thinking != "auto" and not self.chat:
            raise ValueError(
                "thinking is switched by a chat template: set chat to true, or leave thinking out"
            )
        return self

    def _check_templates(self) -> None:
        from morphing.benchmarks.data.templates import check_expression, check_template

        for field in ("prompt", "system", "target", "continuation", "shot", "program"):
            if (template := getattr(self, field)) is not None:
                check_template(field, template)
        if isinstance(self.choices, str):
            check_expression("choices", self.choices)
            return
        for choice in self.choices or ():
            check_template("choices", choice)
        if self.choices is not None and len(self.choices) < 2:
            raise ValueError("kind multiple_choice needs two or more choices")

    def _check_shots(self) -> None:
        if self.few_shot and self.kind != "lm_eval" and self.few_shot_split is None:
            raise ValueError("few_shot needs a few_shot_split, where its examples come from")
        if self.few_shot_split in (self.split, self.holdout_split) and self.few_shot_split:
            raise ValueError(
                f"few_shot_split is {self.few_shot_split!r}, whose rows are scored: name a split"
                " that is neither split nor holdout_split"
            )

    def with_thinking(self, thinking: Thinking) -> Benchmark:
        """The same benchmark asked of models that are to think, or not to.

        Raises:
            MorphingError: it asks in no chat, or for no written answers.
        """
        if thinking != "auto" and not (self.chat and self.kind in kinds_with("thinking")):
            raise MorphingError(
                f"Benchmark {self.name!r} can't be asked with thinking {thinking}: only chats whose"
                " answers are written can."
            )
        return self.model_copy(update={"thinking": thinking})

    @property
    def local(self) -> bool:
        """Whether the data lies on this machine: a zoo dataset, a folder or a file."""
        if self.dataset.startswith(("zoo:", "/", "./", "../", "~")):
            return True
        return data_suffix(self.dataset) is not None or Path(self.dataset).exists()

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Which way its metric is better."""
        if self.kind == "lm_eval":
            from morphing.benchmarks.harness.fields import metric_is_lower_better

            lower = metric_is_lower_better(self.metric, str(self.task), self.include)
            return "minimize" if lower else "maximize"
        return "minimize" if self.metric in LOWER_IS_BETTER else "maximize"

    @property
    def share(self) -> bool:
        """Whether its score is a share of 1, which is shown in percent."""
        from morphing.benchmarks.judging.metrics import METRICS

        if self.kind == "lm_eval":
            return self.metric.partition(",")[0].endswith(("acc", "acc_norm", "exact_match"))
        return self.metric in METRICS or self.metric == KINDS["code"].metric

    @property
    def contaminates(self) -> bool:
        """Whether the search sees rows that others report scores on: it has no split of its own,
        and the one it shares with the holdout is for evaluation, by its name. A merge chosen by
        such rows cannot be compared fairly with other entries of that ranking."""
        if self.holdout_split not in (None, self.split) or data_suffix(self.dataset):
            return False
        # What the harness scores is for evaluation, even where it is called train.
        return self.kind == "lm_eval" or _PUBLIC.match(self.split) is not None


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
        problems = "; ".join(complaints(error, Benchmark))
        raise MorphingError(f"{where} is not a valid benchmark: {problems}.") from error


def read_benchmark(path: Path) -> Benchmark:
    """A declaration from a YAML file, beside which a relative ``dataset`` or ``include`` may lie.

    Raises:
        MorphingError: the file can't be read, is no YAML or is no benchmark.
    """
    data = read_document(read_text(path, "benchmark file"), str(path))
    refuse_other(data, "benchmark", str(path))
    if isinstance(data, dict) and (path.parent / str(data.get("include"))).is_dir():
        data["include"] = str((path.parent / str(data["include"])).resolve())
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
            where = f"catalogue/{file.name}"
            benchmark = parse_benchmark(
                read_document(file.read_text(encoding="utf-8"), where), where
            )
            found[benchmark.name] = benchmark
    return found


def get_benchmark(name_or_path: str) -> Benchmark:
    """A benchmark of the catalogue by name, or of your own by the path of its YAML file.

    ``lm_eval:NAME`` is the task of lm-evaluation-harness called so.

    Raises:
        MorphingError: no such name (near matches are given) or no valid file.
    """
    if name_or_path.startswith(LM_EVAL):
        from morphing.benchmarks.harness.fields import declared

        return parse_benchmark(declared(name_or_path.removeprefix(LM_EVAL)), name_or_path)
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return read_benchmark(path)
    known = catalogue()
    if name_or_path in known:
        return known[name_or_path]
    near = get_close_matches(name_or_path.lower(), known, n=3) or sorted(known)
    raise MorphingError(
        f"There is no benchmark {name_or_path!r}: choose {', '.join(near)}, or give the path of"
        f" a YAML file or {LM_EVAL}<task>."
    )
