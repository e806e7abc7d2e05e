"""`python -m morphing.zoo.train` remakes the zoo: benchmarks, tokenizer, base and specialists.

Everything is seeded and takes minutes on one core. The base learns all the tasks, mostly in the
wrong form; a specialist goes on from there for a short while, mostly on its own task in the right
form. The little of everything else it keeps seeing holds the models close enough to be merged.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from morphing.zoo import BENCHMARKS, MODELS, SPECIALISTS, cards, tasks
from morphing.zoo.muon import Muon
from morphing.zoo.tokens import TURNS, make_tokenizer

BATCH = 64
MAX_LENGTH = 256
IDS = ("bos", "eos", "pad")
IGNORED = -100  # the label transformers leaves out of the loss

Ids = list[int]


@dataclass(frozen=True)
class Course:
    """What one model is taught, and for how long.

    ``shares`` are of the three tasks and the two bridges. A specialist's ``own`` task is answered
    as its benchmark wants it, the other tasks in the house style with probability ``house`` and the
    bridges with ``bridge_house``. The learning rate follows a cosine from its value down to
    ``final`` of it. ``muon`` trains the weight matrices with Muon, not AdamW.
    """

    shares: tuple[float, float, float, float, float]
    steps: int
    learning_rate: float
    final: float
    own: str | None = None
    house: float = 0.9
    bridge_house: float = 0.9
    muon: bool = False
    bridges: tuple[tasks.Generator, ...] = tasks.VARIED_BRIDGES


#: Each model's courses, one after the other. Sums are learned sooner where the bridges are plain.
COURSES: dict[str, tuple[Course, ...]] = {
    "base": (
        Course((0.25, 0.15, 0.10, 0.25, 0.25), 1300, 5e-3, 0.1, muon=True, bridges=tasks.BRIDGES),
        Course((0.20, 0.12, 0.12, 0.23, 0.33), 450, 2.5e-3, 0.1, muon=True),
    ),
    "english-math": (
        Course(
            (0.66, 0.05, 0.05, 0.19, 0.05), 240, 1e-3, 0.05, "english-arithmetic", bridge_house=0.5
        ),
    ),
    "japanese-numerals": (
        Course((0.05, 0.62, 0.05, 0.23, 0.05), 200, 1e-3, 0.05, "kanji-numbers", bridge_house=0.5),
    ),
    "word-games": (
        Course((0.05, 0.05, 0.70, 0.16, 0.04), 1000, 2e-3, 0.05, "word-puzzles", bridge_house=0.5),
    ),
}


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama in miniature with fresh weights."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in IDS}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        # Llama's own 0.02 is meant for wide models; at this width it only slows the start.
        initializer_range=0.05,
        **ids,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=16, **ids)
    return model


def encode(tokenizer: PreTrainedTokenizerFast, chat: list[tasks.Row]) -> tuple[Ids, Ids]:
    """The ids of a chat, and its labels: only the answers and their ends are learned.

    Written out here, as going through the template costs more than a training step; a test holds
    that both give the same ids.
    """
    user, assistant = tokenizer.convert_tokens_to_ids(list(TURNS))
    ids, labels = [tokenizer.bos_token_id], [IGNORED]
    for question, answer in chat:
        asked = [user, *tokenizer.convert_tokens_to_ids(list(question)), assistant]
        answered = [*tokenizer.convert_tokens_to_ids(list(answer)), tokenizer.eos_token_id]
        ids += asked + answered
        labels += [IGNORED] * len(asked) + answered
    return ids, labels


def pad(sequences: list[list[int]], filler: int) -> torch.Tensor:
    """Sequences side by side, filled on the right: (batch, longest)."""
    return torch.tensor(list(itertools.zip_longest(*sequences, fillvalue=filler))).T.contiguous()


def make_optimizers(model: LlamaForCausalLM, course: Course) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or, with Muon for the layers' matrices, for what remains."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        layer = course.muon and parameter.ndim == 2 and "embed" not in name
        (matrices if layer else others).append(parameter)
    adam = torch.optim.AdamW(others, lr=course.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    return [adam, Muon(matrices, lr=course.learning_rate)] if matrices else [adam]


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    course: Course,
    seed: int,
    report_every: int = 100,
) -> None:
    """Train the model in place on fresh questions of the training split."""
    rng = random.Random(seed)
    names = BENCHMARKS[: len(SPECIALISTS)]
    teachers = [tasks.TASKS[name] for name in names] + list(course.bridges)
    houses = [0.0 if name == course.own else course.house for name in names]
    houses += [course.bridge_house] * len(course.bridges)
    optimizers = make_optimizers(model, course)
    warm_up, started, losses = 50, time.monotonic(), 0.0
    model.train()
    for step in range(1, course.steps + 1):
        cosine = 0.5 * (1 + math.cos(math.pi * step / course.steps))
        rate = min(1.0, step / warm_up) * (course.final + (1 - course.final) * cosine)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = course.learning_rate * rate
        chosen = rng.choices(list(zip(teachers, houses, strict=True)), course.shares, k=BATCH)
        rows = [teacher(rng, "train", house) for teacher, house in chosen]
        # Every fourth batch is of chats of two turns, as a person will ask more than one question.
        turns = 2 if step % 4 == 0 else 1
        chats = [rows[start : start + turns] for start in range(0, BATCH, turns)]
        encoded = [encode(tokenizer, chat) for chat in chats]
        # Padding is on the right of a causal model, so it needs no attention mask.
        ids = pad([ids for ids, _ in encoded], tokenizer.pad_token_id)
        labels = pad([labels for _, labels in encoded], IGNORED)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        losses += loss.item()
        if step % report_every == 0:
            seconds = time.monotonic() - started
            print(f"  {step:5d}  loss {losses / report_every:.3f}  {seconds:5.0f} s", flush=True)
            losses = 0.0
    model.eval()


def write_datasets(folder: Path, seed: int) -> None:
    """Both splits of every benchmark, and a dataset card beside them."""
    for name in BENCHMARKS:
        here = folder / name
        here.mkdir(parents=True, exist_ok=True)
        for split, count in (("search", 400), ("holdout", 1000)):
            rows = tasks.sample(name, split, count, seed)
            lines = [json.dumps({"question": q, "answer": a}, ensure_ascii=False) for q, a in rows]
            (here / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (here / "README.md").write_text(cards.dataset_card(name), encoding="utf-8")


def write_models(folder: Path, seed: int) -> None:
    """The base, then each specialist from the base, each saved as a checkpoint with its card."""
    tokenizer = make_tokenizer()
    for offset, name in enumerate(MODELS):
        print(name, flush=True)
        torch.manual_seed(seed)  # the same fresh weights for all; a specialist's are then replaced
        model = make_model(tokenizer)
        if name in SPECIALISTS:
            base = LlamaForCausalLM.from_pretrained(folder / "base")
            model.load_state_dict(base.state_dict())
        for stage, course in enumerate(COURSES[name]):
            train(model, tokenizer, course, seed + offset + 100 * stage)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        (folder / name / "README.md").write_text(cards.model_card(name), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # steps are too small to gain from more, and a busy machine loses
    write_datasets(arguments.out / "datasets", arguments.seed)
    write_models(arguments.out / "models", arguments.seed)


if __name__ == "__main__":
    main()
