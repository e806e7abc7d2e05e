"""Families of tiny random Llamas: a base and three models a small step from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from morphing.merging.morph import Morpher
from morphing.sources.content import with_digest
from morphing.sources.find import download
from morphing.sources.source import Source


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """The folders of a base and two models of an architecture of `families`, saved once."""
    root = tmp_path_factory.mktemp("saved")
    known: dict[str, list[Path]] = {}

    def save(name: str) -> list[Path]:
        from tests.merging.families import save_models

        if name not in known:
            known[name] = save_models(root / name, name)
        return known[name]

    return save


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Base and three sources, float32, tied head."""
    return _family(tmp_path_factory.mktemp("family"), torch.float32, tied=True)


@pytest.fixture(scope="session")
def half_family(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Base and three sources, bfloat16, a head of their own."""
    return _family(tmp_path_factory.mktemp("half"), torch.bfloat16, tied=False)


@pytest.fixture(scope="session")
def morpher(family: list[Source]) -> Morpher:
    return Morpher(family[0], family[1:], torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def half_morpher(half_family: list[Source]) -> Morpher:
    return Morpher(half_family[0], half_family[1:], torch.device("cpu"), torch.bfloat16)


def _family(folder: Path, dtype: torch.dtype, tied: bool) -> list[Source]:
    # Not at the top: transformers imports the Hub's client, which must find the test run's Hub,
    # and this file can be read before that Hub has started.
    from tests.merging.tiny import save_family

    return [with_digest(download(str(path))) for path in save_family(folder, dtype, tied)]
