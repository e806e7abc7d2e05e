"""What a recipe says that cannot be, and what it says that changes nothing.

Both are told by the recipe's plain data alone, each with its place, before a model is looked at.
What needs the models (a filter that no tensor's name matches) is told by `planning.remarks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from morphing.errors import MorphingError
from morphing.merging.method import Method, Parameter
from morphing.merging.methods import METHODS, nearest
from morphing.yaml_files import did_you_mean

DTYPES = ("float32", "bfloat16", "float16")
CHAT_TEMPLATES = ("auto", "alpaca", "chatml", "exaone", "llama3", "mistral")
"""mergekit's own by name; anything with a brace in it is a template."""
TEMPLATE_OF = "model:"
"""In ``chat_template``, before the name of the model whose template it is. What mergekit runs has
the template's text instead (`writing.checkpoint.mergekit_recipe`)."""

KEYS: Mapping[str, tuple[str, ...]] = {
    "recipe": (
        "merge_method",
        "models",
        "slices",
        "modules",
        "base_model",
        "parameters",
        "dtype",
        "out_dtype",
        "tokenizer_source",
        "tokenizer",
        "chat_template",
        "name",
    ),
    "model": ("model", "parameters", "prompts"),
    "slice": ("sources", "base_model", "residual_weight", "parameters"),
    "source": ("model", "layer_range", "parameters"),
    "module": ("slices", "models", "parameters"),
    "condition": ("value", "filter"),
    "tokenizer": ("source", "tokens", "pad_to_multiple_of"),
    "token": ("source", "force"),
}
"""The keys that mean something in each kind of mapping; ``name`` names a stage among several."""

_ELSEWHERE = {
    "layer_range": "under the sources of slices",
    "filter": "beside a value, in a list under a parameter",
    "value": "beside a filter, in a list under a parameter",
    "sources": "under slices",
    "tokens": "under tokenizer",
    "pad_to_multiple_of": "under tokenizer",
    "tokenizer_source": "at the top of the recipe",
    "tokenizer": "at the top of the recipe",
    "chat_template": "at the top of the recipe",
    "dtype": "at the top of the recipe",
    "out_dtype": "at the top of the recipe",
    "merge_method": "at the top of the recipe",
    "base_model": "at the top of the recipe, or in a slice",
}
_EVOLVE = ("smooth", "filters", "layer_granularity", "allow_negative_weights", "genome", "tasks")
_DTYPE_NAMES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32"}
_SWITCHES = ("true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "y", "n")
_PARAMETERS = frozenset(name for method in METHODS.values() for name in method.by_name)


@dataclass(frozen=True)
class _Part:
    """A mapping of a recipe."""

    place: str
    """``slices.0.sources.1``; empty for the recipe itself."""
    kind: Literal["recipe", "model", "slice", "source", "module", "condition", "tokenizer", "token"]
    data: Mapping[str, Any]
    base: Any = None
    """The base that counts there."""

    def at(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    @property
    def is_base(self) -> bool:
        return self.kind in ("model", "source") and self.data.get("model") == self.base is not None

    @property
    def parameters(self) -> Mapping[str, Any]:
        found = self.data.get("parameters")
        return found if isinstance(found, Mapping) else {}


def check_recipe(config: Mapping[str, Any]) -> None:
    """Refuse what can never be merged, or would be merged into nonsense.

    Raises:
        MorphingError: naming the place and what may stand there.
    """
    method = _method(config)
    _check_words(config)
    if method.solved:
        _check_solved(method, config)
    for part in _parts(config):
        if part.kind == "source":
            _check_layer_range(part)
        for name, setting in part.parameters.items():
            if (parameter := method.by_name.get(name)) is not None:
                _check_setting(part.at(f"parameters.{name}"), parameter, setting)


def remarks(config: Mapping[str, Any]) -> list[str]:
    """What a recipe says that changes nothing, one sentence each, with what was meant.

    Args:
        config: a recipe that `check_recipe` accepts.
    """
    method = METHODS[config["merge_method"]]
    found: list[str] = []
    for part in _parts(config):
        found += _unknown_keys(part)
        if "prompts" in part.data and not method.solved:
            found.append(f"{part.at('prompts')} changes nothing: {method.name} reads no prompts.")
        found += _unread_parameters(part, method)
    return found


def unknown_keys(config: Mapping[str, Any]) -> list[str]:
    """The keys of a recipe that mean nothing where they stand, one sentence each."""
    return [sentence for part in _parts(config) for sentence in _unknown_keys(part)]


def _method(config: Mapping[str, Any]) -> Method:
    written = config.get("merge_method")
    if isinstance(written, str) and written in METHODS:
        return METHODS[written]
    if written is None:
        near = next((key for key in config if did_you_mean(str(key), ("merge_method",))), None)
        mend = f"write merge_method for {near!r}" if near else f"choose one of {_names()}"
        raise MorphingError(f"The recipe has no merge_method: {mend}.")
    meant = nearest(written)
    mend = f"did you mean {meant!r}?" if meant else f"choose one of {_names()}."
    raise MorphingError(f"The recipe's merge_method is {written!r}: {mend}")


def _names() -> str:
    return ", ".join(METHODS)


def _check_words(config: Mapping[str, Any]) -> None:
    """Words of which only a few are known: dtypes, whose tokenizer, which chat template."""
    for key in ("dtype", "out_dtype"):
        value = config.get(key)
        if value is not None and value not in DTYPES:
            plain = str(value).casefold().removeprefix("torch.")
            near = _DTYPE_NAMES.get(plain) or did_you_mean(plain, DTYPES)
            raise MorphingError(
                f"The recipe's {key} is {value!r}:"
                f" {f'did you mean {near}? C' if near else 'c'}hoose one of {', '.join(DTYPES)}."
            )
    tokenizer = config.get("tokenizer")
    sources = {"tokenizer_source": config.get("tokenizer_source")}
    if isinstance(tokenizer, Mapping):
        sources["tokenizer.source"] = tokenizer.get("source")
    for key, value in sources.items():
        word = value.strip().casefold() if isinstance(value, str) else value
        if word in ("union", "base") and value != word:
            raise MorphingError(f"The recipe's {key} is {value!r}: did you mean {word!r}?")
    template = config.get("chat_template")
    if (
        isinstance(template, str)
        and template
        and not (template in CHAT_TEMPLATES or "{" in template)
        and not template.startswith(TEMPLATE_OF)
    ):
        near = did_you_mean(template, CHAT_TEMPLATES)
        meant = f"did you mean {near!r}? Write" if near else "write"
        raise MorphingError(
            f"The recipe's chat_template is {template!r}: {meant} one of"
            f" {', '.join(CHAT_TEMPLATES)}, {TEMPLATE_OF} and a model's name, or a Jinja template."
        )


def _check_solved(method: Method, config: Mapping[str, Any]) -> None:
    """A method that solves a merge from prompts: a base, and a task for each entry of models."""
    name = method.name
    if "slices" in config or "modules" in config:
        raise MorphingError(
            f"The recipe merges slices or modules by {name}, which solves whole models: list them"
            " under models."
        )
    if config.get("base_model") is None:
        raise MorphingError(
            f"The recipe has no base_model, and {name} needs one: its configuration and tokenizer"
            " are the merge's."
        )
    entries = config.get("models")
    if not isinstance(entries, list) or not entries:
        raise MorphingError(f"The recipe lists no models for {name}: write them under models.")
    for number, entry in enumerate(entries):
        place = f"models.{number}"
        if not isinstance(entry, Mapping) or "model" not in entry:
            raise MorphingError(f"The recipe's {place} names no model: write model: NAME.")
        if not isinstance(entry.get("parameters"), Mapping) or isinstance(
            entry["parameters"].get("weight", ""), str | list | tuple | Mapping
        ):
            raise MorphingError(
                f"The recipe's {place}.parameters.weight must be one number, the task's share."
            )
        if "prompts" not in entry:
            raise MorphingError(
                f"The recipe's {place} has no prompts: name the benchmark, data file or dataset"
                f" that {entry['model']} is to teach the merge by, as in prompts: gsm8k."
            )


def _check_layer_range(part: _Part) -> None:
    ends = part.data.get("layer_range")
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        return  # the schema says so
    if any(type(end) is not int for end in ends):
        return
    start, end = ends
    if start < 0 or end <= start:
        raise MorphingError(
            f"The recipe's {part.at('layer_range')} is [{start}, {end}], which holds no layers:"
            " write the first layer and the one after the last, as in [0, 8]."
        )


def _check_setting(place: str, parameter: Parameter, setting: Any) -> None:
    """A value; a list of values over the layers; values with filters, which may be either."""
    if isinstance(setting, Mapping):
        setting = [setting]
    if not isinstance(setting, list | tuple):
        _check_value(place, parameter, setting)
        return
    if not setting:
        raise MorphingError(
            f"The recipe's {place} is an empty list: write {_wanted(parameter)}, or a list of such"
            " values from the first layer to the last."
        )
    conditions = [isinstance(entry, Mapping) for entry in setting]
    if any(conditions) and not all(conditions):
        raise MorphingError(
            f"The recipe's {place} mixes values with and without a filter: write each as"
            " {filter: ..., value: ...}, and the rest as {value: ...}."
        )
    if not any(conditions) and parameter.kind == "whole number" and len(setting) > 1:
        raise MorphingError(
            f"The recipe's {place} is a list, and {parameter.name} cannot change from layer to"
            f" layer: write {_wanted(parameter)}."
        )
    for number, entry in enumerate(setting):
        if not isinstance(entry, Mapping):
            _check_value(f"{place}.{number}", parameter, entry)
            continue
        if "value" not in entry:
            raise MorphingError(
                f"The recipe's {place}.{number} has no value: write {_wanted(parameter)} there."
            )
        if not isinstance(entry.get("filter"), str | None):
            raise MorphingError(
                f"The recipe's {place}.{number}.filter is {entry['filter']!r}: write a part of the"
                " names of tensors, such as mlp."
            )
        if isinstance(entry["value"], Mapping):
            raise MorphingError(
                f"The recipe's {place}.{number}.value is a mapping: write {_wanted(parameter)}."
            )
        _check_setting(f"{place}.{number}.value", parameter, entry["value"])


def _check_value(place: str, parameter: Parameter, value: Any) -> None:
    if parameter.kind == "switch":
        accepted = str(value).casefold() in _SWITCHES or value in (0, 1)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        accepted = False
    else:
        low, high = parameter.allowed
        accepted = _is_finite(value) and low <= value <= high
        accepted = accepted and (parameter.kind == "number" or float(value).is_integer())
    if not accepted:
        raise MorphingError(
            f"The recipe's {place} is {_shown(value)}: it must be {_wanted(parameter)}."
        )


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _wanted(parameter: Parameter) -> str:
    if parameter.kind == "switch":
        return "true or false"
    low, high = parameter.allowed
    number = f"a {parameter.kind}"
    if math.isfinite(high):
        return f"{number} from {low:g} to {high:g}"
    return f"{number} of {low:g} or more" if math.isfinite(low) else f"{number} that is finite"


def _shown(value: Any) -> str:
    text = f"the text {value!r}" if isinstance(value, str) else str(value)
    return text if len(text) < 60 else f"{text[:60]}..."


def _parts(config: Mapping[str, Any]) -> Iterator[_Part]:
    """Every mapping of a recipe, from the outside in; the schema refuses what is none."""
    base = config.get("base_model")
    yield _Part("", "recipe", config, base)
    yield from _inner_parts("", config, base)
    modules = config.get("modules")
    for name, module in modules.items() if isinstance(modules, Mapping) else ():
        if isinstance(module, Mapping):
            yield _Part(f"modules.{name}", "module", module, base)
            yield from _inner_parts(f"modules.{name}.", module, base)
    tokenizer = config.get("tokenizer")
    if isinstance(tokenizer, Mapping):
        yield _Part("tokenizer", "tokenizer", tokenizer)
        tokens = tokenizer.get("tokens")
        for token, entry in tokens.items() if isinstance(tokens, Mapping) else ():
            if isinstance(entry, Mapping):
                yield _Part(f"tokenizer.tokens.{token}", "token", entry)


def _inner_parts(prefix: str, outer: Mapping[str, Any], base: Any) -> Iterator[_Part]:
    for number, entry in _mappings(outer.get("models")):
        yield _Part(f"{prefix}models.{number}", "model", entry, base)
    for number, piece in _mappings(outer.get("slices")):
        place = f"{prefix}slices.{number}"
        yield _Part(place, "slice", piece)
        own = piece.get("base_model") or base
        for other, entry in _mappings(piece.get("sources")):
            yield _Part(f"{place}.sources.{other}", "source", entry, own)


def _mappings(entries: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, entry in enumerate(entries if isinstance(entries, Sequence) else ()):
        if isinstance(entry, Mapping):
            yield number, entry


def _unknown_keys(part: _Part) -> Iterator[str]:
    known = KEYS[part.kind]
    for key in map(str, part.data):
        if key not in known:
            yield f"{part.at(key)} changes nothing: {_meant(key, part.kind, known)}"
    if part.kind == "slice" and part.data.get("residual_weight") is not None:
        yield f"{part.at('residual_weight')} changes nothing, neither here nor in mergekit."
    for name, setting in part.parameters.items():
        entries = [setting] if isinstance(setting, Mapping) else setting
        for number, entry in _mappings(entries):
            place = part.at(f"parameters.{name}.{number}")
            yield from _unknown_keys(_Part(place, "condition", entry))


def _meant(key: str, kind: str, known: Sequence[str]) -> str:
    """What an unknown key was meant to be, as far as it can be told."""
    has_parameters = "parameters" in known
    if has_parameters and key in _PARAMETERS:
        return "it belongs under parameters."
    if near := did_you_mean(key, known):
        return f"did you mean {near}?"
    if key in _ELSEWHERE:
        return f"it belongs {_ELSEWHERE[key]}."
    if key in _EVOLVE:
        return "it is a setting of mergekit-evolve, and one merge has no use for it."
    if has_parameters and (near := did_you_mean(key, sorted(_PARAMETERS))):
        return f"did you mean {near}, under parameters?"
    return f"a {kind} has {_list(known)}."


def _unread_parameters(part: _Part, method: Method) -> Iterator[str]:
    """Parameters that the method has not, or does not read where they stand."""
    of_base = []
    for name, setting in part.parameters.items():
        place = part.at(f"parameters.{name}")
        parameter = method.by_name.get(name)
        if parameter is None:
            near = did_you_mean(name, tuple(method.by_name))
            has = f"{method.name} has {_list(tuple(method.by_name)) or 'no parameters'}"
            yield f"{place} changes nothing: {f'did you mean {near}?' if near else f'{has}.'}"
        elif parameter.shared and part.kind in ("model", "source"):
            yield (
                f"{place} changes nothing: {method.name} reads {name} for all models at once, from"
                " the parameters of the recipe or of a slice."
            )
        elif part.is_base and not method.weighs_base:
            of_base.append(name)
        elif name == "density" and setting == 0:
            yield f"{place} is 0, so nothing is kept of {part.data.get('model', 'any source')}."
    if of_base:
        yield (
            f"{part.at('parameters')} changes nothing: {part.data['model']} is the base, and"
            f" {method.name} reads {_list(of_base)} of the other models only."
        )


def _list(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
