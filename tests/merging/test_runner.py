"""Compiled, eager, by whatever threads and blocks: the weights are the same bit for bit."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from morphing.merging.engine import Engine
from morphing.merging.recipe import Recipe
from morphing.merging.rows import kernels, runner, ties_ranks
from morphing.merging.rows.kernels import ROW
from morphing.merging.rows.runner import Runner
from morphing.merging.workers import Workers
from morphing.sources.source import Source
from tests.merging.checkpoints import CPU, Tensors, make_engine, merged, save_models, simple_recipe

FLOAT, BF16, HALF = torch.float32, torch.bfloat16, torch.float16
ROWS = 2 * runner._FEW + 3


@pytest.fixture(autouse=True, scope="module")
def kept_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiling takes seconds a kernel; the next test run finds them again."""
    assert request.config.cache is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(request.config.cache.mkdir("kernels")))
        yield


def save(folder: Path, dtypes: Sequence[torch.dtype]) -> list[Source]:
    """Two tensors over `_FEW` rows in one segment and one below it, with awkward entries."""
    random = torch.Generator().manual_seed(0)
    shapes = {"one": (ROWS - 40, ROW), "two": (40, ROW - 5), "wide": (40 * ROW + 17,)}
    base = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    models = []
    for number, dtype in enumerate(dtypes):
        model = {}
        for name, tensor in base.items():
            delta = 0.1 * torch.randn(tensor.shape, generator=random)
            delta = (delta * 64).round() / 64  # of few magnitudes, so that trimming meets ties
            moved = tensor + delta if number else tensor.clone()
            flat = moved.view(-1)
            flat[:4] = torch.tensor([0.0, -0.0, 1e-40, 3e4])
            model[name] = moved.to(dtype)
        models.append(model)
    return save_models(folder, models)


def engines(sources: list[Source]) -> tuple[Engine, Engine]:
    return make_engine(sources, compiled=True), make_engine(sources, compiled=False)


def check(compiled: Engine, eager: Engine, recipe: Recipe) -> Tensors:
    found, expected = merged(compiled, recipe), merged(eager, recipe)
    for name, tensor in expected.items():
        # Bit patterns: a zero's sign counts too.
        kind = torch.int32 if tensor.dtype == FLOAT else torch.int16
        assert torch.equal(found[name].view(kind), tensor.view(kind)), (recipe.method, name)
    assert compiled._rows._runner.compiled, "the compiler was given up"
    return expected


def own(count: int, density: float = 0.37) -> list[dict[str, float]]:
    weights = (0.7, -0.3, 0.45)
    return [{"weight": weights[i], "density": density + 0.1 * i} for i in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("entries", [1024, 4])
def test_compiled_is_eager_for_two_bfloat16_sources(
    entries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kernel; with few entries in the tables of ranks, also the search between them."""
    monkeypatch.setattr(ties_ranks, "_FEWEST", entries)
    monkeypatch.setattr(ties_ranks, "_SHARE", 1 << 30)
    both = engines(save(tmp_path, [BF16] * 3))
    recipes = [simple_recipe("ties", own(2), dtype="bfloat16", rescale=True, normalize=True)]
    if entries > 4:
        recipes += [
            simple_recipe("task_arithmetic", own(2), dtype="bfloat16"),
            simple_recipe("dare_ties", own(2), dtype="bfloat16", normalize=True),
        ]
    for recipe in recipes:
        check(*both, recipe)


@pytest.mark.slow
def test_compiled_is_eager_for_other_numbers_and_dtypes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = engines(save(tmp_path / "three", [FLOAT, BF16, HALF, FLOAT]))
    recipe = simple_recipe("dare_ties", own(3), rescale=False, normalize=False)
    check(*three, recipe)
    check(*three, simple_recipe("linear", own(3)))
    one = engines(save(tmp_path / "one", [HALF, HALF]))
    check(*one, simple_recipe("ties", own(1), dtype="float16"))


@pytest.mark.slow
def test_compiled_is_eager_for_slerp(tmp_path: Path) -> None:
    """Whose weights come from sums over whole tensors."""
    random = torch.Generator().manual_seed(0)
    base = {f"w{i}": torch.randn(4 + i % 5, ROW, generator=random) for i in range(30)}
    other = {n: t + 0.4 * torch.randn(t.shape, generator=random) for n, t in base.items()}
    compiled, eager = engines(save_models(tmp_path, [base, other]))
    for t in (0.2, 0.5, 0.7):
        recipe = simple_recipe("slerp", [{}], t=t)
        found, expected = merged(compiled, recipe), merged(eager, recipe)
        assert [n for n in expected if not torch.equal(found[n], expected[n])] == []


@pytest.mark.slow
def test_compiled_weights_do_not_depend_on_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, eager = engines(save(tmp_path, [BF16] * 3))
    recipe = simple_recipe("dare_linear", own(2), dtype="bfloat16", rescale=False)
    torch.set_num_threads(1)
    expected = check(compiled, eager, recipe)
    torch.set_num_threads(2)
    again = check(make_engine(_sources(compiled), compiled=True), eager, recipe)
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())


def _sources(engine: Engine) -> list[Source]:
    return [model.source for model in engine.models.values()]


@pytest.mark.parametrize("method", ["ties", "dare_ties", "slerp", "linear", "breadcrumbs"])
def test_eager_weights_do_not_depend_on_threads_workers_or_blocks(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = save(tmp_path, [FLOAT, BF16] if method == "slerp" else [FLOAT, BF16, HALF])
    shared: dict[str, Any] = {"t": 0.3} if method == "slerp" else {}
    if method in ("ties", "dare_ties"):
        shared["rescale"] = True
    recipe = simple_recipe(method, [{}] if method == "slerp" else own(2), **shared)
    expected = merged(make_engine(sources), recipe)
    for threads, workers, block in ((1, 3, 32), (3, 1, 7), (2, 2, 1000)):
        torch.set_num_threads(threads)
        monkeypatch.setattr(runner, "_BLOCK", block)
        found = merged(make_engine(sources, workers=workers), recipe)
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def sums(rows: int) -> list[Any]:
    """Arguments of `kernels.weighted_sum`."""
    random = torch.Generator().manual_seed(1)
    a, b = (torch.randn(rows, ROW, generator=random) for _ in range(2))
    columns = [torch.rand(rows, 1, generator=random) for _ in range(2)]
    return [[a, b], columns, a, torch.empty_like(a)]


def some(arguments: Sequence[Any], rows: slice) -> list[Any]:
    return [a[rows] if isinstance(a, Tensor) else [t[rows] for t in a] for a in arguments]


@pytest.fixture
def fake_compiler(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In place of torch.compile: the rows of every compiled call."""
    calls: list[int] = []

    def compile_(kernel: Callable[..., list[Tensor]], **options: Any) -> Callable[..., Any]:
        def run(*rows: Any, **chosen: Any) -> list[Tensor]:
            calls.append(runner._count(rows))
            return kernel(*rows, **chosen)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    return calls


def test_few_rows_are_not_compiled_and_division_changes_nothing(fake_compiler: list[int]) -> None:
    run = Runner(CPU, Workers(1), True, 0).run
    arguments = sums(ROWS)
    (whole,) = run(kernels.weighted_sum, *arguments)
    expected = arguments[-1].clone()
    assert fake_compiler == [ROWS]
    arguments[-1].zero_()
    bounds = [0, 1, runner._FEW, 2 * runner._FEW, ROWS]
    slices = [slice(a, b) for a, b in itertools.pairwise(bounds)]
    parts = [run(kernels.weighted_sum, *some(arguments, rows))[0] for rows in slices]
    assert fake_compiler == [ROWS, runner._FEW]
    assert torch.equal(arguments[-1], expected)
    assert torch.equal(torch.cat(parts), whole)


def test_an_error_that_is_not_the_compilers_is_raised(
    fake_compiler: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    compiled = Runner(CPU, Workers(1), True, 0)

    def broken(tensor: Tensor) -> list[Tensor]:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        compiled.run(broken, torch.zeros(ROWS, ROW))
    assert compiled.compiled
    assert not caplog.records


@pytest.mark.parametrize(
    ("choice", "elements", "tools", "compiled"),
    [
        (None, 1 << 30, True, True),
        (None, 1 << 30, False, False),
        (None, 1 << 20, True, False),
        ("0", 1 << 30, True, False),
        ("1", 1 << 20, False, True),
    ],
)
def test_large_models_are_compiled_where_there_is_a_compiler(
    choice: str | None,
    elements: int,
    tools: bool,
    compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("MORPHING_COMPILE", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    if choice is not None:
        monkeypatch.setenv("MORPHING_COMPILE", choice)
    if tools:
        (tmp_path / "g++").write_text("#!/bin/sh\n")
        (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Runner(CPU, Workers(1), None, elements).compiled == compiled
    assert Runner(CPU, Workers(1), False, elements).compiled is False


_WITHOUT_COMPILER = """\
import logging, sys, torch
from morphing.merging.rows import kernels
from morphing.merging.rows.runner import Runner
from morphing.merging.workers import Workers
from tests.merging.test_runner import ROWS, sums

records = []
class Keep(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())
logging.getLogger("morphing").addHandler(Keep())
results = []
for compiled in (True, False):
    runner = Runner(torch.device("cpu"), Workers(1), compiled, 0)
    for _ in range(2):
        arguments = sums(ROWS)
        runner.run(kernels.weighted_sum, *arguments)
        results.append(arguments[-1])
    assert not runner.compiled
assert all(torch.equal(result, results[-1]) for result in results)
print(len(records), *records, sep="\\n")
"""


@pytest.mark.slow
def test_without_a_compiler_merging_goes_on_after_one_warning(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "CXX": str(tmp_path / "nothing"),
        "PATH": str(tmp_path),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_COMPILER],
        env=env,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count, *warnings = done.stdout.splitlines()
    assert count == "1"
    assert "goes on without compiled kernels" in warnings[0]
