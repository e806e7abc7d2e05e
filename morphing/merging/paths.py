"""Layer paths: a model whose layers are walked in a new order, across sources (arXiv 2403.13187).

The paper's data-flow merge picks layers of its sources in any order and scales the residual stream
where a layer follows one that is not its own predecessor. Such a path is an ordinary recipe here:
mergekit's `passthrough` over slices, with the scales folded into weights, so that it needs no model
code of its own.

The folding. Let layer t of the path add ``f_t(norm(h))`` to its input h, and let w_t > 0 scale that
input. With W_t = w_1 ··· w_t, follow g = h / W_t instead of h: between layers g is not scaled at
all, and layer t adds ``f_t(norm(W_t g)) / W_t`` to it. A norm does not see the factor W_t, so all
that is left is to divide whatever layer t writes into the stream (weights and biases of its
attention's and its MLP's output projections) by W_t. The final norm sees W·g as it sees g. It makes
no difference whether attention and MLP run one after the other or in parallel.

How exact it is. Norms have an epsilon, which the folded model does not scale along: a norm of the
scaled model divides by sqrt(mean(h²) + ε), the folded one's, in the same units, by
sqrt(mean(h²) + W²ε), a relative difference of at most |1 − W²| · ε / (2 · mean(h²)). Below W = 1 it
is nothing but how small the stream gets that counts: layers write it up again, so several small
scales apart cost little, and a small one right at the embeddings, where the stream is least, costs
most. Above W = 1 the folded stream starts as the source's own and ε weighs as it does there. With
SmolLM2-135M (ε = 1e-5) in float32, logits moved by this share of their standard deviation: 1e-5 for
×0.87 at layer 10, 3e-3 for ×0.1 there, 9e-3 for ×0.1 thrice, 0.5 for ×0.1 at the embeddings; the
scaled model is then the one whose stream drowns in its epsilon. Folded weights are rounded once, to
the dtype written; in bfloat16 that moves logits about as much as computing in it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from operator import mul
from typing import Any

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe

# What writes into the residual stream, as parts of tensor names that match these tensors only (a
# mergekit filter is a substring): the names in checkpoints and those mergekit gives to stacked
# experts. An architecture belongs here once its layers are seen to be pre-norm and the test that
# compares a folded model with a scaled one passes for it.
_LLAMA = ("o_proj", "down_proj")
WRITERS: dict[str, tuple[str, ...]] = {
    "ApertusForCausalLM": _LLAMA,
    "ArceeForCausalLM": _LLAMA,
    "Cohere2ForCausalLM": _LLAMA,
    "CohereForCausalLM": _LLAMA,
    "FalconForCausalLM": ("self_attention.dense", "dense_4h_to_h"),
    "GPT2LMHeadModel": ("c_proj",),
    "GPTBigCodeForCausalLM": ("c_proj",),
    "GPTNeoXForCausalLM": ("attention.dense", "dense_4h_to_h"),
    "GemmaForCausalLM": _LLAMA,
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "MixtralForCausalLM": (*_LLAMA, ".w2."),
    "OlmoForCausalLM": _LLAMA,
    "OlmoeForCausalLM": _LLAMA,
    "Phi3ForCausalLM": _LLAMA,
    "PhiForCausalLM": ("self_attn.dense", "fc2"),
    "Qwen2ForCausalLM": _LLAMA,
    "Qwen2MoeForCausalLM": _LLAMA,
    "Qwen3ForCausalLM": _LLAMA,
    "Qwen3MoeForCausalLM": _LLAMA,
    "SmolLM3ForCausalLM": _LLAMA,
    "StableLmForCausalLM": _LLAMA,
    "Starcoder2ForCausalLM": ("o_proj", "c_proj"),
}

_POST_NORM = "its layers normalise what they add to the residual stream (post-norm)"
_MULTIPLIER = "its config multiplies what layers add to the residual stream"
_BY_CONFIG = "its config may place norms after the residual stream"
REFUSED: dict[str, str] = {
    "BloomForCausalLM": _BY_CONFIG,
    "Exaone4ForCausalLM": _POST_NORM,
    "Gemma2ForCausalLM": _POST_NORM,
    "Gemma3ForCausalLM": _POST_NORM,
    "Gemma3ForConditionalGeneration": _POST_NORM,
    "Glm4ForCausalLM": _POST_NORM,
    "GraniteForCausalLM": _MULTIPLIER,
    "GraniteMoeForCausalLM": _MULTIPLIER,
    "GraniteMoeHybridForCausalLM": _MULTIPLIER,
    "GraniteMoeSharedForCausalLM": _MULTIPLIER,
    "MiniCPM3ForCausalLM": _MULTIPLIER,
    "MiniCPMForCausalLM": _MULTIPLIER,
    "OPTForCausalLM": _BY_CONFIG,
    "Olmo2ForCausalLM": _POST_NORM,
    "Olmo3ForCausalLM": _POST_NORM,
}


@dataclass(frozen=True)
class Step:
    """One layer of a path, and the factor its input, the residual stream, is multiplied by.

    Raises:
        MorphingError: the layer is negative, or the scale is not a positive number. (A norm keeps
            the sign, so a negative scale cannot be folded.)
    """

    source: str
    layer: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise MorphingError(
                f"The path names layer {self.layer} of {self.source}: count layers from 0."
            )
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise MorphingError(
                f"The path scales the input of layer {self.layer} of {self.source} by"
                f" {self.scale}: a scale must be a positive number."
            )

    def continues(self, before: Step | None) -> bool:
        """Whether it stands where its own model has it; before layer 0 are the embeddings."""
        if before is None:
            return self.layer == 0
        return (self.source, self.layer) == (before.source, before.layer + 1)


@dataclass(frozen=True)
class LayerPath:
    """Layers in the order they are walked; the same layer may occur more than once.

    As in mergekit, the embeddings are those of the first layer's source, and the final norm and the
    head those of the last layer's. They are not named apart from the layers, so where a path begins
    in the middle of another source than the search's first, it takes that source's embeddings.

    Raises:
        MorphingError: there is no step.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise MorphingError("The path has no layers: switch on at least one.")

    def recipe(
        self, architecture: str, dtype: str | None = None, out_dtype: str | None = None
    ) -> Recipe:
        """The path as a passthrough recipe, a slice for each run of layers scaled alike.

        Args:
            architecture: the sources' class, as config.json's ``architectures`` names it.
            dtype: mergekit's: what tensors are cast to before they are scaled.
            out_dtype: mergekit's: what they are written as.

        Raises:
            MorphingError: a scale is not 1 and the architecture is not one it can be folded for, or
                the product of the scales is too far from 1 to be written.
        """
        writers = () if all(s.scale == 1 for s in self.steps) else writers_of(architecture)
        slices = []
        for first, last, running in self._slices():
            source: dict[str, Any] = {
                "model": first.source,
                "layer_range": [first.layer, last.layer + 1],
            }
            if running != 1:
                # The last setting, which has no filter, leaves all other tensors as they are.
                folded = [{"filter": name, "value": 1 / running} for name in writers]
                source["parameters"] = {"scale": [*folded, {"value": 1.0}]}
            slices.append({"sources": [source]})
        config: dict[str, Any] = {"merge_method": "passthrough", "slices": slices}
        config |= {} if dtype is None else {"dtype": dtype}
        config |= {} if out_dtype is None else {"out_dtype": out_dtype}
        return Recipe(config)

    def _slices(self) -> Iterator[tuple[Step, Step, float]]:
        """First and last step of each run of consecutive layers, and their running product W."""
        products = tuple(accumulate((float(step.scale) for step in self.steps), mul))
        if not all(p > 0 and math.isfinite(p) and math.isfinite(1 / p) for p in products):
            raise MorphingError(
                "The path's scales multiply to a number that cannot be written: bring them nearer"
                " to 1."
            )
        for first, last in self._runs():
            yield self.steps[first], self.steps[last], products[first]

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Places of the first and the last step of each run walked in order at one scale."""
        first = 0
        for place in range(1, len(self.steps)):
            before, step = self.steps[place - 1 : place + 1]
            if step.scale != 1 or not step.continues(before):
                yield first, place - 1
                first = place
        yield first, len(self.steps) - 1


def writers_of(architecture: str) -> tuple[str, ...]:
    """Filters that match the tensors by which a layer writes into the residual stream.

    Raises:
        MorphingError: a scale of the stream cannot be folded into them, or the architecture is not
            known.
    """
    if architecture in REFUSED:
        raise MorphingError(
            f"A layer path of {architecture} cannot scale the residual stream, because"
            f" {REFUSED[architecture]}: leave every scale at 1."
        )
    if architecture not in WRITERS:
        raise MorphingError(
            f"A layer path cannot scale the residual stream of {architecture}, which it does not"
            f" know: leave every scale at 1, or use one of {', '.join(sorted(WRITERS))}."
        )
    return WRITERS[architecture]


def path_from_slots(
    sources: Sequence[str],
    layers: int,
    repeats: int,
    indicators: Sequence[float],
    scales: Sequence[float],
) -> LayerPath:
    """Decode the paper's search variables (arXiv 2403.13187, section 3.2).

    The slots are all layers of all sources in order, the whole repeated. A slot's layer is on the
    path iff its indicator is above 0. Where the layer follows one that is not its own predecessor,
    its input is scaled by the slot's scale; elsewhere that scale has no effect. (The paper has a
    matrix of scales, by the layers left and entered; one a slot is its row of the layer entered.)

    Args:
        sources: the models, as recipes write them.
        layers: how many layers each of them has.
        repeats: how many times the layers are laid out; the paper's r is 3.
        indicators, scales: one number a slot, len(sources) · layers · repeats of them.

    Raises:
        MorphingError: no indicator is above 0, or a scale that is used is not positive.
    """
    slots = product(range(repeats), sources, range(layers))
    steps: list[Step] = []
    for (_, source, layer), indicator, scale in zip(slots, indicators, scales, strict=True):
        if indicator > 0:
            step = Step(source, layer)
            jump = not step.continues(steps[-1] if steps else None)
            steps.append(Step(source, layer, float(scale)) if jump else step)
    return LayerPath(tuple(steps))


def initial_slots(
    sources: int, layers: int, repeats: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Indicators (±1) and scales (1) where the paper's search begins: the first source's own path.

    Raises:
        MorphingError: there are no slots.
    """
    if min(sources, layers, repeats) < 1:
        raise MorphingError("A layer path has no slots: it needs a source, a layer and a repeat.")
    total = sources * layers * repeats
    return (1.0,) * layers + (-1.0,) * (total - layers), (1.0,) * total


def read_path(recipe: Recipe) -> LayerPath | None:
    """The path that a recipe of `LayerPath.recipe` is; None of any other recipe."""
    if recipe.method != "passthrough" or not recipe.config.get("slices"):
        return None
    steps: list[Step] = []
    before = 1.0
    for piece in recipe.config["slices"]:
        source, *others = piece["sources"]
        scale = _scale(source)
        if others or not scale or not isinstance(source["model"], str):
            return None
        running = 1 / scale
        first, end = source["layer_range"]
        entered = 1.0 if math.isclose(running, before) else running / before
        steps.append(Step(source["model"], first, entered))
        steps += (Step(source["model"], layer) for layer in range(first + 1, end))
        before = running
    return LayerPath(tuple(steps))


def _scale(source: Mapping[str, Any]) -> float | None:
    """What a path multiplies a run's first output projections by; None where it is no path's."""
    match source.get("parameters") or {}:
        case {"scale": [{"filter": _, "value": float() | int() as value}, *_]}:
            return float(value) if value and math.isfinite(value) else None
        case {"scale": _}:
            return None
    return 1.0


def describe(path: LayerPath) -> str:
    """The path in a line, for cards and plots: ``A 0–15 · B 12–29 ×0.87``.

    Layer numbers are inclusive; × is the scale on entering the run. Models go by the last part of
    their names while those differ.
    """
    names = {step.source: _short(step.source) for step in path.steps}
    if len(set(names.values())) < len(names):
        names = {name: name for name in names}
    parts = []
    for first, last in path._runs():
        entry, end = path.steps[first], path.steps[last].layer
        layers = f"{entry.layer}" if first == last else f"{entry.layer}–{end}"
        scale = f"{entry.scale:.3g}"
        parts.append(f"{names[entry.source]} {layers}" + ("" if scale == "1" else f" ×{scale}"))
    return " · ".join(parts)


def _short(name: str) -> str:
    """``org/model@revision+org/adapter`` as ``model+adapter``."""
    parts = (part.split("@")[0].rstrip("/").rsplit("/", 1)[-1] for part in name.split("+"))
    return "+".join(parts)
