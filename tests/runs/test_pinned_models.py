"""What was scored is what is exported: models in folders are pinned by what is in their files."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from morphing import zoo
from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.publishing.card import model_card
from morphing.publishing.publish import card_facts, write_adapter_export, write_export
from morphing.runs.loop import Loop
from morphing.runs.prepare import create_run, prepare
from morphing.runs.run import Run
from morphing.runs.spec import RunSpec, load_spec, parse_spec
from morphing.runs.stage_model import stage_folder, stage_model
from morphing.runs.workbench import Workbench
from morphing.sources.content import ModelChanged, digest


def spec(folder: Path, **changes: object) -> RunSpec:
    """A short search over copies of the zoo in ``folder``: a base, a checkpoint, an adapter."""
    data = {
        "base": str(folder / "base"),
        "sources": [str(folder / "math"), str(folder / "adapter")],
        "benchmarks": [{"benchmark": "zoo-english-arithmetic", "samples": 4, "holdout": 4}],
        "method": "task_arithmetic",
        "search": {"sampler": "random", "evaluations": 2, "seed": 3},
        "device": "cpu",
    }
    return parse_spec(data | changes)


def save_models(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    shutil.copytree(zoo.model_folder("base"), folder / "base")
    shutil.copytree(zoo.model_folder("english-math"), folder / "math")
    for name in ("base", "math"):
        (folder / name / "README.md").unlink()  # which names another base
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapted.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, and a run of them that is over."""
    folder = tmp_path_factory.mktemp("pinned")
    save_models(folder)
    Loop(create_run(folder / "run", spec(folder))).search()
    return folder


@pytest.fixture
def models(searched: Path) -> Path:
    """The same folder; whatever a test does to the models is undone."""
    kept = searched.with_name(f"{searched.name}-kept")
    if not kept.exists():
        shutil.copytree(searched, kept)
    for name in ("base", "math", "adapter"):
        if (searched / name).is_symlink():
            (searched / name).unlink()
        shutil.rmtree(searched / name, ignore_errors=True)
        shutil.copytree(kept / name, searched / name)
    return searched


def retrain(file: Path) -> None:
    tensors = load_file(file)
    name = max(tensors, key=lambda key: tensors[key].numel())
    tensors[name] += 0.01
    save_file(tensors, file, {"format": "pt"})


def edit(file: Path) -> None:
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "note": "changed"}))


def append(file: Path) -> None:
    file.write_text(file.read_text() + " ")


CHANGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "weights": ("math/model.safetensors", retrain),
    "base": ("base/model.safetensors", retrain),
    "adapter": ("adapter/adapter_model.safetensors", retrain),
    "adapter's configuration": ("adapter/adapter_config.json", edit),
    "configuration": ("math/config.json", edit),
    "end tokens": ("base/generation_config.json", edit),
    "tokenizer": ("base/tokenizer.json", edit),
    "tokenizer's configuration": ("base/tokenizer_config.json", edit),
    "chat template": ("base/chat_template.jinja", append),
}


def test_a_run_keeps_what_its_models_held(models: Path) -> None:
    run = Run(models / "run")
    assert run.spec.digests == {
        name: digest(Path(name)) for name in (run.spec.base, *run.spec.sources)
    }
    # Recipes name folders as before: mergekit reads them.
    recipe = run.complete()[0].recipe
    assert set(recipe.references) == {run.spec.base, *run.spec.sources}
    Recipe.from_yaml(recipe.to_yaml()).check()
    assert create_run(models / "zoo", parse_spec(zoo_data())).spec.digests == {
        f"zoo:{name}": digest(zoo.model_folder(name)) for name in ("base", "word-games")
    }
    shutil.rmtree(models / "zoo")


def zoo_data() -> dict[str, object]:
    return spec(Path("/")).model_dump() | {"base": "zoo:base", "sources": ["zoo:word-games"]}


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_changed_after_its_search_is_refused_everywhere(
    change: str, models: Path
) -> None:
    run, out = Run(models / "run"), models / "out"
    file, make = CHANGES[change]
    make(models / file)
    named = str((models / file).parent)
    with pytest.raises(ModelChanged, match=f"files of {named} hold something else.*begin again"):
        Workbench(run)  # what holdout, chat, export and push begin with
    with pytest.raises(ModelChanged):
        write_export(run, 0, out)
    more = Run(models / "run")
    before = [trial.number for trial in more.trials()]
    more.set_budget(evaluations=3)
    with pytest.raises(ModelChanged):
        Loop(more).search()
    assert more.status().state == "failed" and named in more.status().message
    assert [trial.number for trial in more.trials()] == before
    more.set_budget(evaluations=2)
    assert not out.exists()


@pytest.mark.parametrize("change", ["weights", "adapter", "chat template", "tokenizer"])
def test_a_change_between_load_and_export_writes_nothing(change: str, models: Path) -> None:
    run = Run(models / "run")
    bench = Workbench(run)
    file, make = CHANGES[change]

    def meanwhile(step: str, done: int, total: int) -> None:
        if step.startswith("writing") and make is not append:
            make(models / file)

    if make is append:
        make(models / file)
    with pytest.raises(MorphingError, match="hold something else"):
        write_export(run, 0, models / "out", workbench=bench, progress=meanwhile)
    with pytest.raises(ModelChanged):
        write_adapter_export(run, 0, models / "out", 2, workbench=bench)
    with pytest.raises(ModelChanged):
        bench.holdout_results(1)
    assert not (models / "out").exists() and run.holdout(1) is None


def test_the_same_content_goes_on(models: Path) -> None:
    run, bench = Run(models / "run"), None
    for path in models.glob("*/*.safetensors"):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    (models / "math" / "README.md").write_text("# Trained")
    (models / "math" / "trainer_state.json").write_text("{}")
    bench = Workbench(run)
    (models / "math" / "model.safetensors").touch()
    write_export(run, 0, models / "first", workbench=bench)
    record = json.loads((models / "first" / "morphing.json").read_text())
    assert {each["model"]: each["digest"] for each in record["models"]} == {
        Path(name).name: digest for name, digest in run.spec.digests.items()
    }
    # A folder that moved may be a link to where it is now.
    (models / "math").rename(models / "elsewhere")
    with pytest.raises(ModelChanged, match=f"{models / 'math'}, which the run run merges"):
        Workbench(run)
    (models / "math").symlink_to(models / "elsewhere")
    write_export(run, 0, models / "second")
    first, second = (load_file(models / n / "model.safetensors") for n in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("first", "second", "elsewhere"):
        shutil.rmtree(models / name)


def test_a_card_says_what_local_models_held(models: Path) -> None:
    run = Run(models / "run")
    card = model_card(card_facts(run, 0, "Merged"), "merged")
    for name, held in run.spec.digests.items():
        assert held in card
        assert str(models) not in card and Path(name).name in card


@pytest.mark.parametrize("placement", ["disk", "device"])
def test_a_change_while_a_search_runs_ends_it_and_loses_nothing(
    placement: str, models: Path, tmp_path: Path
) -> None:
    search = {"sampler": "random", "evaluations": 4, "seed": 3}
    given = spec(models, placement=placement, search=search)
    undisturbed = create_run(tmp_path / "undisturbed", given)
    Loop(undisturbed).search()
    run = create_run(tmp_path / "run", given)
    weights = models / "math" / "model.safetensors"
    kept = weights.read_bytes()

    def retrained() -> None:
        if len(run.trials()) == 2 and weights.read_bytes() == kept:
            retrain(weights)

    with pytest.raises(ModelChanged, match=f"files of {models / 'math'}"):
        Loop(run, changed=retrained).search()
    assert [trial.state for trial in run.trials()] == ["complete", "complete"]
    assert run.status().state == "failed"
    weights.write_bytes(kept)
    Loop(Run(run.folder)).search()
    told = [(t.params, t.values, t.state) for t in Run(run.folder).trials()]
    assert told == [(t.params, t.values, t.state) for t in undisturbed.trials()]


def test_a_pinned_spec_is_kept_to(models: Path) -> None:
    pinned = load_spec(models / "run" / "spec.yaml")
    assert prepare(pinned).digests == pinned.digests
    retrain(models / "math" / "model.safetensors")
    with pytest.raises(MorphingError, match=f"{models / 'math'} holds something else than"):
        prepare(pinned)
    again = prepare(pinned.model_copy(update={"digests": {}}))
    assert again.digests[str(models / "math")] != pinned.digests[str(models / "math")]


def test_a_run_of_an_earlier_version_takes_its_models_as_they_are(
    models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "run", tmp_path / "old")
    text = (tmp_path / "old" / "spec.yaml").read_text().partition("digests:")[0]
    (tmp_path / "old" / "spec.yaml").write_text(text)
    run = Run(tmp_path / "old")
    assert not run.spec.digests
    bench = Workbench(run)
    bench.check_models()
    retrain(models / "math" / "model.safetensors")
    with pytest.raises(ModelChanged):
        bench.check_models()


def test_the_model_between_two_stages_is_pinned(models: Path, tmp_path: Path) -> None:
    search = {
        "sampler": "evolve",
        "evaluations": 2,
        "space": {"strategy": "ps+dfs", "repeats": 1},
    }
    run = create_run(tmp_path / "run", spec(models, search=search))
    Loop(run).search()
    known = stage_model(run)
    assert known is not None and known.digest == digest(stage_folder(run))
    retrain(stage_folder(run) / "model.safetensors")
    with pytest.raises(ModelChanged, match="files of stage:ps hold something else"):
        Workbench(run)


def test_the_command_says_it_in_one_sentence(
    models: Path, morphing: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    retrain(models / "math" / "model.safetensors")
    done = morphing("export", models / "run", 0, models / "out")
    assert done.returncode == 1 and not (models / "out").exists()
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("Error:"))
    assert said.startswith(f"Error: The files of {models / 'math'} hold something else")
    assert "Traceback" not in done.stderr
