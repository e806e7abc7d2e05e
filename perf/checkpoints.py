"""Checkpoints to measure with: a base, sources near it, and adapters on it.

Run as a program it makes a base and sources, so that a process that measures memory need not:
``python perf/checkpoints.py FOLDER SOURCES SHARD_MB '{"hidden_size": ...}'``.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

NOISE = 0.02
"""How far a source is from its base, as a share of each tensor's standard deviation."""
RANK = 16
SMOLLM2_135M: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


def make_base(folder: Path, sizes: dict[str, Any], shard_bytes: int = 1 << 30) -> None:
    """A Llama of these sizes with random bfloat16 weights, and a tokenizer that fits it."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 8192,
        **sizes,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    generator = torch.Generator().manual_seed(0)

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, shape in _shapes(sizes).items():
            values = torch.randn(shape, generator=generator)
            # Norms are near 1, matrices keep the size of what passes through them.
            values = 1 + 0.1 * values if len(shape) == 1 else values / math.sqrt(shape[1])
            yield name, values.bfloat16()

    _save(folder, tensors(), shard_bytes)
    _save_tokenizer(folder, sizes["vocab_size"])


def make_source(folder: Path, base: Path, seed: int, shard_bytes: int = 1 << 30) -> None:
    """bfloat16(base + noise), with everything else the base's."""
    folder.mkdir(parents=True)
    for file in base.iterdir():
        if file.suffix in (".json", ".jinja") and not file.name.endswith("index.json"):
            (folder / file.name).write_bytes(file.read_bytes())
    generator = torch.Generator().manual_seed(seed)

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in _tensors(base):
            values = tensor.float()
            noise = torch.randn(values.shape, generator=generator)
            yield name, noise.mul_(NOISE * values.std()).add_(values).to(tensor.dtype)

    _save(folder, tensors(), shard_bytes)


def make_adapter(folder: Path, base: Path, seed: int) -> None:
    """A LoRA of random factors on every linear layer, as peft stores it."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    factors, modules = {}, set()
    for name, tensor in _tensors(base):
        if ".layers." not in name or tensor.ndim != 2:
            continue
        module = name.removesuffix(".weight")
        modules.add(module.rsplit(".", 1)[1])
        rows, columns = tensor.shape
        spread = math.sqrt(NOISE * float(tensor.float().std()) / math.sqrt(RANK))
        for part, shape in (("A", (RANK, columns)), ("B", (rows, RANK))):
            values = spread * torch.randn(shape, generator=generator)
            factors[f"base_model.model.{module}.lora_{part}.weight"] = values
    save_file(factors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": sorted(modules),
        "base_model_name_or_path": str(base),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))


def load(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors, in memory."""
    return {name: tensor.clone() for name, tensor in _tensors(folder)}


def _shapes(sizes: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    narrow = width // sizes["num_attention_heads"] * sizes["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (sizes["vocab_size"], width)}
    for layer in range(sizes["num_hidden_layers"]):
        own = {
            "input_layernorm": (width,),
            "self_attn.q_proj": (width, width),
            "self_attn.k_proj": (narrow, width),
            "self_attn.v_proj": (narrow, width),
            "self_attn.o_proj": (width, width),
            "post_attention_layernorm": (width,),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    shapes["model.norm.weight"] = (width,)
    if not sizes["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (sizes["vocab_size"], width)
    return shapes


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                yield name, file.get_tensor(name)


def _save(folder: Path, tensors: Iterator[tuple[str, torch.Tensor]], shard_bytes: int) -> None:
    """Shards of at most this size, named as transformers does; one of them in memory at a time."""
    shards: list[list[str]] = []
    waiting: dict[str, torch.Tensor] = {}

    def flush() -> None:
        save_file(waiting, folder / f"part-{len(shards)}", metadata={"format": "pt"})
        shards.append(list(waiting))
        waiting.clear()

    total = held = 0
    for name, tensor in tensors:
        if waiting and held + tensor.nbytes > shard_bytes:
            flush()
            held = 0
        waiting[name] = tensor
        held += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(shards) == 1:
        (folder / "part-0").rename(folder / "model.safetensors")
        return
    files = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for i, file in enumerate(files):
        (folder / f"part-{i}").rename(folder / file)
    places = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _save_tokenizer(folder: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1").save_pretrained(folder)


def _main() -> None:
    folder, sources, shard_bytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) << 20
    make_base(folder / "base", json.loads(sys.argv[4]), shard_bytes)
    for i in range(sources):
        make_source(folder / f"source{i}", folder / "base", i + 1, shard_bytes)


if __name__ == "__main__":
    _main()
