"""What a taken trial tries: a seed, what a dead worker had begun, or what the sampler proposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from morphing.merging.recipe import Recipe
from morphing.runs.journal import together
from morphing.runs.queue import FIXED, MASK_SEED, SEED, Claim
from morphing.runs.seeds import Seed
from morphing.runs.stages import Stage

if TYPE_CHECKING:
    import optuna


def propose(study: optuna.Study, stage: Stage, claim: Claim, seeds: Sequence[Seed] = ()) -> Recipe:
    """Decide which recipe a claimed trial tries, and note it with its parameters in the study.

    The first slots try the seeds. A recipe that the space cannot express has no parameters.

    Raises:
        MorphingError: there is no recipe at the parameters.
    """
    import optuna

    from morphing.search.samplers.history import RECIPE

    storage, trial_id = study._storage, claim.trial_id
    if claim.slot < len(seeds) and not claim.given:
        seed = seeds[claim.slot]
        storage.set_trial_user_attr(trial_id, SEED, seed.label)
        if seed.params is not None:
            storage.set_trial_system_attr(trial_id, FIXED, dict(seed.params))
        elif seed.recipe is not None:
            _note(study, claim, seed.recipe)
    # Optuna's samplers read the trials once an ask, and nobody asks here.
    study._thread_local.cached_all_trials = None
    trial = optuna.Trial(study, trial_id)
    _ = trial.relative_params  # even if all is given: NSGA-II notes its generations by it
    with together(storage):
        known = storage.get_trial(trial_id)
        if RECIPE not in known.user_attrs or FIXED in known.system_attrs:
            for name, place in stage.space.distributions().items():
                trial.suggest_float(name, place.low, place.high, log=place.log)
        if RECIPE not in known.user_attrs:
            _note(study, claim, stage.space.recipe(trial.params))
        # As it is kept, so that what is scored is what is recorded.
        attributes = storage.get_trial(trial_id).user_attrs
    return Recipe(attributes[RECIPE], attributes[MASK_SEED])


def _note(study: optuna.Study, claim: Claim, recipe: Recipe) -> None:
    from morphing.search.samplers.history import RECIPE

    # The recipe last: a trial that has one is whole.
    study._storage.set_trial_user_attr(claim.trial_id, MASK_SEED, recipe.mask_seed)
    study._storage.set_trial_user_attr(claim.trial_id, RECIPE, dict(recipe.config))
