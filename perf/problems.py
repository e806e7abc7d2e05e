"""What the samplers are measured on: test functions with known fronts, and merges of the zoo."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import FloatDistribution

if TYPE_CHECKING:
    from morphing.merging.recipe import Recipe
    from morphing.search.options import SpaceOptions
    from morphing.search.space import SearchSpace

TEST_FUNCTIONS = ("dtlz2", "zdt1", "zdt2", "zdt3")
ZOO_SAMPLES = 64
"""Search samples a task; with three tasks a trial takes about 0.3 s on one thread."""
_ZOO_TASKS = ("english-arithmetic", "kanji-numbers", "word-puzzles")
_SPARSITY = "sparsity"


class Problem:
    """A black box over [0, 1]^d with m objectives, all maximised.

    Attributes:
        name: as the results have it.
        space: the parameters in order, each in [0, 1].
        objectives: names, in order; ``tasks`` are those that are task scores.
        reference: (m,) the point hypervolumes are measured from, ``ideal`` the best to expect.
        front_volume: the hypervolume of the true front, where it is known.
        relevance: how much each parameter changes the model, as a run tells its sampler.
    """

    name: str
    space: Mapping[str, FloatDistribution]
    objectives: tuple[str, ...]
    tasks: tuple[str, ...]
    reference: np.ndarray
    ideal: np.ndarray
    front_volume: float | None = None
    relevance: Mapping[str, float] | None = None

    def evaluate(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (m,) at a point (d,), and their known variances (m,)."""
        raise NotImplementedError

    def published_units(self) -> np.ndarray:
        """(m,) factors to the units in which MM-MO's code sees the objectives."""
        return np.ones(len(self.objectives))

    def mergekit_start(self) -> np.ndarray | None:
        """(d,) where mergekit-evolve begins, if the parameters are a merge's."""
        return None

    @property
    def dimensions(self) -> int:
        """d."""
        return len(self.space)

    @property
    def task_columns(self) -> list[int]:
        """Columns of the objectives that are task scores; all where there are none."""
        return [i for i, name in enumerate(self.objectives) if name in self.tasks] or list(
            range(len(self.objectives))
        )


class TestFunction(Problem):
    """One of BoTorch's, negated so that all objectives are maximised; its own reference point, but
    for DTLZ2 with many numbers."""

    __test__ = False

    def __init__(self, function: str, dimensions: int, objectives: int = 2) -> None:
        from botorch.test_functions import multi_objective

        kind = getattr(multi_objective, function.upper())
        self._function = kind(dim=dimensions, num_objectives=objectives, negate=True)
        self.name = f"{function}-{dimensions}"
        self.space = {f"x{i:02}": FloatDistribution(0.0, 1.0) for i in range(dimensions)}
        self.objectives = tuple(f"f{i + 1}" for i in range(objectives))
        self.tasks = ()
        self.reference = self._function.ref_point.numpy()
        self.ideal = self._function.gen_pareto_front(1000).numpy().max(axis=0)
        self.front_volume = float(self._function.max_hv)
        if function == "dtlz2" and dimensions > 6 and objectives == 2:
            # No sampler comes below BoTorch's 1.1 in hundreds of evaluations. From the worst value
            # there is, 1 + (d - 1) / 4, the front (a quarter circle) leaves out pi / 4.
            worst = 1 + (dimensions - 1) / 4
            self.reference = np.array([-worst, -worst])
            self.front_volume = worst**2 - np.pi / 4

    def evaluate(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        values = self._function(torch.from_numpy(point)[None])[0].numpy()
        return values, np.zeros(len(values))


class Zoo(Problem):
    """DARE-TIES merges of the zoo's specialists onto its base, scored on the search splits.

    Values are the three task scores and sparsity, whether or not the sampler is shown sparsity.
    ``zoo-sources`` has a weight and a density a source (6 numbers); ``zoo-layers`` has them for
    each of the three layers and for the embeddings (24), which is arXiv 2403.13187's space.

    Reference: a tenth of the range below the worst of base and sources, objective by objective;
    ideal: the best of them.
    """

    def __init__(self, name: str, options: SpaceOptions, sparsity: bool = True) -> None:
        from morphing.search.space import SearchSpace

        models = _zoo_models()
        self._models = models
        self._search_space = SearchSpace(
            "dare_ties",
            models.names[0],
            models.names[1:],
            models.layers,
            options,
            models.architecture,
            dtype="float32",
        )
        self.name = name
        self.space = self._search_space.distributions()
        self.tasks = _ZOO_TASKS
        self.objectives = (*_ZOO_TASKS, _SPARSITY) if sparsity else _ZOO_TASKS
        alone = models.alone[:, : len(self.objectives)]
        self.reference = alone.min(axis=0) - 0.1 * np.ptp(alone, axis=0)
        self.ideal = alone.max(axis=0)
        if len(self._search_space.parts.labels) > 1:
            self.relevance = models.relevance(self._search_space)

    def evaluate(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        params = dict(zip(self.space, map(float, point), strict=True))
        values = self._models.values(self._search_space.recipe(params))
        shares = values[:3]
        return values, np.append(shares * (1 - shares) / ZOO_SAMPLES, 0.0)

    def published_units(self) -> np.ndarray:
        """Scores in percent, and sparsity as the plain sum over the weights."""
        units = np.array([100.0, 100.0, 100.0, self._models.base_norm])
        return units[: len(self.objectives)]

    def mergekit_start(self) -> np.ndarray:
        """Weights 1 / K, densities 1."""
        return np.array([1 / 3 if "weight" in name else 1.0 for name in self.space])


class _ZooModels:
    """Base and specialists in memory, one model that is morphed, and the samples."""

    def __init__(self) -> None:
        import torch

        from morphing.benchmarks.benchmark import get_benchmark
        from morphing.benchmarks.data.samples import load_samples
        from morphing.merging.morph import Morpher
        from morphing.merging.recipe import Recipe
        from morphing.sources.find import download, inspect
        from morphing.zoo import MODELS

        self.names = tuple(f"zoo:{model}" for model in MODELS)
        sources = [download(name, None) for name in self.names]
        base = inspect(str(sources[0].folder))
        self.layers, self.architecture = base.layers, base.architecture
        self._morpher = Morpher(sources[0], sources[1:], torch.device("cpu"), torch.float32)
        benchmarks = [get_benchmark(f"zoo-{task}") for task in _ZOO_TASKS]
        self._tasks = [(b, load_samples(b, "search", ZOO_SAMPLES)) for b in benchmarks]
        linear = {"merge_method": "linear", "dtype": "float32"}
        self.alone = np.array(
            [
                self.values(
                    Recipe({**linear, "models": [{"model": name, "parameters": {"weight": 1.0}}]})
                )
                for name in self.names
            ]
        )
        """(models, 4): what base and sources score by themselves."""
        tensors = self._morpher.model.state_dict().values()
        shared = {tensor.data_ptr(): tensor for tensor in tensors}
        self._morpher.morph(
            Recipe({**linear, "models": [{"model": self.names[0], "parameters": {"weight": 1.0}}]})
        )
        self.base_norm = float(sum(t.abs().sum() for t in shared.values() if t.is_floating_point()))

    def relevance(self, space: SearchSpace) -> dict[str, float]:
        """The norm of the task vectors' tensors a number scales, as `runs.relevance`."""
        squares = dict.fromkeys(space.distributions(), 0.0)
        for source in space.sources:
            for tensor, norm in self._morpher.engine.change_norms(source, space.base).items():
                for name, share in space.reach(source, tensor).items():
                    squares[name] += (share * norm) ** 2
        return {name: float(np.sqrt(square)) for name, square in squares.items()}

    def values(self, recipe: Recipe) -> np.ndarray:
        """(4,): the task scores and minus the relative distance to the base."""
        from morphing.benchmarks.evaluate import evaluate

        distance = self._morpher.morph(recipe)
        model, tokenizer = self._morpher.model, self._morpher.tokenizer
        scores = [evaluate(model, tokenizer, b, samples).value for b, samples in self._tasks]
        return np.array([*scores, -distance])


@cache
def _zoo_models() -> _ZooModels:
    return _ZooModels()


ZOO = ("zoo-sources", "zoo-layers", "zoo-sources-tasks")
"""The last is the first without sparsity as an objective."""
PROBLEMS: tuple[str, ...] = (
    *(f"{function}-{d}" for d in (6, 24) for function in TEST_FUNCTIONS),
    *ZOO,
)


@cache
def make_problem(name: str) -> Problem:
    """The problem of this name; made once a process, as the zoo's models take a second to load."""
    if name in ZOO:
        from morphing.search.options import SpaceOptions

        layers = SpaceOptions(layer_groups="each", module_kinds=("embeddings",))
        options = layers if name == "zoo-layers" else SpaceOptions()
        return Zoo(name, options, sparsity=not name.endswith("-tasks"))
    function, dimensions = name.split("-")
    return TestFunction(function, int(dimensions))


def volume(values: np.ndarray, reference: np.ndarray) -> float:
    """The hypervolume of values (n, m), by a program that is not ours."""
    import moocore

    return float(moocore.hypervolume(values, ref=reference, maximise=True)) if len(values) else 0.0
