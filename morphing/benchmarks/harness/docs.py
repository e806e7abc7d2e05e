"""The documents of a task of lm-evaluation-harness, with what a model is asked about each.

A row has the processed document (``doc``), the requests that the harness builds for it as text
(``plain``) and for a chat's template (``chat``), how many answers each is to have (``repeats``),
what the harness tells by the dataset's first document (``multiple``), and what a reader wants to
see (``prompt``, ``target``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from morphing.benchmarks.data.dataset import read_rows, single_file
from morphing.benchmarks.data.draws import halves
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.harness.fields import (
    data_files,
    few_shot_split,
    task_data,
)
from morphing.benchmarks.harness.files import TaskFile, find_task
from morphing.benchmarks.harness.model import Reply
from morphing.benchmarks.harness.task import Scoring, build_task, said
from morphing.errors import MorphingError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from morphing.benchmarks.benchmark import Benchmark

SEED = 1234
"""The harness's own default for drawing examples."""
_TURNS = "\0turns\0"
_TRIAL: Mapping[str, Any] = {
    "generate_until": "Yes. It is 42.",
    "loglikelihood": (-1.0, False),
    "loglikelihood_rolling": -1.0,
}
"""Replies that a task must be able to score."""


class Documents:
    """The documents of a split as the task makes them of the dataset's rows, in their order.

    Examples are drawn as in a run of the harness over the whole split. Where the task takes them
    from the rows that are scored, they come from the search's half alone.

    Raises:
        MorphingError: the dataset can't be read, the task can't be built, or examples would show
            the search rows of the holdout.
    """

    def __init__(self, benchmark: Benchmark, split: str, token: str | None = None) -> None:
        self._benchmark = benchmark
        file = find_task(str(benchmark.task), benchmark.include)
        changes: dict[str, Any] = {"test_split": split, "num_fewshot": benchmark.few_shot}
        source = few_shot_split(file.config) if benchmark.few_shot else None
        if source is not None:
            changes["fewshot_split"] = source
            if source == benchmark.holdout_split != benchmark.split:
                raise MorphingError(
                    f"Benchmark {benchmark.name!r} takes its examples from its holdout_split"
                    f" {source!r}, which the search must not see: set few_shot to 0 or choose"
                    " another holdout_split."
                )
        self._task = build_task(benchmark, _Splits(benchmark, file, token), changes)
        self._docs = self._task.task_docs
        self._shown = source is not None and (source == split or single_file(benchmark))
        if benchmark.few_shot:
            self._prepare_shots(in_halves=benchmark.holdout_split in (None, benchmark.split))
        self._scoring = Scoring(benchmark, self._task)

    def __len__(self) -> int:
        return len(self._docs)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        task, doc = self._task, self._docs[index]
        with said(self._benchmark, "can't be asked"):
            instances = self._instances(index, chat=False)
            row = {
                "doc": doc,
                "plain": _asked(instances),
                "repeats": task.config.repeats,
                "multiple": [task.multiple_input, task.multiple_target],
                "prompt": str(instances[0].args[0]),
                "target": self._target(doc),
            }
            if self._benchmark.chat:
                row["chat"] = _asked(self._instances(index, chat=True))
        self._try_scoring(row, instances)
        return row

    def _try_scoring(self, row: Mapping[str, Any], instances: Sequence[Instance]) -> None:
        # What its scoring needs and isn't here must be said before a run, not in its first trial.
        replies = [Reply(_TRIAL[instance.request_type]) for instance in instances]
        sample = Sample("", row["prompt"], row["target"])
        self._scoring.outputs([sample], [instances], [replies])

    def _prepare_shots(self, in_halves: bool) -> None:
        task = self._task
        if self._shown and in_halves:
            search, _ = halves(len(self._docs))
            if len(task.sampler.df) != len(self._docs):
                raise MorphingError(
                    f"Benchmark {self._benchmark.name!r} takes its examples from the rows it scores"
                    " and leaves some out, so the holdout can't be told from them: set few_shot to"
                    " 0."
                )
            task.sampler.replace_df([task.sampler.df[index] for index in search])
        task.set_fewshot_seed(SEED)
        self._sampler = task.sampler
        self._drawn: list[Sequence[Mapping[str, Any]]] = []
        task.sampler = self

    def sample(self, n: int, eval_doc: Any = None) -> Sequence[Mapping[str, Any]]:
        """The examples of the document that is being asked about (the harness calls this)."""
        return self._shots

    def _draw(self, index: int) -> None:
        # The harness draws document by document, each time going on where it was.
        while self._benchmark.few_shot and len(self._drawn) <= index:
            doc = self._docs[len(self._drawn)] if self._shown else None
            self._drawn.append(self._sampler.sample(n=self._benchmark.few_shot, eval_doc=doc))
        self._shots = self._drawn[index] if self._benchmark.few_shot else ()

    def _instances(self, index: int, chat: bool) -> list[Instance]:
        task, doc = self._task, self._docs[index]
        self._draw(index)
        context = task.fewshot_context(
            doc,
            num_fewshot=self._benchmark.few_shot,
            apply_chat_template=chat,
            fewshot_as_multiturn=True,
            chat_template=_turns if chat else None,
            gen_prefix=task.doc_to_prefix(doc),
        )
        made = task.construct_requests(
            doc=doc,
            ctx=context,
            metadata=(task.config.task, index, task.config.repeats),
            apply_chat_template=chat,
            chat_template=_turns if chat else None,
        )
        return list(made) if isinstance(made, list) else [made]

    def _target(self, doc: Mapping[str, Any]) -> str:
        task = self._task
        target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        if isinstance(target, int) and task.config.doc_to_choice is not None:
            target = task.doc_to_choice(doc)[target]
        return " | ".join(map(str, target)) if isinstance(target, list) else str(target).strip()


def _turns(messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
    """A chat's turns as they are: which template writes them is known when a model is scored."""
    return _TURNS + json.dumps({"messages": messages, "reply": add_generation_prompt})


def _asked(instances: Sequence[Instance]) -> dict[str, Any]:
    """Requests as plain JSON, each context once."""
    contexts = list(dict.fromkeys(str(instance.args[0]) for instance in instances))
    return {
        "contexts": [
            json.loads(text.removeprefix(_TURNS)) if text.startswith(_TURNS) else text
            for text in contexts
        ],
        "requests": [
            [instance.request_type, contexts.index(str(instance.args[0])), *instance.args[1:]]
            for instance in instances
        ],
    }


class _Splits(dict[str, Any]):
    """The dataset's splits, each read when it is asked for."""

    def __init__(self, benchmark: Benchmark, file: TaskFile, token: str | None) -> None:
        super().__init__()
        self._benchmark, self._file, self._token = benchmark, file, token

    def __missing__(self, split: str) -> Any:
        from datasets import Dataset

        rows = self._as_the_harness(split) or read_rows(self._benchmark, split, self._token)
        if not isinstance(rows, Dataset):
            rows = Dataset.from_list([dict(rows[index]) for index in range(len(rows))])
        self[split] = rows
        return rows

    def _as_the_harness(self, split: str) -> Any:
        """The split, of a task with settings of its own for loading it."""
        from datasets import load_dataset

        from morphing.benchmarks.data.hub import dataset_errors

        benchmark = self._benchmark
        settings = dict(self._file.config.get("dataset_kwargs") or {})
        for known in ("trust_remote_code", "revision", "streaming"):
            settings.pop(known, None)
        data = task_data(self._file)
        if not settings or benchmark.dataset != data["dataset"]:
            return None  # none, or the user has a dataset of his own
        path = str(self._file.config["dataset_path"])
        if path == data["dataset"]:
            settings |= {"revision": benchmark.revision, "token": self._token}
        else:
            settings["data_files"] = data_files(self._file, benchmark.revision)
        with dataset_errors(benchmark), said(benchmark, "can't be loaded"):
            return load_dataset(path, benchmark.config, split=split, **settings)
