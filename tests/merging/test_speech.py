"""A model on disk speaks as it did when it was scored: tokenizer, chat template, end tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from morphing.errors import MorphingError
from morphing.merging.merge import merge_recipe
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.merging.vocabulary.speech import same_tokenizer
from morphing.merging.writing.checkpoint import export
from morphing.sources.content import with_digest
from morphing.sources.find import download
from tests.merging.tiny import tiny_llama

CPU = torch.device("cpu")
WORDS = [f"w{i}" for i in range(30)]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OTHER = "{% for m in messages %}{{ bos_token }}{{ m.content }}{{ eos_token }}{% endfor %}"
CHAT = [{"role": "user", "content": "w3 w4"}]
ROWS = 40


def save(
    folder: Path,
    added: tuple[str, ...] = ("<s>", "</s>", "<|im_start|>", "<|im_end|>"),
    template: str | None = None,
    eos: str = "</s>",
    ends: object = "as eos",
    rows: int = ROWS,
    seed: int = 0,
) -> Path:
    """A tiny model with 30 words and the added tokens from id 30 on."""
    torch.manual_seed(seed)
    model = tiny_llama(vocabulary=rows)
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_tokens([AddedToken(token, special=True) for token in added])
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, bos_token="<s>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    place = fast.convert_tokens_to_ids(eos)
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": place}))
    if ends != "as eos":
        listed = ends if isinstance(ends, list) else [ends]
        ids = [fast.convert_tokens_to_ids(t) if isinstance(t, str) else t for t in listed]
        ids = ids if isinstance(ends, list) else ids[0]
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    return folder


def merged(
    base: Path, sources: list[Path], tmp_path: Path, method: str = "task_arithmetic", **extra: Any
) -> tuple[Morpher, Recipe]:
    """A recipe, morphed and exported to ``out`` and, by `morphing merge`, to ``again``."""
    own = [with_digest(download(str(folder))) for folder in (base, *sources)]
    morpher = Morpher(own[0], own[1:], CPU, torch.float32)
    config = {
        "merge_method": method,
        "models": [{"model": str(s), "parameters": {"weight": 0.5}} for s in sources],
        "dtype": "float32",
        **({"base_model": str(base)} if method != "linear" else {}),
        **extra,
    }
    recipe = Recipe(config)
    morpher.morph(recipe)
    export(morpher.engine, recipe, tmp_path / "out")
    merge_recipe(recipe, tmp_path / "again", CPU, lambda *_: None)
    return morpher, recipe


def check_speaks_alike(morpher: Morpher, folder: Path) -> set[int]:
    """The export's tokenizer and end tokens are the scored model's; returns the end tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from morphing.benchmarks.engine.stopping import Ending

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    scored = Ending(morpher.model, morpher.tokenizer, ())
    loaded = Ending(model, tokenizer, ())
    assert scored.tokens == loaded.tokens
    # What chats and servers end with is in the generation configuration alone.
    named = model.generation_config.eos_token_id
    assert {*(named if isinstance(named, list) else [named])} - {None} == loaded.tokens
    assert same_tokenizer(tokenizer, morpher.tokenizer)
    if tokenizer.chat_template:
        said = morpher.tokenizer.apply_chat_template(CHAT, add_generation_prompt=True)
        assert tokenizer.apply_chat_template(CHAT, add_generation_prompt=True) == said
    return set(loaded.tokens)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("how", ["auto", "model", "text"])
def test_a_pretrained_base_speaks_as_its_source(how: str, tmp_path: Path) -> None:
    base = save(tmp_path / "base")
    source = save(
        tmp_path / "source", template=CHATML, eos="<|im_end|>", ends=["<|im_end|>", "</s>"], seed=1
    )
    wanted = {"auto": "auto", "model": f"model:{source}", "text": CHATML}[how]
    morpher, _ = merged(base, [source], tmp_path, chat_template=wanted)
    assert morpher.tokenizer.chat_template == CHATML
    assert morpher.tokenizer.eos_token == "<|im_end|>"
    assert check_speaks_alike(morpher, tmp_path / "out") == {31, 33}
    assert files(tmp_path / "out") == files(tmp_path / "again")
    written = Recipe.from_yaml((tmp_path / "out" / "mergekit_config.yml").read_text())
    from mergekit.config import MergeConfiguration

    read = MergeConfiguration.model_validate(written.config).chat_template
    assert read == ("auto" if how == "auto" else CHATML)
    merge_recipe(written, tmp_path / "third", CPU, lambda *_: None)
    assert files(tmp_path / "third") == files(tmp_path / "out")


def test_without_a_wish_every_model_speaks_its_own_way(tmp_path: Path) -> None:
    base = save(tmp_path / "base")
    source = save(tmp_path / "source", template=CHATML, eos="<|im_end|>", seed=1)
    morpher, _ = merged(base, [source], tmp_path)
    assert morpher.tokenizer.chat_template is None
    assert check_speaks_alike(morpher, tmp_path / "out") == {31}
    assert "generation_config.json" not in files(tmp_path / "out")
    alone = Recipe({"merge_method": "linear", "models": [{"model": str(source)}]})
    alone = Recipe(
        {**alone.config, "models": [{"model": str(source), "parameters": {"weight": 1}}]}
    )
    morpher.morph(alone)
    assert morpher.tokenizer.chat_template == CHATML
    export(morpher.engine, alone, tmp_path / "alone")
    assert check_speaks_alike(morpher, tmp_path / "alone") == {33}


def test_a_method_without_a_base_speaks_as_its_first_source(tmp_path: Path) -> None:
    """It used to be scored with the base's tokenizer, and exported with the first source's."""
    base = save(tmp_path / "base")
    one = save(tmp_path / "one", template=CHATML, eos="<|im_end|>", seed=1)
    two = save(tmp_path / "two", template=OTHER, seed=2)
    morpher, _ = merged(base, [one, two], tmp_path, method="linear")
    assert morpher.tokenizer.chat_template == CHATML
    assert check_speaks_alike(morpher, tmp_path / "out") == {33}


@pytest.mark.parametrize(
    ("ends", "settings"),
    [
        ("as eos", {31}),
        ([], {31}),
        (None, {31}),
        (["<|im_end|>"], {31, 33}),
        (31, {31}),
        ([-1], {31}),
    ],
)
def test_end_tokens_are_those_of_both_files(
    ends: object, settings: set[int], tmp_path: Path
) -> None:
    """transformers generates by one file, scoring by both: an export says all in the one."""
    base = save(tmp_path / "base", ends=ends)
    source = save(tmp_path / "source", seed=1)
    morpher, _ = merged(base, [source], tmp_path)
    assert check_speaks_alike(morpher, tmp_path / "out") == settings


def test_tokens_that_only_the_source_has_come_with_its_tokenizer(tmp_path: Path) -> None:
    """Their rows are padding of the base's embeddings."""
    base = save(tmp_path / "base", added=("<s>", "</s>"))
    source = save(tmp_path / "source", template=CHATML, eos="<|im_end|>", seed=1)
    morpher, _ = merged(base, [source], tmp_path, chat_template="auto")
    assert morpher.tokenizer.convert_tokens_to_ids("<|im_end|>") == 33
    assert check_speaks_alike(morpher, tmp_path / "out") == {33, 31}


def test_a_template_whose_end_is_no_token_here_is_told(tmp_path: Path) -> None:
    base = save(tmp_path / "base", added=("<s>", "</s>", "<x>"))
    added = ("<s>", "<|im_end|>", "</s>", "<|im_start|>")
    source = save(tmp_path / "source", added=added, template=CHATML, eos="<|im_end|>", seed=1)
    morpher, recipe = merged(base, [source], tmp_path, chat_template="auto")
    assert check_speaks_alike(morpher, tmp_path / "out") == {31}
    (remark,) = morpher.engine.speech(recipe, morpher.engine.output(recipe)).remarks
    assert str(source) in remark and "<|im_end|>" in remark and "union" in remark
    # In the union it is one.
    again = tmp_path / "union"
    again.mkdir()
    morpher, recipe = merged(base, [source], again, chat_template="auto", tokenizer_source="union")
    end = morpher.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end == 33 and end in check_speaks_alike(morpher, again / "out")
    assert not morpher.engine.speech(recipe, morpher.engine.output(recipe)).remarks


def test_a_written_template_ends_turns_with_its_own_token(tmp_path: Path) -> None:
    base, source = save(tmp_path / "base"), save(tmp_path / "source", seed=1)
    morpher, _ = merged(base, [source], tmp_path, chat_template="chatml")
    assert "<|im_end|>" in morpher.tokenizer.chat_template
    assert check_speaks_alike(morpher, tmp_path / "out") == {33, 31}


def test_recipes_take_turns(tmp_path: Path) -> None:
    """What one recipe set is not left to the next."""
    base = save(tmp_path / "base", ends=["</s>"])
    source = save(tmp_path / "source", template=CHATML, eos="<|im_end|>", seed=1)
    morpher, recipe = merged(base, [source], tmp_path)
    speaking = Recipe({**recipe.config, "chat_template": f"model:{source}"})
    for wanted, ends, template in ((recipe, 31, None), (speaking, [33, 31], CHATML)) * 2:
        morpher.morph(wanted)
        assert morpher.model.generation_config.eos_token_id in (ends, [ends])
        assert morpher.tokenizer.chat_template == template
    seen = morpher.tokenizer
    morpher.morph(recipe)
    morpher.morph(speaking)
    assert morpher.tokenizer is seen  # so that samples are made tokens once


def test_an_adapter_may_bring_the_template_it_was_trained_with(tmp_path: Path) -> None:
    base = save(tmp_path / "base")
    shutil.copytree(save(tmp_path / "talker", template=CHATML, eos="<|im_end|>"), tmp_path / "lora")
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "lora" / name).unlink()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
    prefix = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    factors = {f"{prefix}A.weight": torch.ones(2, 32), f"{prefix}B.weight": torch.ones(32, 2)}
    save_file(factors, tmp_path / "lora" / "adapter_model.safetensors")
    sources = [with_digest(download(str(tmp_path / name))) for name in ("base", "lora")]
    morpher = Morpher(sources[0], sources[1:], CPU, torch.float32)
    recipe = Recipe(
        {
            "merge_method": "task_arithmetic",
            "base_model": str(base),
            "models": [{"model": str(tmp_path / "lora"), "parameters": {"weight": 0.5}}],
            "chat_template": f"model:{tmp_path / 'lora'}",
        }
    )
    morpher.morph(recipe)
    assert morpher.tokenizer.chat_template == CHATML
    export(morpher.engine, recipe, tmp_path / "out")
    assert check_speaks_alike(morpher, tmp_path / "out") == {33, 31}


def drop_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def test_a_model_without_a_tokenizer_gets_one_of_its_size(tmp_path: Path) -> None:
    base = save(tmp_path / "base")
    source = save(tmp_path / "source", template=CHATML, eos="<|im_end|>", seed=1)
    drop_tokenizer(base)
    recipe = Recipe(
        {
            "merge_method": "task_arithmetic",
            "base_model": str(base),
            "models": [{"model": str(source), "parameters": {"weight": 0.5}}],
        }
    )
    noted: list[str] = []
    merge_recipe(recipe, tmp_path / "out", CPU, lambda *_: None, told=noted.extend)
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == CHATML
    ends = json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]
    assert set(ends) == {31, 33}
    (remark,) = noted
    assert f"{base} has no tokenizer" in remark and str(source) in remark


def test_a_merge_of_models_without_tokenizers_is_told(tmp_path: Path) -> None:
    base, source = save(tmp_path / "base"), save(tmp_path / "source", seed=1)
    drop_tokenizer(base)
    drop_tokenizer(source)
    models = [with_digest(download(str(folder))) for folder in (base, source)]
    with pytest.raises(MorphingError, match="has no tokenizer"):
        Morpher(models[0], models[1:], CPU, torch.float32)
    recipe = Recipe(
        {
            "merge_method": "task_arithmetic",
            "base_model": str(base),
            "models": [{"model": str(source), "parameters": {"weight": 0.5}}],
        }
    )
    noted: list[str] = []
    merge_recipe(recipe, tmp_path / "out", CPU, lambda *_: None, told=noted.extend)
    (remark,) = noted
    assert "The merge has no tokenizer" in remark and str(base) in remark
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [("model:{source}", "{source}, which has none"), ("chatlm", "did you mean 'chatml'")],
)
def test_templates_that_are_none_are_refused(wanted: str, said: str, tmp_path: Path) -> None:
    base, source = save(tmp_path / "base"), save(tmp_path / "source", seed=1)
    wish = wanted.format(source=source)
    models = [{"model": str(source), "parameters": {"weight": 1}}]
    with pytest.raises(MorphingError) as refusal:
        Recipe({"merge_method": "linear", "models": models, "chat_template": wish}).check()
        merged(base, [source], tmp_path, chat_template=wish)
    assert said.format(source=source) in str(refusal.value)


def test_names_of_models_are_renamed_in_templates_too() -> None:
    recipe = Recipe(
        {
            "merge_method": "linear",
            "models": [{"model": "a", "parameters": {"weight": 1}}],
            "chat_template": "model:b",
        }
    )
    assert recipe.references == ("a", "b") and recipe.template_model == "b"
    assert recipe.with_names(str.upper).config["chat_template"] == "model:B"
    for plain in ("auto", "chatml", CHATML, None):
        kept = Recipe({**recipe.config, "chat_template": plain})
        assert kept.template_model is None
        assert kept.with_names(str.upper).config["chat_template"] == plain
