"""The same YAML through mergekit and through Morphing: the same model, to within rounding.

Bounds: with ``dtype: float32`` and ``out_dtype: bfloat16`` 99.99 % of the elements are equal or
neighbours in bfloat16; with ``dtype: bfloat16``, in which mergekit computes and Morphing does not,
97 %. Methods that draw at random have the same distribution. ``perf/parity.py`` does the same at a
real model's size.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as kinds
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from morphing import zoo
from morphing.merging.merge import merge_recipe
from morphing.merging.methods import MERGEKITS
from morphing.merging.recipe import Recipe
from morphing.sources.source import Source
from tests.merging.comparing import (
    NAMES,
    RECIPES,
    STOCHASTIC,
    Spread,
    StableSorts,
    agreement,
    errors_apart,
    read,
    recipe_text,
    run_mergekit,
    save_random_models,
    spread,
    undecided,
)
from tests.merging.tiny import tiny_llama

Both = tuple[Path, Path]
"""Folders of Morphing's model and of mergekit's."""

# Tiny tensors are too small for arcee_fusion to sample.
DETERMINISTIC = [m for m in MERGEKITS if m not in STOCHASTIC or m == "arcee_fusion"]
BY_MAGNITUDE = ("ties", "breadcrumbs", "breadcrumbs_ties", "sce")
NEEDED = 0.9999
NEEDED_BFLOAT16 = 0.97
COARSE = ("karcher", "arcee_fusion")
"""Methods whose norms, or scores of importance, mergekit takes in bfloat16."""
UNLIKELY = 4.0  # standard errors

CLOSE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""The shapes of a family as close as light fine-tunings are, in bfloat16, without tokenizers."""
CHAT = [{"role": "user", "content": "w3 w4"}, {"role": "assistant", "content": "w5"}]
TEXTS = ("w1 w2 w39 unknown", "2 + 3 = ", "三足す四は")


def merge(text: str, folder: Path, seed: int = 0, **options: Any) -> Both:
    """One YAML file, merged by both."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    recipe = Recipe.from_yaml(file.read_text(encoding="utf-8"), seed)
    ours = folder / "ours"
    merge_recipe(recipe, ours, torch.device("cpu"), lambda step, done, total: None)
    return ours, by_mergekit(file, folder / "theirs", random_seed=seed + 1, **options)


def by_mergekit(recipe: Path, folder: Path, **options: Any) -> Path:
    # Loading and saving adapters' bases draws bars, whatever is asked.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        run_mergekit(recipe, folder, **options)
    return folder


def check_tensors(both: Both, needed: float, free: dict[str, Tensor] | None = None) -> None:
    found = agreement(read(both[0]), read(both[1]), free or {})
    assert found.share >= needed, found
    assert found.compared > 0.3 * (found.compared + found.excluded), found


def check_config(both: Both, **deliberate: Any) -> None:
    """As transformers reads them equal, but for what Morphing sets and mergekit leaves."""
    from transformers import AutoConfig

    mine, other = (AutoConfig.from_pretrained(folder).to_dict() for folder in both)
    assert {key: mine[key] for key in deliberate} == deliberate
    for key in {*mine, *other} - {"transformers_version", "_name_or_path"} - deliberate.keys():
        assert mine.get(key) == other.get(key), key


def check_tokenizer(both: Both, present: bool = True) -> None:
    from transformers import AutoTokenizer

    if not present:
        assert not any((folder / "tokenizer.json").exists() for folder in both)
        return
    mine, other = (AutoTokenizer.from_pretrained(folder) for folder in both)
    assert mine.get_vocab() == other.get_vocab()
    assert mine.special_tokens_map == other.special_tokens_map
    for text in TEXTS:
        assert mine(text)["input_ids"] == other(text)["input_ids"]
        assert mine.decode(mine(text)["input_ids"]) == other.decode(other(text)["input_ids"])
    assert mine.chat_template == other.chat_template
    if mine.chat_template:
        assert mine.apply_chat_template(CHAT) == other.apply_chat_template(CHAT)


def named(body: str, folders: Sequence[Path | str]) -> str:
    """The YAML with the models' folders; a base, one, two and three, as far as there are."""
    return Template(body).substitute(dict(zip(NAMES, map(str, folders), strict=False)))


def folders_of(family: Sequence[Source]) -> list[Path]:
    return [source.folder for source in family]


@pytest.fixture(scope="module")
def models(
    family: list[Source], half_family: list[Source], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Path]]:
    """A base and three sources of each kind."""
    root = tmp_path_factory.mktemp("close")
    close = [root / name for name in NAMES]
    save_random_models(close, CLOSE)
    return {
        "float32": folders_of(family),
        "bfloat16": folders_of(half_family),
        "close": close,
        "zoo": [zoo.model_folder(name) for name in zoo.MODELS],
    }


# ------------------------------------------------------------------------------------------------
# Every method


def test_every_method_is_compared() -> None:
    assert set(RECIPES) == set(MERGEKITS)
    assert {*DETERMINISTIC, *STOCHASTIC} == set(MERGEKITS)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "close", "zoo"])
@pytest.mark.parametrize("method", DETERMINISTIC)
def test_a_method_gives_mergekits_model(
    method: str, kind: str, models: dict[str, list[Path]], tmp_path: Path
) -> None:
    text = recipe_text(method, models[kind], "float32", "bfloat16")
    both = merge(text, tmp_path)
    free = dict(undecided(Recipe.from_yaml(text), [torch.float32]))
    check_tensors(both, NEEDED, free)
    check_config(both)
    check_tokenizer(both, present=kind != "close")


@pytest.mark.parametrize("kind", ["close", "zoo"])
@pytest.mark.parametrize("method", DETERMINISTIC)
def test_mergekits_own_rounding_changes_little(
    method: str, kind: str, models: dict[str, list[Path]], tmp_path: Path
) -> None:
    """With ``dtype: bfloat16`` mergekit computes in it, and Morphing in float32.

    Of light fine-tunings in bfloat16, 97 % of the elements agree. Where mergekit's rounding alone
    changes more (the zoo's float32 models, which it rounds before it merges them; the methods in
    `COARSE`), Morphing agrees with it as well as mergekit's own float32 arithmetic does.
    """
    text = recipe_text(method, models[kind], "bfloat16", "bfloat16")
    both = merge(text, tmp_path)
    free = dict(undecided(Recipe.from_yaml(text), [torch.float32, torch.bfloat16]))
    needed = NEEDED_BFLOAT16
    if kind == "zoo" or method in COARSE:
        precise = tmp_path / "precise.yaml"
        precise.write_text(recipe_text(method, models[kind], "float32", "bfloat16"))
        own = by_mergekit(precise, tmp_path / "precise")
        needed = agreement(read(own), read(both[1]), free).share - 0.001
    check_tensors(both, needed, free)


@pytest.mark.parametrize("kind", ["bfloat16", "close"])
@pytest.mark.parametrize("method", BY_MAGNITUDE)
def test_ties_of_magnitude_are_broken_by_index(
    method: str, kind: str, models: dict[str, list[Path]], tmp_path: Path
) -> None:
    """A mergekit made to sort stably agrees on the ties too, of which there are some."""
    text = recipe_text(method, models[kind], "float32", "bfloat16")
    free = dict(undecided(Recipe.from_yaml(text), [torch.float32]))
    assert sum(int(tied.sum()) for tied in free.values()) > 0
    ours, _ = merge(text, tmp_path)
    with StableSorts():
        stable = by_mergekit(tmp_path / "recipe.yaml", tmp_path / "stable")
    check_tensors((ours, stable), NEEDED)


# ------------------------------------------------------------------------------------------------
# Settings of methods, and shapes of recipes

SOURCES = """\
models:
- {model: $one, parameters: {weight: 0.7, density: 0.4}}
- {model: $two, parameters: {weight: [{filter: mlp, value: -0.3}, {value: 0.5}], density: 0.8}}
"""
SLICES = """\
merge_method: ties
base_model: $base
slices:
- sources:
  - {model: $one, layer_range: [0, 2], parameters: {weight: [0.3, 0.8], density: 0.7}}
  - {model: $two, layer_range: [0, 2], parameters: {weight: 0.5, density: 0.5}}
  - {model: $base, layer_range: [0, 2]}
- sources:
  - {model: $one, layer_range: [1, 3], parameters: {weight: 0.4, density: 0.6}}
  - model: $three
    layer_range: [1, 3]
    parameters: {weight: [{filter: mlp, value: 0.2}, {value: 1}]}
  - {model: $base, layer_range: [1, 3]}
  parameters: {density: 0.8}
parameters: {lambda: 0.9}
"""
SETTINGS = {
    "linear, weights as they are": "merge_method: linear\nparameters: {normalize: false}\n"
    + SOURCES,
    "linear, the base merged though not listed": """\
merge_method: linear
base_model: $base
models: [{model: $one, parameters: {weight: 0.2}}]
parameters: {weight: 0.6}
""",
    "slerp, the base second": """\
merge_method: slerp
base_model: $base
models: [{model: $one}, {model: $base}]
parameters: {t: [0, 0.3, 1]}
""",
    "nuslerp without a base, by rows": """\
merge_method: nuslerp
parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}
"""
    + SOURCES.replace("-0.3", "0.3"),
    "multislerp without a base": """\
merge_method: multislerp
parameters: {normalize_weights: false}
"""
    + SOURCES,
    "karcher, few steps": "merge_method: karcher\nparameters: {max_iter: 2}\n" + SOURCES,
    "task_arithmetic, normalised": """\
merge_method: task_arithmetic
base_model: $base
parameters: {normalize: true, lambda: [0.5, 1.5]}
"""
    + SOURCES,
    "ties, not normalised": """\
merge_method: ties
base_model: $base
parameters: {normalize: false, lambda: 0.8}
"""
    + SOURCES,
    "ties, rescaled, the base among the models": """\
merge_method: ties
base_model: $base
parameters: {rescale: true, int8_mask: true}
models:
- {model: $base}
- {model: $one, parameters: {weight: 0.6, density: 0.3}}
- {model: $three, parameters: {weight: 0.9, density: 0}}
""",
    "dare_linear without dropping": """\
merge_method: dare_linear
base_model: $base
parameters: {density: 1, weight: 0.7, lambda: 0.9, normalize: true}
models: [{model: $one}, {model: $two}, {model: $three}]
""",
    "dare_ties without dropping": """\
merge_method: dare_ties
base_model: $base
parameters: {density: 1, weight: [0.7, 0.3], int8_mask: true, normalize: true}
models: [{model: $one}, {model: $two}, {model: $three}]
""",
    "della without dropping": """\
merge_method: della
base_model: $base
parameters: {density: 1, weight: 0.7, lambda: 0.9, normalize: false}
models: [{model: $one}, {model: $two}, {model: $three}]
""",
    "breadcrumbs, normalised and rescaled": """\
merge_method: breadcrumbs
base_model: $base
parameters: {normalize: true, rescale: true, gamma: 0.02, lambda: 0.7}
"""
    + SOURCES,
    "breadcrumbs_ties, normalised": """\
merge_method: breadcrumbs_ties
base_model: $base
parameters: {normalize: true, int8_mask: true}
"""
    + SOURCES,
    "sce, all selected": "merge_method: sce\nbase_model: $base\n" + SOURCES,
    "model_stock by filters": """\
merge_method: model_stock
base_model: $base
parameters: {filter_wise: true}
"""
    + SOURCES,
    "a model by its mapping": """\
merge_method: task_arithmetic
base_model: {model: {path: $base}}
models: [{model: {model: {path: $one}}, parameters: {weight: 0.4}}]
""",
    "the default of the parameters": """\
merge_method: passthrough
models: [{model: $one}]
""",
    "slices": SLICES.replace("$three", "$two"),
    "slices of slerp": """\
merge_method: slerp
base_model: $base
slices:
- sources: [{model: $base, layer_range: [0, 3]}, {model: $one, layer_range: [0, 3]}]
  parameters: {t: [{filter: self_attn, value: [0, 0.5, 1]}, {value: [1, 0.5, 0]}]}
""",
    "slices passed through, some scaled": """\
merge_method: passthrough
slices:
- sources: [{model: $base, layer_range: [0, 2]}]
- sources:
  - model: $one
    layer_range: [1, 3]
    parameters: {scale: [{filter: o_proj, value: 0}, {filter: down_proj, value: 0}, {value: 1}]}
- sources: [{model: $base, layer_range: [2, 3]}]
""",
}


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_gives_mergekits_model(
    setting: str, kind: str, models: dict[str, list[Path]], tmp_path: Path
) -> None:
    body = named(SETTINGS[setting], models[kind])
    text = f"{body}dtype: float32\nout_dtype: bfloat16\n"
    both = merge(text, tmp_path)
    free = dict(undecided(Recipe.from_yaml(text), [torch.float32]))
    check_tensors(both, NEEDED, free)
    check_config(both)
    check_tokenizer(both)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_slices_that_end_in_other_models_have_their_head(
    kind: str, models: dict[str, list[Path]], tmp_path: Path
) -> None:
    """mergekit writes no head where all are tied: the first slice's embeddings then read the last
    slice's output. Morphing merges a head of the last slice's embeddings."""
    body = named(SLICES, models[kind])
    both = merge(f"{body}dtype: float32\nout_dtype: bfloat16\n", tmp_path)
    ours, theirs = (read(folder) for folder in both)
    if kind == "float32":
        assert "lm_head.weight" not in theirs
        head = ours.pop("lm_head.weight")
        assert (head != ours["model.embed_tokens.weight"]).any()
        check_config(both, tie_word_embeddings=False)
    else:
        check_config(both)
    free = dict(
        undecided(Recipe.from_yaml((tmp_path / "recipe.yaml").read_text()), [torch.float32])
    )
    assert agreement(ours, theirs, free).share >= NEEDED


@pytest.mark.parametrize(
    "dtypes", ["", "dtype: float16\n", "dtype: bfloat16\nout_dtype: float32\n"]
)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_the_dtype_written_is_mergekits(
    dtypes: str, kind: str, models: dict[str, list[Path]], tmp_path: Path
) -> None:
    body = (
        "merge_method: linear\nmodels: [{model: $base}, {model: $one}]\nparameters: {weight: 1}\n"
    )
    ours, theirs = both = merge(named(body, models[kind]) + dtypes, tmp_path)
    assert {n: t.dtype for n, t in read(ours).items()} == {
        n: t.dtype for n, t in read(theirs).items()
    }
    check_config(both)


def test_models_of_different_dtypes(models: dict[str, list[Path]], tmp_path: Path) -> None:
    base, one, two, three = models["float32"]
    for folder, dtype in ((two, torch.float16), (three, torch.bfloat16)):
        stored = {name: tensor.to(dtype) for name, tensor in read(folder).items()}
        (tmp_path / folder.name).mkdir()
        save_file(stored, tmp_path / folder.name / "model.safetensors", {"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        (tmp_path / folder.name / "config.json").write_text(json.dumps(config))
    folders = [base, one, tmp_path / two.name, tmp_path / three.name]
    for method in ("ties", "task_arithmetic", "karcher"):
        text = recipe_text(method, folders, "float32", "bfloat16")
        check_tensors(merge(text, tmp_path / method), NEEDED)


@pytest.mark.parametrize("tied_base", [True, False])
def test_tied_models_with_untied_ones(
    tied_base: bool, models: dict[str, list[Path]], tmp_path: Path
) -> None:
    """A tied model's head is its embedding; the output has a head of its own.

    mergekit then writes the head, and the donor's ``tie_word_embeddings``, under which transformers
    would not read it: Morphing says false.
    """
    tied, untied = models["float32"], models["bfloat16"]
    folders = [tied[0], untied[1], tied[2], untied[3]]
    if not tied_base:
        folders = [untied[0], tied[1], *folders[2:]]
    for method in ("task_arithmetic", "linear", "sce"):
        text = recipe_text(method, folders, "float32", "bfloat16")
        both = merge(text, tmp_path / method)
        assert "lm_head.weight" in read(both[0])
        check_tensors(both, NEEDED, dict(undecided(Recipe.from_yaml(text), [torch.float32])))
        check_config(both, tie_word_embeddings=False)


def test_adapters_by_mergekits_own_syntax(models: dict[str, list[Path]], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base, one, two, _ = models["float32"]
    torch.manual_seed(2)
    with contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    for method in ("ties", "slerp", "model_stock"):
        adapter = f"{base}+{tmp_path / 'adapter'}"
        text = recipe_text(method, [base, adapter, one, two], "float32", "bfloat16")
        both = merge(text, tmp_path / method, lora_merge_cache=str(tmp_path / "cache"))
        check_tensors(both, NEEDED)


def test_folders_relative_to_the_working_one_and_the_recipe_written(
    models: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And mergekit, run on the recipe beside the exported weights, writes them again."""
    base, one, *_ = models["bfloat16"]
    monkeypatch.chdir(base.parent)
    monkeypatch.setattr("socket.socket.connect", None)  # nothing is asked of any host
    body = named(SETTINGS["slices of slerp"], [base.name, f"./{one.name}"])
    no_card = {"write_model_card": False}  # it asks the Hub which of the models it has
    both = merge(f"{body}dtype: bfloat16\n", tmp_path, **no_card)
    check_tensors(both, NEEDED_BFLOAT16)
    monkeypatch.chdir(tmp_path)
    again = by_mergekit(both[0] / "mergekit_config.yml", tmp_path / "again", **no_card)
    check_tensors((both[0], again), NEEDED)
    check_config((both[0], again))
    check_tokenizer((both[0], again))


# ------------------------------------------------------------------------------------------------
# Vocabularies

WORDS = [f"w{i}" for i in range(40)]
VOCABULARIES = {
    "base": (WORDS, 40),
    "one": ([*WORDS[:3], *WORDS[:2:-1], "one", "more"], 44),  # other ids, two tokens more, padded
    "two": ([*WORDS[:30], "more", "two"], 32),
}


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Models whose vocabularies differ, with heads of their own."""
    root = tmp_path_factory.mktemp("vocabularies")
    torch.manual_seed(4)
    for name, (words, rows) in VOCABULARIES.items():
        tiny_llama(tied=False, vocabulary=rows).save_pretrained(root / name)
        save_words(root / name, words)
    return [root / name for name in VOCABULARIES]


def save_words(folder: Path, words: Sequence[str]) -> None:
    backend = Tokenizer(kinds.WordLevel({w: i for i, w in enumerate(words)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0", eos_token="w1")
    fast.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    fast.save_pretrained(folder)


def check_vocabularies(both: Both, same_ids: bool) -> None:
    """Every token has mergekit's rows, and texts are read alike."""
    from transformers import AutoTokenizer

    mine, other = (AutoTokenizer.from_pretrained(folder) for folder in both)
    ids, their_ids = mine.get_vocab(), other.get_vocab()
    assert ids.keys() == their_ids.keys()
    if same_ids:
        assert ids == their_ids
    rows = torch.tensor([ids[token] for token in sorted(ids)])
    their_rows = torch.tensor([their_ids[token] for token in sorted(ids)])
    ours, theirs = (read(folder) for folder in both)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert ours[name].shape == theirs[name].shape
        ours[name], theirs[name] = ours[name][rows], theirs[name][their_rows]
    assert agreement(ours, theirs, {}).share >= NEEDED
    for text in ("w3 one w39 more", "two w1 unknown"):
        tokens = [t.convert_ids_to_tokens(t(text)["input_ids"]) for t in (mine, other)]
        assert tokens[0] == tokens[1]
    check_config(both)
    assert json.loads((both[0] / "config.json").read_text())["vocab_size"] == len(
        read(both[0])["lm_head.weight"]
    )


@pytest.mark.parametrize(
    "setting",
    [
        "tokenizer_source: union",
        "tokenizer_source: base",
        "tokenizer_source: $one",
        "tokenizer: {source: union, pad_to_multiple_of: 8}",
        "tokenizer: {source: base, tokens: {w5: {source: $two, force: true}}}",
    ],
)
@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "linear", "multislerp"])
def test_vocabularies_that_differ(
    method: str, setting: str, readers: list[Path], tmp_path: Path
) -> None:
    body = f"""\
merge_method: {method}
base_model: $base
models:
- {{model: $one, parameters: {{weight: 0.6, density: 0.7}}}}
- {{model: $two, parameters: {{weight: [0.2, 0.5], density: 0.4}}}}
"""
    if method == "linear":
        body += "parameters: {weight: 0.3}\n"
    text = named(f"{body}dtype: float32\nout_dtype: bfloat16\n{setting}\n", readers)
    # mergekit's union numbers the tokens it adds in the order of a hash table.
    check_vocabularies(merge(text, tmp_path), same_ids="union" not in setting)


@pytest.mark.parametrize("template", ["chatml", "auto", "{% for m in messages %}<{{ m.content }}>"])
def test_a_chat_template(template: str, models: dict[str, list[Path]], tmp_path: Path) -> None:
    if template.startswith("{"):
        template += "{% endfor %}"
    text = recipe_text("slerp", models["bfloat16"], "float32", "bfloat16")
    both = merge(f"{text}chat_template: {json.dumps(template)}\n", tmp_path)
    check_tensors(both, NEEDED)
    check_tokenizer(both)


# ------------------------------------------------------------------------------------------------
# Methods of chance

DRAWING = [method for method in STOCHASTIC if method != "arcee_fusion"]
SEEDS = range(3)


def check_distribution(ours: Spread, theirs: Spread) -> None:
    apart = errors_apart(ours, theirs)
    assert max(apart.values()) < UNLIKELY, (apart, ours.statistics(), theirs.statistics())


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "zoo"])
@pytest.mark.parametrize("method", DRAWING)
def test_random_methods_have_mergekits_distribution(
    method: str, kind: str, models: dict[str, list[Path]], tmp_path: Path
) -> None:
    """Of several sources together: entries changed, L1 norm, mean and variance of the step."""
    text = recipe_text(method, models[kind], "float32", "float32")
    base = read(models[kind][0])
    spreads = [Spread(), Spread()]
    merged = set()
    for seed in SEEDS if kind != "zoo" else SEEDS[:1]:
        for place, folder in enumerate(merge(text, tmp_path / str(seed), seed)):
            tensors = read(folder)
            spreads[place] += spread(tensors, base)
            merged.add(float(sum(tensor.double().sum() for tensor in tensors.values())))
    assert len(merged) == 2 * len(SEEDS if kind != "zoo" else SEEDS[:1])  # no two alike
    check_distribution(*spreads)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("method", DRAWING)
def test_random_methods_keep_what_is_asked(
    method: str, rescale: bool, models: dict[str, list[Path]], tmp_path: Path
) -> None:
    """Of one source: the share kept is the density, and each tensor has its L1 norm, or that share.

    DELLA keeps more of the larger half of each row, as much more as mergekit.
    """
    base, one, *_ = models["float32"]
    text = named(
        f"""\
merge_method: {method}
base_model: $base
models: [{{model: $one, parameters: {{weight: 1, density: 0.4}}}}]
parameters: {{normalize: false, rescale: {str(rescale).lower()}}}
dtype: float32
""",
        [base, one],
    )
    origin, source = read(base), read(one)
    larger = {name: _larger_half(source[name] - origin[name]) for name in origin}
    halves = []
    for folder in merge(text, tmp_path):
        merged = read(folder)
        everything = spread(merged, origin)
        assert everything.changed / everything.count == pytest.approx(0.4, abs=0.015)
        for name, tensor in merged.items():
            norm = float((tensor - origin[name]).abs().sum())
            whole = float((source[name] - origin[name]).abs().sum())
            if rescale:
                assert norm == pytest.approx(whole, rel=1e-4)
        chosen = {name: tensor[larger[name]] for name, tensor in merged.items()}
        halves.append(spread(chosen, {name: t[larger[name]] for name, t in origin.items()}))
    check_distribution(*halves)
    kept = halves[0].changed / halves[0].count
    assert kept == pytest.approx(0.475 if method.startswith("della") else 0.4, abs=0.02)


def _larger_half(delta: Tensor) -> Tensor:
    size = delta.abs()
    return size > size.median(dim=-1, keepdim=True).values


def test_arcee_fusion_samples_large_tensors_alike(tmp_path: Path) -> None:
    """It estimates the threshold of a tensor of over a million elements from a sample of them."""
    folders = [tmp_path / "base", tmp_path / "one"]
    save_random_models(folders, {**CLOSE, "vocab_size": 17_000})
    text = named(RECIPES["arcee_fusion"], folders)
    both = merge(f"merge_method: arcee_fusion\n{text}dtype: float32\n", tmp_path / "out")
    ours, theirs, base = (read(folder) for folder in (*both, folders[0]))
    assert max(tensor.numel() for tensor in base.values()) > 10**6
    check_distribution(spread(ours, base), spread(theirs, base))
    assert agreement(ours, theirs, {}).share > 0.99


# ------------------------------------------------------------------------------------------------
# The command


@pytest.mark.slow
def test_mergekits_command_on_the_zoo(models: dict[str, list[Path]], tmp_path: Path) -> None:
    text = recipe_text("ties", models["zoo"], "float32", "bfloat16")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    program = Path(sys.executable).with_name("mergekit-yaml")
    theirs = tmp_path / "command"
    subprocess.run(
        [program, recipe, theirs, "--quiet"], check=True, capture_output=True, timeout=500
    )
    both = merge(text, tmp_path)[0], theirs
    check_tensors(both, NEEDED, dict(undecided(Recipe.from_yaml(text), [torch.float32])))
    check_config(both)
    check_tokenizer(both)
