"""Batched scoring against the plainest way to do the same."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from morphing.benchmarks.benchmark import Benchmark, get_benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.data.samples import load_samples
from morphing.benchmarks.engine.encode import encode
from morphing.benchmarks.engine.memory import default_batch_size
from morphing.benchmarks.engine.stopping import Ending, Limit
from morphing.benchmarks.evaluate import evaluate
from morphing.errors import MorphingError
from morphing.zoo import BENCHMARKS, model_folder

Declare = Callable[..., Benchmark]
QUESTIONS = [f"what is {n} + {n * n}?" + " please" * (n % 4) for n in range(11)]
ROWS = [{"question": question, "answer": "7"} for question in QUESTIONS]


def greedy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, text: str, limit: int
) -> str:
    """One prompt, one whole forward pass a token, no cache and no padding."""
    ids = tokenizer(text)["input_ids"]
    new: list[int] = []
    with torch.no_grad():
        while len(new) < limit:
            token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            new.append(token)
    return tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_generation_equals_one_by_one(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    declare: Declare,
    batch_size: int | None,
) -> None:
    benchmark = declare({"test": ROWS}, max_new_tokens=12)
    samples = load_samples(benchmark, "holdout", 11)
    seen: list[tuple[int, int]] = []
    score = evaluate(
        model, tokenizer, benchmark, samples, batch_size, lambda *done: seen.append(done)
    )
    texts = [greedy(model, tokenizer, sample.prompt, 12) for sample in samples]
    assert [output.text for output in score.outputs] == texts
    assert len(set(texts)) > 3, "the fixture's texts must vary for this test to mean anything"
    assert [output.id for output in score.outputs] == [sample.id for sample in samples]
    assert seen[-1] == (6, 6) and seen == sorted(set(seen)) and len(seen) > 1


def test_a_row_ends_at_its_own_end(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    benchmark = declare({"test": ROWS}, max_new_tokens=20)
    samples = load_samples(benchmark, "holdout", 11)
    plain = [output.text for output in evaluate(model, tokenizer, benchmark, samples).outputs]
    # Make the end token a character that some texts have early, others late or not at all.
    end = next(c for text in plain for c in text[2:] if not all(c in text[:9] for text in plain))
    settings = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.convert_tokens_to_ids(end))
    try:
        ended = [output.text for output in evaluate(model, tokenizer, benchmark, samples).outputs]
    finally:
        model.generation_config = settings
    assert ended == [text.partition(end)[0] for text in plain]


def test_generated_tokens_are_counted_to_each_rows_own_end(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    """A token is a character here; padding after a row's end or stop does not count."""
    samples = load_samples(declare({"test": ROWS}), "holdout", 11)
    plain = evaluate(model, tokenizer, declare({}, max_new_tokens=20), samples)
    texts = [output.text for output in plain.outputs]
    lengths = [output.tokens for output in plain.outputs]
    # The end token is one of them, and the only one that a text does not show.
    assert lengths == [min(len(text) + 1, 20) for text in texts]
    assert plain.tokens == sum(lengths) / len(lengths)
    stop = next(c for text in texts for c in text[2:] if not all(c in text[:9] for text in texts))
    expected = [text.find(stop) + 1 or known for text, known in zip(texts, lengths, strict=True)]
    assert expected != lengths
    stopped = evaluate(model, tokenizer, declare({}, max_new_tokens=20, stop=[stop]), samples)
    assert [output.tokens for output in stopped.outputs] == expected


def test_scores_in_two_parts_join_to_the_whole(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    """In float64; in less, the batches may decide a close call between two tokens."""
    benchmark = declare({"test": ROWS}, max_new_tokens=12, target="{{ question[:2] }}")
    samples = load_samples(benchmark, "holdout", 11)
    whole = evaluate(model, tokenizer, benchmark, samples)
    first, rest = (evaluate(model, tokenizer, benchmark, s) for s in (samples[:4], samples[4:]))
    assert first.joined(rest) == whole


def test_the_time_of_a_pause_is_not_scoring(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    samples = load_samples(declare({"test": ROWS}), "holdout", 2)
    began = time.perf_counter()
    score = evaluate(
        model,
        tokenizer,
        declare({}, max_new_tokens=4),
        samples,
        1,
        lambda done, total: time.sleep(0.2),
    )
    assert 0 < score.seconds <= time.perf_counter() - began - 0.2 * len(samples)


def test_stop_strings_cut(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    samples = load_samples(declare({"test": ROWS}), "holdout", 11)
    plain = evaluate(model, tokenizer, declare({}, max_new_tokens=20), samples)
    long = next(n for n, output in enumerate(plain.outputs) if len(output.text) > 12)
    stop = plain.outputs[long].text[3:5]
    calls = 0

    def count(*args: object) -> None:
        nonlocal calls
        calls += 1

    benchmark = declare({}, max_new_tokens=20, stop=[stop])
    hook = model.register_forward_hook(count)
    cut = evaluate(model, tokenizer, benchmark, samples[long : long + 1])
    hook.remove()
    assert cut.outputs[0].text == plain.outputs[long].text.partition(stop)[0]
    assert 0 < calls <= 5, "generation went on after the stop string"
    every = evaluate(model, tokenizer, benchmark, samples)
    assert [o.text for o in every.outputs] == [o.text.partition(stop)[0] for o in plain.outputs]


def test_the_models_own_settings_do_not_count(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    benchmark = declare({"test": ROWS}, max_new_tokens=12)
    samples = load_samples(benchmark, "holdout", 11)
    plain = evaluate(model, tokenizer, benchmark, samples)
    own = GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=9.0, max_new_tokens=1
    )
    before = model.generation_config
    model.generation_config = own
    try:
        assert evaluate(model, tokenizer, benchmark, samples) == plain
        assert model.generation_config is own
    finally:
        model.generation_config = before


def test_training_mode_and_repetition_change_nothing(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    benchmark = declare({"test": ROWS}, max_new_tokens=6)
    samples = load_samples(benchmark, "holdout", 11)
    first = evaluate(model, tokenizer, benchmark, samples)
    copy = LlamaForCausalLM(model.config).double()
    copy.load_state_dict(model.state_dict())
    assert evaluate(copy.train(), tokenizer, benchmark, samples) == first


def test_chat_template(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    from tests.benchmarks.conftest import TEMPLATE

    benchmark = declare({"test": ROWS}, max_new_tokens=8, chat=True)
    samples = load_samples(benchmark, "holdout", 11)
    with pytest.raises(MorphingError, match=r"has no chat template: set chat to auto"):
        evaluate(model, tokenizer, benchmark, samples)
    either = benchmark.model_copy(update={"chat": "auto"})
    plain = evaluate(model, tokenizer, either, samples)
    assert plain.outputs[0].text == greedy(model, tokenizer, samples[0].prompt, 8)
    assert plain.remarks == ("It has no chat template, so it was asked in plain text.",)
    tokenizer.chat_template = TEMPLATE
    try:
        chatted = evaluate(model, tokenizer, benchmark, samples)
    finally:
        tokenizer.chat_template = None
    assert chatted.outputs[0].text == greedy(model, tokenizer, f"<{samples[0].prompt}>:", 8)
    assert chatted.outputs[0].prompt == samples[0].prompt
    assert chatted.remarks == ()


def test_long_prompts_lose_their_beginning(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    rows = [{"question": f"{'z' * (60 * n)} what is {n}?", "answer": "7"} for n in range(4)]
    benchmark = declare({"a": rows}, split="a", holdout_split="b", max_new_tokens=10)
    samples = load_samples(benchmark, "search", 4)
    score = evaluate(model, tokenizer, benchmark, samples)
    assert score.truncated == 2  # of 12, 72, 132 and 192 tokens, with room for 96 - 10
    for sample, output in zip(samples, score.outputs, strict=True):
        assert output.text == greedy(model, tokenizer, sample.prompt[-86:], 10)
    with pytest.raises(MorphingError, match=r"^Benchmark '.*': answers of 96 tokens leave no"):
        evaluate(model, tokenizer, declare({}, max_new_tokens=96), samples)


CHOICES = (" yes", " no", " not at all", " y")


def choice_sample(question: str, target: int = 0) -> Sample:
    return Sample(question, question, target, CHOICES)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_log_likelihood_equals_one_by_one(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    declare: Declare,
    batch_size: int | None,
    normalize: bool,
) -> None:
    benchmark = declare({}, kind="multiple_choice", choices=CHOICES, normalize=normalize)
    samples = [choice_sample(question, n % 4) for n, question in enumerate(QUESTIONS)]
    score = evaluate(model, tokenizer, benchmark, samples, batch_size)
    for sample, output in zip(samples, score.outputs, strict=True):
        context = tokenizer(sample.prompt)["input_ids"]
        values = []
        for choice in CHOICES:
            answer = tokenizer(choice)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([context + answer])).logits[0].log_softmax(-1)
            at = range(len(context) - 1, len(context) - 1 + len(answer))
            value = sum(float(logits[i, token]) for i, token in zip(at, answer, strict=True))
            values.append(value / (len(answer) if normalize else 1))
        told = [float(part.rpartition("=")[2]) for part in _parts(output.text)]
        assert told == pytest.approx(values, abs=1e-3)
        best = values.index(max(values))
        assert output.answer == CHOICES[best].strip()
        assert output.target == CHOICES[int(sample.target)].strip()
        assert output.score == float(best == sample.target)
    assert 0 < score.value < 1


def _parts(text: str) -> list[str]:
    return re.findall(r"=-?[\d.]+", text)


def test_likelihood_of_long_prompts(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    benchmark = declare({}, kind="multiple_choice", choices=CHOICES)
    long = choice_sample("z" * 200 + " what?")
    # The last token of an option is not read, so that 97 fit a context of 96.
    short = choice_sample(long.prompt[-(97 - len(" not at all")) :])
    cut = evaluate(model, tokenizer, benchmark, [long])
    assert cut.truncated == 1
    told = _parts(cut.outputs[0].text)[2]
    assert told == _parts(evaluate(model, tokenizer, benchmark, [short]).outputs[0].text)[2]


@pytest.mark.parametrize("kind", ["generation", "multiple_choice", "perplexity"])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["one token", "everywhere"])
def test_logits_that_are_not_finite_are_named_where_they_arise(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    declare: Declare,
    kind: str,
    broken: float,
    where: str,
) -> None:
    """Never 0 % or many bits: the sentence has the benchmark and the sample."""
    weights = deepcopy(model)
    with torch.no_grad():
        if where == "everywhere":
            weights.model.norm.weight.fill_(broken)
        else:
            (z,) = tokenizer.encode("z", add_special_tokens=False)
            weights.model.embed_tokens.weight[z] = broken
    fields: dict[str, object] = {"choices": CHOICES} if kind == "multiple_choice" else {}
    benchmark = (
        declare({}, kind=kind, max_new_tokens=4, **fields)
        if kind == "generation"
        else (declare({}, kind=kind, **fields))
    )
    asked = ["a?", "b?", "z?", "c?"]
    samples = [
        replace(choice_sample(text), id=f"test/{n}")
        if kind == "multiple_choice"
        else Sample(f"test/{n}", text, "7 b")
        for n, text in enumerate(asked)
    ]
    first = r"test/\d" if where == "everywhere" else "test/2"
    for batch_size in (None, 1):
        with pytest.raises(
            MorphingError, match=f"'toy', sample {first}: .*NaN or infinite"
        ) as told:
            evaluate(weights, tokenizer, benchmark, samples, batch_size)
        assert "float64" in str(told.value)


def test_standard_error(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    benchmark = declare({}, kind="multiple_choice", choices=CHOICES)
    samples = [choice_sample(question, n % 4) for n, question in enumerate(QUESTIONS)]
    score = evaluate(model, tokenizer, benchmark, samples)
    p, n = score.value, len(samples)
    assert (score.n, score.value) == (n, sum(o.score for o in score.outputs) / n)
    assert score.stderr == pytest.approx(math.sqrt(p * (1 - p) / (n - 1)))
    assert evaluate(model, tokenizer, benchmark, samples[:1]).stderr == 0.0
    with pytest.raises(MorphingError, match="no samples"):
        evaluate(model, tokenizer, benchmark, [])


def test_batch_size_follows_the_model() -> None:
    def fake(**config: int) -> SimpleNamespace:
        config_object = SimpleNamespace(**config)
        config_object.get_text_config = lambda: config_object
        return SimpleNamespace(config=config_object, dtype=torch.bfloat16)

    tiny = fake(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, vocab_size=200)
    large = fake(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128_000,
    )
    assert default_batch_size(tiny, 60) == 128  # type: ignore[arg-type]
    assert 4 <= default_batch_size(large, 512) <= 16  # type: ignore[arg-type]
    assert default_batch_size(large, 1_000_000) == 1  # type: ignore[arg-type]


def test_a_prompt_carries_no_end_token(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers.processors import TemplateProcessing

    backend = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    try:
        closed = encode(tokenizer, ["ab", ""], add_special_tokens=True)
    finally:
        backend.post_processor = None
    assert closed == [[1, 3, 4], [1]]
    assert encode(tokenizer, ["", "a"], add_special_tokens=False) == [[1], [3]]


@pytest.fixture(scope="module")
def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: tokens of several characters, some across the end of a prompt."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["is it so? yes", "is it so? no", "答えは何？"] * 9, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<s>"
    )


def test_an_answer_that_shares_a_token_with_the_prompt(
    merging_tokenizer: PreTrainedTokenizerFast, declare: Declare
) -> None:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(merging_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.4,
    )
    model = LlamaForCausalLM(config).double()
    prompt, choices = "x is it so?", (" yes", " no", " maybe")
    ids = [merging_tokenizer(prompt + choice)["input_ids"] for choice in choices]
    alone = merging_tokenizer(prompt)["input_ids"]
    same = [sum(a == b for a, b in zip(alone, whole, strict=False)) for whole in ids]
    assert min(same) < len(alone), "the fixture must merge across the prompt's end"
    benchmark = declare({}, kind="multiple_choice", choices=choices)
    score = evaluate(model, merging_tokenizer, benchmark, [Sample("0", prompt, 0, choices)])
    values = []
    for whole, start in zip(ids, same, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        values.append(sum(float(logits[i - 1, whole[i]]) for i in range(start, len(whole))))
    told = [float(part[1:]) for part in _parts(score.outputs[0].text)]
    assert told == pytest.approx(values, abs=1e-3)


@pytest.mark.parametrize("stop", ["\n", "何", "?よ"])
def test_stop_strings_over_bytes(merging_tokenizer: PreTrainedTokenizerFast, stop: str) -> None:
    model = SimpleNamespace(generation_config=None)
    for text, done in (("", False), ("答え", False), ("答え" * 9 + stop, True)):
        row = Ending(model, merging_tokenizer, [stop]).row(Limit(1000))  # type: ignore[arg-type]
        ids = merging_tokenizer(text)["input_ids"]
        reached = [row.reached(ids[: n + 1]) for n in range(len(ids))]
        assert reached == [False] * (len(ids) - 1) + [True] * done + [False] * (
            not done and ids != []
        )


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_zoo_scores_alike_however_it_is_batched(name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder("base")).double()
    tokenizer = AutoTokenizer.from_pretrained(model_folder("base"))
    benchmark = get_benchmark(f"zoo-{name}")
    samples = load_samples(benchmark, "search", 48)
    score = evaluate(model, tokenizer, benchmark, samples)
    assert evaluate(model, tokenizer, benchmark, samples) == score
    one_by_one = evaluate(model, tokenizer, benchmark, samples, batch_size=1)
    assert [o.text for o in one_by_one.outputs] == [o.text for o in score.outputs]
    held = {sample.prompt for sample in load_samples(benchmark, "holdout", 10_000)}
    assert not held & {sample.prompt for sample in load_samples(benchmark, "search", 10_000)}
