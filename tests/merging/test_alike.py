"""Models as people have them: saved in different ways, with things beside them, tied or not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from morphing.errors import MorphingError
from morphing.merging.merge import merge_recipe
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.merging.writing.checkpoint import export
from morphing.sources.checkpoint import load_model
from morphing.sources.compatibility import check
from morphing.sources.find import download, inspect, read_tokens
from tests.merging.comparing import read
from tests.merging.tiny import save_tokenizer

CPU = torch.device("cpu")
PROMPT = torch.arange(3, 15).view(1, -1)
Tensors = dict[str, Tensor]


def rewritten(
    folder: Path, to: Path, change: Callable[[Tensors], Tensors], **config: object
) -> Path:
    """A copy of a model with other tensors, and other entries of its configuration (None: less)."""
    shutil.copytree(folder, to)
    tensors = change(load_file(to / "model.safetensors"))
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, to / "model.safetensors", {"format": "pt"})
    file = to / "config.json"
    changed = {**json.loads(file.read_text()), **config}
    file.write_text(json.dumps({k: v for k, v in changed.items() if v is not None}))
    return to


def renamed(prefix: str = "", within: str = "", without: str = "") -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        return {
            prefix + name.removeprefix(without).replace(".layers.", f".layers.{within}"): tensor
            for name, tensor in tensors.items()
        }

    return change


def with_tensors(**extra: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, **{n.replace("__", "."): t for n, t in extra.items()}}


def merge(base: Path, *sources: Path, method: str = "task_arithmetic") -> Recipe:
    models = [{"model": str(s), "parameters": {"weight": 0.5, "density": 0.7}} for s in sources]
    config = {"merge_method": method, "base_model": str(base), "models": models}
    return Recipe({**config, "dtype": "float32"})


def assert_merged_as(wanted: Recipe, plain: Recipe, folder: Path) -> dict[str, Tensor]:
    """A merge of models as they are is that of the same models saved plainly: what a search loads,
    what it exports, and what is merged from disk."""
    folders = [Path(name) for name in (str(wanted.base), *wanted.sources)]
    base, *sources = [download(str(path)) for path in folders]
    merge_recipe(plain, folder / "plain", CPU, lambda step, done, total: None)
    merge_recipe(wanted, folder / "merged", CPU, lambda step, done, total: None)
    expected, merged = read(folder / "plain"), read(folder / "merged")
    assert merged.keys() == expected.keys()
    for name, tensor in merged.items():
        assert torch.equal(tensor, expected[name]), name
    check(*_inspections(folders), vocabulary=read_tokens)
    morpher = Morpher(base, sources, CPU, torch.float32)
    morpher.morph(wanted)
    export(morpher.engine, wanted, folder / "exported")
    assert_loads_as(morpher, folder / "exported")
    return merged


def assert_loads_as(morpher: Morpher, folder: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    mine, theirs = morpher.model.state_dict(), loaded.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items())
    with torch.inference_mode():
        ours, others = (m(PROMPT).logits for m in (morpher.model, loaded))
    torch.testing.assert_close(ours, others, rtol=0, atol=1e-6)


def _inspections(folders: list[Path]) -> tuple[object, list[object]]:
    base, *sources = (inspect(str(folder)) for folder in folders)
    return base, sources  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------
# Names


WRAPPED = {
    "compiled": renamed("_orig_mod."),
    "compiled inside": renamed(within="_orig_mod."),
    "in parallel": renamed("module."),
    "compiled in parallel": renamed("module._orig_mod."),
    "as an adapter's base": renamed("base_model.model."),
    "in a trainer": renamed("model."),
    "the inner model": renamed(without="model."),
}


@pytest.mark.parametrize(
    ("who", "wrapper"),
    [*(("source", wrapper) for wrapper in WRAPPED), ("base", "compiled"), ("base", "in a trainer")],
)
def test_wrapped_names_are_the_models_own(
    wrapper: str, who: str, saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    base, one, two = saved("qwen2")
    changed = rewritten(base if who == "base" else one, tmp_path / "changed", WRAPPED[wrapper])
    wanted = merge(changed, one, two) if who == "base" else merge(base, changed, two)
    assert_merged_as(wanted, merge(base, one, two), tmp_path)
    (remark,) = inspect(str(changed)).remarks
    assert "other names for its tensors" in remark and "\n" not in remark


def test_the_inner_model_of_other_architectures(
    saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    base, one, two = saved("gpt_neox")
    inner = rewritten(one, tmp_path / "inner", renamed(without="gpt_neox."))
    assert_merged_as(merge(base, inner, two), merge(base, one, two), tmp_path)


STRAYS = {
    "a value head": with_tensors(
        v_head__summary__weight=torch.ones(1, 32), v_head__summary__bias=torch.ones(1)
    ),
    "rotary tables": with_tensors(
        **{f"model__layers__{i}__self_attn__rotary_emb__inv_freq": torch.ones(4) for i in (0, 1)}
    ),
    "masks": with_tensors(
        model__layers__0__attn__masked_bias=torch.tensor(-1e4),
        model__layers__0__attn__bias=torch.ones(1, 1, 8, 8),
    ),
}


@pytest.mark.parametrize(
    ("who", "stray"), [*(("source", stray) for stray in STRAYS), ("base", "a value head")]
)
def test_what_lies_beside_a_model_is_left_out_and_told(
    stray: str, who: str, saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    base, one, two = saved("qwen2")
    changed = rewritten(base if who == "base" else one, tmp_path / "changed", STRAYS[stray])
    wanted = merge(changed, one, two) if who == "base" else merge(base, changed, two)
    assert_merged_as(wanted, merge(base, one, two), tmp_path)
    (remark,) = inspect(str(changed)).remarks
    assert "and 1 more like it, which is no part of the model" in remark


FOREIGN = {
    "medusa's heads": with_tensors(medusa_head__0__0__linear__weight=torch.ones(32, 32)),
    "a classifier": with_tensors(score__weight=torch.ones(2, 32)),
    "a critic": with_tensors(summary__weight=torch.ones(1, 32)),
    "an optimizer": with_tensors(optimizer__state__0__exp_avg=torch.ones(3)),
}


@pytest.mark.parametrize(
    ("who", "foreign"), [*(("source", name) for name in FOREIGN), ("base", "medusa's heads")]
)
def test_modules_that_the_model_has_not_are_left_out_and_told(
    foreign: str, who: str, saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    base, one, two = saved("qwen2")
    changed = rewritten(base if who == "base" else one, tmp_path / "changed", FOREIGN[foreign])
    wanted = merge(changed, one, two) if who == "base" else merge(base, changed, two)
    assert_merged_as(wanted, merge(base, one, two), tmp_path)
    (remark,) = inspect(str(changed)).remarks
    assert "which is no part of the model: it is left out" in remark


def test_a_classifier_that_is_one_keeps_its_head(
    saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    _, one, _ = saved("llama")
    kind = ["LlamaForSequenceClassification"]
    head = with_tensors(score__weight=torch.ones(2, 32))
    changed = rewritten(one, tmp_path / "classifier", head, architectures=kind)
    assert "score.weight" in inspect(str(changed)).tensors


def predicting(tensors: Tensors) -> Tensors:
    """With a layer that predicts a further token, as DeepSeek and GLM publish one."""
    last = {n.replace(".layers.1.", ".layers.2."): t for n, t in tensors.items() if ".1." in n}
    return {**tensors, **last, "model.layers.2.eh_proj.weight": torch.ones(32, 64)}


@pytest.mark.parametrize("who", ["all", "base", "source"])
def test_layers_that_predict_further_tokens_are_no_layers(
    who: str, saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    plain = saved("glm4_moe")
    changed = [
        rewritten(folder, tmp_path / folder.name, predicting, num_nextn_predict_layers=1)
        if who in ("all", name)
        else folder
        for folder, name in zip(plain, ("base", "source", "other"), strict=True)
    ]
    assert_merged_as(merge(*changed), merge(*plain), tmp_path)
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["num_hidden_layers"] == 2


@pytest.mark.parametrize("who", ["base", "source"])
def test_what_qwen_predicts_further_tokens_with_is_left_out(
    who: str, saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    base, one, two = saved("qwen3_next")
    further = with_tensors(
        mtp__fc__weight=torch.ones(32, 64), mtp__layers__0__mlp__gate__weight=torch.ones(4, 32)
    )
    changed = rewritten(base if who == "base" else one, tmp_path / "changed", further)
    wanted = merge(changed, one, two) if who == "base" else merge(base, changed, two)
    assert_merged_as(wanted, merge(base, one, two), tmp_path)


@pytest.mark.parametrize("who", ["base", "source"])
def test_an_adapter_beside_a_whole_model_is_left_out_and_told(
    who: str, saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    """transformers puts it on top of the model, so that another would be scored than exported."""
    base, one, two = saved("llama")
    changed = tmp_path / "changed"
    shutil.copytree(base if who == "base" else one, changed)
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(changed)
    wanted = merge(changed, one, two) if who == "base" else merge(base, changed, two)
    assert_merged_as(wanted, merge(base, one, two), tmp_path)
    plain = load_file(changed / "model.safetensors")
    loaded = load_model(download(str(changed)), torch.float32).state_dict()
    assert loaded.keys() == plain.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in plain.items())
    (remark,) = inspect(str(changed)).remarks
    assert "holds an adapter beside a whole model: the model is taken without it" in remark


def test_what_nobody_knows_is_named(saved: Callable[[str], list[Path]], tmp_path: Path) -> None:
    base, one, two = saved("qwen2")
    extra = {f"model__layers__0__novel__{i}": torch.ones(2) for i in range(5)}
    changed = rewritten(one, tmp_path / "changed", with_tensors(**extra))
    match = r"base .* lacks model\.layers\.0\.novel\.0, .* and 2 more, which .*changed has"
    with pytest.raises(MorphingError, match=match):
        check(inspect(str(base)), [inspect(str(changed)), inspect(str(two))])
    unmerged = {"model__layers__0__self_attn__q_proj__lora_A__weight": torch.ones(2, 32)}
    changed = rewritten(one, tmp_path / "unmerged", with_tensors(**unmerged))
    with pytest.raises(MorphingError, match="holds an adapter beside the weights it changes"):
        inspect(str(changed))
    changed = rewritten(one, tmp_path / "none", lambda tensors: {"a.weight": torch.ones(2)})
    with pytest.raises(MorphingError, match=r"no layers that can be told .* such as a\.weight"):
        check(inspect(str(base)), [inspect(str(changed))])


# ------------------------------------------------------------------------------------------------
# Layouts


@pytest.mark.parametrize(
    ("family", "who"),
    [
        ("mixtral", "base"),
        ("mixtral", "source"),
        ("mixtral", "both"),
        ("qwen3_moe", "source"),
        ("granitemoe", "base"),
        ("gpt_neox", "source"),
        ("qwen2_moe", "base"),
    ],
)
def test_layouts_of_transformers_4_and_5_are_merged_together(
    family: str, who: str, saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    base, one, two = saved(family)

    def stacked(folder: Path) -> Path:
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.save_pretrained(tmp_path / f"new {folder.name}", save_original_format=False)
        save_tokenizer(tmp_path / f"new {folder.name}")
        return tmp_path / f"new {folder.name}"

    wanted = merge(
        base if who == "source" else stacked(base), one if who == "base" else stacked(one), two
    )
    plain = merge(base, one, two)
    if who == "both":  # one of them in the older layout suffices to ask for it
        assert any(name not in read(base) for name in read(Path(str(wanted.base))))
    assert_merged_as(wanted, plain, tmp_path)


def test_models_that_are_all_stacked_stay_so(
    saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    folders = []
    for folder in saved("mixtral"):
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.save_pretrained(tmp_path / folder.name, save_original_format=False)
        save_tokenizer(tmp_path / folder.name)
        folders.append(tmp_path / folder.name)
    wanted = merge(*folders)
    merged = assert_merged_as(wanted, wanted, tmp_path / "out")
    assert "model.layers.0.mlp.experts.gate_up_proj" in merged


def test_layouts_that_cannot_be_brought_together_are_told(tmp_path: Path) -> None:
    folders = []
    for name, tensor in (("stacked", "mlp.experts.down_proj"), ("single", "mlp.experts.0.down")):
        folder = tmp_path / name
        folder.mkdir()
        save_file({f"model.layers.0.{tensor}": torch.ones(2, 2)}, folder / "model.safetensors")
        (folder / "config.json").write_text('{"architectures": ["MadeUpForCausalLM"]}')
        folders.append(folder)
    stacked, single = (inspect(str(folder)) for folder in folders)
    for base, source in ((stacked, single), (single, stacked)):
        match = "stacked stores .* transformers 5 .*single one by one, as transformers 4"
        with pytest.raises(MorphingError, match=match):
            check(base, [source])


# ------------------------------------------------------------------------------------------------
# Heads


def with_head(equal: bool) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        head = tensors["model.embed_tokens.weight"].clone()
        return {**tensors, "lm_head.weight": head if equal else head + 1}

    return change


@pytest.mark.parametrize(
    ("family", "who", "said"),
    [
        ("gemma2", "base", "by the class"),
        ("gemma3", "source", "by the class"),
        ("qwen2", "base", True),
        ("gemma2", "source", True),
        ("gemma2", "source", False),  # a base that says so gives merges a head of their own
    ],
)
def test_a_head_that_copies_the_embeddings_is_no_head(
    family: str, who: str, said: object, saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    base, one, two = saved(family)
    by_class = said == "by the class" and family != "qwen2"
    config = {"tie_word_embeddings": None if by_class else said is not False}
    changed = rewritten(
        base if who == "base" else one, tmp_path / "changed", with_head(True), **config
    )
    wanted = merge(changed, one, two) if who == "base" else merge(base, changed, two)
    merged = assert_merged_as(wanted, merge(base, one, two), tmp_path)
    assert "lm_head.weight" not in merged
    if said is not False:
        assert inspect(str(changed)).parameters == inspect(str(base)).parameters


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("who", ["base", "source"])
def test_one_model_with_a_head_of_its_own_unties_the_merge(
    said: bool, who: str, saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    """A head that differs is loaded as one, whatever the configuration says."""
    base, one, two = saved("qwen2")
    changed = rewritten(
        base if who == "base" else one,
        tmp_path / "changed",
        with_head(False),
        tie_word_embeddings=said,
    )
    wanted = merge(changed, one, two) if who == "base" else merge(base, changed, two)
    merged = assert_merged_as(wanted, wanted, tmp_path)
    heads = []
    for name in (str(wanted.base), *wanted.sources):
        tensors = read(name)
        heads.append(tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"]))
    expected = heads[0] + 0.5 * (heads[1] - heads[0]) + 0.5 * (heads[2] - heads[0])
    torch.testing.assert_close(merged["lm_head.weight"], expected)
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False


# ------------------------------------------------------------------------------------------------
# Rows of padding


def with_rows(count: int) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        torch.manual_seed(count)
        found = dict(tensors)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in found:
                own = found[name]
                more = torch.randn(max(0, count - len(own)), *own.shape[1:])
                found[name] = torch.cat([own, more])[:count]
        return found

    return change


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize(
    ("rows", "method"),
    [((48, 40), "task_arithmetic"), ((40, 48), "ties"), ((48, 44), "task_arithmetic")],
)
def test_rows_of_padding_need_no_tokenizer_source(
    family: str,
    rows: tuple[int, int],
    method: str,
    saved: Callable[[str], list[Path]],
    tmp_path: Path,
) -> None:
    """The tokens are the same: merges have the base's rows."""
    folders = saved(family)
    base, one = (
        rewritten(folder, tmp_path / folder.name, with_rows(count), vocab_size=count)
        for folder, count in zip(folders, rows, strict=False)
    )
    wanted = merge(base, one, method=method)
    merged = assert_merged_as(wanted, wanted, tmp_path)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name not in merged:
            continue
        own, theirs = read(base)[name], read(one)[name]
        assert len(merged[name]) == rows[0]
        if method == "task_arithmetic":
            both = min(rows)
            torch.testing.assert_close(merged[name][:both], (own[:both] + theirs[:both]) / 2)
            assert torch.equal(merged[name][both:], own[both:])
    (remark,) = check(inspect(str(base)), [inspect(str(one))], vocabulary=read_tokens)
    assert f"{rows[1]} rows of tokens" in remark and "the rest is padding" in remark


@pytest.mark.parametrize("change", ["added", "moved", "no tokenizer"])
def test_rows_of_real_tokens_are_still_asked_about(
    change: str, saved: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    base, one, _ = saved("qwen2")
    larger = rewritten(one, tmp_path / "larger", with_rows(44), vocab_size=44)
    if change == "added":
        save_tokenizer(larger, 44)
    elif change == "moved":
        file = larger / "tokenizer.json"
        file.write_text(file.read_text().replace('"w5"', '"swap"').replace('"w6"', '"w5"'))
    else:
        (larger / "tokenizer.json").unlink()
    with pytest.raises(MorphingError, match="tokenizer_source: base or union"):
        check(inspect(str(base)), [inspect(str(larger))], vocabulary=read_tokens)
    with pytest.raises(MorphingError, match="tokenizer_source: union"):
        merge_recipe(merge(base, larger), tmp_path / "out", CPU, lambda step, done, total: None)
