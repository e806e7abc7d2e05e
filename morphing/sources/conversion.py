"""Where a model that transformers loaded holds its checkpoint's tensors.

transformers renames the tensors of some architectures as it loads them, stacks those of experts,
joins or cuts others (`transformers.conversion_mapping`). Here its own rules are asked, on tensors
without data, which part of which parameter each tensor of a checkpoint becomes: what is written to
that part is what transformers would load.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from morphing.sources.configuration import transformers_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.core_model_loading import WeightConverter

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class View:
    """A part of a contiguous tensor, as `torch.Tensor.as_strided` takes it."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    """In elements, from the tensor's first."""

    def of(self, tensor: Tensor) -> Tensor:
        """The part, sharing the tensor's memory."""
        return tensor.as_strided(self.shape, self.stride, tensor.storage_offset() + self.offset)


@dataclass(frozen=True)
class Link:
    """A checkpoint's tensor, or a part of it, and the parameter that holds it.

    Either is whole: a tensor may be a part of a parameter, as an expert's of the stacked experts',
    or a parameter a part of a tensor, as a query's of a joined query, key and value.
    """

    parameter: str
    """By its name in the model's state dict; a persistent buffer counts as one."""
    part: View | None = None
    """Of the parameter; None where it holds nothing else."""
    source: View | None = None
    """Of the checkpoint's tensor; None where the parameter holds all of it."""


class Unlinked(Exception):
    """Of a checkpoint's tensors some have no place of their own in the model; says which."""


class Misshapen(Unlinked):
    """A tensor has another shape than the parameter that it is loaded into."""


def link(model: PreTrainedModel, shapes: Shapes) -> dict[str, tuple[Link, ...]]:
    """Where a model holds each tensor of its checkpoint.

    Args:
        model: as transformers builds it, on any device.
        shapes: the checkpoint's tensors by name.

    Raises:
        Unlinked: the model has no parameter for a tensor, or computes one from several in a way
            that leaves no part of it to each.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        apply_renamings,
        dot_natural_key,
        rename_source_key,
    )

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    state = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    prefix = model.base_model_prefix

    links: dict[str, tuple[Link, ...]] = {}
    gathered: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    # The order in which transformers stacks experts.
    for name in sorted(shapes, key=dot_natural_key):
        parameter, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if parameter not in state and name in state:
            parameter, pattern = rename_source_key(name, [], [], prefix, state)
        if parameter not in state:
            raise Unlinked(f"{type(model).__name__} has no place for {name}")
        if pattern is not None:
            gathered[parameter].append((name, apply_renamings(name, renamings), pattern))
        elif tuple(state[parameter].shape) != tuple(shapes[name]):
            raise Misshapen(
                f"{name} is {_words(shapes[name])} and would have to be"
                f" {_words(state[parameter].shape)}"
            )
        else:
            links[name] = (Link(parameter),)
    for parameter, members in gathered.items():
        converter = by_pattern[members[0][2]]
        links |= _converted(model, converter, parameter, members, shapes, state)
    return {name: links[name] for name in shapes}


def original_layout(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Link] | None:
    """Tensors under a loaded model's names as they are in checkpoints of its architecture.

    transformers 5 saves experts stacked, or under the names it has for them, only if it is told to;
    published checkpoints have them as transformers 4 had.

    Args:
        config: ``config.json``.
        shapes: tensors by the names of a loaded model's state dict.

    Returns:
        By the checkpoint's names the tensor, or the part of it, that is there; None where the
        names are not a loaded model's, or transformers does not know the way back.
    """
    from transformers.core_model_loading import revert_weight_conversion

    try:
        model = meta_model(config)
        state = model.state_dict()
        if any(name not in state for name in shapes):
            return None
        tensors = {n: torch.empty(tuple(shape), device="meta") for n, shape in shapes.items()}
        with _WithoutCopies():
            found = revert_weight_conversion(model, dict(tensors))
    except (ValueError, KeyError, RuntimeError, AttributeError, TypeError, IndexError):
        return None
    links: dict[str, Link] = {}
    owners = {id(tensor): stored for stored, tensor in tensors.items()}
    for name, part in found.items():
        if (stored := owners.get(id(part))) is not None:
            links[name] = Link(stored)
        elif (stored := owners.get(id(part._base))) is not None:
            links[name] = Link(stored, part=_view(part, tensors[stored]))
    return links if links.keys() == found.keys() else None


def checkpoint_names(model: PreTrainedModel, shapes: Shapes) -> dict[str, str]:
    """A model's parameters that hold a tensor of its checkpoint as it is, with that one's name.

    Empty where the model is not of this checkpoint.
    """
    try:
        links = link(model, shapes)
    except Unlinked:
        return {}
    return {
        each[0].parameter: name
        for name, each in links.items()
        if each[0] == Link(each[0].parameter)
    }


def without_place(config: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """The tensors of a checkpoint that belong to no module of its causal language model.

    A tensor inside of a module that the model has is not among them, whatever its name.

    Args:
        config: ``config.json``.
        names: of the checkpoint's tensors.

    Returns:
        Nothing where transformers cannot build the model.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    try:
        model = meta_model(config)
        rules = get_model_conversion_mapping(model)
    except (ValueError, KeyError, RuntimeError, AttributeError, TypeError, ImportError):
        return set()
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    state = model.state_dict()
    modules = {name.partition(".")[0] for name in state}

    def has_none(name: str) -> bool:
        if name.partition(".")[0] in modules:
            return False
        found, _ = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        return found not in state and found.partition(".")[0] not in modules

    return set(filter(has_none, names))


def gather(links: Sequence[Link], state: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """A checkpoint's tensor as a model holds it; a copy only where several parameters do."""
    if links[0].source is None:
        (only,) = parts(links, state)
        return only[1]
    held = parts(links, state)
    whole = held[0][1].new_empty(tuple(shape))
    for one, tensor in held:
        assert one.source is not None
        one.source.of(whole).copy_(tensor)
    return whole


def meta_model(config: Mapping[str, Any]) -> PreTrainedModel:
    """The causal language model of a configuration, without weights.

    Raises:
        ValueError, KeyError, ...: transformers cannot build it, for whatever reason of its own.
    """
    from transformers import AutoModelForCausalLM

    built = transformers_config(config)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(built, trust_remote_code=False)
    return model


def uncovered(model: PreTrainedModel, links: Mapping[str, tuple[Link, ...]]) -> list[str]:
    """The parameters and persistent buffers of which links hold some element not exactly once."""
    state = model.state_dict(keep_vars=True)
    held: dict[int, int] = defaultdict(int)  # by object: tied parameters are one
    for each in links.values():
        for one in each:
            tensor = state[one.parameter]
            count = tensor.numel() if one.part is None else torch.Size(one.part.shape).numel()
            held[id(tensor)] += count
    return [name for name, tensor in state.items() if held[id(tensor)] != tensor.numel()]


def parts(links: Sequence[Link], state: Mapping[str, Tensor]) -> list[tuple[Link, Tensor]]:
    """Each link with the tensor of the model's state dict, or the part of it, that it names."""
    return [
        (one, state[one.parameter] if one.part is None else one.part.of(state[one.parameter]))
        for one in links
    ]


def _converted(
    model: PreTrainedModel,
    converter: WeightConverter,
    parameter: str,
    members: Sequence[tuple[str, str, str]],
    shapes: Shapes,
    state: Mapping[str, Tensor],
) -> dict[str, tuple[Link, ...]]:
    """Links of tensors that one rule converts together, by the rule or by its reverse."""
    own = {name: torch.empty(tuple(shapes[name]), device="meta") for name, _, _ in members}
    forward = _run(
        converter, model, parameter, [(name, own[name], pattern) for name, _, pattern in members]
    )
    found: dict[str, list[Link]] = defaultdict(list)
    for target, made in forward.items():
        if target not in state or made.shape != state[target].shape:
            raise Unlinked(f"{members[0][0]} makes no {target} of the model's shape")
        for name, tensor in own.items():
            if (view := _view(made, tensor)) is not None:
                found[name].append(Link(target, source=view))
    if found.keys() == own.keys():
        return {name: tuple(each) for name, each in found.items()}

    reverse = converter.reverse_transform()
    inputs = []
    for target in forward:
        first, pattern = reverse.rename_source_key(target)
        if pattern is None:
            raise Unlinked(f"transformers cannot bring {target} back to {members[0][0]}")
        inputs.append((target, state[target], pattern))
    backward = _run(reverse, model, first, inputs)
    # A checkpoint may leave the name of the inner model out.
    prefix = f"{model.base_model_prefix}."
    by_name = {key.removeprefix(prefix): tensor for key, tensor in backward.items()}
    links: dict[str, tuple[Link, ...]] = {}
    for name, renamed, _ in members:
        part = by_name.get(renamed.removeprefix(prefix))
        views = [] if part is None else [(key, _view(part, state[key])) for key in forward]
        linked = [Link(key, part=view) for key, view in views if view is not None]
        if part is None or not linked or tuple(part.shape) != tuple(shapes[name]):
            raise Unlinked(f"{parameter} has no part that is {name}")
        links[name] = tuple(linked)
    return links


def _run(
    rule: Any,
    model: PreTrainedModel,
    name: str,
    inputs: Sequence[tuple[str, Tensor, str]],
) -> dict[str, Tensor]:
    """What a rule makes of tensors: a view of them wherever no element has to move."""
    rule = deepcopy(rule)
    for key, tensor, pattern in inputs:
        rule.add_tensor(name, key, pattern, tensor)
    try:
        with _WithoutCopies():
            made = rule.convert(name, model=model, config=model.config)
    except (ValueError, KeyError, RuntimeError, AttributeError, TypeError, IndexError) as error:
        raise Unlinked(f"transformers cannot convert {inputs[0][0]}: {error}") from error
    return {key: each[0] if isinstance(each, list) else each for key, each in made.items()}


def _words(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"


def _view(tensor: Tensor, base: Tensor) -> View | None:
    """The tensor as a part of another, if it shares that one's memory."""
    if tensor is not base and tensor._base is not base:
        return None
    return View(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))


class _WithoutCopies(TorchFunctionMode):
    """Inside it ``contiguous`` leaves a view a view."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.contiguous:
            return args[0]
        return func(*args, **(kwargs or {}))
