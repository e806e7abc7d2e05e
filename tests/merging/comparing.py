"""What the parity test and ``perf/parity.py`` share: recipes of every method, and comparisons."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import sqrt
from pathlib import Path
from string import Template
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from morphing.merging.planning.plan import PlannedTensor, make_plan
from morphing.merging.recipe import Recipe

STOCHASTIC = ("dare_linear", "dare_ties", "della", "della_linear", "arcee_fusion")
"""Methods that draw at random; arcee_fusion does for tensors of over a million elements only."""

NAMES = ("base", "one", "two", "three")
"""What recipes here call their models."""

_THREE = """\
base_model: $base
models:
- {model: $one, parameters: {weight: 0.7, density: [0.2, 0.9]}}
- model: $two
  parameters:
    weight: [{filter: mlp, value: -0.3}, {value: 0.5}]
    density: 0.6
- {model: $three, parameters: {weight: [0.1, 0.4, 0.3], density: 0.75}}
"""
_ALL = """\
base_model: $base
models: [{model: $one}, {model: $two}, {model: $three}]
"""
_PAIR = "base_model: $base\nmodels: [{model: $one}]\n"

RECIPES: Mapping[str, str] = {
    "linear": """\
models:
- {model: $base, parameters: {weight: 0.4}}
- {model: $one, parameters: {weight: [0.2, 0.9]}}
- {model: $two, parameters: {weight: [{filter: mlp, value: -0.3}, {value: 0.5}]}}
- {model: $three, parameters: {weight: 0.3}}
""",
    "slerp": _PAIR
    + "parameters: {t: [{filter: self_attn, value: [0.2, 0.8]}, {filter: mlp, value: [0.9, 0.3]},"
    " {value: 0.5}]}\n",
    "nuslerp": """\
base_model: $base
models:
- {model: $one, parameters: {weight: [0.2, 0.9]}}
- {model: $two, parameters: {weight: [{filter: mlp, value: 0.3}, {value: 0.6}]}}
""",
    "multislerp": _THREE.replace("-0.3", "0.3"),
    "karcher": "models: [{model: $base}, {model: $one}, {model: $two}, {model: $three}]\n",
    "task_arithmetic": _THREE,
    "ties": _THREE,
    "dare_linear": _THREE,
    "dare_ties": _THREE,
    "della": _THREE.replace("[0.2, 0.9]", "[0.3, 0.8]") + "parameters: {epsilon: 0.1}\n",
    "della_linear": _THREE.replace("[0.2, 0.9]", "[0.3, 0.8]")
    + "parameters: {epsilon: [0.05, 0.15]}\n",
    "breadcrumbs": _THREE + "parameters: {gamma: [0.01, 0.1]}\n",
    "breadcrumbs_ties": _THREE + "parameters: {gamma: 0.05}\n",
    "sce": _ALL + "parameters: {select_topk: [0.3, 0.8]}\n",
    "model_stock": _ALL,
    "nearswap": _PAIR + "parameters: {t: [0.0005, 0.005]}\n",
    "arcee_fusion": _PAIR,
    "ram": _ALL + "parameters: {epsilon: 0.0005}\n",
    "ramplus_tl": _ALL + "parameters: {epsilon: 0.0005, r: 0.3, alpha: 0.5}\n",
    "passthrough": "models: [{model: $one, parameters: {scale: [0.5, 1.5]}}]\n",
}
"""YAML of one recipe for every method, with gradients and filters; models by these four names."""


def recipe_text(method: str, folders: Sequence[Path | str], dtype: str, out_dtype: str) -> str:
    """The method's YAML over a base and three sources."""
    names = dict(zip(NAMES, map(str, folders), strict=True))
    body = Template(RECIPES[method]).substitute(names)
    return f"merge_method: {method}\n{body}dtype: {dtype}\nout_dtype: {out_dtype}\n"


def read(folder: Path | str) -> dict[str, Tensor]:
    """All tensors of a checkpoint."""
    return {name: tensor for file in _files(folder) for name, tensor in _tensors(file)}


def ulps(a: Tensor, b: Tensor) -> Tensor:
    """How many steps of their dtype lie between entries: int64."""
    return (_ordered(a) - _ordered(b)).abs()


@dataclass
class Agreement:
    """How far two checkpoints agree."""

    compared: int = 0
    within: int = 0
    """Of these: equal or neighbours in their dtype."""
    excluded: int = 0
    """Not compared: at a magnitude threshold's tie."""
    worst: int = 0
    """Most steps apart."""

    @property
    def share(self) -> float:
        return self.within / self.compared

    def add(self, ours: Tensor, theirs: Tensor, free: Tensor | None = None) -> None:
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        apart = ulps(ours, theirs)
        if free is not None:
            apart = apart[~free]
            self.excluded += int(free.sum())
        self.compared += apart.numel()
        self.within += int((apart <= 1).sum())
        self.worst = max(self.worst, int(apart.max()) if apart.numel() else 0)


def agreement(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], free: Mapping[str, Tensor]
) -> Agreement:
    """Compare checkpoints that must have the same names, shapes and dtypes."""
    assert ours.keys() == theirs.keys()
    result = Agreement()
    for name, tensor in ours.items():
        result.add(tensor, theirs[name], free.get(name))
    return result


# ------------------------------------------------------------------------------------------------
# Random models

SPREAD = 0.04  # SmolLM2's initializer_range
STEP = 0.01
"""Of a source from its base, in units of the weights' spread: a light fine-tuning."""


def save_random_models(folders: Sequence[Path], config: Mapping[str, Any]) -> None:
    """A tied Llama in bfloat16 and sources a small normal step from it, without tokenizers."""
    generator = torch.Generator().manual_seed(0)
    base = dict(_random_llama(config, generator))
    for folder in folders:
        tensors = base
        if folder != folders[0]:
            tensors = {name: _moved(tensor, generator) for name, tensor in base.items()}
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        common: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        common |= {"tie_word_embeddings": True, "torch_dtype": "bfloat16"}
        (folder / "config.json").write_text(json.dumps({**common, **config}, indent=1))


def _moved(tensor: Tensor, generator: torch.Generator) -> Tensor:
    # Norms lie around one, where bfloat16 has no smaller steps than this.
    size = SPREAD * STEP if tensor.ndim > 1 else 0.01
    step = torch.randn(tensor.shape, generator=generator) * size
    return (tensor.float() + step).bfloat16()


def _random_llama(
    config: Mapping[str, Any], generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    narrow = width // config["num_attention_heads"] * config["num_key_value_heads"]

    def matrix(rows: int, columns: int) -> Tensor:
        return (torch.randn(rows, columns, generator=generator) * SPREAD).bfloat16()

    def norm() -> Tensor:
        return (1 + torch.randn(width, generator=generator) * 0.1).bfloat16()

    yield "model.embed_tokens.weight", matrix(config["vocab_size"], width)
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        for key, rows in {"q": width, "k": narrow, "v": narrow, "o": width}.items():
            yield f"{name}self_attn.{key}_proj.weight", matrix(rows, width)
        yield f"{name}mlp.gate_proj.weight", matrix(inner, width)
        yield f"{name}mlp.up_proj.weight", matrix(inner, width)
        yield f"{name}mlp.down_proj.weight", matrix(width, inner)
        yield f"{name}input_layernorm.weight", norm()
        yield f"{name}post_attention_layernorm.weight", norm()
    yield "model.norm.weight", norm()


# ------------------------------------------------------------------------------------------------
# Ties


def undecided(recipe: Recipe, dtypes: Sequence[torch.dtype]) -> Iterator[tuple[str, Tensor]]:
    """Where a method by magnitude must choose among equal ones: mergekit by its sort's whim.

    Of the output's tensors those with such a tie, and where it is. mergekit's choice is made in the
    recipe's ``dtype`` and ours in float32: a tie in any of ``dtypes`` counts.
    """
    from morphing.merging.models import open_models
    from morphing.sources.find import download

    if recipe.method not in _BOUNDARIES:
        return
    models = open_models({name: (download(name), None) for name in recipe.inputs})
    for tensor in make_plan(recipe, {name: model.info for name, model in models.items()}).tensors:
        tensors = [models[item.model].weights.read(item.tensor) for item in tensor.inputs]
        tied = torch.zeros(tensors[0].shape, dtype=torch.bool)
        for dtype in dtypes:
            for magnitude, kept in _BOUNDARIES[recipe.method](
                tensor, [t.to(dtype) for t in tensors]
            ):
                tied |= _ties(magnitude, kept)
        if tied.any():
            yield tensor.name, tied


_Cut = tuple[Tensor, list[int]]
"""Magnitudes, and how many of the largest are on one side of each threshold."""


def _trimmed(tensor: PlannedTensor, inputs: Sequence[Tensor]) -> Iterator[_Cut]:
    for delta, own in _deltas(tensor, inputs):
        yield delta.abs(), [max(1, int(own["density"] * delta.numel()))]


def _without_outliers(tensor: PlannedTensor, inputs: Sequence[Tensor]) -> Iterator[_Cut]:
    for delta, own in _deltas(tensor, inputs):
        count = delta.numel()
        kept = int(own["density"] * count)
        least = max(0, count - kept - int(own["gamma"] * count))
        yield delta.abs(), [count - least, count - least - kept]


def _varied(tensor: PlannedTensor, inputs: Sequence[Tensor]) -> Iterator[_Cut]:
    deltas = torch.stack([delta for delta, _ in _deltas(tensor, inputs)])
    variance = torch.var(deltas, dim=0, unbiased=False)
    yield variance, [int(torch.count_nonzero(variance) * tensor.shared["select_topk"])]


_BOUNDARIES: Mapping[str, Callable[[PlannedTensor, Sequence[Tensor]], Iterator[_Cut]]] = {
    "ties": _trimmed,
    "breadcrumbs": _without_outliers,
    "breadcrumbs_ties": _without_outliers,
    "sce": _varied,
}


def _deltas(
    tensor: PlannedTensor, inputs: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Mapping[str, float]]]:
    assert tensor.base is not None
    for place, (source, own) in enumerate(zip(inputs, tensor.own, strict=True)):
        if place != tensor.base:
            yield source - inputs[tensor.base], own


def _ties(magnitude: Tensor, boundaries: Sequence[int]) -> Tensor:
    flat = magnitude.float().flatten()
    tied = torch.zeros(magnitude.shape, dtype=torch.bool)
    for kept in boundaries:
        if not 0 < kept < flat.numel():
            continue
        threshold = flat.kthvalue(flat.numel() - kept + 1).values
        # Entries of magnitude zero add nothing, chosen or not.
        if threshold > 0 and int((flat >= threshold).sum()) > kept:
            tied |= magnitude == threshold
    return tied


class StableSorts(TorchFunctionMode):
    """Inside it equal entries stay in the order of their index when torch sorts.

    What mergekit chooses among equal magnitudes is then what we choose.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.topk:
            values, order = torch.sort(args[0], descending=True, stable=True)
            return torch.return_types.topk((values[: options["k"]], order[: options["k"]]))
        if func in (torch.argsort, torch.sort):
            options["stable"] = True
        return func(*args, **options)


def run_mergekit(recipe: Path, folder: Path, **options: Any) -> None:
    """What ``mergekit-yaml`` does, in this process."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    configuration = MergeConfiguration.model_validate(
        yaml.safe_load(recipe.read_text(encoding="utf-8"))
    )
    run_merge(configuration, str(folder), MergeOptions(quiet=True, **options))


# ------------------------------------------------------------------------------------------------
# Distributions


@dataclass
class Spread:
    """Sums over the differences of a merged model from its base."""

    count: int = 0
    changed: int = 0
    absolute: float = 0.0
    first: float = 0.0
    second: float = 0.0
    fourth: float = 0.0

    def add(self, merged: Tensor, base: Tensor) -> None:
        delta = merged.double() - base.double()
        squares = delta.square()
        self.count += delta.numel()
        self.changed += int(torch.count_nonzero(delta))
        self.absolute += float(delta.abs().sum())
        self.first += float(delta.sum())
        self.second += float(squares.sum())
        self.fourth += float(squares.square().sum())

    def statistics(self) -> dict[str, tuple[float, float]]:
        """Share of changed entries, L1 norm an entry, mean, variance: each with its standard error.

        The errors are those of independent entries. Two merges of the same models have much in
        common, so they differ by less.
        """
        n = self.count
        changed, size = self.changed / n, self.absolute / n
        mean, square = self.first / n, self.second / n
        return {
            "changed": (changed, sqrt(changed * (1 - changed) / n)),
            "size": (size, sqrt(max(0.0, square - size**2) / n)),
            "mean": (mean, sqrt(square / n)),
            "variance": (square - mean**2, sqrt(max(0.0, self.fourth / n - square**2) / n)),
        }

    def __add__(self, other: Spread) -> Spread:
        names = [field.name for field in fields(self)]
        return Spread(**{name: getattr(self, name) + getattr(other, name) for name in names})


def spread(merged: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Spread:
    """Of a whole checkpoint."""
    result = Spread()
    for name, tensor in merged.items():
        result.add(tensor, base[name])
    return result


def errors_apart(ours: Spread, theirs: Spread) -> dict[str, float]:
    """By how many standard errors two spreads differ, by statistic."""
    mine, other = ours.statistics(), theirs.statistics()
    apart = {}
    for name, (value, error) in mine.items():
        expected, their_error = other[name]
        both = sqrt(error**2 + their_error**2)
        apart[name] = abs(value - expected) / both if both else 0.0
    return apart


def _files(folder: Path | str) -> list[Path]:
    return sorted(Path(folder).glob("*.safetensors"))


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118  (not a mapping)
            yield name, opened.get_tensor(name)


def _ordered(tensor: Tensor) -> Tensor:
    """Integers in the order of the floats, neighbours one apart; both zeros are 0."""
    bits = tensor.view(torch.int16 if tensor.itemsize == 2 else torch.int32).long()
    sign = 1 << (8 * tensor.itemsize - 1)
    return torch.where(bits < 0, -(bits + sign), bits)
