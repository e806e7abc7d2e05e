"""A task of lm-evaluation-harness as the fields of a benchmark's declaration, read from its file.

Only the task's YAML files are read: no data, no code of theirs, no network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morphing.benchmarks.harness.files import Function, TaskFile, find_task, read_task
from morphing.benchmarks.sandbox.check import ask_leave
from morphing.errors import MorphingError
from morphing.names import made_plain

_FILLED = ("dataset", "split", "few_shot", "metric")
"""The fields without which a task's file is read."""
_HUB_FILE = re.compile(r"hf://datasets/(?P<id>[^/@]+/[^/@]+)(@[^/]+)?/(?P<path>.+)")
_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The generation settings that limit an answer, the first one first, as in the harness."""
_SETTINGS = frozenset(
    {
        *("data_files", "data_dir", "column_names", "header", "sep", "delimiter", "field"),
        *("verification_mode", "revision", "streaming", "trust_remote_code"),
    }
)
"""Settings of a task for loading its data that say what to read, and nothing of where to write or
by which program; the last three don't count here."""
_OF_ALL_SAMPLES = ("f1", "mcc", "matthews_corrcoef", "median", "bypass")
"""Aggregations that say nothing of one sample."""


def declared(name: str) -> dict[str, Any]:
    """The fields of a benchmark for a task: ``<task or YAML file>[#metric[,filter]]``.

    Raises:
        MorphingError: no such task, a task that can't be used (why is said), or no such metric.
    """
    wanted, _, metric = name.partition("#")
    if wanted.endswith((".yaml", ".yml")):
        task = read_task(Path(wanted))
        where = {"task": task.name, "include": str(task.path.parent)}
    else:
        task, where = find_task(wanted), {"task": wanted}
    called = made_plain(f"lm_eval-{task.name}-{metric}".rstrip("-"), "lm_eval")
    written = {"name": called, "kind": "lm_eval", **where}
    return _complete(written | {"metric": metric}, task)


def completed(written: Mapping[str, Any]) -> dict[str, Any]:
    """A declaration of kind lm_eval with what it leaves out, taken from the task's file.

    Raises:
        ValueError: the task can't be had or used.
    """
    if all(written.get(field) is not None for field in _FILLED) and written["metric"]:
        return dict(written)
    try:
        task = find_task(str(written.get("task")), written.get("include"))
        return _complete(written, task)
    except MorphingError as error:
        raise ValueError(str(error).removesuffix(".")) from error


def _complete(written: Mapping[str, Any], task: TaskFile) -> dict[str, Any]:
    check_usable(task)
    config = task.config
    settings = config.get("generation_kwargs") or {}
    limit = next((settings[key] for key in _TOKENS if key in settings), 256)
    said = f"The task {task.name} of lm-evaluation-harness."
    if settings.get("do_sample"):
        said += " Answered greedily here, where the harness samples."
    own = {"config": config.get("dataset_name")} if "dataset" in written else task_data(task)
    found = {
        "title": task.name,
        "description": said,
        **own,
        **_splits(config),
        "few_shot": config.get("num_fewshot") or 0,
        "max_new_tokens": int(limit),
    }
    if "split" in written:
        found.pop("holdout_split", None)
    return {**found, **written, "metric": _metric(task, str(written.get("metric") or ""))}


def metric_is_lower_better(metric: str, task: str, include: str | None = None) -> bool:
    """Whether a lower value of ``metric`` (``name`` or ``name,filter``) of a task is a better one.

    Raises:
        MorphingError: as `files.find_task`.
    """
    name = metric.partition(",")[0]
    for entry in metrics(find_task(task, include).config):
        if metric_name(entry) == name and "higher_is_better" in entry:
            return not entry["higher_is_better"]
    from lm_eval.api.registry import is_higher_better

    return is_higher_better(name) is False


def metrics(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of a task's ``metric_list``, or the harness's own for its kind of task."""
    entries: list[Mapping[str, Any]] | None = config.get("metric_list")
    if entries is None:
        from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

        kind = config.get("output_type", "generate_until")
        return [{"metric": name} for name in DEFAULT_METRIC_REGISTRY[kind]]
    return entries


def metric_name(entry: Mapping[str, Any]) -> str:
    """What a metric is called; one that is a function by that function's name."""
    return _spelt(entry["metric"])


def filters(config: Mapping[str, Any]) -> list[str]:
    """The names of a task's filters; none where it has the harness's default."""
    return [entry["name"] for entry in config.get("filter_list") or ()]


def _metric(task: TaskFile, written: str) -> str:
    """``metric`` or ``metric,filter``, the first ones where not written."""
    wanted, _, filter_name = written.partition(",")
    entries = {metric_name(entry): entry for entry in metrics(task.config)}
    names = [name for name, entry in entries.items() if _of_one(name, entry)]
    what = f"The task {task.name!r}"
    if not names:
        raise MorphingError(
            f"{what} has no metric of single samples, which a search compares: its"
            f" {', '.join(entries)} is one of all samples together."
        )
    name = wanted or names[0]
    if name not in names:
        raise MorphingError(
            f"{what} has no metric {name!r} of single samples: choose {', '.join(names)}."
        )
    known = filters(task.config)
    if filter_name and filter_name not in (known or ["none"]):
        choice = f"choose {', '.join(known)}" if known else "leave it out"
        raise MorphingError(f"{what} has no filter {filter_name!r}: {choice}.")
    return f"{name},{filter_name or known[0]}" if known else name


def _of_one(name: str, entry: Mapping[str, Any]) -> bool:
    return _spelt(entry.get("aggregation", name)) not in _OF_ALL_SAMPLES


def _spelt(value: Any) -> str:
    if isinstance(value, Function):
        return value.path.rpartition(".")[2]
    return value if isinstance(value, str) else str(value.__name__)


def check_usable(task: TaskFile) -> None:
    """Raise a MorphingError where a task is none that a benchmark can be."""
    config, what = task.config, f"The task {task.name!r} of lm-evaluation-harness"
    if config.get("unsafe_code"):
        raise MorphingError(
            f"{what} runs what the model writes without a sandbox: use Morphing's own humaneval or"
            " mbpp."
        )
    if "class" in config:
        raise MorphingError(f"{what} is a Python class, and only those in YAML can be used.")
    if "custom_dataset" in config or not config.get("dataset_path"):
        raise MorphingError(
            f"{what} makes its data by a program of its own, so it has no dataset to pin: choose a"
            " task with a dataset_path."
        )
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise MorphingError(f"{what} asks about pictures or sound, and Morphing about text only.")
    if not config.get("test_split") and not config.get("validation_split"):
        raise MorphingError(f"{what} names neither a test_split nor a validation_split.")
    if config.get("use_prompt"):
        raise MorphingError(
            f"{what} takes its prompt from another file or package (use_prompt): write doc_to_text"
            " and doc_to_target into the task."
        )
    if unknown := sorted(set(config.get("dataset_kwargs") or {}) - _SETTINGS):
        raise MorphingError(
            f"{what} loads its data with the setting {unknown[0]!r}, which is not known: remove it"
            f" from dataset_kwargs, or use {', '.join(sorted(_SETTINGS))}."
        )
    if task.foreign_code is not None:
        ask_leave(f"The task {task.name!r} {task.foreign_code}")


def task_data(task: TaskFile) -> dict[str, Any]:
    """``dataset``, ``config`` and ``revision`` of a task's declaration.

    Raises:
        MorphingError: as `data_files`.
    """
    config = task.config
    path, settings = str(config["dataset_path"]), config.get("dataset_kwargs") or {}
    found = {"dataset": path, "config": config.get("dataset_name"), **_revision(settings)}
    if path in ("json", "csv", "parquet", "text"):
        files = [file for files in data_files(task).values() for file in files]
        on_hub = _HUB_FILE.fullmatch(files[0])
        place = on_hub["id"] if on_hub else os.path.commonpath(files)
        return found | {"dataset": place, "config": None}
    if (beside := task.path.parent / path).exists():
        return found | {"dataset": str(beside.resolve())}
    return found


def _revision(settings: Mapping[str, Any]) -> dict[str, str]:
    return {"revision": settings["revision"]} if settings.get("revision") else {}


def data_files(task: TaskFile, revision: str | None = None) -> dict[str, list[str]]:
    """The ``data_files`` of a task by split: paths absolute, those on the Hub at ``revision``.

    A relative path counts from the working directory, as in the harness, or else from the task's
    file.

    Raises:
        MorphingError: a file isn't there, or lies where no revision can be pinned.
    """
    written = (task.config.get("dataset_kwargs") or {}).get("data_files")
    if not written:
        raise MorphingError(f"The task {task.name!r} names no data_files for its dataset_path.")
    splits = written if isinstance(written, Mapping) else {"train": written}
    return {
        split: [_file(task, str(file), revision) for file in _listed(files)]
        for split, files in splits.items()
    }


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _file(task: TaskFile, file: str, revision: str | None) -> str:
    if found := _HUB_FILE.fullmatch(file):
        at = f"@{revision}" if revision else ""
        return f"hf://datasets/{found['id']}{at}/{found['path']}"
    if "://" in file:
        raise MorphingError(
            f"The task {task.name!r} takes its data from {file}, where no revision can be pinned:"
            " download it and name the file."
        )
    places = (Path(file).expanduser(), task.path.parent / file)
    for place in places:
        if place.exists():
            return str(place.resolve())
    raise MorphingError(f"The task {task.name!r} needs the data file {file}, which isn't there.")


def few_shot_split(config: Mapping[str, Any]) -> str | None:
    """The split that the harness takes examples from; None where they are written in the task."""
    shots = config.get("fewshot_config") or {}
    if (named := shots.get("split") or config.get("fewshot_split")) is not None:
        return str(named)
    if shots.get("samples") is not None:
        return None
    order = ("training_split", "validation_split", "test_split")
    return next((str(config[key]) for key in order if config.get(key)), None)


def _splits(config: Mapping[str, Any]) -> dict[str, str]:
    """The search sees the validation split where there is a test split beside it."""
    test, validation = (str(config.get(f"{name}_split") or "") for name in ("test", "validation"))
    shown = bool(config.get("num_fewshot")) and few_shot_split(config) == validation
    if test and validation and test != validation and not shown:
        return {"split": validation, "holdout_split": test}
    return {"split": test or validation}
