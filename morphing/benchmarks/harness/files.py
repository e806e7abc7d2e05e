"""Tasks of lm-evaluation-harness, found and read as the YAML files they are.

Reading runs nothing of theirs and does not even import the harness, which costs seconds.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from morphing.errors import MorphingError, first_line

_NAMED = re.compile(rb"""^["']?(?:task|group)["']?[ \t]*:[ \t]*["']?([^\s"'#\[{]+)""", re.M)
"""A file's own name, at the start of a line."""
_DECLARATION = re.compile(rb"^kind[ \t]*:[ \t]*lm_eval\b", re.M)
"""A benchmark of ours that is about a task, and may lie beside it."""


@dataclass(frozen=True)
class Function:
    """What ``!function module.name`` stands for: Python beside a task's file, or importable."""

    folder: Path
    path: str

    @property
    def foreign(self) -> bool:
        """Whether a file that is not the harness's named it.

        Any importable function is code that runs, `os.system` too, so what counts is who chose it.
        """
        return not self.folder.resolve().is_relative_to(library())

    def load(self) -> Any:
        """Import it. What its module prints goes to standard error.

        Raises:
            ImportError, AttributeError: it is not there, or a package it needs is not.
        """
        with redirect_stdout(sys.stderr):
            module = _module(self._file) if self._file.exists() else import_module(self._parts[0])
        return getattr(module, self._parts[1])

    @property
    def _parts(self) -> tuple[str, str]:
        module, _, name = self.path.rpartition(".")
        return module, name

    @property
    def _file(self) -> Path:
        return (self.folder / (self._parts[0].replace(".", "/") + ".py")).resolve()


@dataclass(frozen=True)
class TaskFile:
    """One task: its name, its file, and its configuration with functions not yet imported."""

    name: str
    path: Path
    config: Mapping[str, Any]

    @property
    def functions(self) -> list[Function]:
        """All functions that it names."""
        return list(_functions(self.config))

    @property
    def foreign_code(self) -> str | None:
        """What code it runs that the harness's own tasks do not name; None if nothing."""
        named = [function.path for function in self.functions if function.foreign]
        return f"runs Python that {self.path} names ({named[0]})" if named else None

    def loaded(self) -> dict[str, Any]:
        """A copy of its configuration with its functions imported.

        Raises:
            MorphingError: a function can't be imported, or needs a package that is not installed.
        """
        try:
            config: dict[str, Any] = _loaded(self.config)
        except ModuleNotFoundError as error:
            raise MorphingError(
                f"The task {self.name!r} needs the package {error.name!r}, which is not installed:"
                f" pip install {error.name}."
            ) from error
        except Exception as error:
            # A task's module is a program: what it raises can't be told in advance.
            raise MorphingError(
                f"The task {self.name!r} can't be loaded from {self.path}: {first_line(error)}."
            ) from error
        return config


@cache
def library() -> Path:
    """The folder of the harness's own tasks."""
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise MorphingError(
            "lm_eval: benchmarks need the package lm-eval, which is not installed: pip install"
            " lm-eval."
        )
    return Path(spec.origin).resolve().parent / "tasks"


def find_task(name: str, include: str | None = None) -> TaskFile:
    """The task ``name`` of the folder ``include``, or of the harness.

    Raises:
        MorphingError: there is none (near matches are given), it is a group or a tag of several
            (they are named), or it can't be read.
    """
    folders = [Path(include).expanduser().resolve()] if include else []
    for folder in (*folders, library()):
        if not folder.is_dir():
            raise MorphingError(f"There is no folder {folder} of lm-eval tasks.")
        found = _own_files(folder) if folder != library() else _library_files()
        if name in found:
            return _task(name, found[name])
    return _missing(name, folders)


def read_task(path: Path) -> TaskFile:
    """The task that a YAML file defines.

    Raises:
        MorphingError: it can't be read, or defines no task.
    """
    path = path.expanduser().resolve()
    name = _read(path).get("task")
    if not isinstance(name, str):
        raise MorphingError(f"{path} is not an lm-eval task: its field 'task' gives no name.")
    # It is found again by its name, in its folder.
    if (other := _own_files(path.parent).get(name)) != path:
        mend = f"{other} has that name too" if other else "write the field in this file"
        raise MorphingError(f"The task {name!r} of {path} has no name of its own: {mend}.")
    return _task(name, path)


def _task(name: str, path: Path) -> TaskFile:
    config = _read(path)
    if "group" in config and "class" not in config:
        raise MorphingError(
            f"lm_eval:{name} is a group of tasks, and a benchmark is one: choose of"
            f" {_listed(_members(config.get('task')))}."
        )
    return TaskFile(name, path, config)


def _members(value: Any) -> Iterator[str]:
    """The names of a group's tasks, which may be in lists and have settings of their own."""
    for each in _list(value):
        if isinstance(each, Mapping):
            yield from _members(each.get("task") or each.get("group"))
        elif isinstance(each, list):
            yield from _members(each)
        else:
            yield str(each)


@cache
def _library_files() -> Mapping[str, Path]:
    return _own_files(library())


def _own_files(folder: Path) -> dict[str, Path]:
    # Parsing some ten thousand files takes half a minute, looking for their names a second.
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_bytes()
        for name in () if _DECLARATION.search(text) else _NAMED.findall(text):
            found.setdefault(name.decode(), path)
    return found


def _missing(name: str, folders: Iterable[Path]) -> TaskFile:
    known = {**_library_files()}
    for folder in folders:
        known |= _own_files(folder)
    # A tag is often in a file that the tasks beside it include.
    files = set(known.values())
    tagging = {path.parent for path in files if name.encode() in path.read_bytes()}
    configs = [_read(path) for path in files if path.parent in tagging]
    tagged = [c["task"] for c in configs if name in _list(c.get("tag")) and "task" in c]
    if tagged:
        raise MorphingError(
            f"lm_eval:{name} is a tag of several tasks, and a benchmark is one: choose of"
            f" {_listed(sorted(map(str, tagged)))}."
        )
    near = get_close_matches(name, known, n=3)
    mend = f"did you mean {', '.join(near)}?" if near else "`lm_eval ls tasks` lists them."
    raise MorphingError(f"The harness has no task {name!r}: {mend}")


def _listed(names: Iterable[str], shown: int = 12) -> str:
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's configuration over those it includes, later ones over earlier ones."""
    if path in seen:
        raise MorphingError(f"The lm-eval task file {path} includes itself.")
    folder = path.parent

    class Loader(yaml.SafeLoader):
        """Knows ``!function``, whose module lies beside the file that names it."""

    Loader.add_constructor("!function", lambda loader, node: Function(folder, node.value))
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MorphingError(
            f"The lm-eval task file {path} can't be read: {first_line(error)}."
        ) from error
    if not isinstance(config, dict):
        raise MorphingError(f"The lm-eval task file {path} has no fields and values.")
    merged: dict[str, Any] = {}
    unsafe = False
    for name in _list(config.pop("include", None)):
        included = _read((folder / name).resolve(), (*seen, path))
        included.pop("task_list", None)
        unsafe |= bool(included.get("unsafe_code"))
        merged |= included
    # What runs programs without a sandbox does so whatever a file says that includes it.
    return merged | config | ({"unsafe_code": True} if unsafe else {})


def _functions(value: Any) -> Iterator[Function]:
    if isinstance(value, Function):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _functions(each)


def _loaded(value: Any) -> Any:
    if isinstance(value, Function):
        return value.load()
    if isinstance(value, Mapping):
        return {key: _loaded(each) for key, each in value.items()}
    return [_loaded(each) for each in value] if isinstance(value, list) else value


def _module(file: Path) -> ModuleType:
    # The harness's modules import each other by these names.
    inside = file.is_relative_to(library())
    relative = file.relative_to(library()) if inside else file
    parts = relative.with_suffix("").parts
    name = ".".join(("lm_eval", "tasks", *parts)) if inside else str(file.with_suffix(""))
    if (known := sys.modules.get(name)) is not None:
        return known
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python module")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
