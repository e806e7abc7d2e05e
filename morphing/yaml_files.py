"""YAML that people give: recipes, run specs and benchmarks, read safely and told apart.

Scalars are read as YAML 1.2 reads them, so ``1e-4`` is a number, and ``no`` (Norwegian), ``on`` and
dates are text, which YAML 1.1 and PyYAML take for booleans and dates. Keys are always text.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from morphing.errors import MorphingError

DocumentKind = Literal["recipe", "spec", "benchmark", "evolve", "moe", "task", "unknown"]

_MOST_NODES = 200_000
"""What a document may be with its aliases written out; a few lines of aliases can be 10**9."""
_MOST_BYTES = 32 * 2**20
_DEEPEST = 100
_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<mark>```+|~~~+)[ \t]*(?P<info>[\w.+-]*)[^\n]*$")
_LANGUAGES = ("", "yaml", "yml")
_NUMBER = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+|[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_SCALARS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), "-+0123456789"),
    ("float", _NUMBER, "-+.0123456789"),
    ("null", re.compile(r"~|null|Null|NULL|"), "~nN\0"),
    ("merge", re.compile(r"<<"), "<"),
)

_PLAINLY = {
    **dict.fromkeys(("tuple_type", "list_type"), "input should be a list, such as [a, b]"),
    **dict.fromkeys(("model_type", "dict_type"), "input should be fields with values"),
}
"""What pydantic says in words of Python, by its type of error."""
_KINDS = frozenset({"bool", "int", "float", "str", "list", "tuple", "dict"})


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars; no key twice, no document that is too deep or too large."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  PyYAML's own are those of YAML 1.1

    def get_single_data(self) -> Any:
        raise NotImplementedError("documents are read one by one")

    def compose_node(self, parent: Any, index: Any) -> Any:
        depth = self._depth = getattr(self, "_depth", 0) + 1
        if depth > _DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"it is nested more than {_DEEPEST} deep",
                problem_mark=self.peek_event().start_mark,
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        _check_size(node, {}, set())
        return super().construct_document(node)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key is a list or a mapping", problem_mark=key.start_mark
                )
            line = key.start_mark.line
            if key.value in lines:
                raise _Repeated(key.value, lines[key.value], line)
            lines[key.value] = line
            key.tag = "tag:yaml.org,2002:str"
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would read as something else than text."""


for _name, _pattern, _first in _SCALARS:
    _whole = re.compile(f"^(?:{_pattern.pattern})$")
    _firsts = [letter if letter != "\0" else "" for letter in _first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _whole, _firsts)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _whole, _firsts)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class _Repeated(yaml.YAMLError):
    def __init__(self, key: str, first: int, again: int) -> None:
        super().__init__(key)
        self.key, self.first, self.again = key, first, again


def read_text(path: Path, what: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 where it says so.

    Args:
        path: of the file.
        what: what it should be, for the error: "recipe".

    Raises:
        MorphingError: it cannot be read.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise MorphingError(
                f"The {what} {path} is larger than {_MOST_BYTES // 2**20} MB: give a YAML file."
            )
        data = path.read_bytes()
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise MorphingError(
            f"The {what} {path} cannot be read, for it is not text in UTF-8 (line {line}): save it"
            " as UTF-8."
        ) from error
    except OSError as error:
        raise MorphingError(
            f"The {what} {path} cannot be read ({error.strerror}): check the path."
        ) from error


def read_documents(text: str, where: str) -> list[Any]:
    """The documents of YAML text that are not empty; a YAML fence in Markdown is read too.

    Args:
        text: YAML, or Markdown with the YAML in a fence; of several fences each is a document.
        where: begins the sentence of an error: a path, "The recipe".

    Raises:
        MorphingError: the text is not YAML, has a key twice in one mapping, or is far too large.
    """
    fences = list(_fences(text.splitlines()))
    try:
        return _load(text, where)
    except MorphingError:
        if not fences:
            raise
    return [
        document for first, lines in fences for document in _load("\n".join(lines), where, first)
    ]


def read_document(text: str, where: str) -> Any:
    """The one document of YAML text; None where the text is empty.

    Raises:
        MorphingError: as `read_documents`, or there are several.
    """
    documents = read_documents(text, where)
    if len(documents) > 1:
        raise MorphingError(
            f"{where} holds {len(documents)} YAML documents and one is expected: keep one, or, if"
            " they are a recipe in stages, give them to `morphing merge`."
        )
    return documents[0] if documents else None


def write_yaml(data: Any, short_lists: bool = True) -> str:
    """Plain data as YAML that these functions, mergekit and YAML 1.1 readers read alike.

    ``short_lists`` writes innermost lists and mappings on one line, as in ``[0.1, 0.5]``.
    """
    return yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None if short_lists else False,
        width=1000,
    )


def kind_of(data: Any) -> DocumentKind:
    """What a document most likely is, by the keys that only one kind has."""
    keys = {_key(key) for key in data} if isinstance(data, Mapping) else set()
    if "genome" in keys:
        return "evolve"
    if "experts" in keys:
        return "moe"
    if keys & {"merge_method", "slices", "modules"} or ("models" in keys and "base" not in keys):
        return "recipe"
    if keys & {"dataset_path", "doc_to_text", "doc_to_target"}:
        return "task"
    if keys & {"dataset", "kind"} and not keys & {"sources", "base"}:
        return "benchmark"
    if keys & {"base", "sources", "benchmarks"}:
        return "spec"
    return "unknown"


_MEANT: Mapping[DocumentKind, str] = {
    "recipe": (
        "a recipe, which says one merge: `morphing merge {file} OUT` makes it, and a run spec tries"
        " it first where search.seeds names it"
    ),
    "spec": "a run spec, which says what to search: `morphing search {file}` runs it",
    "benchmark": (
        "a benchmark: `morphing evaluate MODEL --benchmark {file}` scores a model on it, and a run"
        " spec names it under benchmarks"
    ),
    "evolve": (
        "a configuration of mergekit-evolve, which says what to search: `morphing search {file}`"
        " runs it"
    ),
    "moe": (
        "a configuration of mergekit-moe, which makes a mixture of experts out of several models:"
        " Morphing makes models of their own architecture only, so use `mergekit-moe` for it, or"
        " write the models as a recipe with a merge_method"
    ),
    "task": (
        "a task of lm-evaluation-harness: name it lm_eval:TASK, with include for the folder it is"
        " in"
    ),
}


def refuse_other(data: Any, wanted: DocumentKind, where: str) -> None:
    """Refuse a document of another kind than is wanted here, by name.

    Args:
        data: the document.
        wanted: what it should be; what is of no known kind passes.
        where: begins the sentence: the file's path, or what else the document is from.

    Raises:
        MorphingError: saying what it is and what to do with it.
    """
    kind = kind_of(data)
    if kind not in (wanted, "unknown"):
        file = shlex.quote(where) if Path(where).suffix else "FILE.yaml"
        raise MorphingError(f"{where} is {_MEANT[kind].format(file=file)}.")


def did_you_mean(word: str, known: Sequence[str]) -> str | None:
    """The known word that a misspelt one most likely means, if any."""
    plain = {_key(name).replace("_", ""): name for name in known}
    near = get_close_matches(_key(word).replace("_", ""), plain, n=1, cutoff=0.7)
    return plain[near[0]] if near else None


def complaints(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """What pydantic found wrong, each with its place and, of unknown fields, what was meant.

    Misspelt fields come first, for a field that is missing is often one of them. Where a value may
    be of several kinds, one complaint says what each kind asks for, or, where a kind found fault
    with a part of the value, only that part is named.
    """
    misspelt, others = list[str](), dict[tuple[str, ...], str]()
    for entry in error.errors():
        place = tuple(str(part) for part in entry["loc"] if not _is_kind(str(part)))
        field, message = ".".join(place), _message(entry)
        if entry["type"] == "extra_forbidden":
            near = did_you_mean(place[-1], _fields(model, place[:-1]))
            message = f"unknown field {field!r}" + (f" (did you mean {near!r}?)" if near else "")
            if near:
                misspelt.append(message)
                continue
        elif entry["type"] == "missing":
            message = f"the field {field!r} is missing"
        elif place and place not in others:
            message = f"{field}: {message}"
        others[place] = f"{others[place]}, or {message}" if place in others else message
    inner = {place[:end] for place in others for end in range(1, len(place))}
    return misspelt + [told for place, told in others.items() if place not in inner]


def _is_kind(part: str) -> bool:
    """Whether a part of pydantic's place is no field, but a kind that a value may be of."""
    return part in _KINDS or "[" in part or part.startswith(("constrained-", "function-"))


def _message(entry: ErrorDetails) -> str:
    message = _PLAINLY.get(entry["type"], entry["msg"]).removeprefix("Value error, ").rstrip(".")
    return message[:1].lower() + message[1:]


def _fields(model: type[BaseModel], place: Sequence[str]) -> tuple[str, ...]:
    """The fields of the model that stands at a place inside another."""
    for part in place:
        field = model.model_fields.get(part)
        if field is None:
            continue  # an index, or the name of a union's member
        model = next(_models(field.annotation), model)
    return tuple(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models(part)


def _key(key: object) -> str:
    return re.sub(r"[\s-]+", "_", str(key).strip().casefold())


def _load(text: str, where: str, first: int = 0) -> list[Any]:
    """The documents of YAML alone, which begins after ``first`` lines of the file."""
    try:
        loader = _Loader(text)
        found = []
        while loader.check_data():
            found.append(loader.get_data())
        return [document for document in found if document is not None]
    except _Repeated as error:
        one, other = first + error.first + 1, first + error.again + 1
        lines = f"line {one}" if one == other else f"lines {one} and {other}"
        raise MorphingError(
            f"{where} has {error.key!r} twice in one mapping, in {lines}: keep one of them."
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f" in line {first + mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None)
        problem = str(problem or "it cannot be read")
        if problem.startswith("found character '\\t'"):
            problem = "a tab stands where spaces must: indent with spaces"
        raise MorphingError(f"{where} is not valid YAML{line}: {problem}.") from error


def _check_size(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """The number of nodes that a document has with its aliases written out."""
    if id(node) in above:
        raise yaml.MarkedYAMLError(
            problem="an alias stands inside of what it names", problem_mark=node.start_mark
        )
    if id(node) not in known:
        above.add(id(node))
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inside = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inside = list(node.value)
        known[id(node)] = 1 + sum(_check_size(part, known, above) for part in inside)
        above.discard(id(node))
        if known[id(node)] > _MOST_NODES:
            raise yaml.MarkedYAMLError(
                problem=f"it has more than {_MOST_NODES} values once its aliases are written out",
                problem_mark=node.start_mark,
            )
    return known[id(node)]


def _fences(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The YAML fences of Markdown, and after how many lines each begins."""
    opened: re.Match[str] | None = None
    start, inside = 0, list[str]()
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if opened is None:
            if fence is not None:
                opened, start, inside = fence, number, []
        elif fence is not None and fence["mark"].startswith(opened["mark"]) and not fence["info"]:
            if opened["info"].lower() in _LANGUAGES:
                yield start, inside
            opened = None
        else:
            inside.append(line.removeprefix(opened["indent"]))
    if opened is not None and opened["info"].lower() in _LANGUAGES:
        yield start, inside
