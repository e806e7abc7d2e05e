"""Replies are streamed, whatever the conversation's length and the model's template."""

from __future__ import annotations

import itertools

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from morphing.runs.measures import text_layers
from morphing.ui.compare.streaming import stream_reply
from morphing.zoo import model_folder
from tests.merging.families import FAMILIES


@pytest.fixture(scope="module")
def specialist():
    folder = model_folder("english-math")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_reply_grows_to_its_end(specialist) -> None:
    texts = [reply.answer for reply in stream_reply(*specialist, ask("12 plus 30?"))]
    assert texts[-1].strip() == "42"
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))


def test_a_long_conversation_keeps_its_end(specialist) -> None:
    turns = []
    for _ in range(40):
        turns += [*ask("1 plus 1?"), {"role": "assistant", "content": "2"}]
    *_, last = stream_reply(*specialist, [*turns, *ask("12 plus 30?")])
    assert last.answer.strip().isdigit()


def test_without_a_chat_template(specialist) -> None:
    model, _ = specialist
    plain = AutoTokenizer.from_pretrained(model_folder("english-math"))
    plain.chat_template = None
    list(stream_reply(model, plain, ask("12 plus 30?"), max_new_tokens=4))


def test_closing_ends_the_generation(specialist) -> None:
    replies = stream_reply(*specialist, ask("12 plus 30?"))
    next(replies)
    replies.close()


def test_a_failure_reaches_the_caller(specialist) -> None:
    _, tokenizer = specialist
    broken = AutoModelForCausalLM.from_pretrained(model_folder("english-math"))
    broken.forward = None
    with pytest.raises(TypeError):
        list(stream_reply(broken, tokenizer, ask("12 plus 30?")))


def test_a_model_that_nests_its_text_configuration_is_read_like_any_other(specialist) -> None:
    """As multimodal ones do: the context and the layers are the text model's."""
    _, tokenizer = specialist
    model = FAMILIES["gemma3 with eyes"]()
    model.resize_token_embeddings(len(tokenizer))
    assert not hasattr(model.config, "max_position_embeddings")
    text = model.config.get_text_config()
    assert text_layers(model) == text.num_hidden_layers
    text.max_position_embeddings = 8
    *_, last = stream_reply(model, tokenizer, ask("12 plus 30? " * 9), max_new_tokens=50)
    assert len(tokenizer(last.answer, add_special_tokens=False).input_ids) <= 4
