"""Generation in a batch that stays full against transformers' own."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel

from morphing.benchmarks.engine import generate as module
from morphing.benchmarks.engine.encode import Request
from morphing.benchmarks.engine.generate import generate
from tests.benchmarks.architectures import MAKERS, VOCABULARY, Letters, make

LIMIT = 14
ENDS = [2, 5]


def prompts(seed: int, header: int) -> list[Request]:
    drawn = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(drawn.randrange(3, VOCABULARY) for _ in range(count))

    beginning = tokens(header)
    made = [Request(beginning + tokens(drawn.randrange(1, 12))) for _ in range(11)]
    made[3] = Request(made[3].ids[header // 2 :], truncated=True)
    return made


def plainly(model: PreTrainedModel, prompt: Request, stop: tuple[str, ...]) -> tuple[str, int]:
    """One prompt by ``generate`` of transformers; its text and tokens up to its end."""
    settings = GenerationConfig(
        max_new_tokens=LIMIT, do_sample=False, eos_token_id=ENDS, pad_token_id=0
    )
    ids = torch.tensor([prompt.ids])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    new = model.generate(**given, generation_config=settings)[0, ids.shape[1] :].tolist()
    for count in range(1, len(new) + 1):
        text = Letters().decode(new[: count - (new[count - 1] in ENDS)])
        if found := [at for word in stop if (at := text.find(word)) >= 0]:
            return text[: min(found)], count
    return text, len(new)


@pytest.mark.parametrize("name", MAKERS)
def test_the_texts_are_those_of_transformers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(name)
    model.generation_config = GenerationConfig(eos_token_id=ENDS)
    monkeypatch.setattr(module, "_ROOM", 3)  # so that the buffers move and grow
    lengths = set()
    for header, stop in ((0, ()), (20, ("x", "kd"))):
        asked = prompts(header, header)
        expected = [plainly(model, prompt, stop) for prompt in asked]
        lengths |= {count for _, count in expected}
        for batch_size in (None, 1, 3, 8):
            done: list[int] = []
            found = generate(model, Letters(), asked, LIMIT, stop, batch_size, done.append)
            assert [(reply.text, reply.tokens) for reply in found] == expected
            assert done == sorted(set(done)) and done[-1] == len(asked)
    if name == "llama":
        assert len(lengths) > 3, "rows must end at different times for this to mean anything"


def test_a_row_that_ends_leaves_its_place_to_another() -> None:
    model = make("llama")
    model.generation_config = GenerationConfig(eos_token_id=ENDS)
    asked = prompts(0, 0)
    steps: list[int] = []
    tokens = 0

    def count(module: object, inputs: object, output: torch.Tensor) -> None:
        nonlocal tokens
        tokens += output.shape[0] * output.shape[1]
        if output.shape[1] == 1:
            steps.append(output.shape[0])

    model.get_input_embeddings().register_forward_hook(count)
    found = generate(model, Letters(), asked, LIMIT, (), 4, lambda done: None)
    written = [reply.tokens for reply in found]
    assert min(written) < LIMIT
    # No row is computed once it has ended, and the last token of none is read.
    assert sum(steps) <= sum(written) - len(asked) + 1
    assert tokens <= sum(len(prompt.ids) for prompt in asked) + sum(written) + 12
    assert steps.count(4) > len(steps) / 2, "the batch was not kept full"
