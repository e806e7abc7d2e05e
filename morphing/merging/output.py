"""What a recipe's model is beside its weights: configuration, tokenizer, generation settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from morphing.errors import MorphingError, first_line
from morphing.merging.planning.plan import ModelInfo, Plan
from morphing.merging.vocabulary.vocabulary import Vocabulary
from morphing.sources.checkpoint import check_missing
from morphing.sources.configuration import transformers_config
from morphing.sources.conversion import Misshapen, Unlinked, link, uncovered
from morphing.sources.metadata import LAYER_KEYS, layer_index

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# What says by a layer's number how it is built, and the values that say it of every layer alike.
_BY_NUMBER: Mapping[str, tuple[Any, ...]] = {
    "decoder_sparse_step": (1,),
    "mlp_only_layers": ([],),
    "first_k_dense_replace": (0,),
    "full_attention_interval": (1,),
    "sliding_window_pattern": (1,),
    "attn_layer_period": (1,),
    "expert_layer_period": (1,),
    "no_rope_layer_interval": (),
}


@dataclass(frozen=True)
class Output:
    """The plan of a recipe's model and, where its vocabulary is its own, the vocabulary."""

    plan: Plan
    models: Mapping[str, ModelInfo]
    vocabulary: Vocabulary | None

    def config(self, dtype: str) -> dict[str, Any]:
        """``config.json``: the donor's, with what the recipe changes.

        Raises:
            MorphingError: the recipe rearranges layers, and the configuration builds each layer by
                its number.
        """
        config = dict(self.models[self.plan.donor].config)
        config.pop("_name_or_path", None)  # a path on the machine that saved the donor
        nested = config.get("text_config")
        if isinstance(nested, Mapping):
            config["text_config"] = {**nested, **self._layer_updates(nested)}
        else:
            config |= self._layer_updates(config)
        if not self.plan.tied:
            config["tie_word_embeddings"] = False
        if self.vocabulary is not None:
            config |= self.vocabulary.config_updates(config)
        # from_pretrained loads in the dtype named here; older releases read torch_dtype.
        return config | {"dtype": dtype, "torch_dtype": dtype}

    def check_complete(self, shapes: Mapping[str, Sequence[int]], dtype: str) -> None:
        """Refuse a merge that lacks tensors its configuration asks for.

        Loading it would fill them in at random, and a tensor of another shape than the
        configuration says cannot be loaded at all. Of architectures that transformers does not
        know, or loads in ways that `sources.conversion` cannot follow, nothing is said.

        Args:
            shapes: of the output's tensors.
            dtype: as for `config`.

        Raises:
            MorphingError: naming some of the tensors, or what transformers cannot read.
        """
        import torch
        from transformers import CONFIG_MAPPING

        config, donor = self.config(dtype), self.plan.donor
        try:
            if config.get("model_type") in CONFIG_MAPPING:
                transformers_config(config)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise MorphingError(
                f"transformers cannot read the config.json of {donor}, which the merge takes"
                f" ({first_line(error)}): mend it, or download the model again."
            ) from error
        try:
            with torch.device("meta"):
                model = build_model(config, getattr(torch, dtype))
            links = link(model, shapes)
        except Misshapen as error:
            raise MorphingError(
                f"The config.json of {donor}, which the merge takes, does not fit its tensors:"
                f" {error}; choose a checkpoint and a configuration that belong together."
            ) from error
        except (MorphingError, Unlinked):
            return
        check_missing(uncovered(model, links), "The merge of these models")

    def generation_config(
        self, donor: Mapping[str, Any] | None, ends: Sequence[int]
    ) -> dict[str, Any] | None:
        """``generation_config.json``: the donor's, ending answers with ``ends``.

        Args:
            donor: the donor's own, None where it has none.
            ends: ids of the output's end tokens.

        Returns:
            None where the donor has none and its configuration says the same as ``ends``.
        """
        config = self.models[self.plan.donor].config
        text = config.get("text_config")
        plain = {**(text if isinstance(text, Mapping) else {}), **config}
        settings = dict(plain if donor is None else donor)
        if self.vocabulary is not None:
            settings |= self.vocabulary.token_id_updates(settings)
        named = settings.get("eos_token_id")
        if set(ends) != {*(named if isinstance(named, list) else [named])} - {None}:
            settings["eos_token_id"] = list(ends) if len(ends) > 1 else next(iter(ends), None)
        elif donor is None:
            return None
        if donor is not None:
            return settings
        return {key: settings[key] for key in _TOKEN_IDS if settings.get(key) is not None}

    def _layer_updates(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What changes with the number and order of layers."""
        key = next((key for key in LAYER_KEYS if key in config), None)
        path = self._path()
        in_order = [layer for _, layer in path] == list(range(len(path)))
        if in_order and (key is None or len(path) == config[key]):
            return {}
        by_number = [
            name
            for name, harmless in _BY_NUMBER.items()
            if config.get(name) is not None and config[name] not in harmless
        ]
        if key is None or (by_number and not in_order):
            reason = by_number[0] if by_number else "no number of layers"
            raise MorphingError(
                f"The layers of {self.plan.donor} cannot be rearranged, because of what its"
                f" config.json says of them ({reason}): merge its models layer by layer instead."
            )
        return self._with_lists(config, key, path)

    def _with_lists(
        self, config: Mapping[str, Any], key: str, path: list[tuple[str, int]]
    ) -> dict[str, Any]:
        """The number of layers, and lists with an entry for each in the path's order."""
        before = config[key]
        updates: dict[str, Any] = {key: len(path)}
        for name, value in config.items():
            if isinstance(value, list) and len(value) == before and before:
                updates[name] = [self._entry(name, model, layer) for model, layer in path]
        return updates

    def _entry(self, name: str, model: str, layer: int) -> Any:
        config = self.models[model].config
        return config.get("text_config", config)[name][layer]

    def _path(self) -> list[tuple[str, int]]:
        """For every layer of the output a model and layer that it is made from."""
        path: dict[int, tuple[str, int]] = {}
        for tensor in self.plan.tensors:
            layer = layer_index(tensor.name)
            origin = tensor.inputs[tensor.base or 0]
            source = layer_index(origin.tensor)
            if layer is not None and source is not None:
                path.setdefault(layer, (origin.model, source))
        return [path[layer] for layer in sorted(path)]


def build_model(config: Mapping[str, Any], dtype: Any) -> PreTrainedModel:
    """A causal language model of this configuration, its weights not set.

    Raises:
        MorphingError: transformers cannot build it.
    """
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    try:
        built = transformers_config(config)
        with no_init_weights():
            model = AutoModelForCausalLM.from_config(built, dtype=dtype, trust_remote_code=False)
        model.tie_weights()  # which building does only where it sets weights
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MorphingError(f"transformers cannot build the recipe's model: {reason}") from error
    return model.eval().requires_grad_(False)
