"""A loaded model that becomes any recipe's, in place."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from morphing.errors import MorphingError
from morphing.merging import kernels
from morphing.merging.parameters import TensorParameters, resolve
from morphing.merging.recipe import Recipe
from morphing.merging.workers import Result, Workers
from morphing.sources.checkpoint import Tensors, load_adapted, load_model, load_tensors
from morphing.sources.metadata import layer_count
from morphing.sources.source import Inspection, Source

_MARGIN = 256 * 2**20
_LARGE = 1 << 24  # parameters; merging a smaller model is too short to share out


class Morpher:
    """Base and sources resident in memory, and one model that is morphed between recipes.

    A recipe's merged tensors are a function of the recipe and the resident tensors alone: a morph
    after many equals a fresh one bit for bit, and `export` writes what `morph` put in the model.

    Args:
        base: a checkpoint; its configuration and tokenizer are the model's.
        sources: checkpoints and adapters that recipes may name.
        device: where tensors are kept and merged.
        dtype: of the loaded model.

    Raises:
        MorphingError: a source cannot be loaded, holds NaN or infinity, or does not fit the base.
    """

    def __init__(
        self,
        base: Source,
        sources: Sequence[Source],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.base = base
        self.sources = tuple(sources)
        self.device = device
        self.model = load_model(base, dtype).to(device)
        self.tokenizer = _load_tokenizer(base)
        self._resident: dict[str, Tensors] = {base.name: load_tensors(base, device)}
        self._base = self._resident[base.name]
        for source in sources:
            if source.name not in self._resident:
                self._resident[source.name] = self._load(source)
        self._layers = layer_count(self._base)
        self._targets = self._match()
        self._workers = Workers(_worker_count(sum(t.numel() for t in self._base.values()), device))
        norms = self._workers.map(kernels.l1_norm, self._floating().values())
        self._norm = math.fsum(norm.item() for norm in norms)

    def morph(self, recipe: Recipe) -> float:
        """Change ``self.model`` into the recipe's, in place.

        Returns:
            The relative L1 distance to the base, sum |merged - base| / sum |base|, of the tensors
            in the recipe's output dtype; a tied head counts once.

        Raises:
            MorphingError: the recipe is malformed or names a model that is not resident; the model
                is then unchanged.
        """

        def write(name: str, tensor: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self._targets[name].copy_(tensor)
            if not tensor.is_floating_point():
                return torch.zeros((), device=self.device)
            return kernels.l1_norm(tensor, self._base[name])

        distances = list(self._merged(recipe, write))
        return math.fsum(torch.stack(distances).tolist()) / self._norm

    def tensors(self, recipe: Recipe) -> Iterator[tuple[str, torch.Tensor]]:
        """The merged tensors, by checkpoint name, in the recipe's output dtype.

        The one code path that makes merged tensors. The output dtype is the recipe's ``out_dtype``,
        else its ``dtype``, else the base's own; the arithmetic is float32 whatever ``dtype`` says.

        Raises:
            MorphingError: before the first tensor, as `morph` does.
        """
        return self._merged(recipe, lambda name, tensor: (name, tensor))

    def sizes(self, recipe: Recipe) -> dict[str, int]:
        """Bytes of every tensor that `tensors` yields, known without merging."""
        return {
            name: tensor.numel() * _output_dtype(recipe, tensor).itemsize
            for name, tensor in self._base.items()
        }

    def output_dtypes(self, recipe: Recipe) -> set[torch.dtype]:
        """The dtypes of the floating-point tensors that `tensors` yields."""
        return {_output_dtype(recipe, tensor) for tensor in self._floating().values()}

    def _merged(
        self, recipe: Recipe, use: Callable[[str, torch.Tensor], Result]
    ) -> Iterator[Result]:
        """What ``use`` makes of each merged tensor; it runs where the tensor was merged."""
        parameters = resolve(recipe, self._base, self._layers)
        unknown = [name for name in recipe.inputs if name not in self._resident]
        if unknown:
            raise MorphingError(
                f"The recipe merges {', '.join(unknown)}, which this run has not loaded: its models"
                f" are {', '.join(self._resident)}."
            )

        def merge(name: str) -> Result:
            original = self._base[name]
            if not original.is_floating_point():
                return use(name, original)
            inputs = [self._resident[model][name] for model in recipe.inputs]
            merged = _merge(recipe, name, inputs, parameters[name])
            return use(name, merged.to(_output_dtype(recipe, original)))

        return self._workers.map(merge, self._base)

    def _floating(self) -> Tensors:
        return {n: tensor for n, tensor in self._base.items() if tensor.is_floating_point()}

    def _load(self, source: Source) -> Tensors:
        if source.adapter:
            return load_adapted(source, self.base, self._base)
        tensors = load_tensors(source, self.device)
        for name, original in self._base.items():
            if name not in tensors or tensors[name].shape != original.shape:
                found = tuple(tensors[name].shape) if name in tensors else "absent"
                raise MorphingError(
                    f"{name} is {found} in {source.name} and {tuple(original.shape)} in the base"
                    f" {self.base.name}: choose sources of the base's size and vocabulary."
                )
        return tensors

    def _match(self) -> Tensors:
        """The loaded model's tensors under the checkpoint's names, checked to hold its values."""
        state = self.model.state_dict()
        covered = {state[name].data_ptr() for name in self._base if name in state}
        exact = all(
            name in state
            and state[name].shape == tensor.shape
            and torch.equal(state[name], tensor.to(state[name].dtype))
            for name, tensor in self._base.items()
        )
        if not exact or any(tensor.data_ptr() not in covered for tensor in state.values()):
            raise MorphingError(
                f"{self.base.name} is a {type(self.model).__name__}, whose checkpoint transformers"
                " converts or renames as it loads: this version cannot merge that architecture."
            )
        return {name: state[name] for name in self._base}


def required_memory(base: Inspection, sources: Sequence[Inspection], dtype: torch.dtype) -> int:
    """Bytes a `Morpher` and the scoring of its model need, told before anything loads.

    Base and sources as stored (an adapter counts as a whole model: it is merged), the loaded model,
    and while merging, the largest tensors, two for each worker, three times as float32 and as one
    byte for each source. To merge an adapter the base is loaded once more. A quarter of the model
    and 256 MiB are left for activations and caches; long prompts in large batches can need more.
    """
    model = base.parameters * dtype.itemsize
    resident = base.bytes + sum(base.bytes if s.adapter else s.bytes for s in sources)
    shapes = sorted((math.prod(info.shape) for info in base.tensors.values()), reverse=True)
    # One is computed, and one waits to be used, for each worker.
    count = _worker_count(base.parameters, torch.device("cpu"))
    merging = sum(shapes[: 2 * count]) * (3 * torch.float32.itemsize + len(sources))
    adapting = base.bytes if any(source.adapter for source in sources) else 0
    return resident + model + max(merging, adapting) + model // 4 + _MARGIN


def _worker_count(parameters: int, device: torch.device) -> int:
    return torch.get_num_threads() if device.type == "cpu" and parameters > _LARGE else 1


def _output_dtype(recipe: Recipe, original: torch.Tensor) -> torch.dtype:
    """What the recipe asks for, else the base tensor's own; integers stay as they are."""
    name = recipe.config.get("out_dtype") or recipe.config.get("dtype")
    asked: torch.dtype | None = getattr(torch, name) if name else None
    return asked if asked and original.is_floating_point() else original.dtype


def _merge(
    recipe: Recipe, name: str, inputs: Sequence[torch.Tensor], parameters: TensorParameters
) -> torch.Tensor:
    """One merged tensor, float32; ``inputs`` in the order of ``recipe.inputs``."""
    method, shared = recipe.method, parameters.shared
    if method == "linear":
        weights = [own["weight"] for own in parameters.own]
        return kernels.linear(inputs, weights, shared["normalize"])
    place = recipe.inputs.index(recipe.base or "")
    base = inputs[place]
    others = [tensor for i, tensor in enumerate(inputs) if i != place]
    if method == "slerp":
        return kernels.slerp(base, others[0], shared["t"])
    own = [values for i, values in enumerate(parameters.own) if i != place]
    densities = [values["density"] for values in own]
    masks = None
    if method == "ties":
        masks = kernels.magnitude_masks(base, others, densities, shared["rescale"])
    elif method in ("dare_linear", "dare_ties"):
        keys = [kernels.mask_key(recipe.mask_seed, i, name) for i in range(len(others))]
        masks = kernels.random_masks(base, others, densities, keys, shared["rescale"])
    return kernels.task_arithmetic(
        base,
        others,
        [values["weight"] for values in own],
        masks,
        consensus=method in ("ties", "dare_ties"),
        normalize=shared["normalize"],
        factor=shared["lambda"],
    )


def _load_tokenizer(base: Source):  # type: ignore[no-untyped-def]  # transformers has no common type
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base.folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MorphingError(f"The base {base.name} has no usable tokenizer: {reason}") from error
