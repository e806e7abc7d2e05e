"""A search over models whose vocabularies differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from morphing.errors import MorphingError
from morphing.merging.morph import Morpher
from morphing.runs.prepare import prepare
from morphing.runs.spec import RunSpec, parse_spec
from morphing.runs.stages import stages


def spec(folder: Path, **extra: object) -> RunSpec:
    # Not at the top: these import the Hub's client, which must find the test run's Hub.
    from tests.merging.tiny import save_family

    base = save_family(folder / "own", torch.float32, tied=True)[0]
    other = save_family(folder / "other", torch.float32, tied=True, vocabulary=43)[1]
    data = {
        "base": str(base),
        "sources": [str(other)],
        "benchmarks": [{"benchmark": "zoo-word-puzzles", "samples": 1, "holdout": 1}],
        "method": "ties",
        "device": "cpu",
    }
    return parse_spec(data | extra)


def test_the_spec_must_say_whose_vocabulary_the_merges_have(tmp_path: Path) -> None:
    with pytest.raises(MorphingError, match=r"embed_tokens.* tokenizer_source: base or union\.$"):
        prepare(spec(tmp_path))


@pytest.mark.parametrize("strategy", ["ps", "dfs"])
@pytest.mark.parametrize(("choice", "rows"), [("union", 43), ("base", 40)])
def test_the_merges_have_it(choice: str, rows: int, strategy: str, tmp_path: Path) -> None:
    from morphing.sources.find import download

    search = {"space": {"strategy": strategy}}
    given = spec(tmp_path, tokenizer_source=choice, placement="disk", search=search)
    prepared = prepare(given)
    space = stages(prepared, 3, "LlamaForCausalLM")[0].space
    recipe = space.recipe(space.start() or dict.fromkeys(space.distributions(), 0.5))
    base, source = (download(name) for name in (prepared.base, *prepared.sources))
    morpher = Morpher(base, [source], torch.device("cpu"), torch.float32, prepared.placement)
    distance = morpher.morph(recipe)
    assert 0 < distance < 2
    assert len(morpher.model.get_input_embeddings().weight) == rows
    assert len(morpher.tokenizer) == rows
