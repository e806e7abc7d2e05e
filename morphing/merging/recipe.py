"""A recipe: one complete merge, written as a mergekit configuration.

Kept light: the search imports this module, so torch and mergekit (seconds to import) are only
reached from inside ``from_yaml`` and ``check``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from morphing.errors import MorphingError

if TYPE_CHECKING:
    from mergekit.config import MergeConfiguration

METHODS = ("linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties")
DTYPES = ("float32", "bfloat16", "float16")

# mergekit knows these; this version does not carry them out, and a recipe that says so must not
# be merged as if it did not.
_UNSUPPORTED = ("slices", "modules", "tokenizer", "tokenizer_source", "chat_template")


@dataclass(frozen=True)
class Recipe:
    """A mergekit configuration as plain data, and the seed of DARE's masks.

    mergekit's schema has no field for the seed, so it is kept beside the YAML.
    """

    config: Mapping[str, Any]
    mask_seed: int = 0

    @classmethod
    def from_yaml(cls, text: str, mask_seed: int = 0) -> "Recipe":
        """Read mergekit YAML.

        Raises:
            MorphingError: the text is not YAML, or not a configuration `check` accepts.
        """
        try:
            config = yaml.safe_load(text)
        except yaml.YAMLError as error:
            problem = str(error).replace("\n", " ")
            raise MorphingError(f"The recipe is not valid YAML: {problem}.") from error
        if not isinstance(config, dict):
            raise MorphingError(
                "The recipe is not a mergekit configuration: its YAML must be a mapping with"
                " merge_method and models."
            )
        recipe = cls(config, mask_seed)
        recipe.check()
        return recipe

    def to_yaml(self) -> str:
        """The mergekit YAML; the mask seed is not in it."""
        return yaml.safe_dump(
            _plain(self.config),
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=None,
            width=1000,
        )

    @property
    def method(self) -> str:
        return str(self.config["merge_method"])

    @property
    def base(self) -> str | None:
        reference = self.config.get("base_model")
        return None if reference is None else _name(reference)

    @property
    def sources(self) -> tuple[str, ...]:
        """The models merged, base excluded, in the recipe's order."""
        names = (_name(entry["model"]) for entry in self.config["models"])
        return tuple(name for name in names if name != self.base)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every model whose tensors enter, in mergekit's order: a base not listed comes last."""
        names = tuple(_name(entry["model"]) for entry in self.config["models"])
        return names if self.base is None or self.base in names else (*names, self.base)

    def with_names(self, rename: Callable[[str], str | Mapping[str, Any]]) -> "Recipe":
        """The same recipe with every model reference renamed.

        ``rename`` gets a name as the recipe writes it and returns what mergekit is to read: a
        string, or mergekit's mapping form for a path its string form cannot hold.
        """
        config = dict(self.config)
        if self.base is not None:
            config["base_model"] = rename(self.base)
        config["models"] = [
            {**entry, "model": rename(_name(entry["model"]))} for entry in config["models"]
        ]
        return Recipe(config, self.mask_seed)

    def check(self) -> "MergeConfiguration":
        """Validate against mergekit's own schema and input contract, and what we support.

        Returns:
            mergekit's configuration object.

        Raises:
            MorphingError: one sentence naming what is wrong.
        """
        used = [key for key in _UNSUPPORTED if self.config.get(key) is not None]
        if used:
            raise MorphingError(
                f"The recipe uses {', '.join(used)}, which this version cannot merge: write it with"
                " models, merge_method, base_model, parameters, dtype and out_dtype only."
            )
        method = self.config.get("merge_method")
        if method not in METHODS:
            raise MorphingError(
                f"The recipe's merge_method is {method!r}: choose one of {', '.join(METHODS)}."
            )
        for key in ("dtype", "out_dtype"):
            if self.config.get(key) not in (None, *DTYPES):
                raise MorphingError(
                    f"The recipe's {key} is {self.config[key]!r}: choose one of"
                    f" {', '.join(DTYPES)}."
                )
        from mergekit import merge_methods
        from mergekit.config import MergeConfiguration

        try:
            configuration = MergeConfiguration.model_validate(_plain(self.config))
        except (ValueError, RuntimeError) as error:  # pydantic's ValidationError is a ValueError
            raise MorphingError(
                f"The recipe is not a mergekit configuration: {_brief(error)}."
            ) from error
        try:
            merge_methods.get(method).validate_inputs(self.inputs, self.base)
        except ValueError as error:
            raise MorphingError(f"The recipe cannot be merged with {method}: {error}.") from error
        return configuration


def _name(reference: Any) -> str:
    """A model reference as mergekit's string form writes it: ``path[@revision][+adapter]``."""
    if isinstance(reference, str):
        return reference
    if "path" in reference:
        revision = reference.get("revision")
        return f"{reference['path']}@{revision}" if revision else str(reference["path"])
    adapter = reference.get("lora")
    return _name(reference["model"]) + (f"+{_name(adapter)}" if adapter else "")


def _plain(value: Any) -> Any:
    """Mappings and sequences as dicts and lists, for YAML and pydantic."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _brief(error: Exception) -> str:
    """The first complaint of a validation error, with the place it is about."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
