"""Wherever base and sources are kept, the same numbers come out; only the memory differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from morphing.errors import MorphingError
from morphing.merging.engine import Engine
from morphing.merging.models import PLACEMENTS, Placement, open_models, place_models
from morphing.merging.rows.kernels import ROW
from morphing.merging.stores import Adapted, Disk, Resident, as_tensor, row_count, stack_rows
from morphing.merging.workers import Workers
from morphing.sources.adapter import Adapter, LowRank
from morphing.sources.source import Source
from morphing.sources.weights import Weights
from tests.merging.checkpoints import (
    CPU,
    NAMES,
    engine_of,
    merged,
    same,
    save_models,
    simple_recipe,
)

FLOAT, BF16, HALF = torch.float32, torch.bfloat16, torch.float16
SHAPES = {"a": (2, ROW), "b": (3, 1000), "c": (70,), "d": (), "e": (0, 5), "f": (ROW + 1,)}
RECIPES = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs")


def models(dtypes: Sequence[Sequence[torch.dtype]]) -> list[dict[str, Tensor]]:
    """A base and sources near it; each model's dtypes go round its tensors."""
    random = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}
    made = []
    for number, of_model in enumerate(dtypes):
        model = {}
        for place, (name, tensor) in enumerate(base.items()):
            step = 0.1 * torch.randn(tensor.shape, generator=random) if number else 0.0
            model[name] = (tensor + step).to(of_model[place % len(of_model)])
        made.append({**model, "steps": torch.arange(9)})
    return made


def placed(sources: list[Source], placement: Placement, **adapters: Source) -> Engine:
    """Adapters are on the base."""
    named = {source.name: (source, None) for source in sources}
    named |= {name: (sources[0], adapter) for name, adapter in adapters.items()}
    opened = open_models(named)
    return Engine(opened, place_models(opened, CPU, placement, SHAPES), CPU, Workers(1), False)


def recipe(method: str, count: int, **extra: Any) -> Any:
    own = [{"weight": w, "density": d} for w, d in ((0.7, 0.3), (-0.3, 0.8), (0.4, 0.6))]
    if method in ("ties", "dare_linear", "dare_ties"):
        extra.setdefault("rescale", True)
    return simple_recipe(method, own[:count], **extra)


def save_lora(folder: Path, base: Path, names: Sequence[str], rank: int = 2) -> Source:
    """A LoRA adapter as peft stores it, for matrices named ``<module>.weight``."""
    from safetensors import safe_open

    random = torch.Generator().manual_seed(9)
    tensors = {}
    with safe_open(base / "model.safetensors", "pt") as weights:
        for name in names:
            rows, columns = weights.get_slice(name).get_shape()
            module = "base_model.model." + name.removesuffix(".weight")
            tensors[f"{module}.lora_A.weight"] = torch.randn(rank, columns, generator=random)
            tensors[f"{module}.lora_B.weight"] = torch.randn(rows, rank, generator=random)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": [name.removesuffix(".weight").rpartition(".")[2] for name in names],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return Source("adapter", folder, (str(base),), True)


@pytest.mark.parametrize(
    "dtypes",
    [
        [[FLOAT], [FLOAT], [FLOAT]],
        [[BF16], [FLOAT], [HALF]],
        [[FLOAT, BF16, HALF], [BF16], [HALF, HALF, FLOAT, BF16]],
    ],
    ids=["alike", "mixed among models", "mixed among tensors"],
)
def test_every_placement_gives_the_same_bits(
    dtypes: list[list[torch.dtype]], tmp_path: Path
) -> None:
    sources = save_models(tmp_path, models(dtypes))
    engines = {placement: placed(sources, placement) for placement in PLACEMENTS}
    for method in RECIPES:
        for dtype in ("float32", "bfloat16"):
            wanted = recipe(method, 2, dtype=dtype)
            expected = merged(engines["device"], wanted)
            assert expected.keys() == {*SHAPES, "steps"}
            assert all(
                tensor.dtype == getattr(torch, dtype)
                for n, tensor in expected.items()
                if n != "steps"
            )
            for engine in engines.values():
                assert same(merged(engine, wanted), expected), method


def test_one_tensor_alone_equals_it_among_all(tmp_path: Path) -> None:
    """What is merged together changes nothing, in the order asked for or another."""
    sources = save_models(tmp_path, models([[FLOAT, BF16], [FLOAT], [BF16]]))
    engine = placed(sources, "device")
    for method in RECIPES:
        wanted = recipe(method, 2)
        expected = merged(engine, wanted)
        for name, tensor in expected.items():
            assert same(merged(placed(sources, "device"), wanted, [name]), {name: tensor})


ADAPTED = [
    f"model.layers.{i}.{m}.weight" for i in range(2) for m in ("self_attn.q_proj", "mlp.down_proj")
]


def test_an_adapter_is_merged_in_float32_and_never_rounded_to_its_base(
    half_family: list[Source], tmp_path: Path
) -> None:
    sources = [Source(n, s.folder, (), False) for n, s in zip(NAMES, half_family[:2], strict=False)]
    base, full = (load_file(source.folder / "model.safetensors") for source in sources)
    lora = save_lora(tmp_path / "lora", sources[0].folder, ADAPTED)
    factors = open_models({"two": (sources[0], lora)})["two"].adapter
    assert factors is not None and factors.updates.keys() == set(ADAPTED)
    adapted = {
        name: base[name].float() + 2.0 * (update.left @ update.right)
        for name, update in factors.updates.items()
    }
    by_hand = engine_of(tmp_path / "by_hand", base, full, {**base, **adapted})
    for placement in PLACEMENTS:
        engine = placed(sources, placement, two=lora)
        for method in RECIPES:
            found, expected = (merged(e, recipe(method, 2)) for e in (engine, by_hand))
            assert same(found, expected), (placement, method)
        alone = simple_recipe("linear", [{"weight": 0.0}, {"weight": 1.0}])
        result = merged(engine, alone)
        assert all(torch.equal(result[name], tensor) for name, tensor in adapted.items())
        assert not torch.equal(result[ADAPTED[0]], result[ADAPTED[0]].to(BF16).float())


def test_an_adapter_costs_its_factors(half_family: list[Source], tmp_path: Path) -> None:
    lora = save_lora(tmp_path / "lora", half_family[0].folder, ADAPTED, rank=3)
    opened = open_models({"base": (half_family[0], None), "one": (half_family[0], lora)})
    stores = place_models(opened, CPU, "device", ADAPTED)
    resident, adapter = stores["base"], stores["one"]
    assert isinstance(resident, Resident) and isinstance(adapter, Adapted)
    factors = sum(3 * sum(resident.shapes[name]) for name in ADAPTED) * torch.float32.itemsize
    assert held(stores.values()) == resident.bytes + factors
    adapter.rows(ADAPTED)  # the adapted tensors are not kept
    assert held(stores.values()) == resident.bytes + factors


def held(stores: Any) -> int:
    """Bytes of all tensors that stores refer to, each storage once."""
    storages: dict[int, int] = {}
    seen: set[int] = set()
    todo: list[Any] = list(stores)
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            storages[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        elif isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, Disk | Resident | Adapted | Adapter | LowRank):
            todo += vars(item).values()
    return sum(storages.values())


def test_a_source_on_disk_holds_nothing(tmp_path: Path) -> None:
    (source,) = save_models(tmp_path, models([[FLOAT]]))
    store = Disk(Weights(source), CPU)
    store.rows(["a", "b"])
    assert held([store]) == 0


def test_resident_rows_are_views_where_tensors_adjoin(tmp_path: Path) -> None:
    (source,) = save_models(tmp_path, models([[FLOAT]]))
    store = Resident(Weights(source), CPU, order=["b", "a", "c"])
    together = store.rows(["b", "a"])
    place = store.place("b")
    assert place is not None and place.count == 1
    assert together.data_ptr() == store.rows(["b"]).data_ptr()
    assert store.rows(["a", "b"]).data_ptr() != store.rows(["a"]).data_ptr()
    assert torch.equal(store.rows(["a", "b"]), torch.cat([store.rows(["a"]), store.rows(["b"])]))
    on_host = Resident(Weights(source), torch.device("meta"), host=True)
    assert on_host.place("a") is None


def test_rows_end_in_zeros(tmp_path: Path) -> None:
    model = models([[BF16, FLOAT]])[0]
    (source,) = save_models(tmp_path, [model])
    for store in (Disk(Weights(source), CPU), Resident(Weights(source), CPU, SHAPES)):
        for name, shape in SHAPES.items():
            rows = store.rows([name])
            assert rows.shape == (row_count(shape), ROW) and rows.dtype == store.dtype(name)
            assert torch.equal(as_tensor(rows, shape), model[name])
            assert rows.view(-1)[model[name].numel() :].eq(0).all()
            assert torch.equal(store.tensor(name), model[name])
        both = store.rows(["a", "b"])  # of two dtypes
        assert both.dtype == FLOAT
        assert torch.equal(both, stack_rows([model["a"].float(), model["b"].float()]))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_nan_and_infinity_are_named_by_tensor_and_file(
    placement: Placement, value: float, tmp_path: Path
) -> None:
    family = models([[BF16], [BF16]])
    family[1]["b"][2, 5] = value
    sources = save_models(tmp_path, family)
    with pytest.raises(MorphingError, match=r"^b of .*one holds NaN or infinity in \d+ of its"):
        merged(placed(sources, placement), recipe("ties", 1))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_tensor_of_another_shape_is_refused_by_name(placement: Placement, tmp_path: Path) -> None:
    family = models([[FLOAT], [FLOAT]])
    family[1]["b"] = torch.zeros(3, 999)
    engine = placed(save_models(tmp_path, family), placement)
    with pytest.raises(MorphingError, match=r"b is 3 x \d+ in \w+ and 3 x \d+ in \w+"):
        merged(engine, recipe("ties", 1))


def test_a_tensor_that_an_adapter_replaces_in_another_shape(tmp_path: Path) -> None:
    (source,) = save_models(tmp_path, [{"a": torch.ones(4, 3), "b": torch.ones(2)}])
    base = Resident(Weights(source), CPU, ["a", "b"])
    replaced = torch.full((6, 3), 2.0, dtype=BF16)
    store = Adapted(base, Adapter({}, {"a": replaced}))
    assert store.shapes == {"a": (6, 3), "b": (2,)}
    assert store.dtype("a") == BF16 and store.dtype("b") == FLOAT
    assert torch.equal(as_tensor(store.rows(["a"]), (6, 3)), replaced)
    assert store.place("a") is None and store.place("b") == base.place("b")
    assert store.rows(["b"]).data_ptr() == base.rows(["b"]).data_ptr()


def test_integers_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    family = models([[FLOAT], [FLOAT]])
    family[1]["steps"][3] = 0
    engine = placed(save_models(tmp_path, family), "device")
    with pytest.raises(MorphingError, match=r"steps holds integers.*differs between \w+ and \w+"):
        merged(engine, recipe("ties", 1))


def test_auto_places_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from morphing.merging import models as models_module

    sources = save_models(tmp_path, models([[FLOAT], [FLOAT]]))
    opened = open_models({source.name: (source, None) for source in sources})
    needed = sum(model.weights.bytes for model in opened.values())
    for free, kind in ((needed + 10, Resident), (needed + 9, Disk)):
        monkeypatch.setattr(models_module, "available_memory", lambda device, free=free: free)
        stores = place_models(opened, CPU, "auto", spare=10)
        assert all(isinstance(store, kind) for store in stores.values())


def test_a_file_that_changes_while_it_is_read_from_disk_is_refused(tmp_path: Path) -> None:
    sources = save_models(tmp_path, models([[FLOAT], [FLOAT]]))
    engine = placed(sources, "disk")
    merged(engine, recipe("ties", 1))
    shutil.copy(sources[0].folder / "model.safetensors", sources[1].folder)
    with pytest.raises(MorphingError, match=r"one/model\.safetensors was changed"):
        merged(engine, recipe("ties", 1))
