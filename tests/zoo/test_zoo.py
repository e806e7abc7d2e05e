"""The zoo is small, loads, is honest about its splits, and is a real problem."""

from __future__ import annotations

import json
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from morphing import zoo
from morphing.errors import MorphingError
from morphing.zoo import tasks
from morphing.zoo.measure import README, Lab, front, with_figures
from morphing.zoo.train import encode

SPLITS = ("search", "holdout")


def rows(benchmark: str, split: str) -> list[dict[str, str]]:
    lines = (zoo.dataset_folder(benchmark) / f"{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(zoo.model_folder("base"))


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


def test_it_fits_in_git():
    folder = zoo.model_folder("base").parent.parent
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < 25e6


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(MorphingError, match="english-math"):
        zoo.model_folder("gpt")
    with pytest.raises(MorphingError, match="kanji-numbers"):
        zoo.dataset_folder("../models/base")


@pytest.mark.parametrize("name", zoo.BENCHMARKS)
def test_splits_are_large_enough_and_disjoint(name):
    search, holdout = ({row["question"] for row in rows(name, split)} for split in SPLITS)
    assert len(search) >= 300
    assert len(holdout) >= 500
    assert not search & holdout
    rng = random.Random(1)
    trained = {tasks.TASKS[name](rng, "train", 0.0)[0] for _ in range(5000)}
    assert not trained & (search | holdout)


@pytest.mark.parametrize("name", zoo.BENCHMARKS)
def test_generators_are_deterministic_and_made_the_files(name):
    for split in SPLITS:
        asked = tasks.sample(name, split, 50)
        assert asked == tasks.sample(name, split, 50)
        assert asked == [(row["question"], row["answer"]) for row in rows(name, split)[:50]]


def test_numerals():
    written = {0: "零", 7: "七", 10: "十", 42: "四十二", 100: "百", 1005: "千五"}
    assert {number: tasks.kanji(number) for number in written} == written
    assert tasks.kanji(9999) == "九千九百九十九"
    assert tasks.positional(1005) == "一〇〇五"


def test_models_share_their_shapes_and_stay_small(lab):
    shapes = {
        name: {key: value.shape for key, value in weights.items()}
        for name, weights in lab.weights.items()
    }
    assert all(shape == shapes["base"] for shape in shapes.values())
    assert sum(value.numel() for value in lab.weights["base"].values()) < 3e6


def test_tokenizer_knows_every_character_of_the_benchmarks(tokenizer):
    text = "".join(r["question"] + r["answer"] for b in zoo.BENCHMARKS for r in rows(b, "search"))
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer("龍")["input_ids"] == [tokenizer.unk_token_id]


def test_chat_template_is_the_training_format(tokenizer):
    first, second = ("12 plus 30?", "42"), ("Sort lamp", "almp")
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": first[0]},
        {"role": "assistant", "content": first[1]},
        {"role": "user", "content": second[0]},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<s><user>12 plus 30?<assistant>42</s><user>Sort lamp<assistant>"
    chat.append({"role": "assistant", "content": second[1]})
    ids = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
    assert ids == encode(tokenizer, [first, second])[0]


def test_a_specialist_answers_and_stops(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(zoo.model_folder("word-games"))
    chat = [{"role": "user", "content": "Sort lamp"}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    assert output[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(output, skip_special_tokens=True) == "almp"


@pytest.mark.parametrize("index, name", list(enumerate(zoo.SPECIALISTS)))
def test_specialists_excel_at_their_own_benchmark_only(lab, index, name):
    right = lab.scores(lab.weights[name], "holdout", 200, zoo.BENCHMARKS[:3]).mean(1)
    assert right[index] >= 0.9
    others = torch.cat([right[:index], right[index + 1 :]])
    assert others.max() <= 0.5


def test_front_keeps_what_nothing_dominates():
    assert front([(1, 0), (0, 1), (0, 0), (1, 0)]) == [(1, 0), (0, 1)]


def test_the_readme_has_its_figures():
    figures = README.read_text("utf-8").partition("<!-- measured -->")[2]
    for row in (*zoo.MODELS, "uniform average", "TIES, density 0.5", "best recipe"):
        assert f"\n| {row} | " in figures
    assert "from uniform average: +" in figures


def test_figures_go_between_the_markers():
    for between in ("\n", "\n\nold\n\n"):
        readme = f"a\n<!-- measured -->{between}<!-- end -->\nz"
        new = "a\n<!-- measured -->\n\nnew\n\n<!-- end -->\nz"
        assert with_figures(readme, "new") == new
    with pytest.raises(ValueError, match="markers"):
        with_figures("nothing", "new")
