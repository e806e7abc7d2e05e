"""Experts of a mixture, each matched on the tokens that the merge routes to it.

A token goes to the experts that the merge's router chooses, which are given what the merge feeds
them; their targets are what the teacher's experts of the same places make of the teacher's own
hidden states of these tokens, whether the teacher's router would send them there or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from morphing.errors import MorphingError
from morphing.matching.decoder import Decoder, Experts, Map, Parameters
from morphing.matching.state import (
    SAMPLE,
    Pupil,
    Report,
    Residual,
    Settings,
    moments_for,
    put_out,
    weighted_mean,
)
from morphing.matching.statistics import Problem

FEWEST_TOKENS = 32
"""An expert that is routed fewer tokens than this, over all tasks, stays the teachers' mean."""


@dataclass
class _Given:
    """What one task gives an expert: its tokens' inputs (n, in) in the merge and in the teacher."""

    pupil: Pupil
    own: Tensor
    taught: Tensor


def solve_experts(
    decoder: Decoder,
    index: int,
    experts: Experts,
    pupils: Sequence[Pupil],
    taught: Mapping[str, Parameters],
    settings: Settings,
    report: Report,
) -> None:
    """Solve both maps of each expert of a layer that has tokens enough, in place.

    Raises:
        MorphingError: an input is NaN or infinite, or a Gram matrix cannot be factorised.
    """
    own = decoder.parameters(index)
    module = decoder.layers[index].get_submodule(experts.name)
    asked = [_asked(decoder, index, experts, pupil, taught, settings) for pupil in pupils]
    count, few = len(own[experts.first.name]), 0
    for expert in range(count):
        given = []
        for pupil, (mine, theirs, routes) in zip(pupils, asked, strict=True):
            rows = (routes == expert).any(dim=1)
            if rows.any():
                given.append(_Given(pupil, mine[rows], theirs[rows]))
        if sum(len(each.own) for each in given) < FEWEST_TOKENS:
            few += 1
            continue
        for linear in (experts.first, experts.second):
            _solve(index, experts, linear, expert, given, own, taught, settings, report)
            if linear is experts.first:
                given = [_gated(module, experts, expert, each, own, taught) for each in given]
    if few:
        report.remarks.append(
            f"{few} of the {count} experts of layer {index} were routed fewer than"
            f" {FEWEST_TOKENS} tokens and are the teachers' mean: more prompts would solve them."
        )


def _asked(
    decoder: Decoder,
    index: int,
    experts: Experts,
    pupil: Pupil,
    taught: Mapping[str, Parameters],
    settings: Settings,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of a task's tokens: inputs (n, d) in the merge and the teacher, the merge's routes (n, k)."""
    parts = []
    for stream in pupil.streams:
        call, flat = stream.calls[index], stream.batch.flat
        mine, routes, *_ = decoder.run(index, stream.own, call, None, experts.name)
        theirs, *_ = decoder.run(
            index, stream.taught, call, taught[pupil.task.teacher], experts.name
        )
        mine = theirs if settings.streams == "teachers" else mine
        theirs = mine if settings.streams == "merge" else theirs
        parts.append((flat(mine), flat(theirs), flat(routes)))
    own, taught_inputs, routes = (torch.cat(each) for each in zip(*parts, strict=True))
    return own, taught_inputs, routes


def _gated(
    module: nn.Module,
    experts: Experts,
    expert: int,
    given: _Given,
    own: Parameters,
    taught: Mapping[str, Parameters],
) -> _Given:
    """What the second map reads, in the merge and in the teacher."""

    def after(inputs: Tensor, parameters: Parameters) -> Tensor:
        weight = experts.of(parameters, experts.first, expert)
        put = put_out(inputs, weight, experts.first.bias)
        made: Tensor = module._apply_gate(put)  # type: ignore[operator]
        return made

    theirs = taught[given.pupil.task.teacher]
    return _Given(given.pupil, after(given.own, own), after(given.taught, theirs))


def _solve(
    index: int,
    experts: Experts,
    linear: Map,
    expert: int,
    given: Sequence[_Given],
    own: Parameters,
    taught: Mapping[str, Parameters],
    settings: Settings,
    report: Report,
) -> None:
    sums = []
    for each in given:
        moments = moments_for(each.own)
        moments.add(each.own, each.taught)
        sums.append((each.pupil.share, moments))
    problem = Problem(sums, settings.ridge)
    name = f"{linear.name}[{expert}]"
    if not problem.finite:
        raise MorphingError(
            f"What {name} in layer {index} reads is NaN or infinite: choose another dtype, or leave"
            " out a model whose weights are broken."
        )
    weights = {
        each.pupil.task.name: experts.of(taught[each.pupil.task.teacher], linear, expert)
        for each in given
    }
    shares = {each.pupil.task.name: each.pupil.share for each in given}
    try:
        solution = problem.solve(
            list(weights.values()), weighted_mean(weights, shares), linear.bias
        )
    except ValueError as error:
        raise MorphingError(f"{name} in layer {index} cannot be solved: {error}.") from error
    with torch.no_grad():
        experts.write(own, linear, expert, solution.weight)
    for each, weight in zip(given, weights.values(), strict=True):
        target = put_out(each.taught[:SAMPLE], weight, linear.bias)
        off = put_out(each.own[:SAMPLE], solution.weight, linear.bias) - target
        ratio = float(off.square().sum() / target.square().sum().clamp_min(1e-30))
        report.residuals.append(Residual(index, name, each.pupil.task.name, ratio))
