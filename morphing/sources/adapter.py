"""PEFT adapters as they are stored: low-rank factors by the base's tensor names.

An adapted weight is computed when it is asked for and kept nowhere. Kinds of adapter that are no
pair of factors are merged by peft once, and only what they change is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from morphing.errors import MorphingError
from morphing.sources import checkpoint, local, metadata
from morphing.sources.adapter_config import is_plain_lora, read_config
from morphing.sources.conversion import checkpoint_names, meta_model
from morphing.sources.source import Source
from morphing.sources.weights import Weights, check_finite

if TYPE_CHECKING:
    from peft import LoraConfig

# What peft writes for one module; files of other tools keep the adapter's name before ".weight".
_FACTOR = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_(?:embedding_)?[AB]|lora_magnitude_vector)"
    r"(?:\.(?!(?:weight|bias)$)[^.]+)?(?:\.weight)?"
)
# Wrappers that stand between a module's name and its parameter's.
_WRAPPER = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")


@dataclass(frozen=True)
class LowRank:
    """A change of one matrix: W + scaling · left · right, rescaled where DoRA learnt magnitudes.

    LoRA is arXiv 2106.09685, equation 3; DoRA is arXiv 2402.09353, equation 5. Factors have their
    stored dtype and the orientation of the stored weight, whatever the layer's.
    """

    left: Tensor
    """(rows, rank)."""
    right: Tensor
    """(rank, columns)."""
    scaling: float
    magnitude: Tensor | None = None
    """One a row or one a column."""
    axis: int = 0
    """The axis of the weight that magnitudes run along."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weights it fits."""
        return self.left.shape[0], self.right.shape[1]

    def apply(self, weight: Tensor) -> Tensor:
        """The adapted weight, a new float32 tensor on the weight's device.

        Args:
            weight: the base's, (rows, columns), of any floating dtype.
        """
        adapted = weight.to(torch.float32, copy=True)
        adapted.addmm_(self.left.to(adapted), self.right.to(adapted), alpha=self.scaling)
        if self.magnitude is not None:
            norm = torch.linalg.vector_norm(adapted, dim=1 - self.axis)
            ratio = (self.magnitude.to(adapted) / norm).masked_fill_(norm == 0, 0)
            adapted.mul_(ratio.unsqueeze(1 - self.axis))
        return adapted


@dataclass(frozen=True)
class Adapter:
    """What an adapter changes, by the base checkpoint's tensor names. No name is in both."""

    updates: Mapping[str, LowRank]
    replaced: Mapping[str, Tensor]
    """Tensors stored whole: modules trained outright and biases, in their stored dtypes. Embeddings
    and head have another number of rows than the base's where the vocabulary was changed; the
    tokenizer is then in the adapter's folder."""

    @property
    def bytes(self) -> int:
        """Memory it holds."""
        trios = [(u.left, u.right, u.magnitude) for u in self.updates.values()]
        factors = [tensor for trio in trios for tensor in trio if tensor is not None]
        return sum(tensor.nbytes for tensor in (*factors, *self.replaced.values()))

    def to(self, device: torch.device) -> Adapter:
        """The same adapter with its tensors on ``device``."""
        return Adapter(
            {
                name: replace(
                    update,
                    left=update.left.to(device),
                    right=update.right.to(device),
                    magnitude=None if update.magnitude is None else update.magnitude.to(device),
                )
                for name, update in self.updates.items()
            },
            {name: tensor.to(device) for name, tensor in self.replaced.items()},
        )


def load_adapter(source: Source, base: Weights) -> Adapter:
    """Read an adapter for the base it was trained on.

    LoRA in its usual forms (rank-stabilised, ranks and scales by pattern, DoRA; on linear layers
    and embeddings) costs its factors' memory. Other kinds are merged by peft into a base loaded for
    the purpose, and the tensors they change are kept whole, in the base's dtype.

    Raises:
        MorphingError: the adapter's files are broken, a tensor holds NaN or infinity, it was
            trained on another base, it has no merged form, or it parts a tied head from the
            embeddings.
    """
    config = read_config(source)
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise MorphingError(
            f"The adapter {source.name} is of kind {config.peft_type.value}, which changes no"
            " weights and cannot be merged: choose a LoRA adapter."
        )
    pairs, whole = _read_tensors(source)
    layout = _read_layout(base)
    names = [*(f"{module}.weight" for module in pairs), *whole]
    if not names:
        raise MorphingError(
            f"The adapter {source.name} holds no tensors, so it changes nothing: save it again, or"
            " choose another."
        )
    # What the model cuts out of a tensor of the checkpoint has no factors of that tensor's.
    cut = [n for n in names if n in layout.parameters and layout.stored(n) not in base.info]
    if cut or not (is_plain_lora(config) and layout.is_plain(pairs)):
        return _merge_densely(source, base, layout, names)
    for name in names:
        if layout.stored(name) not in base.info:
            raise _foreign(source, base, f"changes {name}, which {base.source.name} has not")

    updates: dict[str, LowRank] = {}
    replaced: dict[str, Tensor] = {}
    for name, tensor in whole.items():
        original = base.read(layout.stored(name))
        if not _is_same(original, tensor):
            _check_whole(source, base, layout, name, tensor)
            replaced[name] = tensor
    for module, parts in pairs.items():
        name = f"{module}.weight"
        update = _low_rank(source, config, module, parts, layout.is_transposed(module))
        # peft stores the embeddings it adapts too; they differ from the base's where resized.
        resized = replaced.pop(name, None)
        shape = base.info[layout.stored(name)].shape if resized is None else resized.shape
        _check_update(source, base, name, update, tuple(shape))
        if resized is None:
            updates[name] = update
        else:
            replaced[name] = update.apply(resized)
    if layout.tied:
        _tie(source, base, layout, updates, replaced, config.ensure_weight_tying)
    return Adapter(
        {layout.stored(name): update for name, update in updates.items()},
        {layout.stored(name): tensor for name, tensor in replaced.items()},
    )


@dataclass(frozen=True)
class _Layout:
    """The base's modules as transformers builds them, without their weights."""

    modules: Mapping[str, torch.nn.Module]
    embedding: str
    head: str
    tied: bool
    """Whether the head is the embeddings' tensor, which the checkpoint has once."""
    parameters: frozenset[str]
    """By the names of the model's state dict."""
    names: Mapping[str, str]
    """The checkpoint's names of parameters that transformers has under its own."""

    def stored(self, tensor: str) -> str:
        """The checkpoint's name of a tensor."""
        if self.tied and tensor == f"{self.head}.weight":
            tensor = f"{self.embedding}.weight"
        return self.names.get(tensor, tensor)

    def is_plain(self, modules: Iterable[str]) -> bool:
        """Whether they are linear layers or embeddings, where not absent."""
        from transformers.pytorch_utils import Conv1D

        kinds = (torch.nn.Linear, torch.nn.Embedding, Conv1D, type(None))
        return all(isinstance(self.modules.get(module), kinds) for module in modules)

    def is_transposed(self, module: str) -> bool:
        """Whether it is a linear layer whose weight is stored as (in, out).

        As in peft the layer says it, not ``fan_in_fan_out``, which is one flag for all layers.
        """
        from transformers.pytorch_utils import Conv1D

        return isinstance(self.modules.get(module), Conv1D)


def _read_layout(base: Weights) -> _Layout:
    try:
        model = meta_model(base.config)
        inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    except (ValueError, KeyError, OSError, RuntimeError, ImportError) as error:
        raise MorphingError(
            f"transformers knows no causal language model for {base.source.name}, so no adapter can"
            f" be read for it: {_reason(error)}"
        ) from error
    modules = dict(model.named_modules())
    names = {module: name for name, module in modules.items()}
    embedding, head = names.get(inner, ""), names.get(outer, "")
    stored = checkpoint_names(model, {name: info.shape for name, info in base.info.items()})
    tied = outer is not None and inner.weight is outer.weight
    tied = tied and stored.get(f"{head}.weight", f"{head}.weight") not in base.info
    return _Layout(modules, embedding, head, tied, frozenset(model.state_dict()), stored)


def _read_tensors(source: Source) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Factors by module and part, and whole tensors by name, as copies off the file."""
    path = source.folder / metadata.ADAPTER_WEIGHTS
    local.read_header(path)
    pairs: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for key in file.keys():  # noqa: SIM118  (not a mapping)
                tensor = file.get_tensor(key)
                check_finite(key, tensor, source.name)
                if ".original_module." in key:
                    continue
                name = key.replace("_orig_mod.", "").removeprefix("base_model.model.")
                found = _FACTOR.fullmatch(name)
                home = whole if found is None else pairs.setdefault(found["module"], {})
                name = _WRAPPER.sub("", name) if found is None else found["part"]
                if name in home and torch.equal(home[name], tensor):
                    continue  # peft stores resized embeddings within their wrapper and without
                if name in home:
                    raise MorphingError(
                        f"{path} holds more than one adapter ({key}): save one of them alone."
                    )
                home[name] = tensor.clone()
    except (SafetensorError, OSError) as error:
        raise MorphingError(
            f"{path} is not a whole safetensors file: download the model again."
        ) from error
    return pairs, whole


def _low_rank(
    source: Source,
    config: LoraConfig,
    module: str,
    parts: Mapping[str, Tensor],
    transposed: bool,
) -> LowRank:
    from peft.utils.other import get_pattern_key

    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    rank = ranks.get(get_pattern_key(ranks, module), config.r)
    alpha = alphas.get(get_pattern_key(alphas, module), config.lora_alpha)
    kind = "lora_embedding_" if "lora_embedding_A" in parts else "lora_"
    expected = {f"{kind}A", f"{kind}B"} | ({"lora_magnitude_vector"} if config.use_dora else set())
    if parts.keys() != expected:
        raise MorphingError(
            f"The adapter {source.name} holds {', '.join(sorted(parts))} for {module} where its"
            f" configuration asks for {', '.join(sorted(expected))}: download it again."
        )
    a, b = parts[f"{kind}A"], parts[f"{kind}B"]
    if a.ndim != 2 or b.ndim != 2 or not 0 < rank == a.shape[0] == b.shape[1]:
        raise MorphingError(
            f"The adapter {source.name} holds factors of shapes {tuple(a.shape)} and"
            f" {tuple(b.shape)} for {module}, where its configuration gives rank {rank}: download"
            " it again."
        )
    transposed |= kind == "lora_embedding_"
    left, right = (a.T.contiguous(), b.T.contiguous()) if transposed else (b, a)
    magnitude = parts.get("lora_magnitude_vector")
    return LowRank(
        left,
        right,
        alpha / math.sqrt(rank) if config.use_rslora else alpha / rank,
        None if magnitude is None else magnitude.flatten(),
        axis=1 if transposed else 0,
    )


def _check_update(
    source: Source, base: Weights, name: str, update: LowRank, shape: tuple[int, ...]
) -> None:
    if update.shape != shape:
        raise _foreign(source, base, _misfit(base, name, update.shape, shape))
    if update.magnitude is not None and len(update.magnitude) != shape[update.axis]:
        raise _foreign(source, base, _misfit(base, name, update.magnitude.shape, shape))


def _check_whole(source: Source, base: Weights, layout: _Layout, name: str, tensor: Tensor) -> None:
    shape, here = base.info[layout.stored(name)].shape, tuple(tensor.shape)
    tokens = name.rpartition(".")[0] in (layout.embedding, layout.head)
    if here != shape and not (tokens and here[1:] == shape[1:]):
        raise _foreign(source, base, _misfit(base, name, here, shape))


def _tie(
    source: Source,
    base: Weights,
    layout: _Layout,
    updates: dict[str, LowRank],
    replaced: dict[str, Tensor],
    ensured: bool,
) -> None:
    """Drop what is stored for a tied head; refuse what was not trained tied.

    peft trains the two ends apart unless told to keep them tied, and merges low-rank changes of
    either into their one tensor, which is then a model nobody trained.
    """
    embedding, head = f"{layout.embedding}.weight", f"{layout.head}.weight"
    inner, outer = updates.get(embedding), updates.pop(head, None)
    old, new = replaced.get(embedding), replaced.pop(head, None)
    if outer is None and new is None:
        together = ensured or (inner is None and old is None)
    elif inner is not None and outer is not None:
        together = _is_same_update(inner, outer)
    else:
        together = old is not None and new is not None and torch.equal(old, new)
    if not together:
        raise _parted(source, base)


def _merge_densely(
    source: Source, base: Weights, layout: _Layout, changed: Iterable[str]
) -> Adapter:
    ends = (f"{layout.embedding}.", f"{layout.head}.")
    # peft keeps the tie only for tokens that are trained alone.
    if layout.tied and any(n.startswith(ends) and "trainable_tokens" not in n for n in changed):
        raise _parted(source, base)
    tensors = {name: base.read(name) for name in base.info}
    merged = checkpoint.load_adapted(source, base.source, tensors)
    return Adapter({}, {n: tensor for n, tensor in merged.items() if tensor is not tensors[n]})


def _is_same(original: Tensor, stored: Tensor) -> bool:
    """Whether a stored tensor is the base's own, if rounded to another dtype."""
    return original.shape == stored.shape and torch.equal(original.to(stored.dtype), stored)


def _is_same_update(one: LowRank, other: LowRank) -> bool:
    alike = one.scaling == other.scaling and one.magnitude is None and other.magnitude is None
    return alike and torch.equal(one.left, other.left) and torch.equal(one.right, other.right)


def _foreign(source: Source, base: Weights, what: str) -> MorphingError:
    named = f" ({', '.join(source.base_models)})" if source.base_models else ""
    return MorphingError(
        f"The adapter {source.name} {what}: choose the base it was trained on{named}."
    )


def _misfit(base: Weights, name: str, here: Iterable[int], shape: tuple[int, ...]) -> str:
    return f"fits {name} of shape {tuple(here)}, which is {shape} in {base.source.name}"


def _parted(source: Source, base: Weights) -> MorphingError:
    return MorphingError(
        f"The adapter {source.name} changes the embeddings and the head apart, which"
        f" {base.source.name} ties into one tensor: choose an adapter trained with"
        " ensure_weight_tying, or one that leaves both alone."
    )


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
