"""Plans: mergekit's own planner agrees; where it would make a broken model, ours does not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from morphing.errors import MorphingError
from morphing.merging.methods import MERGEKITS
from morphing.merging.planning.plan import Input, ModelInfo, Plan, make_plan, vocabulary_axis
from morphing.merging.recipe import Recipe
from morphing.sources import local
from morphing.sources.source import Source, TensorInfo

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


def llama(layers: int = 3, vocabulary: int = 10, width: int = 4, tied: bool = False) -> ModelInfo:
    """The headers of a Llama of few tensors."""
    tensors = {HEAD: TensorInfo((vocabulary, width), "F32")} if not tied else {}
    tensors |= {EMBEDDING: TensorInfo((vocabulary, width), "F32")}
    for layer in sorted(range(layers), key=str):  # as safetensors sorts them
        for name in ("self_attn.q_proj", "mlp.up_proj"):
            tensors[f"model.layers.{layer}.{name}.weight"] = TensorInfo((width, width), "F32")
    tensors[NORM] = TensorInfo((width,), "F32")
    config = {**LLAMA, "num_hidden_layers": layers, "tie_word_embeddings": tied}
    return ModelInfo(config, tensors)


def changed(info: ModelInfo, **tensors: TensorInfo | None) -> ModelInfo:
    """With some tensors replaced, added or, where None, left out; ``_`` stands for a dot."""
    new = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    merged = {**info.tensors, **new}
    return ModelInfo(info.config, {n: t for n, t in merged.items() if t is not None})


def plan(text: str, **models: ModelInfo) -> Plan:
    return make_plan(Recipe.from_yaml(text), models)


def read(folder: Path) -> ModelInfo:
    return ModelInfo(
        local.read_json(folder / "config.json"), local.read_header(folder / "model.safetensors")
    )


def renamed(text: str, models: Mapping[str, Path]) -> Recipe:
    return Recipe.from_yaml(text).with_names(lambda name: str(models[name]))


def mergekits(recipe: Recipe) -> dict[str, Any]:
    """The tasks that mergekit plans, by the output's tensor names."""
    from mergekit.architecture import get_architecture_info
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import _model_out_config
    from mergekit.options import MergeOptions
    from mergekit.plan import MergePlanner

    options = MergeOptions(quiet=True)
    LoaderCache().setup(options)
    configuration = recipe.check()
    architecture = get_architecture_info(configuration, options)
    planner = MergePlanner(
        configuration, architecture, options, _model_out_config(configuration, architecture)
    )
    planner._plan()
    return {weight.name: task for weight, task in planner._tensors}


def assert_as_mergekit(recipe: Recipe, beyond: Sequence[str] = ()) -> Plan:
    """Every tensor is made of the same tensors by the same parameters, save those ``beyond``."""
    models = {name: read(Path(name)) for name in recipe.inputs}
    ours, theirs = make_plan(recipe, models), mergekits(recipe)
    assert {t.name for t in ours.tensors} - set(beyond) == theirs.keys() - set(beyond)
    for tensor in ours.tensors:
        if tensor.name in beyond:
            continue
        task = theirs[tensor.name]
        order = task.model_order
        assert [item.model for item in tensor.inputs] == [str(model) for model in order]
        for item, model in zip(tensor.inputs, order, strict=True):
            weight = task.gather_tensors.weight_info[model]
            names = (weight.name, *(weight.aliases or ()), *(weight.tied_names or ()))
            assert item.tensor == next(n for n in names if n in models[item.model].tensors)
        assert tensor.method == task.method_name
        assert dict(tensor.shared) == dict(task.parameters.items())
        assert [dict(own) for own in tensor.own] == [dict(task.input_parameters[m]) for m in order]
        base = [i for i, model in enumerate(order) if model == task.base_model]
        assert [tensor.base] == (base or [None])
    return ours


@pytest.fixture(scope="module")
def folders(family: list[Source], half_family: list[Source]) -> dict[str, Path]:
    """Tied models by a letter, and untied ones by its capital."""
    tied = {name: source.folder for name, source in zip("base", family, strict=True)}
    untied = {name: source.folder for name, source in zip("BASE", half_family, strict=True)}
    return tied | untied


SETTINGS = {
    "slerp": "{t: [0, 0.3, 1]}",
    "nearswap": "{t: 0.01}",
    "karcher": "{max_iter: 5}",
    "model_stock": "{filter_wise: true}",
    "passthrough": "{scale: {filter: o_proj, value: 0.5}}",
}
TWO = ("slerp", "nearswap", "arcee_fusion")


@pytest.mark.parametrize("method", MERGEKITS)
def test_every_method_is_planned_as_mergekit_does(method: str, folders: dict[str, Path]) -> None:
    count = 1 if method in (*TWO, "passthrough") else 2
    own = "{weight: [0.2, 0.9], density: 0.5, gamma: 0.02, epsilon: [0.1, 0.2]}"
    models = ", ".join(f"{{model: {name}, parameters: {own}}}" for name in "ase"[:count])
    base = "" if method in ("linear", "karcher", "passthrough") else "base_model: b\n"
    text = f"merge_method: {method}\n{base}models: [{models}]\n"
    text += f"parameters: {SETTINGS.get(method, '{normalize: true, lambda: 0.9, int8_mask: true}')}"
    made = assert_as_mergekit(renamed(text, folders))
    assert (made.layers, made.tied) == (3, True)


EVERY_SCOPE = """
merge_method: dare_ties
base_model: b
modules:
  default:
    models:
      - model: a
        parameters:
          weight:
            - {filter: mlp, value: [0.1, 0.5, 0.2]}
            - {filter: layers.1., value: 0.33}
            - {filter: lm_head, value: 0.77}
      - {model: b}
      - {model: s, parameters: {density: [0.9, 0.1]}}
    parameters:
      weight: [{filter: self_attn, value: [1, 0]}]
      lambda: {filter: down_proj, value: 0.5}
parameters: {weight: 1e-1, density: {value: 0.4}, lambda: [0.8, 1.2], rescale: false}
dtype: float32
"""

OVERLAPPING = """
merge_method: linear
slices:
  - sources:
      - {model: A, layer_range: [0, 2], parameters: {weight: [0.2, 0.4]}}
      - {model: S, layer_range: [1, 3], parameters: {weight: {filter: layers.2., value: 3}}}
    parameters: {weight: [{filter: mlp, value: [5, 6]}, {filter: embed, value: 7}]}
  - sources:
      - {model: S, layer_range: [0, 3]}
      - {model: E, layer_range: [0, 3], parameters: {weight: [{filter: layers.4., value: 8}]}}
    parameters: {normalize: false}
  - sources: [{model: A, layer_range: [2, 3]}]
parameters: {weight: [0.3, 0.6]}
"""

OWN_BASE = """
merge_method: ties
base_model: B
slices:
  - sources:
      - {model: A, layer_range: [0, 1], parameters: {weight: 0.1}}
      - {model: B, layer_range: [0, 1], parameters: {weight: 0.2}}
  - sources:
      - {model: B, layer_range: [1, 3], parameters: {weight: 0.3}}
      - {model: S, layer_range: [0, 2], parameters: {weight: [0.4, 0.5]}}
      - {model: A, layer_range: [1, 3], parameters: {weight: 0.6}}
    base_model: S
    residual_weight: 0.5
parameters: {density: [0.2, 0.8]}
"""

STACKED = """
merge_method: passthrough
slices:
  - {sources: [{model: A, layer_range: [0, 2]}]}
  - {sources: [{model: S, layer_range: [1, 3], parameters: {scale: {filter: o_proj, value: 0}}}]}
  - {sources: [{model: A, layer_range: [1, 3]}]}
"""

MIXED_HEADS = """
merge_method: linear
models:
  - {model: a, parameters: {weight: {filter: lm_head, value: 2}}}
  - {model: S, parameters: {weight: [{filter: embed_tokens, value: 3}]}}
parameters: {weight: 1, normalize: false}
"""


@pytest.mark.parametrize(
    ("text", "layers", "tied"),
    [
        (EVERY_SCOPE, 3, True),
        (OVERLAPPING, 6, False),
        (STACKED, 6, False),
        (STACKED.replace("S", "a").replace("A", "a"), 6, True),
        (MIXED_HEADS, 3, False),
    ],
    ids=["scopes", "overlapping", "stacked", "stacked tied", "mixed heads"],
)
def test_configurations_are_planned_as_mergekit_does(
    text: str, layers: int, tied: bool, folders: dict[str, Path]
) -> None:
    made = assert_as_mergekit(renamed(text, folders))
    assert (made.layers, made.tied) == (layers, tied)
    names = [tensor.name for tensor in made.tensors]
    assert names[0] == EMBEDDING
    assert names[-1] == (NORM if tied else HEAD)
    numbers = [int(name.split(".")[2]) for name in names if ".layers." in name]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(layers))


def test_a_slice_with_its_own_base(folders: dict[str, Path]) -> None:
    # mergekit leaves out of the final norm and the head whom the first slice has no place for.
    made = assert_as_mergekit(renamed(OWN_BASE, folders), beyond=[NORM, HEAD])
    for tensor in made.tensors[-2:]:
        assert [item.model for item in tensor.inputs] == [str(folders[name]) for name in "BSA"]
        assert (tensor.base, tensor.own[1]) == (1, {})
        assert [tensor.own[i]["density"] for i in (0, 2)] == [0.2, 0.2]


def test_a_mixed_head_reads_the_tied_models_embedding(folders: dict[str, Path]) -> None:
    made = assert_as_mergekit(renamed(MIXED_HEADS, folders))
    head = made.tensors[-1]
    assert [item.tensor for item in head.inputs] == [EMBEDDING, HEAD]
    # Filters read the name the tensor has in the output, not the embedding's.
    assert [own["weight"] for own in head.own] == [2, 1]


def test_tied_models_stacked_get_the_last_ones_head(folders: dict[str, Path]) -> None:
    """mergekit would tie the end, which is model s's, to model a's embeddings."""
    text = """
        merge_method: passthrough
        slices:
          - {sources: [{model: a, layer_range: [0, 3]}]}
          - {sources: [{model: s, layer_range: [1, 3]}]}
    """
    recipe = renamed(text, folders)
    made = assert_as_mergekit(recipe, beyond=[HEAD])
    head = made.tensors[-1]
    assert (head.name, made.tied, made.donor) == (HEAD, False, str(folders["a"]))
    assert head.inputs == (Input(str(folders["s"]), EMBEDDING),)


def test_other_names_of_an_architectures_tensors(tmp_path: Path) -> None:
    """A headless GPT-2's names lack the prefix that a GPT-2 with a head gives them."""
    config = GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=12, n_positions=8)
    whole, bare = tmp_path / "whole", tmp_path / "bare"
    model = GPT2LMHeadModel(config)
    model.save_pretrained(whole)
    model.transformer.save_pretrained(bare)
    text = (bare / "config.json").read_text()
    (bare / "config.json").write_text(text.replace("GPT2Model", "GPT2LMHeadModel"))
    recipe = renamed(
        "merge_method: linear\nmodels: [{model: w}, {model: v}]\nparameters: {weight: [1, 2]}",
        {"v": whole, "w": bare},
    )
    made = assert_as_mergekit(recipe)
    assert (made.layers, made.tied) == (2, True)
    embedding = next(t for t in made.tensors if t.name == "transformer.wte.weight")
    assert [item.tensor for item in embedding.inputs] == ["wte.weight", "transformer.wte.weight"]


def test_masks_are_keyed_by_the_place_among_the_sources() -> None:
    made = plan(OWN_BASE, A=llama(), B=llama(), S=llama())
    by_name = {tensor.name: tensor for tensor in made.tensors}
    assert by_name["model.layers.0.mlp.up_proj.weight"].positions == (0, -1)
    # The recipe's base is one more source where a slice has a base of its own.
    second = by_name["model.layers.2.mlp.up_proj.weight"]
    assert (second.positions, second.base) == ((2, -1, 0), 1)
    assert second.own[1] == {}
    assert second.inputs[1] == Input("S", "model.layers.1.mlp.up_proj.weight")


def test_an_architecture_mergekit_does_not_know() -> None:
    tensors = {
        "backbone.blocks.0.mix.weight": TensorInfo((4, 4), "BF16"),
        "backbone.blocks.1.mix.weight": TensorInfo((4, 4), "BF16"),
        "backbone.norm.weight": TensorInfo((4,), "BF16"),
        "backbone.word_embeddings.weight": TensorInfo((9, 4), "BF16"),
        "backbone.word_embeddings_norm.weight": TensorInfo((4,), "BF16"),
        "embed_out.bias": TensorInfo((9,), "BF16"),
        "embed_out.weight": TensorInfo((9, 4), "BF16"),
    }
    config = {"architectures": ["NewForCausalLM"], "model_type": "new"}
    tied = {name: info for name, info in tensors.items() if name != "embed_out.weight"}
    models = {"a": ModelInfo(config, tensors), "b": ModelInfo(config, tied)}
    text = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: [1, 2]}"
    made = plan(text, **models)
    assert [tensor.name for tensor in made.tensors] == [
        "backbone.word_embeddings.weight",
        "backbone.word_embeddings_norm.weight",
        "backbone.blocks.0.mix.weight",
        "backbone.blocks.1.mix.weight",
        "backbone.norm.weight",
        "embed_out.bias",
        "embed_out.weight",
    ]
    assert made.tensors[-1].inputs[1].tensor == "backbone.word_embeddings.weight"
    assert made.tensors[3].own[0]["weight"] == 2
    axes = {name: vocabulary_axis(name, config) for name in tensors}
    assert {name for name, axis in axes.items() if axis == 0} == {
        "backbone.word_embeddings.weight",
        "embed_out.bias",
        "embed_out.weight",
    }


@pytest.mark.parametrize(
    ("architecture", "vocabulary", "others"),
    [
        (
            "LlamaForCausalLM",
            [EMBEDDING, HEAD, "lm_head.bias"],
            [NORM, "model.layers.0.wte.weight"],
        ),
        ("GPT2LMHeadModel", ["wte.weight", "transformer.wte.weight"], ["wpe.weight"]),
        ("NewForCausalLM", ["model.wte.weight"], ["model.wpe.weight", "embed_positions.weight"]),
    ],
)
def test_the_vocabulary_axis(architecture: str, vocabulary: list[str], others: list[str]) -> None:
    kind = {"LlamaForCausalLM": "llama", "GPT2LMHeadModel": "gpt2"}.get(architecture, "new")
    config = {"architectures": [architecture], "model_type": kind}
    config |= {"num_hidden_layers": 2, "n_layer": 2}
    assert {vocabulary_axis(name, config) for name in vocabulary} == {0}
    assert {vocabulary_axis(name, config) for name in others} == {None}


def test_tensors_mergekits_table_does_not_list_are_kept() -> None:
    """mergekit's table of Llama knows no biases, and would leave them out of the output."""
    bias = {"model__layers__1__self_attn__q_proj__bias": TensorInfo((4,), "F32")}
    made = plan(
        "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}",
        a=changed(llama(), **bias),
        b=changed(llama(), **bias),
    )
    assert "model.layers.1.self_attn.q_proj.bias" in [tensor.name for tensor in made.tensors]


def test_what_is_no_weight_is_left_out_and_integers_are_passed_through() -> None:
    extra = {
        "model__layers__0__attention__bias": TensorInfo((1, 1, 8, 8), "BOOL"),
        "model__layers__0__self_attn__rotary_emb__inv_freq": TensorInfo((2,), "F32"),
        "model__layers__0__table": TensorInfo((3,), "I64"),
    }
    made = plan(
        "merge_method: ties\nbase_model: b\nmodels: [{model: a}]\nparameters: {weight: 1}",
        a=changed(llama(), **extra),
        b=changed(llama(), **extra),
    )
    unusual = [tensor for tensor in made.tensors if tensor.method != "ties"]
    assert [tensor.name for tensor in unusual] == ["model.layers.0.table"]
    assert (unusual[0].method, len(unusual[0].inputs), unusual[0].base) == ("passthrough", 2, 1)


@pytest.mark.parametrize(
    ("method", "lacking", "made"),
    [
        ("slerp", "a", "passthrough"),
        ("slerp", "b", "passthrough"),
        ("nearswap", "a", "passthrough"),
        ("nearswap", "b", "which b lacks"),
        ("linear", "a", "linear"),
        ("ties", "b", "which b lacks"),
        ("ties", "a", "passthrough"),  # to the base nothing is added
        ("model_stock", "b", None),
        ("model_stock", "ac", "passthrough"),
        ("model_stock", "c", None),
    ],
)
def test_an_optional_tensor_that_some_lack(method: str, lacking: str, made: str | None) -> None:
    """As mergekit's task does: pass a lone one through, go without, skip or refuse."""
    config = {"architectures": ["GraniteForCausalLM"], "model_type": "granite"}
    bias = "model.layers.1.self_attn.q_proj.bias"
    granite = ModelInfo({**llama().config, **config}, llama().tensors)
    whole = changed(granite, **{bias.replace(".", "__"): TensorInfo((4,), "F32")})
    names = "abc" if method == "model_stock" else "ab"
    models = {name: granite if name in lacking else whole for name in names}
    text = f"merge_method: {method}\nmodels: [{', '.join(f'{{model: {n}}}' for n in names)}]\n"
    text += "parameters: {weight: 1, t: 0.5}\n" + ("base_model: b" if method != "linear" else "")
    if made is not None and " " in made:
        with pytest.raises(MorphingError, match=made):
            plan(text, **models)
        return
    found = {tensor.name: tensor for tensor in plan(text, **models).tensors}
    if made is None:
        assert bias not in found
        return
    tensor = found[bias]
    kept = [name for name in names if name not in lacking]
    assert tensor.method == made
    assert [item.model for item in tensor.inputs] == kept
    assert tensor.base == (kept.index("b") if "b" in kept and method != "linear" else None)
    assert len(tensor.own) == len(tensor.positions) == len(kept)


def test_numbers_elsewhere_in_a_known_architecture_are_no_layers() -> None:
    more = changed(llama(), mtp__layers__7__weight=TensorInfo((1,), "F32"))
    made = plan(SLICED, a=more, b=more)
    assert made.layers == 4
    assert [t.name for t in made.tensors if "7" in t.name] == ["mtp.layers.7.weight"]


def test_the_donor() -> None:
    models = {name: llama() for name in "abc"}
    slices = "slices: [{sources: [{model: c, layer_range: [0, 1]}]}]"
    assert plan(f"merge_method: passthrough\n{slices}", **models).donor == "c"
    assert plan(f"merge_method: passthrough\nbase_model: b\n{slices}", **models).donor == "b"
    text = "merge_method: karcher\nmodels: [{model: b}, {model: a}]"
    assert plan(text, **models).donor == "b"


LINEAR = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
SLICED = """
merge_method: passthrough
slices: [{sources: [{model: a, layer_range: [0, 2]}]}, {sources: [{model: b, layer_range: [1, 3]}]}]
"""
PAIR = """
merge_method: linear
parameters: {weight: 1}
slices: [{sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 1]}]}]
"""
UP = "model__layers__1__mlp__up_proj__weight"
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}


@pytest.mark.parametrize(
    ("text", "b", "complaint"),
    [
        (LINEAR.replace("model: b", "model: d"), llama(), "merges d, which .* its models are a, b"),
        (SLICED.replace("3]", "4]"), llama(), r"Slice 2 .* \[1, 4\] of b, which has 3 layers"),
        (SLICED.replace("[1", "[-1"), llama(), r"slices.1.*\[-1, 3\], which holds no layers"),
        (SLICED.replace("[1, 3]", "[3, 1]"), llama(), r"slices.1.*\[3, 1\], which holds no layers"),
        (PAIR, llama(), "Slice 1 takes 2, 1 layers"),
        (LINEAR, llama(layers=4), "a has 3 layers and b has 4.*slices"),
        (LINEAR, changed(llama(), **{UP: None}), "b lacks model.layers.1.mlp.up_proj.weight"),
        (LINEAR, changed(llama(), model__norm__weight=None), "b lacks model.norm.weight, which a"),
        (LINEAR, changed(llama(), model__extra=TensorInfo((1,), "F32")), "a lacks model.extra"),
        (
            LINEAR,
            changed(llama(), **{UP: TensorInfo((4, 6), "F32")}),
            r"model.layers.1.mlp.up_proj.weight is 4 x 4 in a and 4 x 6 in b: choose",
        ),
        (LINEAR, llama(vocabulary=12), "10 x 4 in a and 12 x 4 in b.*tokenizer_source: union"),
        (SLICED, llama(vocabulary=12), "10 x 4 in a and 12 x 4 in b.*tokenizer_source: union"),
        (LINEAR + "tokenizer_source: a", llama(width=6), "10 x 4 in a and 10 x 6 in b: choose"),
        (SLICED, llama(width=6), "10 x 4 in a and 10 x 6 in b: choose models of one size"),
        (LINEAR.replace("1}", "[1, -1]}"), llama(), "sum to zero.*normalize: false"),
        (LINEAR.replace("weight: 1", ""), llama(), "Missing required parameter weight for a"),
        (LINEAR.replace("weight: 1", "weight: heavy"), llama(), "is the text 'heavy'"),
        (LINEAR, ModelInfo({**llama().config, **MISTRAL}, llama().tensors), "b a MistralForCausal"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    text: str, b: ModelInfo, complaint: str
) -> None:
    with pytest.raises(MorphingError, match=complaint) as refusal:
        plan(text, a=llama(), b=b)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).endswith((".", ")"))


def test_vocabularies_may_differ_where_a_tokenizer_aligns_them() -> None:
    models = {"a": llama(), "b": llama(vocabulary=12)}
    for text in (LINEAR + "tokenizer_source: union", LINEAR + "tokenizer: {source: b}"):
        assert len(plan(text, **models).tensors) == len(llama().tensors)
    # And where only layers are taken from the model that differs.
    middle = SLICED.replace("}]}]", "}]}, {sources: [{model: a, layer_range: [2, 3]}]}]")
    assert plan(middle, **models).layers == 5


def test_an_encoder_and_a_decoder_are_merged_over_their_own_depths() -> None:
    tensors = {
        f"{side}.block.{layer}.weight": TensorInfo((2,), "F32")
        for side, layers in (("encoder", 3), ("decoder", 2))
        for layer in range(layers)
    }
    models = dict.fromkeys("ab", ModelInfo({"architectures": ["NewModel"]}, tensors))
    made = plan(LINEAR.replace("1}", "[0.5, 1.5]}"), **models)
    weights = {tensor.name: tensor.own[0]["weight"] for tensor in made.tensors}
    assert weights["encoder.block.1.weight"] == 1
    assert weights["decoder.block.1.weight"] == 1.5
    with pytest.raises(MorphingError, match=r"several stacks of layers \(encoder.block, dec"):
        plan(SLICED, **models)


def test_planning_is_quick() -> None:
    """The search plans at every trial."""
    big = llama(layers=100)
    entries = [{"filter": f"layers.{i}.", "value": 0.5} for i in range(100)]
    own = {"weight": [*entries, {"value": 1}], "density": [0.1, 0.9]}
    recipe = Recipe(
        {
            "merge_method": "dare_ties",
            "base_model": "base",
            "models": [{"model": name, "parameters": own} for name in "abc"],
        }
    )
    models = {name: big for name in ("base", *"abc")}
    make_plan(recipe, models)
    begun = time.process_time()
    make_plan(recipe, models)
    assert time.process_time() - begun < 0.3
