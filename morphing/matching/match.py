"""Matching: one pass through the layers in which every linear map is solved in closed form.

Going through the layers once, each map of the merge is solved so that it puts out what each
teacher's own map puts out on the teacher's task, given what the merge feeds it so far
(`statistics`, equation 1). Errors of earlier layers are thereby corrected by later ones. Norms and
embeddings are the teachers' weighted mean.

RegMean (arXiv 2212.09849) takes the teachers' inputs for both streams, RegMean++ (arXiv 2508.03121)
the merge's for both; with both streams apart the regression is that of Chain of Merges (arXiv
2508.21421). ProDistill (arXiv 2502.12706) has the two streams too and learns by gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from morphing.errors import MorphingError
from morphing.matching.decoder import Decoder, Experts, Group, Map, Parameters
from morphing.matching.experts import solve_experts
from morphing.matching.state import (
    SAMPLE,
    Progress,
    Pupil,
    Report,
    Residual,
    Settings,
    Stream,
    Teacher,
    moments_for,
    put_out,
    weighted_mean,
)
from morphing.matching.statistics import Moments, Problem
from morphing.matching.tasks import Task, batches


def match(
    decoder: Decoder,
    tasks: Sequence[Task],
    teachers: Mapping[str, Teacher],
    settings: Settings,
    progress: Progress = lambda step, done, total: None,
) -> Report:
    """Change the decoder's model into the matched merge, in place.

    The result does not depend on the order of tasks, and with one task of share 1 it is that task's
    teacher, to rounding.

    Args:
        decoder: of the model that becomes the merge; what its parameters were does not matter.
        tasks: what the merge should be good at.
        teachers: by the names that tasks call them.
        settings: shares, ridge, streams.
        progress: called with each layer.

    Raises:
        MorphingError: no task has a share or tokens; a teacher puts out NaN or infinity; a map's
            Gram matrix cannot be factorised.
    """
    return _Matcher(decoder, tasks, teachers, settings, progress).run()


class _Matcher:
    def __init__(
        self,
        decoder: Decoder,
        tasks: Sequence[Task],
        teachers: Mapping[str, Teacher],
        settings: Settings,
        progress: Progress,
    ) -> None:
        self._decoder = decoder
        self._teachers = teachers
        self._settings = settings
        self._progress = progress
        self._shares = _shares(tasks, settings.shares)
        self._tasks = sorted((t for t in tasks if t.name in self._shares), key=lambda t: t.name)
        self._report = Report()
        self._averaged: set[str] = set()
        self._device = next(iter(decoder.around().values())).device

    @torch.no_grad()
    def run(self) -> Report:
        """All layers, then the head."""
        decoder, layers = self._decoder, len(self._decoder.layers)
        around = self._set_mean(decoder.around(), "")
        pupils = [self._enter(task, around[task.teacher]) for task in self._tasks]
        self._report.tokens = {
            pupil.task.name: sum(int(s.batch.real.sum()) for s in pupil.streams) for pupil in pupils
        }
        for index in range(layers):
            self._progress("matching layers", index, layers)
            self._layer(index, pupils)
        self._head(pupils)
        self._progress("matching layers", layers, layers)
        return self._report

    def _enter(self, task: Task, around: dict[str, Tensor]) -> Pupil:
        made = batches(task, self._device, self._settings.most_tokens, self._settings.seed)
        if not made:
            raise MorphingError(
                f"The task {task.name!r} has no tokens to be taught by: give prompts."
            )
        streams = []
        for batch in made:
            taught, _ = self._decoder.enter(batch.tokens, around)
            own, calls = self._decoder.enter(batch.tokens)
            streams.append(Stream(batch, calls, taught, own))
        return Pupil(task, self._shares[task.name], streams, around)

    def _read(self, teacher: str, prefix: str, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
        read = self._teachers[teacher]([f"{prefix}{name}" for name in names])
        return {name: read[f"{prefix}{name}"] for name in names}

    def _set_mean(
        self, parameters: Mapping[str, Tensor], prefix: str
    ) -> dict[str, dict[str, Tensor]]:
        """Set parameters to the mean of the teachers', by their shares; returns the teachers'."""
        weights: dict[str, float] = {}
        for task in self._tasks:
            weights[task.teacher] = weights.get(task.teacher, 0.0) + self._shares[task.name]
        read = {teacher: self._read(teacher, prefix, parameters) for teacher in sorted(weights)}
        for name, parameter in parameters.items():
            parts = {teacher: values[name] for teacher, values in read.items()}
            parameter.copy_(weighted_mean(parts, weights))
        return read

    def _layer(self, index: int, pupils: Sequence[Pupil]) -> None:
        decoder = self._decoder
        prefix = f"{decoder.name}.{index}."
        own = decoder.parameters(index)
        taught = self._set_mean(own, prefix)
        first = pupils[0].streams[0]
        solved: set[str] = set()
        for group in decoder.groups(index, first.own, first.calls[index]):
            if isinstance(group, Experts):
                solve_experts(decoder, index, group, pupils, taught, self._settings, self._report)
                solved |= group.own
            else:
                self._group(index, group, pupils, taught)
                solved |= {f"{linear.name}.weight" for linear in group}
        self._remark_unsolved(index, own, solved)
        for pupil in pupils:
            parameters = taught[pupil.task.teacher]
            for stream in pupil.streams:
                call = stream.calls[index]
                (stream.taught,) = decoder.run(index, stream.taught, call, parameters)
                (stream.own,) = decoder.run(index, stream.own, call)
                if not stream.taught.isfinite().all():
                    raise MorphingError(
                        f"{pupil.task.teacher} puts out NaN or infinity in layer {index} on the"
                        f" prompts of {pupil.task.name}: its weights are broken, or the dtype's"
                        " range is too small."
                    )

    def _remark_unsolved(
        self, index: int, own: Mapping[str, Tensor], solved: Collection[str]
    ) -> None:
        """Tell once, of the first layer that has them, which matrices were averaged."""
        left = sorted(name for name, p in own.items() if p.ndim > 1 and name not in solved)
        if new := [name for name in left if name not in self._averaged]:
            self._averaged.update(new)
            self._report.remarks.append(
                f"Averaged, not solved, from layer {index} on: {', '.join(new)}, which"
                " are no linear maps of all tokens."
            )

    def _group(
        self,
        index: int,
        group: Group,
        pupils: Sequence[Pupil],
        taught: Mapping[str, Parameters],
    ) -> None:
        first = group[0].name

        def inputs(pupil: Pupil, stream: Stream) -> tuple[Tensor, Tensor]:
            call, parameters = stream.calls[index], taught[pupil.task.teacher]
            run = self._decoder.run
            if self._settings.streams == "teachers":
                theirs = own = run(index, stream.taught, call, parameters, first)[0]
            else:
                theirs = own = run(index, stream.own, call, None, first)[0]
                if self._settings.streams == "both":
                    theirs = run(index, stream.taught, call, parameters, first)[0]
            return stream.batch.flat(theirs), stream.batch.flat(own)

        weights = {p.task.name: taught[p.task.teacher] for p in pupils}
        self._solve(
            f"layer {index}", index, group, pupils, inputs, weights, self._decoder.parameters(index)
        )

    def _head(self, pupils: Sequence[Pupil]) -> None:
        """Solve an untied head, which reads what the last norm puts out."""
        found = self._decoder.head()
        if found is None:
            return
        name, module = found
        head = Map(name, False, getattr(module, "bias", None) is not None)

        def inputs(pupil: Pupil, stream: Stream) -> tuple[Tensor, Tensor]:
            leave, tokens = self._decoder.leave, stream.batch.tokens
            streams = self._settings.streams
            theirs = leave(tokens, stream.taught, module, pupil.around)
            own = leave(tokens, stream.own, module)
            theirs = own if streams == "merge" else theirs
            own = theirs if streams == "teachers" else own
            return stream.batch.flat(theirs), stream.batch.flat(own)

        weights = {p.task.name: p.around for p in pupils}
        layers = len(self._decoder.layers)
        self._solve("the head", layers, (head,), pupils, inputs, weights, self._decoder.around())

    def _solve(
        self,
        where: str,
        index: int,
        group: Group,
        pupils: Sequence[Pupil],
        inputs: Callable[[Pupil, Stream], tuple[Tensor, Tensor]],
        weights: Mapping[str, Parameters],
        own: Mapping[str, Tensor],
    ) -> None:
        """Solve the maps of a group and write them into the merge."""
        sums: list[tuple[float, Moments]] = []
        samples: list[tuple[Tensor, Tensor]] = []
        for pupil in pupils:
            moments = None
            for stream in pupil.streams:
                theirs, mine = inputs(pupil, stream)
                if moments is None:
                    moments = moments_for(mine)
                    samples.append((theirs[:SAMPLE].clone(), mine[:SAMPLE].clone()))
                moments.add(mine, theirs)
            assert moments is not None
            sums.append((pupil.share, moments))
        problem = Problem(sums, self._settings.ridge)
        if not problem.finite:
            self._refuse(where, group, pupils, sums)
        for linear in group:
            known = [linear.weight(weights[p.task.name]) for p in pupils]
            try:
                solution = problem.solve(known, self._anchor(linear, weights, pupils), linear.bias)
            except ValueError as error:
                raise MorphingError(
                    f"{linear.name} in {where} cannot be solved: {error}. Raise the ridge, or give"
                    " more prompts."
                ) from error
            if solution.ridge > self._settings.ridge:
                self._report.remarks.append(
                    f"{linear.name} in {where} was solved with a ridge of {solution.ridge:g}, not"
                    f" {self._settings.ridge:g}: its Gram matrix is singular."
                )
            for name, value in linear.parts(solution.weight).items():
                own[name].copy_(value)
            self._note(index, linear, pupils, samples, known, solution.weight)

    def _anchor(
        self, linear: Map, weights: Mapping[str, Parameters], pupils: Sequence[Pupil]
    ) -> Tensor:
        parts = {p.task.name: linear.weight(weights[p.task.name]) for p in pupils}
        return weighted_mean(parts, {p.task.name: p.share for p in pupils})

    def _note(
        self,
        index: int,
        linear: Map,
        pupils: Sequence[Pupil],
        samples: Sequence[tuple[Tensor, Tensor]],
        theirs: Sequence[Tensor],
        solved: Tensor,
    ) -> None:
        """Keep the residual on some tokens of each task."""
        for pupil, (taught, own), weight in zip(pupils, samples, theirs, strict=True):
            target = put_out(taught, weight, linear.bias)
            error = put_out(own, solved, linear.bias) - target
            ratio = float(error.square().sum() / target.square().sum().clamp_min(1e-30))
            self._report.residuals.append(Residual(index, linear.name, pupil.task.name, ratio))

    def _refuse(
        self,
        where: str,
        group: Group,
        pupils: Sequence[Pupil],
        sums: Sequence[tuple[float, Moments]],
    ) -> None:
        for pupil, (_, moments) in zip(pupils, sums, strict=True):
            if not (moments.gram.isfinite().all() and moments.cross.isfinite().all()):
                raise MorphingError(
                    f"What {group[0].name} in {where} reads on the prompts of {pupil.task.name} is"
                    f" NaN or infinite, in {pupil.task.teacher} or in the merge: choose another"
                    " dtype, or leave this model out."
                )


def _shares(tasks: Sequence[Task], given: Mapping[str, float]) -> dict[str, float]:
    """Shares above 0 of the tasks, made to sum to 1.

    Raises:
        MorphingError: a share of no task, a negative one, or none above 0.
    """
    names = {task.name for task in tasks}
    if unknown := given.keys() - names:
        raise MorphingError(
            f"A share is given for {sorted(unknown)[0]!r}, which is no task: the tasks are"
            f" {', '.join(sorted(names))}."
        )
    if bad := [name for name, share in given.items() if not 0 <= share < float("inf")]:
        raise MorphingError(
            f"The share of {bad[0]!r} is {given[bad[0]]}: give a number of 0 or more."
        )
    total = sum(given.values())
    if not total > 0:
        raise MorphingError("No task has a share above 0: give at least one.")
    return {name: share / total for name, share in given.items() if share > 0}
