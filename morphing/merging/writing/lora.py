"""A merge written as a PEFT LoRA adapter of its base, and how far from the merge that is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import morphing
from morphing.errors import MorphingError
from morphing.merging.writing.checkpoint_writer import write_checkpoint, write_json
from morphing.sources import metadata
from morphing.sources.names import split_hub_name
from morphing.sources.weights import tensor_info

REPORT = "adapter_report.json"
_PREFIX = "base_model.model."  # PEFT's, before every name of the base
_EXACT = 512  # up to this many rows or columns an exact decomposition takes no time
_OVERSAMPLING = 16
_ITERATIONS = 4


@dataclass(frozen=True)
class Approximation:
    """A weight's update in the adapter."""

    rank: int
    error: float
    """Norm of what is missing over the norm of (merged - base), both Frobenius."""


@dataclass(frozen=True)
class AdapterReport:
    """What an adapter holds of a merge; tensors that the merge leaves as they are in no list."""

    error: float
    """As of an `Approximation`, of all changed tensors together, those left out among them."""
    tensors: Mapping[str, Approximation]
    whole: tuple[str, ...]
    """Tensors the adapter holds as they are in the merge."""
    left_out: tuple[str, ...]
    """Changed tensors that the adapter holds nothing of."""


def write_adapter(
    folder: Path,
    base_name: str,
    base: Callable[[str], torch.Tensor],
    merged: Iterable[tuple[str, torch.Tensor]],
    rank: int,
    linear: Collection[str],
    tied: Mapping[str, str] | None = None,
    whole: bool = True,
    dtype: torch.dtype = torch.float32,
) -> AdapterReport:
    """Write merged - base to ``folder`` as a LoRA adapter, whole or not at all.

    The update of a linear weight (out, in) becomes B A, with B (out, rank) and A (rank, in) from
    its singular value decomposition U S V: B = U sqrt(S), A = sqrt(S) V, the nearest matrix of that
    rank. Norms, embeddings and biases have no such form: the adapter holds them as they are in the
    merge, which PEFT loads but most serving engines do not. Memory holds the adapter and, one at a
    time, a tensor of the merge. The same arguments give the same bytes, whatever the state of
    torch's random numbers.

    Args:
        folder: absent or empty.
        base_name: what the adapter says it is of: a Hub id, with its revision, or a folder.
        base: a tensor of the base by name, any dtype; KeyError where it has none of that name.
        merged: all tensors of the merge by name.
        rank: of every update; less where the update, or the weight, is of a lower rank.
        linear: names of the weights of linear layers, which are (out, in).
        tied: by name, tensors that the model has beside its checkpoint and what they equal, such as
            ``{"lm_head.weight": "model.embed_tokens.weight"}``.
        whole: whether to hold whole tensors; else all but linear weights are left out.
        dtype: of A and B.

    Returns:
        The error of what was written, also written beside it as ``adapter_report.json``.

    Raises:
        MorphingError: the rank is below one, merge and base are of different shapes, the merge
            changes no linear layer, or the folder cannot be written as `write_checkpoint` says.
    """
    if rank < 1:
        raise MorphingError(f"A LoRA adapter of rank {rank} holds nothing: choose a rank from 1.")
    hub_name = (base_name, None) if Path(base_name).is_dir() else split_hub_name(base_name)
    adapter = _Adapter(base, rank, linear, dtype, whole)
    for name, tensor in merged:
        adapter.add(name, tensor)
    tensors, kept, left_out = adapter.finish(tied or {})
    if not adapter.ranks:
        raise MorphingError(
            f"The merge changes no linear layer of {base_name}, so there is nothing to write as"
            " LoRA: export the whole model."
        )
    report = AdapterReport(adapter.error(left_out), adapter.tensors, kept, left_out)
    config = _config(hub_name, adapter, kept, tied or {})

    def companions(there: Path) -> None:
        write_json(there / metadata.ADAPTER_CONFIG, config)
        write_json(there / REPORT, {"morphing_version": morphing.__version__, **asdict(report)})

    infos = {name: tensor_info(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    write_checkpoint(
        folder,
        infos,
        lambda names: ((name, tensors[name]) for name in names),
        companions,
        _fingerprint(config, tensors),
        shard_bytes=sum(tensor.nbytes for tensor in tensors.values()),
        stem=metadata.ADAPTER_WEIGHTS.removesuffix(".safetensors"),
    )
    return report


def factors(
    update: torch.Tensor, rank: int, floor: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest product of two thin matrices, exactly or, for large matrices, very nearly.

    Args:
        update: (out, in), float32.
        rank: wanted.
        floor: singular values up to here are rounding of the weights, and left out.

    Returns:
        B (out, r) and A (r, in), float32, r between 1 and ``rank``.
    """
    rank = min(rank, *update.shape)
    if min(update.shape) <= _EXACT or 2 * (rank + _OVERSAMPLING) >= min(update.shape):
        u, s, v = torch.linalg.svd(update, full_matrices=False)
    else:
        u, s, v = _random_svd(update, rank + _OVERSAMPLING)
    # The decomposition rounds too, by this much of its largest value.
    floor += s[0].item() * torch.finfo(torch.float32).eps * math.sqrt(max(update.shape))
    rank = max(1, min(rank, int((s > floor).sum())))
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * v[:rank]


def _random_svd(matrix: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The largest ``size`` singular values and vectors, nearly.

    Randomised subspace iteration: Halko, Martinsson and Tropp, "Finding structure with randomness",
    SIAM Review 2011, algorithms 4.4 and 5.1. torch.svd_lowrank is the same but draws from torch's
    global random numbers.
    """
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], size, generator=draw).to(matrix.device)
    q = torch.linalg.qr(matrix @ start).Q
    for _ in range(_ITERATIONS):
        q = torch.linalg.qr(matrix.T @ q).Q
        q = torch.linalg.qr(matrix @ q).Q
    u, s, v = torch.linalg.svd(q.T @ matrix, full_matrices=False)
    return q @ u, s, v


class _Adapter:
    """An adapter in the making: what each tensor of the merge, in turn, adds to it."""

    def __init__(
        self,
        base: Callable[[str], torch.Tensor],
        rank: int,
        linear: Collection[str],
        dtype: torch.dtype,
        whole: bool,
    ) -> None:
        self.tensors: dict[str, Approximation] = {}
        self.ranks: dict[str, int] = {}
        """By module."""
        self.linear = {name.removesuffix(".weight") for name in linear}
        self._base, self._rank, self._dtype, self._whole = base, rank, dtype, whole
        self._factors: dict[str, torch.Tensor] = {}
        self._changed: dict[str, torch.Tensor] = {}
        """Tensors that are not approximated; without their values where these are not wanted."""
        self._shapes: dict[str, torch.Size] = {}
        self._missing: dict[str, float] = {}
        self._squares: dict[str, float] = {}

    def add(self, name: str, merged: torch.Tensor) -> None:
        original = self._original(name, merged)
        self._shapes[name] = merged.shape
        update = merged.float() - original.float()
        norm = _norm(update)
        if norm == 0:
            return
        self._squares[name] = norm**2
        module, _, kind = name.rpartition(".")
        if module not in self.linear or kind != "weight" or merged.dim() != 2:
            self._changed[name] = merged.detach().cpu().clone() if self._whole else torch.empty(0)
            return
        # The spectral norm of noise of float32's precision on weights of this size.
        edges = math.sqrt(merged.shape[0]) + math.sqrt(merged.shape[1])
        size = max(_norm(original.float()), _norm(merged.float())) / math.sqrt(merged.numel())
        b, a = factors(update, self._rank, torch.finfo(torch.float32).eps * size * edges)
        b, a = b.to(self._dtype), a.to(self._dtype)
        missing = _norm(update - b.float() @ a.float())
        self._missing[name] = missing**2
        self.tensors[name] = Approximation(a.shape[0], missing / norm)
        self._add_factors(module, b, a)

    def finish(
        self, tied: Mapping[str, str]
    ) -> tuple[dict[str, torch.Tensor], tuple[str, ...], tuple[str, ...]]:
        """The file's tensors, and the names of those held whole and of those left out."""
        parts: dict[str, torch.Tensor] = {}
        left_out = []
        for name, tensor in self._changed.items():
            module, _, kind = name.rpartition(".")
            if not self._whole or self._holds_others(module):
                left_out.append(name)
            elif module in self.linear:
                # PEFT wraps the layer, so that its own bias is one level down.
                parts[f"{module}.base_layer.{kind}"] = tensor
                self._add_empty(module)
            else:
                # PEFT looks for every tensor of a module that it is told to replace.
                for other in (n for n in self._shapes if n.rpartition(".")[0] == module):
                    same = other not in self._changed
                    parts[other] = self._base(other).clone() if same else self._changed[other]
        for name, source in tied.items():
            if source in parts:
                parts[name] = parts[source]
        tensors = {**self._factors, **{_PREFIX + name: part for name, part in parts.items()}}
        kept = tuple(name for name in self._changed if name not in left_out)
        return tensors, kept, tuple(left_out)

    def error(self, left_out: Sequence[str]) -> float:
        missing = [*self._missing.values(), *(self._squares[name] for name in left_out)]
        return math.sqrt(math.fsum(missing) / math.fsum(self._squares.values()))

    def _original(self, name: str, merged: torch.Tensor) -> torch.Tensor:
        try:
            original = self._base(name)
        except KeyError:
            raise MorphingError(
                f"The merge has {name}, which its base has not, so it is no adapter of that base:"
                " export the whole model."
            ) from None
        if original.shape != merged.shape:
            raise MorphingError(
                f"{name} is {tuple(merged.shape)} in the merge and {tuple(original.shape)} in its"
                " base, and an adapter cannot change that: export the whole model."
            )
        return original.to(merged.device)

    def _holds_others(self, module: str) -> bool:
        """Whether replacing a module would replace more than its own tensors."""
        return not module or any(name.startswith(f"{module}.") for name in self.linear)

    def _add_factors(self, module: str, b: torch.Tensor, a: torch.Tensor) -> None:
        self.ranks[module] = a.shape[0]
        self._factors[f"{_PREFIX}{module}.lora_A.weight"] = a.cpu()
        self._factors[f"{_PREFIX}{module}.lora_B.weight"] = b.cpu()

    def _add_empty(self, module: str) -> None:
        """An update of nothing, for a layer of which only the bias changed."""
        if module not in self.ranks:
            rows, columns = self._shapes[f"{module}.weight"]
            b, a = torch.zeros(rows, 1), torch.zeros(1, columns)
            self._add_factors(module, b.to(self._dtype), a.to(self._dtype))


def _config(
    hub_name: tuple[str, str | None],
    adapter: _Adapter,
    kept: Sequence[str],
    tied: Mapping[str, str],
) -> dict[str, Any]:
    """PEFT's ``adapter_config.json``; what is not said is PEFT's default."""
    most = max(adapter.ranks.values())
    lower = {module: rank for module, rank in adapter.ranks.items() if rank < most}
    modules = dict.fromkeys(tensor.rpartition(".")[0] for tensor in kept)
    whole = [module for module in modules if module not in adapter.linear]
    heads = [alias.rpartition(".")[0] for alias, tensor in tied.items() if tensor in kept]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": hub_name[0],
        "revision": hub_name[1],
        "inference_mode": True,
        "r": most,
        # PEFT scales by alpha / rank: one, for every layer.
        "lora_alpha": most,
        "rank_pattern": lower,
        "alpha_pattern": lower,
        "target_modules": _short(adapter.ranks, adapter.linear),
        "modules_to_save": whole + heads or None,
        "ensure_weight_tying": bool(heads),
        "bias": "all" if len(whole) < len(modules) else "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
    }


def _short(modules: Collection[str], linear: Collection[str]) -> list[str]:
    """Modules by their last name where all linear layers of that name are meant, else in full."""

    def last(module: str) -> str:
        return module.rpartition(".")[2]

    partial = {last(module) for module in linear if module not in modules}
    return sorted({module if last(module) in partial else last(module) for module in modules})


def _fingerprint(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(repr(config).encode())
    for tensor in tensors.values():
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _norm(tensor: torch.Tensor) -> float:
    return torch.linalg.vector_norm(tensor, dtype=torch.float64).item()
