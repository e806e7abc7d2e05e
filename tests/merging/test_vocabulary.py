"""Vocabularies that differ: mergekit's own results, and what it stops at or gets by chance."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit.common import ImmutableMap, ModelReference
from mergekit.config import MergeConfiguration
from mergekit.merge import _set_chat_template
from mergekit.tokenizer import PermutedVocabulary
from mergekit.tokenizer.build import build_tokenizer
from mergekit.tokenizer.config import TokenizerConfig
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.merging.vocabulary.speech import Speech, Voice, make_speech
from morphing.merging.vocabulary.vocabulary import Vocabulary, build_vocabulary

WIDTH = 3
CHATML = "{% for message in messages %}<|im_start|>{{ message.content }}{% endfor %}"
PLAIN = "{% for message in messages %}{{ message.content }}{% endfor %}"

# What every model's tokenizer holds: plain tokens by id, then added ones; and its embedding's rows.
TOKENS = {
    "origin": (["<unk>", "a", "b", "c", "d"], ["</s>", "<pad>"], 7),
    "one": (["<unk>", "c", "b", "a", "x", "y"], ["</s>", "<|im_end|>"], 8),
    "two": (["<unk>", "a", "y", "b", "z", "d"], ["<|im_end|>", "</s>"], 12),  # padded
    "three": (["<unk>", "z", "c"], ["</s>"], 4),
}
DTYPES = [torch.bfloat16, torch.float32, torch.float16, torch.bfloat16]


def save_model(
    folder: Path,
    tokens: Sequence[str],
    added: Sequence[str] = (),
    rows: int | None = None,
    template: str | None = None,
    bpe: bool = False,
) -> Path:
    """A tokenizer, and a configuration with ``rows`` as the vocabulary's size (None: no config)."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    kind = (
        models.BPE(vocabulary, [], unk_token="<unk>")
        if bpe
        else models.WordLevel(vocabulary, unk_token="<unk>")
    )
    backend = Tokenizer(kind)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_tokens([AddedToken(token, special=True) for token in added])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    for name in ("eos_token", "pad_token"):
        for token in {"eos_token": ["</s>", "<|im_end|>"], "pad_token": ["<pad>"]}[name]:
            if token in added and getattr(tokenizer, name) is None:
                setattr(tokenizer, name, token)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    if rows is not None:
        config = LlamaConfig(vocab_size=rows, architectures=["LlamaForCausalLM"])
        config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vocabularies")
    return {name: save_model(root / name, *tokens) for name, tokens in TOKENS.items()}


def linear(folders: Mapping[str, Path], base: bool = True, **extra: Any) -> Recipe:
    """A recipe over all the folders; names in ``extra`` that are models become their folders."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        return str(folders.get(value, value)) if isinstance(value, str) else value

    config: dict[str, Any] = {
        "merge_method": "linear",
        "models": [
            {"model": str(folder), "parameters": {"weight": 1}} for folder in folders.values()
        ],
        **{key: named(value) for key, value in extra.items()},
    }
    if base:
        config["base_model"] = str(folders["origin"])
    return Recipe(config)


def places(folders: Mapping[str, Path]) -> dict[str, Path]:
    return {str(folder): folder for folder in folders.values()}


def build(folders: Mapping[str, Path], base: bool = True, **extra: Any) -> Vocabulary:
    vocabulary = build_vocabulary(linear(folders, base, **extra), places(folders))
    assert vocabulary is not None
    return vocabulary


def speech(folders: Mapping[str, Path], base: bool = True, **extra: Any) -> Speech:
    recipe = linear(folders, base, **extra)
    voices = {
        name: Voice(folder, folder, rows=40, ends=()) for name, folder in places(folders).items()
    }
    donor = recipe.base or recipe.inputs[0]
    return make_speech(recipe, voices, donor, build_vocabulary(recipe, places(folders)))


def embeddings(
    rows: Sequence[int], dtypes: Sequence[torch.dtype] = (torch.float32,) * 4
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(count, WIDTH, generator=generator).to(dtype)
        for count, dtype in zip(rows, dtypes, strict=False)
    ]


def mergekits(
    recipe: Recipe, names: Sequence[str], tensors: Sequence[Tensor], base: str | None, axis: int = 0
) -> tuple[dict[str, int], list[Tensor]]:
    """What mergekit makes of it: the output's vocabulary, and one tensor a model."""
    configuration = MergeConfiguration.model_validate(recipe.config)
    settings = configuration.tokenizer or TokenizerConfig(source=configuration.tokenizer_source)
    info = build_tokenizer(
        configuration.base_model,
        [ModelReference.parse(name) for name in recipe.inputs],
        settings.source,
        trust_remote_code=False,
        add_tokens=list(settings.tokens or {}),
    )
    task = PermutedVocabulary.model_construct(
        tokens=ImmutableMap(settings.tokens or {}),
        pad_to_multiple_of=settings.pad_to_multiple_of,
        base_model=None if base is None else ModelReference.parse(base),
        vocabulary_axis=axis,
    )
    inputs = {ModelReference.parse(n): t for n, t in zip(names, tensors, strict=True)}
    return info.tokenizer.get_vocab(), list(task.execute(info, inputs).values())


def check_parity(
    recipe: Recipe,
    folders: Mapping[str, Path],
    names: Sequence[str],
    tensors: Sequence[Tensor],
    base: str | None,
    axis: int = 0,
) -> None:
    vocabulary = build_vocabulary(recipe, places(folders))
    assert vocabulary is not None
    aligned = vocabulary.align(names, tensors, base, axis)
    ids, theirs = mergekits(recipe, names, tensors, base, axis)
    own = vocabulary.tokenizer.get_vocab()
    assert own.keys() == ids.keys()
    # Our union's ids are in order, mergekit's by chance: the padding, its rows' mean, is last.
    order = [own[token] for token in sorted(own)] + list(range(len(own), vocabulary.size))
    other = [ids[token] for token in sorted(ids)] + list(range(len(ids), vocabulary.size))
    for mine, expected in zip(aligned, theirs, strict=True):
        assert mine.dtype == expected.dtype
        assert mine.shape == expected.shape
        mine, expected = mine.movedim(axis, 0)[order], expected.movedim(axis, 0)[other]
        assert torch.equal(mine[: len(own)], expected[: len(own)])
        torch.testing.assert_close(mine[len(own) :], expected[len(own) :])


# ------------------------------------------------------------------------------------------------
# mergekit's results

MODEL_TOKEN = {"kind": "model_token", "model": "one", "token": "x"}
SETTINGS: list[dict[str, Any]] = [
    {"tokenizer_source": "union"},
    {"tokenizer_source": "base"},
    {"tokenizer_source": "origin"},
    {"tokenizer_source": "one"},
    {"tokenizer_source": "two"},
    {"tokenizer": {}},
    {"tokenizer": {"source": "base", "pad_to_multiple_of": 4}},
    {"tokenizer": {"source": "union", "pad_to_multiple_of": 8}},
    {"tokenizer": {"source": "union", "pad_to_multiple_of": 1}},
    {"tokenizer": {"source": "union", "tokens": {"z": {"source": "two"}}}},
    {"tokenizer": {"source": "union", "tokens": {"d": {"source": "two", "force": True}}}},
    {"tokenizer": {"source": "union", "tokens": {"y": {"source": {"kind": "zero"}}}}},
    {"tokenizer": {"source": "union", "tokens": {"c": {}}}},
    {"tokenizer": {"source": "union", "tokens": {"a": {"source": MODEL_TOKEN}}}},
    {"tokenizer": {"source": "union", "tokens": {"a": {"source": MODEL_TOKEN, "force": True}}}},
    {"tokenizer": {"source": "union", "tokens": {"new": {"source": MODEL_TOKEN}}}},
    {
        "tokenizer": {
            "source": "union",
            "tokens": {
                "new": {"source": {"kind": "model_token", "model": "two", "token_id": 11}},
                "</s>": {"source": "origin", "force": True},
                "<pad>": {"source": {"kind": "zero"}, "force": True},
            },
            "pad_to_multiple_of": 5,
        }
    },
]


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: json.dumps(setting)[:60])
def test_rows_are_mergekits(zoo: dict[str, Path], setting: dict[str, Any], base: bool) -> None:
    if setting.get("tokenizer", {}).get("tokens") == {"c": {}}:
        zoo = {name: zoo[name] for name in ("origin", "one", "three")}
    rows = [TOKENS[name][2] for name in zoo]
    recipe = linear(zoo, base, **setting)
    names = [str(folder) for folder in zoo.values()]
    check_parity(recipe, zoo, names, embeddings(rows, DTYPES), recipe.base)


@pytest.mark.parametrize("base", [True, False])
def test_a_tensor_only_some_models_have_is_aligned_among_those(
    zoo: dict[str, Path], base: bool
) -> None:
    recipe = linear(zoo, base, tokenizer_source="union")
    names = [str(zoo[name]) for name in ("two", "one")]
    check_parity(recipe, zoo, names, embeddings([12, 8]), recipe.base)


@pytest.mark.parametrize("axis", [0, 1])
def test_biases_and_other_axes_are_mergekits(zoo: dict[str, Path], axis: int) -> None:
    recipe = linear(zoo, tokenizer={"source": "union", "pad_to_multiple_of": 8})
    rows = [TOKENS[name][2] for name in zoo]
    tensors = [t.movedim(0, 1) if axis else t[:, 0].clone() for t in embeddings(rows)]
    check_parity(recipe, zoo, list(recipe.inputs), tensors, recipe.base, axis)


def test_every_tensor_gets_its_own_alignment(zoo: dict[str, Path]) -> None:
    """One vocabulary serves other models, another base and other numbers of rows in turn."""
    recipe = linear(zoo, tokenizer_source="union")
    vocabulary = build(zoo, tokenizer_source="union")
    base, one, two, _ = recipe.inputs
    for names, start in [
        ((one, two), None),
        ((base, one), base),
        ((one, two), two),
        ((two, one), None),
    ]:
        rows = [TOKENS[Path(name).name][2] for name in names]
        for extra in (0, 2):
            tensors = embeddings([count + extra for count in rows])
            fresh = build(zoo, tokenizer_source="union").align(names, tensors, start)
            for mine, expected in zip(vocabulary.align(names, tensors, start), fresh, strict=True):
                assert torch.equal(mine, expected)


def test_padding_rows_of_a_checkpoint_are_dropped_and_its_tokens_past_them_taken_out(
    tmp_path: Path,
) -> None:
    folders = {
        "origin": save_model(tmp_path / "origin", ["<unk>", "a", "b", "c"], ["<s>"], 3, bpe=True),
        "one": save_model(tmp_path / "one", ["<unk>", "b", "a"], ["</s>"], 16),
    }
    for source in ("base", "union"):
        recipe = linear(folders, tokenizer_source=source)
        check_parity(recipe, folders, list(recipe.inputs), embeddings([3, 16]), recipe.base)
    assert build(folders, tokenizer_source="base").size == 3


def test_a_model_without_tokenizer_has_the_bases(zoo: dict[str, Path], tmp_path: Path) -> None:
    LlamaConfig(vocab_size=6).save_pretrained(tmp_path)
    folders = {"origin": zoo["origin"], "bare": tmp_path, "one": zoo["one"]}
    recipe = linear(folders, tokenizer={"source": "one"})
    vocabulary = build(folders, tokenizer={"source": "one"})
    tensors = embeddings([7, 7, 8])
    aligned = vocabulary.align(recipe.inputs, tensors, recipe.base)
    ids = vocabulary.tokenizer.get_vocab()
    assert torch.equal(aligned[1][ids["c"]], tensors[1][3])
    assert torch.equal(aligned[1][ids["</s>"]], tensors[1][5])


# ------------------------------------------------------------------------------------------------
# By hand


def test_a_missing_token_is_the_average_without_a_base_and_the_bases_with_one(
    zoo: dict[str, Path],
) -> None:
    folders = {name: zoo[name] for name in ("origin", "one", "two")}
    names = [str(folder) for folder in folders.values()]
    base, one, two = tensors = embeddings([7, 8, 12])
    vocabulary = build(folders, tokenizer_source="union")
    ids = vocabulary.tokenizer.get_vocab()
    with_base = vocabulary.align(names, tensors, names[0])
    without = vocabulary.align(names, tensors, None)
    # "c" is in base (3) and one (1); "y" in one (5) and two (2); "x" in one alone (4)
    assert torch.equal(with_base[2][ids["c"]], base[3])
    assert torch.equal(without[2][ids["c"]], (base[3] + one[1]) / 2)
    for aligned in (with_base, without):
        assert torch.equal(aligned[0][ids["y"]], (one[5] + two[2]) / 2)
        assert torch.equal(aligned[1][ids["y"]], one[5])
        assert torch.equal(aligned[2][ids["x"]], one[4])


def test_force_gives_all_models_the_row_named(zoo: dict[str, Path]) -> None:
    source = {"kind": "model_token", "model": "one", "token": "x"}
    tokens = {"a": {"source": source, "force": True}, "b": {"source": source}}
    vocabulary = build(zoo, tokenizer={"source": "base", "tokens": tokens})
    tensors = embeddings([7, 8, 12, 4])
    aligned = vocabulary.align([str(f) for f in zoo.values()], tensors, str(zoo["origin"]))
    assert all(torch.equal(tensor[1], tensors[1][4]) for tensor in aligned)
    assert torch.equal(aligned[0][2], tensors[0][2])  # "b" it has
    assert torch.equal(aligned[3][2], tensors[1][4])


def test_a_union_numbers_new_tokens_by_model_and_id(zoo: dict[str, Path]) -> None:
    vocabulary = build(zoo, tokenizer_source="union")
    ids = vocabulary.tokenizer.get_vocab()
    expected = ["<unk>", "a", "b", "c", "d", "</s>", "<pad>", "x", "y", "z", "<|im_end|>"]
    assert sorted(ids, key=ids.__getitem__) == expected
    special = {
        token.content
        for token in vocabulary.tokenizer.added_tokens_decoder.values()
        if token.special
    }
    assert special >= {"</s>", "<pad>", "<|im_end|>"}
    assert "x" not in special


def test_the_tokenizer_survives_being_saved(zoo: dict[str, Path], tmp_path: Path) -> None:
    vocabulary = build(
        zoo, tokenizer={"source": "union", "tokens": {"new": {"source": {"kind": "zero"}}}}
    )
    vocabulary.tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == vocabulary.tokenizer.get_vocab()
    assert len(again) == vocabulary.size
    text = "a x </s> y new"
    assert again.convert_ids_to_tokens(again(text)["input_ids"]) == text.split()


def test_a_tensor_already_in_place_is_not_copied(zoo: dict[str, Path]) -> None:
    vocabulary = build(zoo, tokenizer_source="base")
    tensors = embeddings([7, 8])
    aligned = vocabulary.align([str(zoo["origin"]), str(zoo["one"])], tensors, None)
    assert aligned[0].data_ptr() == tensors[0].data_ptr()
    before = tensors[1].clone()
    aligned[1].zero_()
    assert torch.equal(tensors[1], before)


# ------------------------------------------------------------------------------------------------
# Where mergekit stops


def test_a_token_past_a_models_rows_is_one_it_lacks(zoo: dict[str, Path], tmp_path: Path) -> None:
    folders = {
        "origin": zoo["origin"],
        "one": save_model(tmp_path / "one", ["<unk>", "b", "a"], ["<pad>"], 3),  # <pad> has no row
    }
    vocabulary = build(folders, tokenizer_source="base")
    names = [str(folder) for folder in folders.values()]
    tensors = embeddings([7, 3])
    with pytest.raises(KeyError):
        mergekits(linear(folders, tokenizer_source="base"), names, tensors, names[0])
    aligned = vocabulary.align(names, tensors, names[0])
    assert torch.equal(aligned[1][6], tensors[0][6])
    assert torch.equal(aligned[1][1], tensors[1][2])


def test_an_adapters_tokenizer_counts_as_far_as_there_are_rows(
    zoo: dict[str, Path], tmp_path: Path
) -> None:
    """An adapter's folder has no config.json to say how many."""
    tokens, added, _ = TOKENS["origin"]
    folders = {
        "origin": zoo["origin"],
        "adapter": save_model(tmp_path / "adapter", tokens, [*added, "<|im_end|>"]),
    }
    vocabulary = build(folders, tokenizer_source="union")
    assert vocabulary.size == 8
    names = [str(folder) for folder in folders.values()]
    for rows in (7, 8):
        tensors = embeddings([7, rows])
        aligned = vocabulary.align(names, tensors, names[0])
        expected = tensors[1][7] if rows == 8 else torch.zeros(WIDTH)
        assert torch.equal(aligned[0][7], expected)
        assert torch.equal(aligned[1][7], expected)


def test_a_special_token_past_the_rows_gets_one(tmp_path: Path) -> None:
    """Loading the tokenizer brings its pad token back, which must then have a row."""
    tokens = ["<unk>", "a", "b", "c"]
    folder = save_model(tmp_path / "origin", tokens, ["<pad>"], 3, bpe=True)
    vocabulary = build({"origin": folder}, tokenizer_source="base")
    vocabulary.tokenizer.save_pretrained(tmp_path / "output")
    again = AutoTokenizer.from_pretrained(tmp_path / "output")
    assert again.get_vocab() == {"<unk>": 0, "a": 1, "b": 2, "<pad>": 3}
    assert again.pad_token_id == 3
    assert vocabulary.size == 4
    (tensor,) = embeddings([3])
    (aligned,) = vocabulary.align([str(folder)], [tensor], None)
    assert torch.equal(aligned, torch.cat([tensor, torch.zeros(1, WIDTH)]))


def test_a_token_added_by_the_recipe_is_new_to_the_base(zoo: dict[str, Path]) -> None:
    folders = {name: zoo[name] for name in ("origin", "one")}
    setting = {"source": "base", "tokens": {"x": {"source": "one"}}}
    vocabulary = build(folders, tokenizer=setting)
    names = [str(folder) for folder in folders.values()]
    tensors = embeddings([7, 8])
    with pytest.raises(KeyError):
        mergekits(linear(folders, tokenizer=setting), names, tensors, names[0])
    aligned = vocabulary.align(names, tensors, names[0])
    assert vocabulary.size == 8
    assert all(torch.equal(tensor[7], tensors[1][4]) for tensor in aligned)


def test_ids_no_token_has_are_padding(zoo: dict[str, Path], tmp_path: Path) -> None:
    folder = save_model(tmp_path / "origin", ["<unk>", "a", "b", "c"], [], 8)
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["vocab"] = {"<unk>": 0, "a": 1, "b": 3, "c": 5}
    data["added_tokens"] = []
    (folder / "tokenizer.json").write_text(json.dumps(data))
    folders = {"origin": folder, "one": zoo["one"]}
    vocabulary = build(folders, tokenizer={"source": "base", "pad_to_multiple_of": 4})
    assert vocabulary.size == 8
    tensors = embeddings([8, 8])
    base, one = vocabulary.align([str(folder), str(zoo["one"])], tensors, None)
    assert torch.equal(base[[0, 1, 3, 5]], tensors[0][[0, 1, 3, 5]])
    assert torch.equal(one[[1, 3, 5]], tensors[1][[3, 2, 1]])
    for row in (2, 4, 6, 7):
        torch.testing.assert_close(base[row], base[[0, 1, 3, 5]].mean(dim=0))


# ------------------------------------------------------------------------------------------------
# The configuration


def test_the_config_gets_the_size_and_ids_follow_their_tokens(zoo: dict[str, Path]) -> None:
    config = {
        "vocab_size": 7,
        "eos_token_id": 5,
        "pad_token_id": 6,
        "bos_token_id": None,
        "width": 5,
    }
    union = build(zoo, tokenizer={"source": "union", "pad_to_multiple_of": 8})
    assert union.config_updates(config) == {"vocab_size": 16}
    # </s> is 6 in one's; <pad> it has not
    one = build(zoo, tokenizer_source="one")
    assert one.config_updates(config) == {"vocab_size": 8, "eos_token_id": 6, "pad_token_id": None}
    assert one.token_id_updates({"eos_token_id": [5, 3], "pad_token_id": -1}) == {
        "eos_token_id": [6, 1]
    }
    two = build(zoo, tokenizer_source="two")
    assert two.config_updates(
        {"text_config": {"vocab_size": 7, "depth": 2, "eos_token_id": 5}}
    ) == {"text_config": {"vocab_size": 8, "depth": 2, "eos_token_id": 7}}


def test_the_id_of_a_token_that_is_gone_becomes_the_tokenizers_own(zoo: dict[str, Path]) -> None:
    vocabulary = build(zoo, tokenizer_source="three")
    assert vocabulary.token_id_updates({"eos_token_id": 4}) == {"eos_token_id": 3}  # "d" is gone


# ------------------------------------------------------------------------------------------------
# Chat templates


@pytest.fixture(scope="module")
def talkers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("talkers")
    templates = {"origin": None, "one": CHATML, "two": PLAIN, "three": PLAIN + "\n"}
    return {
        name: save_model(root / name, *TOKENS[name], template=template)
        for name, template in templates.items()
    }


@pytest.mark.parametrize("wanted", ["auto", "chatml", "llama3", "alpaca", CHATML + "!"])
@pytest.mark.parametrize("setting", [{}, {"tokenizer_source": "union"}])
def test_chat_templates_are_mergekits(
    talkers: dict[str, Path], wanted: str, setting: dict[str, str]
) -> None:
    recipe = linear(talkers, chat_template=wanted, **setting)
    tokenizer = speech(talkers, chat_template=wanted, **setting).tokenizer
    assert tokenizer is not None
    theirs = AutoTokenizer.from_pretrained(talkers["origin"])
    _set_chat_template(theirs, MergeConfiguration.model_validate(recipe.config))
    assert tokenizer.chat_template == theirs.chat_template
    assert tokenizer.chat_template


def test_auto_takes_the_first_of_equals_and_keeps_what_is_where_none_is(
    talkers: dict[str, Path],
) -> None:
    folders = {name: talkers[name] for name in ("origin", "two", "one")}
    assert (
        speech(folders, tokenizer_source="base", chat_template="auto").tokenizer.chat_template
        == PLAIN
    )
    folders = {name: talkers[name] for name in ("origin", "one", "two")}
    assert (
        speech(folders, tokenizer_source="base", chat_template="auto").tokenizer.chat_template
        == CHATML
    )
    bare = {"origin": talkers["origin"]}
    assert (
        speech(bare, tokenizer_source="base", chat_template="auto").tokenizer.chat_template is None
    )


def test_without_a_setting_there_is_no_vocabulary_and_the_files_serve_as_they_are(
    talkers: dict[str, Path],
) -> None:
    assert build_vocabulary(linear(talkers), places(talkers)) is None
    assert speech(talkers).folder == talkers["origin"]


# ------------------------------------------------------------------------------------------------
# Refusals


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"tokenizer": {"source": "union", "tokens": {"x": {}}}}, "names no source"),
        ({"tokenizer": {"tokens": {"a": {"force": True}}}}, "names no source"),
        ({"tokenizer": {"tokens": {"x": {"source": "origin"}}}}, "token 'x' from"),
        ({"tokenizer": {"tokens": {"x": {"source": "org/absent"}}}}, "not merged there"),
        (
            {"tokenizer": {"tokens": {"n": {"source": {**MODEL_TOKEN, "token": "nowhere"}}}}},
            "token 'nowhere' from",
        ),
        (
            {
                "tokenizer": {
                    "tokens": {
                        "n": {"source": {"kind": "model_token", "model": "one", "token_id": 8}}
                    }
                }
            },
            "token id 8 from",
        ),
        ({"tokenizer": {"tokens": {"n": {"source": {"kind": "zer"}}}}}, "tokens"),
        ({"tokenizer": {"pad_to_multiple_of": -8}}, "pad_to_multiple_of is -8"),
        ({"tokenizer_source": "org/absent"}, "org/absent, which is not among its models"),
        ({"tokenizer_source": "base", "chat_template": "chatlm"}, "alpaca, chatml, exaone"),
        ({"tokenizer_source": "base", "chat_template": "../chatml"}, "alpaca, chatml, exaone"),
        (
            {"tokenizer_source": "base", "chat_template": CHATML + "{% if %}"},
            "not a Jinja template",
        ),
    ],
)
def test_refusals_are_one_sentence(
    zoo: dict[str, Path], setting: dict[str, Any], words: str
) -> None:
    with pytest.raises(MorphingError) as refusal:
        speech(zoo, **setting)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_tokenizers_that_are_missing_broken_or_too_long(
    zoo: dict[str, Path], tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    LlamaConfig(vocab_size=7).save_pretrained(bare)
    with pytest.raises(MorphingError, match="has no tokenizer"):
        build({"origin": bare, "one": zoo["one"]}, tokenizer_source="one")
    with pytest.raises(MorphingError, match="has no tokenizer"):
        build({"origin": zoo["origin"], "bare": bare}, tokenizer_source="bare")
    with pytest.raises(MorphingError, match="has no tokenizer"):
        speech({"origin": bare}, chat_template="chatml")

    broken = shutil.copytree(zoo["one"], tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(MorphingError, match="cannot be read"):
        build({"origin": zoo["origin"], "broken": broken}, tokenizer_source="base")

    words = save_model(tmp_path / "words", ["<unk>", "a", "b"], [], 2)
    with pytest.raises(MorphingError, match="past the 2 rows"):
        build({"origin": words}, tokenizer_source="base")


def test_widths_that_differ_are_refused(zoo: dict[str, Path]) -> None:
    vocabulary = build(zoo, tokenizer_source="union")
    names = [str(zoo["origin"]), str(zoo["one"])]
    with pytest.raises(MorphingError, match="do not fit together"):
        vocabulary.align(names, [torch.zeros(7, 3), torch.zeros(8, 4)], None)


def test_folders_need_no_network_and_nothing_is_printed(
    zoo: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    adapter = save_model(tmp_path, ["<unk>", "a"], ["</s>"])
    speech({**zoo, "adapter": adapter}, tokenizer_source="union", chat_template="auto")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
