"""Matching against a plain loop in float64 over whole models, for each family that people merge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from morphing.errors import MorphingError
from morphing.matching.decoder import Decoder, Experts, is_linear
from morphing.matching.match import match
from morphing.matching.state import Settings, Teacher
from morphing.matching.tasks import Task
from tests.merging.families import FAMILIES, MOST_MERGED

DENSE = [name for name in MOST_MERGED if name not in ("mixtral", "qwen3_moe")]
MIXTURES = ["mixtral", "qwen3_moe", "gpt_oss"]
RIDGE = 1e-3


def gpt2() -> PreTrainedModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(n_embd=32, n_head=4, n_layer=2, vocab_size=40, n_positions=64)
    )


BUILDERS: Mapping[str, Callable[[], PreTrainedModel]] = {**FAMILIES, "gpt2": gpt2}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def family(name: str, dtype: torch.dtype = torch.float64) -> list[PreTrainedModel]:
    """The model that becomes the merge, and three teachers."""
    made = []
    for seed in range(4):
        torch.manual_seed(0)
        model = BUILDERS[name]().to(dtype).eval()
        model.set_experts_implementation("eager")  # the others know no float64
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                step = 0.3 * parameter.std(unbiased=False) + 0.05
                parameter.add_(step * torch.randn_like(parameter))
        made.append(model)
    return made


def texts(seed: int, count: int = 12) -> tuple[tuple[int, ...], ...]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 14, (count,), generator=generator).tolist()
    return tuple(
        tuple(torch.randint(2, 37, (length,), generator=generator).tolist()) for length in lengths
    )


def tasks(count: int = 3) -> list[Task]:
    return [Task(f"task{n}", f"teacher{n}", texts(n)) for n in range(count)]


def teachers(models: Sequence[PreTrainedModel]) -> dict[str, Teacher]:
    return {
        f"teacher{n}": partial(_read, dict(model.named_parameters()))
        for n, model in enumerate(models)
    }


def _read(parameters: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    return {name: parameters[name] for name in names}


def decoder(model: PreTrainedModel) -> Decoder:
    return Decoder(model, torch.tensor([[2, 3, 4, 5, 6]]))


SHARES = {"task0": 0.2, "task1": 0.5, "task2": 0.3}


# --- the plain loop ------------------------------------------------------------------------------


def inputs_of(model: PreTrainedModel, module: nn.Module, each: Sequence[tuple[int, ...]]) -> Tensor:
    """What a module reads in whole forward passes, a text at a time: (tokens, in)."""
    found: list[Tensor] = []
    hook = module.register_forward_pre_hook(
        lambda _, given: found.append(given[0].reshape(-1, given[0].shape[-1]))
    )
    with torch.no_grad():
        for text in each:
            model(input_ids=torch.tensor([text]), use_cache=False)
    hook.remove()
    return torch.cat(found)


def weight_of(module: Any) -> tuple[Tensor, Tensor | None]:
    weight = module.weight if isinstance(module, nn.Linear) else module.weight.T
    return weight.detach().clone(), None if module.bias is None else module.bias.detach().clone()


def plainly(models: Sequence[PreTrainedModel], streams: str) -> dict[str, Tensor]:
    """The merge by equation (1), map after map in the order of execution, by lstsq."""
    merge, *taught = models
    named = [dict(model.named_parameters()) for model in taught]
    with torch.no_grad():
        for name, parameter in merge.named_parameters():
            parameter.copy_(
                sum(share * n[name] for share, n in zip(SHARES.values(), named, strict=True))
            )
    order: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
        for name, module in merge.named_modules()
        if is_linear(module)
    ]
    with torch.no_grad():
        merge(input_ids=torch.tensor([[2, 3, 4, 5]]), use_cache=False)
    for hook in hooks:
        hook.remove()
    tied = merge.get_output_embeddings().weight is merge.get_input_embeddings().weight
    order = [
        n for n in order if not (tied and merge.get_submodule(n) is merge.get_output_embeddings())
    ]
    modules = [dict(model.named_modules()) for model in (merge, *taught)]
    read: dict[str, list[Tensor]] = {}
    for name in order:
        rows, targets, grams = [], [], []
        anchor, _ = weight_of(modules[0][name])
        has_bias = modules[0][name].bias is not None
        if has_bias:
            anchor = torch.cat([anchor, modules[0][name].bias.detach()[:, None]], dim=1)
        for place, (task, share) in enumerate(zip(tasks(), SHARES.values(), strict=True)):
            own = inputs_of(merge, modules[0][name], task.texts)
            theirs = inputs_of(taught[place], modules[place + 1][name], task.texts)
            own = theirs if streams == "teachers" else own
            theirs = own if streams == "merge" else theirs
            weight, bias = weight_of(modules[place + 1][name])
            target = theirs @ weight.T + (0 if bias is None else bias)
            if has_bias:
                own = torch.cat([own, own.new_ones(len(own), 1)], dim=1)
            scale = (share / len(own)) ** 0.5
            rows.append(scale * own)
            targets.append(scale * (target - own @ anchor.T))
            grams.append(scale**2 * own.T @ own)
        rho = RIDGE * sum(grams).diagonal().mean()  # type: ignore[union-attr]
        rows.append(rho**0.5 * torch.eye(anchor.shape[1], dtype=anchor.dtype))
        targets.append(anchor.new_zeros(anchor.shape[1], len(anchor)))
        step = torch.linalg.lstsq(torch.cat(rows), torch.cat(targets), driver="gelsd").solution.T
        solved = anchor + step
        # Maps that read the same input were given it before any of them was changed: a map's own
        # change does not move its input, so one after the other is the same.
        with torch.no_grad():
            module = modules[0][name]
            plain = solved[:, :-1] if has_bias else solved
            module.weight.copy_(plain if isinstance(module, nn.Linear) else plain.T)
            if has_bias:
                module.bias.copy_(solved[:, -1])
    assert read == {}
    return {name: parameter.detach().clone() for name, parameter in merge.named_parameters()}


@pytest.mark.parametrize("name", [*DENSE, "gpt2"])
def test_every_map_is_the_plain_loops(name: str) -> None:
    merge, *taught = family(name)
    match(decoder(merge), tasks(), teachers(taught), Settings(SHARES, RIDGE))
    found = {n: p.detach().clone() for n, p in merge.named_parameters()}
    expected = plainly([merge, *taught], "both")
    for parameter, value in expected.items():
        torch.testing.assert_close(found[parameter], value, rtol=1e-6, atol=1e-7, msg=parameter)


@pytest.mark.parametrize("streams", ["teachers", "merge"])
def test_the_two_regmeans_are_the_plain_loops(streams: Any) -> None:
    merge, *taught = family("qwen2")
    match(decoder(merge), tasks(), teachers(taught), Settings(SHARES, RIDGE, streams))
    found = {n: p.detach().clone() for n, p in merge.named_parameters()}
    expected = plainly([merge, *taught], streams)
    for parameter, value in expected.items():
        torch.testing.assert_close(found[parameter], value, rtol=1e-6, atol=1e-7, msg=parameter)


# --- what must hold of any family ----------------------------------------------------------------

ALL = [*DENSE, "gpt2", *MIXTURES, "olmoe", "granitemoe"]


def logits(model: PreTrainedModel, text: Sequence[int]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=torch.tensor([text]), use_cache=False).logits
    return found


@pytest.mark.parametrize("name", ALL)
def test_a_corner_is_its_teacher_and_equal_teachers_are_given_back(name: str) -> None:
    merge, *taught = family(name)
    match(decoder(merge), tasks(), teachers(taught), Settings({"task1": 1.0}, RIDGE))
    for text in (*texts(1, 2), *texts(7, 2)):
        torch.testing.assert_close(
            logits(merge, text), logits(taught[1], text), rtol=1e-6, atol=1e-6
        )
    same = [taught[0]] * 3
    match(decoder(merge), tasks(), teachers(same), Settings(SHARES, RIDGE))
    for parameter, value in taught[0].named_parameters():
        torch.testing.assert_close(
            dict(merge.named_parameters())[parameter], value, rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("name", ["qwen2", "mixtral"])
def test_the_order_of_tasks_changes_no_bit(name: str) -> None:
    merge, *taught = family(name, torch.float32)
    results = []
    for order in ((0, 1, 2), (2, 0, 1)):
        listed = [tasks()[at] for at in order]
        shares = {task.name: SHARES[task.name] for task in listed}
        match(decoder(merge), listed, teachers(taught), Settings(shares, RIDGE))
        results.append([p.detach().clone() for p in merge.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_are_solved_on_the_tokens_that_the_merge_sends_them(name: str) -> None:
    merge, *taught = family(name)
    many = [Task(f"task{n}", f"teacher{n}", texts(n, 60)) for n in range(3)]
    report = match(decoder(merge), many, teachers(taught), Settings(SHARES, RIDGE))
    solved = {r.map.rpartition(".")[2] for r in report.residuals if "[" in r.map}
    assert {"gate_up_proj[0]", "down_proj[0]"} <= solved
    # On their own tasks the solved merge is nearer to the teachers than their mean is.
    mean, *_ = family(name)
    with torch.no_grad():
        for parameter, *theirs in zip(*(m.parameters() for m in (mean, *taught)), strict=True):
            parameter.copy_(sum(s * t for s, t in zip(SHARES.values(), theirs, strict=True)))

    def off(model: PreTrainedModel) -> float:
        return sum(
            float((logits(model, text) - logits(taught[n], text)).square().mean())
            for n in range(3)
            for text in many[n].texts[:20]
        )

    assert off(merge) < 0.8 * off(mean)


def test_experts_with_few_tokens_stay_the_mean_and_are_told() -> None:
    merge, *taught = family("mixtral")
    few = [Task(f"task{n}", f"teacher{n}", texts(n, 1)) for n in range(3)]
    report = match(decoder(merge), few, teachers(taught), Settings(SHARES, RIDGE))
    assert any("experts of layer 0 were routed fewer than 32 tokens" in r for r in report.remarks)
    assert any("Averaged, not solved" in r and "gate.weight" in r for r in report.remarks)


def test_groups_are_found_by_what_they_read() -> None:
    for name, expected in {
        "qwen2": [3, 1, 2, 1],
        "phi3": [1, 1, 1, 1],
        "gpt2": [1, 1, 1, 1],
        "gpt_neox": [1, 1, 1, 1],
        "gemma2": [3, 1, 2, 1],
    }.items():
        found = decoder(family(name)[0])
        hidden, calls = found.enter(torch.tensor([[2, 3, 4, 5]]))
        groups = found.groups(0, hidden, calls[0])
        assert [len(g) for g in groups if not isinstance(g, Experts)] == expected, name


def test_padding_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    merge, *taught = family("gemma2")
    results = []
    for size in (1, 10_000):
        monkeypatch.setattr("morphing.matching.tasks.BATCH_TOKENS", size)
        match(decoder(merge), tasks(), teachers(taught), Settings(SHARES, RIDGE))
        results.append([p.detach().clone() for p in merge.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_what_cannot_be_matched_is_one_sentence() -> None:
    merge, *taught = family("llama", torch.float32)
    ready = decoder(merge)
    for shares, said in (
        ({"task9": 1.0}, "'task9', which is no task"),
        ({"task0": -1.0}, "give a number of 0 or more"),
        ({"task0": 0.0}, "No task has a share above 0"),
    ):
        with pytest.raises(MorphingError, match=said):
            match(ready, tasks(), teachers(taught), Settings(shares))
    empty = [Task("task0", "teacher0", ((),))]
    with pytest.raises(MorphingError, match="'task0' has no tokens"):
        match(ready, empty, teachers(taught), Settings({"task0": 1.0}))
    with torch.no_grad():
        taught[1].model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(
        MorphingError, match=r"teacher1 puts out NaN or infinity in layer 1 .* task1"
    ):
        match(ready, tasks(), teachers(taught), Settings(SHARES))


def test_at_most_so_many_tokens_are_taken_the_same_each_time() -> None:
    merge, *taught = family("llama", torch.float32)
    report = match(decoder(merge), tasks(), teachers(taught), Settings(SHARES, most_tokens=40))
    assert all(0 < count <= 40 for count in report.tokens.values())
    again = match(decoder(merge), tasks(), teachers(taught), Settings(SHARES, most_tokens=40))
    assert again.tokens == report.tokens and again.residuals == report.residuals
