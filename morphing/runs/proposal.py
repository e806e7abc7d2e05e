"""What a taken trial tries: a seed, what a dead worker had begun, or what the sampler proposes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from morphing.merging.recipe import Recipe
from morphing.runs.queue import FIXED, MASK_SEED, SEED, Claim
from morphing.runs.seeds import Seed
from morphing.runs.stages import Stage

if TYPE_CHECKING:
    import optuna


def propose(
    study: optuna.Study, stage: Stage, claim: Claim, seeds: Sequence[Seed] = ()
) -> dict[str, float]:
    """The parameters of a trial that was taken; they are put into the study.

    A recipe outside the space has none. The seeds are tried in the first slots.
    """
    import optuna

    from morphing.search.samplers.history import RECIPE

    storage = study._storage
    if claim.slot < len(seeds) and not claim.given:
        seed = seeds[claim.slot]
        storage.set_trial_user_attr(claim.trial_id, SEED, seed.label)
        if seed.params is not None:
            storage.set_trial_system_attr(claim.trial_id, FIXED, dict(seed.params))
        elif seed.recipe is not None:
            _note(study, claim, seed.recipe)
    # Optuna's samplers read the trials once an ask, and nobody asks here.
    study._thread_local.cached_all_trials = None
    trial = optuna.Trial(study, claim.trial_id)
    _ = trial.relative_params  # even if all is given: NSGA-II notes its generations by it
    known = storage.get_trial(claim.trial_id)
    if RECIPE in known.user_attrs and FIXED not in known.system_attrs:
        return {}
    for name, place in stage.space.distributions().items():
        trial.suggest_float(name, place.low, place.high, log=place.log)
    return trial.params


def recipe_of(
    study: optuna.Study, stage: Stage, claim: Claim, params: Mapping[str, float]
) -> Recipe:
    """The recipe of a trial, as the study keeps it: what is scored is what is recorded.

    Raises:
        MorphingError: there is none at these parameters.
    """
    from morphing.search.samplers.history import RECIPE

    known = study._storage.get_trial(claim.trial_id).user_attrs
    if RECIPE not in known:
        _note(study, claim, stage.space.recipe(params))
        known = study._storage.get_trial(claim.trial_id).user_attrs
    return Recipe(known[RECIPE], known[MASK_SEED])


def _note(study: optuna.Study, claim: Claim, recipe: Recipe) -> None:
    from morphing.search.samplers.history import RECIPE

    # The recipe last: a trial that has one is whole.
    study._storage.set_trial_user_attr(claim.trial_id, MASK_SEED, recipe.mask_seed)
    study._storage.set_trial_user_attr(claim.trial_id, RECIPE, dict(recipe.config))
