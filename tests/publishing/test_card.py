"""A card says what the run recorded, to people and to the Hub, and nothing that is not so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from morphing import zoo
from morphing.merging.recipe import Recipe
from morphing.publishing.card import eval_results, model_card, write_card
from morphing.publishing.facts import CardFacts, ObjectiveLine, Standing
from morphing.publishing.names import code, escape, public
from tests.hub.server import RunningHub

ADDRESS = "alice/math-merge"


def test_metadata_names_what_is_on_the_hub(facts: CardFacts, hub: RunningHub) -> None:
    card = ModelCard(model_card(facts, ADDRESS))
    card.validate()
    assert card.data.base_model == ["acme/base", "bob/math"]
    assert card.data.base_model_relation == "merge"
    assert {"merge", "mergekit", "morphing"} <= set(card.data.tags)
    assert card.data.license == "apache-2.0"
    assert card.data.datasets == ["openai/gsm8k"]


def test_model_index_has_the_holdout_score_only(facts: CardFacts) -> None:
    (result,) = ModelCard(model_card(facts, ADDRESS)).data.eval_results
    assert result.dataset_type == "openai/gsm8k"
    assert result.metric_value == 0.4321
    assert result.dataset_split == "test" and "n=500" in result.dataset_name
    assert result.dataset_revision == "c" * 40


def test_eval_results_are_what_the_hub_reads(facts: CardFacts) -> None:
    files = eval_results(facts)
    assert list(files) == [".eval_results/gsm8k.yaml"]
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[".eval_results/gsm8k.yaml"]))
    assert (entry.dataset_id, entry.value) == ("openai/gsm8k", 0.4321)
    assert "n=500" in entry.notes and "holdout" in entry.notes


def test_both_splits_are_told_apart(facts: CardFacts) -> None:
    text = model_card(facts, ADDRESS)
    holdout, search = text.split("**Search split**")
    assert "43.2 ± 1.2" in holdout and "(n = 500)" in holdout and "split `test`" in holdout
    assert "62.5 ± 1.2" in search and "(n = 100)" in search and "split `train`" in search
    assert "optimistic" in search
    assert "| `zoo:japanese-numerals` (embedded in Morphing) | 10.0 ± 1.2 | – |" in holdout


def test_how_scores_were_made_is_said(facts: CardFacts) -> None:
    assert "Thinking" not in model_card(facts, ADDRESS)
    first, *rest = facts.holdout
    cut = dataclasses.replace(first, unfinished=7, thinking="on")
    told = dataclasses.replace(facts, holdout=(cut, *rest), remarks=("Scored <b>here</b>.",))
    text = model_card(told, ADDRESS)
    assert (
        "**Thinking**: GSM8K (holdout): asked with thinking on; 7 of 500 answers ended inside a"
        " thought and count as wrong." in text
    )
    assert "<b>" not in text and "Scored" in text


def test_a_search_on_a_public_test_set_is_owned_up_to(facts: CardFacts) -> None:
    assert "Contamination" not in model_card(facts, ADDRESS)
    first, *rest = facts.search
    shown = dataclasses.replace(first, split="test", contaminated=True)
    held = dataclasses.replace(facts.holdout[0], contaminated=True)
    told = dataclasses.replace(facts, search=(shown, *rest), holdout=(held, *facts.holdout[1:]))
    text = model_card(told, ADDRESS)
    assert "**Contamination**: the search had no split of its own for GSM8K (`test`)" in text
    assert "chose by the other half" in eval_results(told)[".eval_results/gsm8k.yaml"]


def test_scores_that_are_no_shares_are_not_in_percent(facts: CardFacts) -> None:
    bits = dataclasses.replace(facts.holdout[0], metric="bits_per_byte", value=0.9876, share=False)
    text = model_card(dataclasses.replace(facts, holdout=(bits,)), ADDRESS)
    assert "| 0.9876 ± 0.012 |" in text


def test_holdout_scores_have_their_bootstrap_intervals(facts: CardFacts) -> None:
    holdout = tuple(dataclasses.replace(line, interval=(0.401, 0.462)) for line in facts.holdout)
    standing = Standing((0.4, 0.35, 0.45), facts.sources[0], (0.05, -0.01, 0.11))
    told = dataclasses.replace(facts, holdout=holdout, standing=standing)
    text = model_card(told, ADDRESS)
    own, search = text.split("**Search split**")
    assert "| 43.2 [40.1, 46.2] |" in own and "±" in search
    assert "Mean over the search's benchmarks: 40.0 [35.0, 45.0]." in own
    assert "+5.0 [-1.0, +11.0]" in own and "bob/math" in own
    (result,) = ModelCard(text).data.eval_results
    assert "95 % interval 0.4010 to 0.4620" in result.metric_name
    assert "95 % interval 0.4010 to 0.4620" in eval_results(told)[".eval_results/gsm8k.yaml"]


def test_the_search_is_told_with_what_it_spent(facts: CardFacts) -> None:
    spent = {**facts.run, "space": "ps+dfs", "failed": 1, "raced": 4}
    objectives = (
        ObjectiveLine("gsm8k", "maximize", "62.5", "10.0", "60.0"),
        ObjectiveLine("layers", "minimize", "8", "8.8", "8"),
    )
    told = dataclasses.replace(
        facts, run=spent, objectives=objectives, constraints=("layers at most 8",)
    )
    text = model_card(told, ADDRESS)
    assert "30 evaluations (1 failed, 4 given up on a part of the samples)" in text
    assert "over merge parameters, then layer paths (`ps+dfs`)" in text
    assert "| gsm8k | higher | 62.5 | 10.0 | 60.0 |" in text
    assert "| layers | lower | 8 | 8.8 | 8 |" in text
    assert "hypervolume is measured from `reference`" in text
    assert "Constraints on members of the front: layers at most 8." in text
    plain = model_card(facts, ADDRESS)
    assert "Trial 12 of 30 evaluations with the sampler `mmmo`" in plain
    assert "Constraints" not in plain and "hypervolume" not in plain


def test_a_model_made_by_the_search_itself_comes_with_its_recipe(facts: CardFacts) -> None:
    path = Recipe(
        {
            "merge_method": "passthrough",
            "slices": [{"sources": [{"model": "stage:ps", "layer_range": [0, 1]}]}],
        }
    )
    text = model_card(dataclasses.replace(facts, recipe=path, stage=facts.recipe), ADDRESS)
    own, stage = text.split("```yaml\n")[1:]
    assert "model: stage:ps" in own and "dare_ties" not in own
    assert "merge_method: dare_ties" in stage and "seed 7" in stage


def test_no_holdout_score_is_said_and_not_made_up(facts: CardFacts) -> None:
    bare = dataclasses.replace(facts, holdout=(), reference_holdout={})
    text = model_card(bare, ADDRESS)
    assert "has not been scored on a holdout split" in text
    assert ModelCard(text).data.eval_results is None
    assert eval_results(bare) == {}


def test_an_adapter_does_not_claim_the_scores_of_the_merge(
    facts: CardFacts, hub: RunningHub, tmp_path: Path
) -> None:
    adapter = dataclasses.replace(facts, adapter_error=0.123)
    card = ModelCard(model_card(adapter, ADDRESS))
    card.validate()
    assert card.data.base_model == ["acme/base"]
    assert card.data.base_model_relation == "adapter"
    assert card.data.library_name == "peft"
    assert card.data.eval_results is None
    assert "misses 12 % of the merge's change" in card.text
    assert "## Scores of the whole merge" in card.text
    assert "AutoPeftModelForCausalLM" in card.text and "mergekit_config.yml" not in card.text
    write_card(tmp_path, adapter)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_paths_of_this_machine_stay_here(facts: CardFacts) -> None:
    text = model_card(facts, ADDRESS)
    assert "/home/me" not in text
    assert "`mine` (local)" in text
    assert public("acme/base@main+/home/me/adapter") == "acme/base@main+adapter"
    assert public(f"/home/me/base+bob/lora@{'b' * 40}") == f"base+bob/lora@{'b' * 40}"
    assert public("/home/me+you/model") == "model"
    assert public(str(zoo.model_folder("base"))) == "zoo:base"


def test_the_recipe_can_be_read_back(facts: CardFacts) -> None:
    text = model_card(facts, ADDRESS)
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("\n```")[0])
    assert recipe["merge_method"] == "dare_ties"
    assert [entry["model"] for entry in recipe["models"]][1:] == ["zoo:japanese-numerals", "mine"]
    assert "seed 7" in text


@pytest.mark.parametrize(("method", "name"), [("dare_ties", "DARE"), ("della", "DELLA")])
def test_masks_are_said_to_be_our_own(facts: CardFacts, method: str, name: str) -> None:
    recipe = Recipe({**facts.recipe.config, "merge_method": method}, mask_seed=7)
    text = model_card(dataclasses.replace(facts, recipe=recipe), ADDRESS)
    assert f" {name}'s masks are Morphing's, from the seed 7;" in text


def test_licences_that_differ_become_other(facts: CardFacts) -> None:
    mixed = dataclasses.replace(facts, licenses={**facts.licenses, facts.base: None})
    text = model_card(mixed, ADDRESS)
    assert ModelCard(text).data.license == "other"
    assert "none declared" in text and "do not all declare the same licence" in text
    unknown = dataclasses.replace(facts, licenses={})
    assert ModelCard(model_card(unknown, ADDRESS)).data.license is None


def test_strangers_names_cannot_write_the_card(renamed: CardFacts, hub: RunningHub) -> None:
    text = model_card(renamed, ADDRESS)
    card = ModelCard(text)
    card.validate()
    headings = [row for row in card.content.splitlines() if row.startswith("#")]
    assert sum(row.startswith("# ") for row in card.text.splitlines()) == 1, headings
    html = _render(card.text)
    assert "<script" not in html
    assert "evil" not in "".join(part.split('"')[0] for part in html.split('href="')[1:])
    assert all("/" not in path.removeprefix(".eval_results/") for path in eval_results(renamed))


def _render(text: str) -> str:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").render(text)


def test_markup_helpers() -> None:
    assert escape("a_b *c*\nd") == r"a\_b \*c\* d"
    assert code("a`b|c") == r"``a`b\|c``"


def test_write_card_into_an_export(facts: CardFacts, tmp_path: Path) -> None:
    write_card(tmp_path, facts)
    assert f"from_pretrained('{tmp_path.name}')" in (tmp_path / "README.md").read_text()
    assert (tmp_path / ".eval_results" / "gsm8k.yaml").is_file()


def test_the_model_between_two_stages_is_explained(facts: CardFacts) -> None:
    slices = [{"sources": [{"model": "stage:ps", "layer_range": [0, 2]}]}]
    path = Recipe({"merge_method": "passthrough", "slices": slices})
    text = model_card(dataclasses.replace(facts, recipe=path, stage=facts.recipe), ADDRESS)
    second = text.split("by this recipe:")[1]
    assert "stage:ps" in text and "merge_method: dare_ties" in second
    assert "/home/me" not in text
    assert text.count("masks are Morphing's, from the seed 7") == 1
    exported = path.with_names(lambda _: "/runs/mine/stages/ps")
    assert exported.with_names(public) == path
