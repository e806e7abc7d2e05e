"""A causal language model's decoder layers and the linear maps in them, found by watching one pass.

Nothing is known by name. The decoder layers are the longest list of modules that a forward pass
calls one after another, each on what the one before it put out. The maps of a layer are its
`nn.Linear` and `Conv1D` modules, in the order in which they run; those that read the same tensor
form a group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from morphing.errors import MorphingError
from morphing.matching.statistics import wide

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Parameters = Mapping[str, Tensor]
"""Parameters by name, of a layer or of what lies around the layers."""


@dataclass(frozen=True)
class Map:
    """A linear map of a layer.

    Args:
        name: the module's name within its layer.
        transposed: whether the weight is (in, out), as GPT-2's `Conv1D` has it, not (out, in).
        bias: whether there is a bias.
    """

    name: str
    transposed: bool
    bias: bool

    def weight(self, parameters: Parameters) -> Tensor:
        """The map's weight (out, in) and its bias, if it has one, as a last column; float32."""
        weight = wide(parameters[f"{self.name}.weight"])
        weight = weight.T if self.transposed else weight
        if not self.bias:
            return weight
        return torch.cat([weight, wide(parameters[f"{self.name}.bias"])[:, None]], dim=1)

    def parts(self, weight: Tensor) -> dict[str, Tensor]:
        """The inverse of `weight`: parameters by name."""
        if not self.bias:
            return {f"{self.name}.weight": weight.T if self.transposed else weight}
        plain = weight[:, :-1]
        return {
            f"{self.name}.weight": plain.T if self.transposed else plain,
            f"{self.name}.bias": weight[:, -1],
        }


Group = tuple[Map, ...]
"""Maps that read the same input."""


@dataclass(frozen=True)
class Experts:
    """A mixture's experts in one module, stacked: two maps each, with a gate between them.

    Args:
        name: the module's name within its layer. It is called with tokens (n, d) and, for each, the
            experts that it goes to (n, k).
        first: the stacked first map, gate and up together.
        second: the stacked second map, down.
    """

    name: str
    first: Map
    second: Map

    @property
    def own(self) -> frozenset[str]:
        """The names of its parameters within the layer."""
        maps = (self.first, self.second)
        return frozenset(f"{m.name}{end}" for m in maps for end in ("", "_bias")[: 1 + m.bias])

    def of(self, parameters: Parameters, linear: Map, expert: int) -> Tensor:
        """One expert's weight, and its bias as a last column; float32."""
        weight = wide(parameters[linear.name][expert])
        weight = weight.T if linear.transposed else weight
        if not linear.bias:
            return weight
        return torch.cat([weight, wide(parameters[f"{linear.name}_bias"][expert])[:, None]], dim=1)

    def write(self, parameters: Parameters, linear: Map, expert: int, weight: Tensor) -> None:
        """Set one expert's weight and bias."""
        plain = weight[:, :-1] if linear.bias else weight
        parameters[linear.name][expert].copy_(plain.T if linear.transposed else plain)
        if linear.bias:
            parameters[f"{linear.name}_bias"][expert].copy_(weight[:, -1])


@dataclass(frozen=True)
class Call:
    """What a layer is called with beside the hidden states: positions, masks."""

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


class _Stop(Exception):
    """Ends a forward pass that has reached what it was run for."""


class Decoder:
    """The decoder layers of a model, run one at a time with its own or with other parameters.

    Args:
        model: in eval mode. Its parameters are those of the merge being made.
        tokens: (1, n) token ids for the pass by which the layers are found; n of 4 or more.

    Raises:
        MorphingError: the model has no list of layers that run one after another.
    """

    def __init__(self, model: PreTrainedModel, tokens: Tensor) -> None:
        self.model = model
        self.name, self.layers, self._tuples = _find_layers(model, tokens)
        self._inside = {id(p) for layer in self.layers for p in layer.parameters()}

    def parameters(self, index: int) -> dict[str, nn.Parameter]:
        """The parameters of a layer of the merge, by their names within the layer."""
        return dict(self.layers[index].named_parameters())

    def around(self) -> dict[str, nn.Parameter]:
        """The parameters that lie in no layer: embeddings, last norm, head. Tied ones once."""
        named = self.model.named_parameters()
        return {name: p for name, p in named if id(p) not in self._inside}

    @torch.no_grad()
    def enter(self, tokens: Tensor, around: Parameters | None = None) -> tuple[Tensor, list[Call]]:
        """The hidden states that the first layer is given, and what each layer is called with.

        Args:
            tokens: (b, n) ids; padding, if any, after the last token, where causal attention does
                not let earlier tokens see it.
            around: parameters beside the layers', in the place of the model's own.

        Returns:
            (b, n, d) hidden states and a call for each layer.
        """
        calls: list[Call] = []
        first: list[Tensor] = []

        def note(index: int, hidden: Tensor, call: Call) -> Tensor:
            if index == 0:
                first.append(hidden)
            calls.append(call)
            if index == len(self.layers) - 1:
                raise _Stop
            return hidden

        with self._replaced(note):
            self._whole(tokens, around)
        return first[0], calls

    @torch.no_grad()
    def leave(
        self, tokens: Tensor, hidden: Tensor, head: nn.Module, around: Parameters | None = None
    ) -> Tensor:
        """What the head reads, (b, n, d), where the last layer puts out ``hidden``."""
        found: list[tuple[Tensor, ...]] = []

        def last(index: int, given: Tensor, call: Call) -> Tensor:
            return hidden if index == len(self.layers) - 1 else given

        with self._replaced(last), _stopping(head, found):
            self._whole(tokens, around)
        return found[0][0]

    @torch.no_grad()
    def run(
        self,
        index: int,
        hidden: Tensor,
        call: Call,
        parameters: Parameters | None = None,
        until: str | None = None,
    ) -> tuple[Tensor, ...]:
        """A layer's output (b, n, d), or all that one of its modules is given: the pass ends there.

        Args:
            index: of the layer.
            hidden: (b, n, d) what the layer reads.
            call: what else.
            parameters: in the place of the merge's own.
            until: the name of a module in the layer, whose inputs are returned.
        """
        layer = self.layers[index]
        found: list[tuple[Tensor, ...]] = []
        if until is None:
            return (_first(_call(layer, hidden, call, parameters)),)
        with _stopping(layer.get_submodule(until), found):
            _call(layer, hidden, call, parameters)
        return found[0]

    @torch.no_grad()
    def groups(self, index: int, hidden: Tensor, call: Call) -> list[Group | Experts]:
        """The linear maps of a layer in running order, those that read one tensor together."""
        layer = self.layers[index]
        read: dict[Any, list[Map] | Experts] = {}
        kept = []  # so that no memory is used twice, by which tensors are told apart

        def note(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
            given = inputs[0]
            kept.append(given)
            if (experts := _experts(name, module)) is not None:
                read[name] = experts
                return
            key = (given.data_ptr(), tuple(given.shape), given.stride(), given._version)
            linear = Map(name, not isinstance(module, nn.Linear), _bias(module) is not None)
            maps = read.setdefault(key, [])
            if isinstance(maps, list) and linear not in maps:
                maps.append(linear)

        hooks = [
            module.register_forward_pre_hook(
                lambda module, inputs, name=name: note(name, module, inputs)
            )
            for name, module in layer.named_modules()
            if is_linear(module) or _experts(name, module) is not None
        ]
        try:
            _call(layer, hidden, call, None)
        finally:
            for hook in hooks:
                hook.remove()
        return [maps if isinstance(maps, Experts) else tuple(maps) for maps in read.values()]

    def head(self) -> tuple[str, nn.Module] | None:
        """The output head with a weight of its own; None where it is tied to the embeddings."""
        output = self.model.get_output_embeddings()
        if output is None or not is_linear(output):
            return None
        if output.weight is self.model.get_input_embeddings().weight:
            return None
        name = next(name for name, module in self.model.named_modules() if module is output)
        return name, output

    def _whole(self, tokens: Tensor, around: Parameters | None) -> None:
        keywords = {"input_ids": tokens, "use_cache": False}
        try:
            if around is None:
                self.model(**keywords)
            else:
                functional_call(self.model, dict(around), (), keywords)
        except _Stop:
            pass

    @contextmanager
    def _replaced(self, layer: Any) -> Iterator[None]:
        """Inside, a layer does nothing but call ``layer(index, hidden, call)``."""

        def stub(index: int) -> Any:
            # The name that callers use who give it by name.
            def forward(hidden_states: Tensor, *arguments: Any, **keywords: Any) -> Any:
                out = layer(index, hidden_states, Call(arguments, keywords))
                return (out,) if self._tuples else out

            return forward

        try:
            for index, module in enumerate(self.layers):
                module.forward = stub(index)
            yield
        finally:
            for module in self.layers:
                del module.forward


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map of its last dimension."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _experts(name: str, module: nn.Module) -> Experts | None:
    """A module that holds the experts of a mixture, as transformers writes them; None of others."""
    stacked = [getattr(module, part, None) for part in ("gate_up_proj", "down_proj")]
    if not all(isinstance(part, nn.Parameter) and part.ndim == 3 for part in stacked):
        return None
    if getattr(module, "has_post_expert_norm", False) or not hasattr(module, "_apply_gate"):
        return None
    transposed, bias = bool(getattr(module, "is_transposed", False)), bool(module.has_bias)
    first, second = (
        Map(f"{name}.{part}", transposed, bias) for part in ("gate_up_proj", "down_proj")
    )
    return Experts(name, first, second)


def _bias(module: nn.Module) -> Tensor | None:
    bias = getattr(module, "bias", None)
    return bias if isinstance(bias, Tensor) else None


def _call(layer: nn.Module, hidden: Tensor, call: Call, parameters: Parameters | None) -> Any:
    arguments = (hidden, *call.arguments)
    try:
        if parameters is None:
            return layer(*arguments, **call.keywords)
        return functional_call(layer, dict(parameters), arguments, dict(call.keywords))
    except _Stop:
        return None


def _first(output: Any) -> Tensor:
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


@contextmanager
def _stopping(module: nn.Module, found: list[tuple[Tensor, ...]]) -> Iterator[None]:
    """Inside, a pass that reaches a module ends there, and what it is given is appended."""

    def stop(_: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        found.append((*inputs, *keywords.values()))
        raise _Stop

    hook = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _find_layers(model: PreTrainedModel, tokens: Tensor) -> tuple[str, Sequence[nn.Module], bool]:
    """The name of the list of decoder layers, the layers, and whether they put out tuples."""
    called: dict[str, list[int]] = defaultdict(list)
    tuples: dict[str, bool] = {}
    lists = {n: module for n, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    hooks = []

    def note(name: str, index: int, given: Any, output: Any) -> None:
        out = _first(output)
        tuples[name] = isinstance(output, tuple)
        both = isinstance(given, Tensor) and isinstance(out, Tensor)
        if both and given.ndim == 3 and given.shape == out.shape:
            called[name].append(index)

    def hook(name: str, index: int) -> Any:
        def after(_: nn.Module, inputs: tuple[Any, ...], keywords: Any, output: Any) -> None:
            note(name, index, inputs[0] if inputs else keywords.get("hidden_states"), output)

        return after

    for name, modules in lists.items():
        for index, module in enumerate(modules):
            hooks.append(module.register_forward_hook(hook(name, index), with_kwargs=True))
    try:
        with torch.no_grad():
            model(input_ids=tokens, use_cache=False)
    finally:
        for registered in hooks:
            registered.remove()
    whole = [name for name, order in called.items() if order == list(range(len(lists[name])))]
    if not whole:
        raise MorphingError(
            f"A {type(model).__name__} has no decoder layers that run one after another, so it"
            " cannot be matched layer by layer: use another merge method."
        )
    name = max(whole, key=lambda name: (len(lists[name]), -name.count(".")))
    return name, list(lists[name]), tuples[name]
