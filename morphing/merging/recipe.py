"""A recipe: one complete merge, written as a mergekit configuration.

Kept light: the search imports this module, so torch and mergekit (seconds to import) are only
reached from inside ``from_yaml`` and ``check``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from morphing.errors import MorphingError
from morphing.merging.methods import METHODS
from morphing.merging.recipe_checks import TEMPLATE_OF, check_recipe, remarks, unknown_keys
from morphing.merging.recipe_schema import in_one_spelling, schema_complaint
from morphing.sources.names import reference_name
from morphing.yaml_files import read_document, refuse_other, write_yaml

if TYPE_CHECKING:
    from mergekit.common import ModelReference
    from mergekit.config import MergeConfiguration


_MODULE = "default"  # mergekit's name for the one module of a text model
_ENTRIES = ("models", "sources")  # the lists whose entries name a model to merge
_TEXT_KEYS = ("tokenizer", "tokenizer_source", "chat_template")
_NO_MODEL = ("union", "base")  # what a tokenizer's source may say instead of naming a model


@dataclass(frozen=True)
class Recipe:
    """A mergekit configuration as plain data, and the seed of the random methods' masks.

    mergekit's schema has no field for the seed, so it is kept beside the YAML. Keys outside the
    schema change nothing, as they change nothing in mergekit; `remarks` tells them.
    """

    config: Mapping[str, Any]
    mask_seed: int = 0

    @classmethod
    def from_yaml(cls, text: str, mask_seed: int = 0, where: str = "The recipe") -> Recipe:
        """Read mergekit YAML; ``where`` begins the sentence of an error: its path, for example.

        Raises:
            MorphingError: the text is not YAML, or not a configuration `check` accepts.
        """
        return cls.from_data(read_document(text, where), mask_seed, where)

    @classmethod
    def from_data(cls, data: Any, mask_seed: int = 0, where: str = "The recipe") -> Recipe:
        """The recipe of a YAML document.

        Raises:
            MorphingError: it is none, or not a configuration `check` accepts.
        """
        if not isinstance(data, dict):
            raise MorphingError(
                f"{where} is not a mergekit configuration: its YAML must be a mapping with"
                " merge_method and models or slices."
            )
        refuse_other(data, "recipe", where)
        recipe = cls(in_one_spelling(data), mask_seed)
        recipe.check()
        named = recipe.with_names(reference_name)
        return recipe if named.references == recipe.references else named

    def to_yaml(self) -> str:
        """The mergekit YAML; the mask seed is not in it."""
        return write_yaml(_plain(self.config))

    @property
    def method(self) -> str:
        return str(self.config["merge_method"])

    @property
    def base(self) -> str | None:
        reference = self.config.get("base_model")
        return None if reference is None else model_name(reference)

    @property
    def sources(self) -> tuple[str, ...]:
        """The models merged, each once, base excluded, in the order they appear."""
        return tuple(name for name in _listed(self.config) if name != self.base)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The models merged, each once, in the order they appear; a base not listed comes last."""
        names = _listed(self.config)
        return names if self.base is None or self.base in names else (*names, self.base)

    @property
    def references(self) -> tuple[str, ...]:
        """Every model named: the inputs, then those that only other settings name.

        Those are models that give a tokenizer, or are a slice's base and not merged in it.
        """
        named = list(self.inputs)

        def note(name: str) -> str:
            named.append(name)
            return name

        _renamed(self.config, note)
        return tuple(dict.fromkeys(named))

    @property
    def remarks(self) -> list[str]:
        """What the recipe says that changes nothing, one sentence each, with what was meant."""
        return remarks(self.config)

    @property
    def template_model(self) -> str | None:
        """The model whose chat template the recipe takes: ``chat_template: model:NAME``."""
        wanted = self.config.get("chat_template")
        named = isinstance(wanted, str) and wanted.startswith(TEMPLATE_OF)
        return wanted.removeprefix(TEMPLATE_OF) if isinstance(wanted, str) and named else None

    def with_names(self, rename: Callable[[str], str | Mapping[str, Any]]) -> Recipe:
        """The same recipe with every model reference renamed, wherever it stands.

        ``rename`` gets a name as the recipe writes it and returns what mergekit is to read: a
        string, or mergekit's mapping form for a path its string form cannot hold.
        """
        return Recipe(_renamed(self.config, rename), self.mask_seed)

    def mean(self) -> Recipe:
        """The weighted average that a solved merge begins with; mergekit knows it.

        It has the solved merge's tensors, configuration and tokenizer, and other weights.
        """
        weights = {} if self.base is None else {self.base: 0.0}
        for entry in self.config["models"]:
            name = model_name(entry["model"])
            weights[name] = weights.get(name, 0.0) + float(entry["parameters"]["weight"])
        kept = {
            key: self.config[key]
            for key in ("base_model", "dtype", "out_dtype", *_TEXT_KEYS)
            if key in self.config
        }
        models = [
            {"model": name, "parameters": {"weight": weight}} for name, weight in weights.items()
        ]
        return Recipe({"merge_method": "linear", "models": models, **kept}, self.mask_seed)

    def check(self) -> MergeConfiguration:
        """Validate against mergekit's own schema and the method's input contract.

        Returns:
            mergekit's configuration object, as the recipe writes it.

        Raises:
            MorphingError: one sentence naming what is wrong.
        """
        check_recipe(self.config)
        if METHODS[self.method].solved:
            return self.mean().check()
        from mergekit import merge_methods
        from mergekit.config import MergeConfiguration
        from pydantic import ValidationError

        plain = _plain(self.config)
        try:
            configuration = MergeConfiguration.model_validate(plain)
        except ValidationError as error:
            sentence = schema_complaint(error, plain).removesuffix(".")
            raise MorphingError(f"{sentence}{self._hint()}.") from error
        except (ValueError, RuntimeError) as error:
            told = str(error)
            if told.startswith("Can't parse "):
                name = told.removeprefix("Can't parse ")
                raise MorphingError(
                    f"The recipe names {name}, which is more than a model and an adapter: write"
                    " model+adapter, each with one @revision at most."
                ) from error
            raise MorphingError(
                f"The recipe is not a mergekit configuration: {told}{self._hint()}."
            ) from error
        if configuration.modules and list(configuration.modules) != [_MODULE]:
            raise MorphingError(
                f"The recipe merges the modules {', '.join(configuration.modules)}, and only text"
                f" models, whose one module is {_MODULE!r}, can be merged: write its models or"
                " slices without modules."
            )
        try:
            for label, inputs, base in _groups(configuration):
                _check_repeats(label, inputs)
                merge_methods.get(self.method).validate_inputs(inputs, base, group_name=label)
        except ValueError as error:
            told = str(error)
            mend = " (base_model counts as one)" if "inputs" in told and self.base else ""
            mend = ": name one as base_model" if "requires a base" in told else mend
            raise MorphingError(
                f"The recipe cannot be merged with {self.method}: {told}{mend}."
            ) from error
        return configuration

    def _hint(self) -> str:
        """What was most likely meant by a key that means nothing, in brackets; empty if none."""
        return next((f" ({text.rstrip('.')})" for text in unknown_keys(self.config)), "")


def _groups(
    configuration: MergeConfiguration,
) -> Iterator[tuple[str | None, list[ModelReference], ModelReference | None]]:
    """The inputs and the base of every slice; all the models at once where there are no slices."""
    part = (configuration.modules or {}).get(_MODULE, configuration)
    base = configuration.base_model
    if part.models:
        inputs = [entry.model for entry in part.models]
        yield None, inputs if base is None or base in inputs else [*inputs, base], base
    for place, piece in enumerate(part.slices or [], 1):
        inputs = [source.model for source in piece.sources]
        yield f"slice {place}", inputs, piece.base_model or base


def _check_repeats(label: str | None, inputs: list[ModelReference]) -> None:
    """Refuse a model that is merged with itself.

    Raises:
        MorphingError: naming it.
    """
    twice = next((model for place, model in enumerate(inputs) if model in inputs[:place]), None)
    if twice is not None:
        raise MorphingError(
            f"The recipe lists {twice} more than once{f' in {label}' if label else ''}: keep one of"
            " them."
        )


def _listed(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The models that entries of ``models`` and ``sources`` name, each once, in order."""
    names = [model_name(entry["model"]) for key in _ENTRIES for entry in config.get(key) or ()]
    parts = (*(config.get("slices") or ()), *(config.get("modules") or {}).values())
    return tuple(dict.fromkeys((*names, *(name for part in parts for name in _listed(part)))))


def _renamed(
    config: Mapping[str, Any], rename: Callable[[str], str | Mapping[str, Any]]
) -> dict[str, Any]:
    """A configuration, or a module or slice of one, with its model references renamed."""
    result = dict(config)
    for key, value in config.items():
        if not value:
            continue
        if key in _ENTRIES:
            result[key] = [
                {**entry, "model": rename(model_name(entry["model"]))} for entry in value
            ]
        elif key == "slices":
            result[key] = [_renamed(part, rename) for part in value]
        elif key == "modules":
            result[key] = {name: _renamed(part, rename) for name, part in value.items()}
        elif key == "base_model" or (key == "tokenizer_source" and value not in _NO_MODEL):
            result[key] = rename(model_name(value))
        elif key == "chat_template" and str(value).startswith(TEMPLATE_OF):
            named = rename(str(value).removeprefix(TEMPLATE_OF))
            # A path that mergekit's strings cannot hold stays: mergekit reads no model here.
            result[key] = TEMPLATE_OF + named if isinstance(named, str) else value
        elif key == "tokenizer":
            result[key] = _renamed_tokenizer(value, rename)
    return result


def _renamed_tokenizer(
    tokenizer: Mapping[str, Any], rename: Callable[[str], str | Mapping[str, Any]]
) -> dict[str, Any]:
    def token(entry: Mapping[str, Any]) -> Mapping[str, Any]:
        source = entry.get("source")
        kind = source.get("kind") if isinstance(source, Mapping) else None
        if source is None or kind == "zero":
            return entry
        if kind is None:
            return {**entry, "source": rename(model_name(source))}
        model = rename(model_name(source["model"]))
        if (
            isinstance(model, str) and "+" in model
        ):  # here mergekit reads no string of two revisions
            model = dict(zip(("model", "lora"), model.split("+", 1), strict=True))
        return {**entry, "source": {**source, "model": model}}

    result = dict(tokenizer)
    if tokenizer.get("source") not in (None, *_NO_MODEL):
        result["source"] = rename(model_name(tokenizer["source"]))
    if tokenizer.get("tokens"):
        result["tokens"] = {text: token(entry) for text, entry in tokenizer["tokens"].items()}
    return result


def model_name(reference: Any) -> str:
    """A model reference as mergekit's string form writes it: ``path[@revision][+adapter]``."""
    if isinstance(reference, str):
        return reference
    if "path" in reference:
        revision = reference.get("revision")
        return f"{reference['path']}@{revision}" if revision else str(reference["path"])
    adapter = reference.get("lora")
    return model_name(reference["model"]) + (f"+{model_name(adapter)}" if adapter else "")


def _plain(value: Any) -> Any:
    """Mappings and sequences as dicts and lists, for YAML and pydantic."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
