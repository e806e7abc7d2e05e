"""From a recipe to merged tensors: the one code path that makes them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from morphing.errors import MorphingError
from morphing.merging import mergekit_methods
from morphing.merging.finite import check_merged
from morphing.merging.methods import FAST, METHODS
from morphing.merging.models import Opened
from morphing.merging.output import Output
from morphing.merging.planning.plan import (
    Input,
    PlannedTensor,
    make_plan,
    plan_remarks,
    vocabulary_axis,
)
from morphing.merging.recipe import Recipe
from morphing.merging.rows.kernels import ROW
from morphing.merging.rows.merger import Job, Place, RowMerger
from morphing.merging.rows.runner import Runner
from morphing.merging.rows.segments import Segment, divide
from morphing.merging.stores import Adapted, Store, as_tensor, fill_rows
from morphing.merging.vocabulary.speech import Speech, make_speech, same_tokenizer
from morphing.merging.vocabulary.vocabulary import Vocabulary, build_vocabulary
from morphing.merging.workers import Workers
from morphing.sources.adapter import Adapter
from morphing.sources.weights import torch_dtype

_VOCABULARY_KEYS = ("tokenizer", "tokenizer_source")


@dataclass(frozen=True)
class Merged:
    """A segment of the output."""

    segment: Segment
    rows: Tensor
    """(rows, `ROW`) in the output's dtype; of integers, the one tensor as it is."""
    distances: Tensor
    """float32 (rows,): the L1 distance to the origin that was asked for; empty without one."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors by name, views of the rows."""
        if not self.segment.dtype.is_floating_point:
            yield self.segment.tensors[0].name, self.rows
            return
        start = 0
        for tensor, shape, count in zip(
            self.segment.tensors, self.segment.shapes, self.segment.counts, strict=True
        ):
            yield tensor.name, as_tensor(self.rows[start : start + count], shape)
            start += count


class Engine:
    """Merges tensors of given models.

    What depends on the models alone (the order of magnitudes, norms) is worked out when it is first
    needed and kept.

    Args:
        models: what recipes may name.
        stores: their tensors.
        device: where merging goes on.
        workers: threads for what is not compiled.
        compiled: whether kernels are compiled; None decides by the size of the models.
        lender: the model whose tokenizer those without one have, besides a recipe's own.
    """

    def __init__(
        self,
        models: Mapping[str, Opened],
        stores: Mapping[str, Store],
        device: torch.device,
        workers: Workers,
        compiled: bool | None = None,
        lender: str | None = None,
    ) -> None:
        self.models = models
        self._lender = lender
        self.stores = stores
        self._device = device
        self._workers = workers
        elements = max(
            (sum(math.prod(shape) for shape in store.shapes.values()) for store in stores.values()),
            default=0,
        )
        self._runner = Runner(device, workers, compiled, elements)
        self._rows = RowMerger(self._runner, workers, device)
        self._aligned_rows: tuple[Vocabulary | None, RowMerger] = None, self._rows
        self._known_vocabulary: tuple[str, Vocabulary | None] | None = None
        self._speeches: dict[tuple[object, ...], tuple[Vocabulary | None, Speech]] = {}

    def output(self, recipe: Recipe) -> Output:
        """What the recipe makes: its plan, and its vocabulary where that is its own.

        Raises:
            MorphingError: it is malformed, names a model that is not here, or merges what does not
                fit together.
        """
        if METHODS[recipe.method].solved:
            raise MorphingError(
                f"A {recipe.method} merge is solved from prompts and cannot be merged by itself:"
                " `morphing merge` solves it; use its folder as a model here."
            )
        unknown = [name for name in recipe.references if name not in self.models]
        if unknown:
            raise MorphingError(
                f"The recipe merges {', '.join(unknown)}, which this run has not loaded: its models"
                f" are {', '.join(self.models)}."
            )
        infos = {name: model.info for name, model in self.models.items()}
        plan = make_plan(recipe, infos)
        return Output(plan, infos, self._vocabulary(recipe))

    def remarks(self, recipe: Recipe) -> list[str]:
        """What the recipe says that changes nothing for these models, or other than it seems, and
        whose tokenizer the output has where that is not plain.

        Raises:
            MorphingError: as `output` does.
        """
        output = self.output(recipe)
        return [*plan_remarks(recipe, output.models), *self.speech(recipe, output).remarks]

    def change_norms(self, source: str, base: str) -> dict[str, float]:
        """The L2 norm of ``source`` - ``base`` for each floating-point tensor that both have.

        Of tensors that differ in their number of rows, such as embeddings, the first rows count.
        """
        ours, theirs = self.stores[source], self.stores[base]
        norms = {}
        for name in ours.shapes.keys() & theirs.shapes.keys():
            tensor, origin = ours.tensor(name), theirs.tensor(name)
            if not tensor.is_floating_point():
                continue
            if tensor.shape != origin.shape:
                rows = min(len(tensor), len(origin))
                tensor, origin = tensor[:rows], origin[:rows]
            change = tensor.to(torch.float32) - origin.to(torch.float32)
            norms[name] = float(torch.linalg.vector_norm(change))
        return norms

    def infos(self, recipe: Recipe, output: Output) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and dtype of every output tensor, known without merging."""
        vocabulary = output.vocabulary
        infos = {}
        for tensor in output.plan.tensors:
            first = tensor.inputs[0]
            shape = list(self.stores[first.model].shapes[first.tensor])
            if vocabulary is not None and (axis := self._axis(first)) is not None:
                shape[axis] = vocabulary.size
            infos[tensor.name] = torch.Size(shape), self._dtype(recipe, tensor)
        return infos

    def merge(
        self,
        recipe: Recipe,
        output: Output,
        names: Collection[str] | None = None,
        place: Place = lambda segment: None,
        origin: str | None = None,
    ) -> Iterator[Merged]:
        """The output's tensors in the plan's order, in float32 arithmetic, rounded once.

        Args:
            recipe: what to merge.
            output: from `output`.
            names: only these tensors.
            place: gives the rows to write a segment to.
            origin: the name of the model to which the distance is wanted, in the output's
                vocabulary if the recipe merges it; a tensor that it has not, or has in another
                shape, counts as a whole.
        """
        infos = self.infos(recipe, output)
        planned = [t for t in output.plan.tensors if names is None or t.name in names]
        stores = self._align(output, planned)
        job = Job(stores, recipe.mask_seed, place, None if origin is None else stores[origin])
        rows = self._rows_in(output.vocabulary)
        alone = frozenset({tensor.method for tensor in planned} - set(FAST))
        waiting: list[Segment] = []
        for segment in divide(((t, *infos[t.name]) for t in planned), job.stores, alone):
            if segment.method in alone and segment.dtype.is_floating_point:
                waiting.append(segment)
                continue
            yield from self._merge_alone(waiting, job, rows)
            waiting = []
            yield self._merge_rows(segment, job, rows)
        yield from self._merge_alone(waiting, job, rows)

    def _rows_in(self, vocabulary: Vocabulary | None) -> RowMerger:
        """What is known of tensors is known in one vocabulary: the models' own, or the last."""
        if vocabulary is None:
            return self._rows
        if self._aligned_rows[0] is not vocabulary:
            merger = RowMerger(self._runner, self._workers, self._device)
            self._aligned_rows = vocabulary, merger
        return self._aligned_rows[1]

    def _vocabulary(self, recipe: Recipe) -> Vocabulary | None:
        """The recipe's vocabulary; a search has one, and making it takes seconds."""
        settings = [recipe.config.get(key) for key in _VOCABULARY_KEYS]
        key = repr((settings, recipe.base, recipe.inputs))
        if self._known_vocabulary is None or self._known_vocabulary[0] != key:
            folders = {name: self.models[name].tokenizer_folder for name in recipe.references}
            self._known_vocabulary = key, build_vocabulary(recipe, folders)
        return self._known_vocabulary[1]

    def speech(self, recipe: Recipe, output: Output) -> Speech:
        """How the output reads and writes text. Models that do so alike have one tokenizer.

        Raises:
            MorphingError: there is no such chat template, or no tokenizer for it.
        """
        wanted, donor = recipe.config.get("chat_template"), output.plan.donor
        vocabulary = output.vocabulary
        key = (wanted, donor, recipe.inputs if wanted else (), id(vocabulary))
        if key not in self._speeches:
            lender = () if self._lender is None else (self._lender,)
            voices = {name: self.models[name].voice for name in (*recipe.references, *lender)}
            made = make_speech(recipe, voices, donor, vocabulary)
            before = (known.tokenizer for _, known in self._speeches.values())
            alike = (one for one in before if one and same_tokenizer(one, made.tokenizer))
            made = replace(made, tokenizer=next(alike, made.tokenizer))
            self._speeches[key] = vocabulary, made  # held, so that no other has its identity
        return self._speeches[key][1]

    def _dtype(self, recipe: Recipe, tensor: PlannedTensor) -> torch.dtype:
        """The recipe's ``out_dtype`` or ``dtype``, else its base's own; integers' own always."""
        original = tensor.inputs[tensor.base or 0]
        stored = torch_dtype(self.models[original.model].info.tensors[original.tensor])
        name = recipe.config.get("out_dtype") or recipe.config.get("dtype")
        return getattr(torch, name) if name and stored.is_floating_point else stored

    def _axis(self, item: Input) -> int | None:
        return vocabulary_axis(item.tensor, self.models[item.model].config)

    def _align(self, output: Output, planned: Sequence[PlannedTensor]) -> Mapping[str, Store]:
        """The stores, with token-indexed tensors in the output's vocabulary."""
        if output.vocabulary is None:
            return self.stores
        replaced: dict[str, dict[str, Tensor]] = {}
        for tensor in planned:
            axis = self._axis(tensor.inputs[0])
            if axis is None:
                continue
            models = [item.model for item in tensor.inputs]
            tensors = [self.stores[item.model].tensor(item.tensor) for item in tensor.inputs]
            base = None if tensor.base is None else models[tensor.base]
            aligned = output.vocabulary.align(models, tensors, base, axis)
            for item, own in zip(tensor.inputs, aligned, strict=True):
                replaced.setdefault(item.model, {})[item.tensor] = own
        return {
            name: Adapted(store, Adapter({}, replaced[name])) if name in replaced else store
            for name, store in self.stores.items()
        }

    def _merge_alone(
        self, segments: Sequence[Segment], job: Job, rows: RowMerger
    ) -> Iterator[Merged]:
        """Tensors of methods that merge one at a time, side by side on the workers."""

        def merge(segment: Segment) -> Tensor:
            (tensor,) = segment.tensors
            inputs = [job.stores[i.model].tensor(i.tensor) for i in tensor.inputs]
            merged = mergekit_methods.merge(tensor, inputs, job.seed).to(segment.dtype)
            check_merged(tensor.name, merged)
            return merged

        for segment, merged in zip(segments, self._workers.map(merge, segments), strict=True):
            out = self._place(segment, job)
            fill_rows(out, merged)
            yield Merged(segment, out, rows.distances(segment, out, job))

    def _merge_rows(self, segment: Segment, job: Job, rows: RowMerger) -> Merged:
        if not segment.dtype.is_floating_point:
            return Merged(segment, self._unchanged(segment, job), torch.zeros(0))
        out = self._place(segment, job)
        return Merged(segment, out, rows.merge(segment, job, out))

    def _unchanged(self, segment: Segment, job: Job) -> Tensor:
        """A tensor of integers, which all inputs must have alike."""
        (tensor,) = segment.tensors
        first, *others = (job.stores[i.model].tensor(i.tensor) for i in tensor.inputs)
        for item, other in zip(tensor.inputs[1:], others, strict=True):
            if not torch.equal(first, other):
                raise MorphingError(
                    f"{tensor.name} holds integers, which cannot be merged, and differs between"
                    f" {tensor.inputs[0].model} and {item.model}: choose models that share it."
                )
        return first

    def _place(self, segment: Segment, job: Job) -> Tensor:
        out = job.place(segment)
        if out is None:
            rows = int(segment.counts.sum())
            out = torch.empty((rows, ROW), dtype=segment.dtype, device=self._device)
        return out
