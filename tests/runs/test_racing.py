"""Racing: recipes that belong on the front are kept, clearly worse ones are given up."""

from __future__ import annotations

import numpy as np
import pytest

from morphing.runs.racing import LEVEL, Racer, first_part, is_above_zero, is_beaten

TASKS = {"a": "maximize", "b": "maximize"}


def test_the_first_part_is_a_quarter_and_no_less_than_16() -> None:
    assert [first_part(n) for n in (1, 16, 17, 64, 65, 100, 500)] == [1, 16, 16, 16, 17, 25, 125]


@pytest.mark.parametrize(
    ("wins", "losses", "above"),
    # McNemar's exact test: 2^-5 is not enough, 2^-6 is; 9 of 10: 11/1024; 8 of 10: 56/1024.
    [(5, 0, False), (6, 0, True), (9, 1, True), (8, 2, False), (0, 9, False), (0, 0, False)],
)
def test_right_and_wrong_answers_are_tested_exactly(wins: int, losses: int, above: bool) -> None:
    differences = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 20)
    assert is_above_zero(differences) is above


def test_graded_scores_are_tested_with_random_signs() -> None:
    rng = np.random.default_rng(0)
    rejected = [is_above_zero(rng.normal(0, 1, 16) ** 3) for _ in range(400)]
    assert np.mean(rejected) <= LEVEL + 3 * np.sqrt(LEVEL / 400)
    assert is_above_zero(rng.normal(1.5, 1, 16))


def racer(a: list[int], b: list[int], sparsity: float = 0.0, tokens: int = 5) -> Racer:
    scores = {"a": a, "b": b}
    return Racer(
        scores={n: {str(i): float(v) for i, v in enumerate(row)} for n, row in scores.items()},
        tokens={n: {str(i): float(tokens) for i, _ in enumerate(row)} for n, row in scores.items()},
        exact={"sparsity": sparsity},
    )


def test_beaten_means_beaten_at_everything() -> None:
    weak, strong, mixed = racer([0] * 16, [0] * 16), racer([1] * 16, [1] * 16), [1] * 8 + [0] * 8
    assert is_beaten(weak, strong, TASKS)
    assert not is_beaten(strong, weak, TASKS)
    assert not is_beaten(weak, weak, TASKS)
    assert not is_beaten(racer([0] * 16, [1] * 16), strong, TASKS)
    assert is_beaten(strong, racer([0] * 16, mixed), {"a": "minimize", "b": "minimize"})


def test_exact_measures_need_to_be_as_good_and_tokens_too() -> None:
    weak, strong = racer([0] * 16, [0] * 16), racer([1] * 16, [1] * 16, sparsity=-0.1)
    assert not is_beaten(weak, strong, {**TASKS, "sparsity": "maximize"})
    assert is_beaten(weak, strong, {**TASKS, "sparsity": "minimize"})
    ways = {**TASKS, "tokens": "minimize"}
    assert is_beaten(weak, strong, ways)
    assert is_beaten(racer([0] * 16, [0] * 16, tokens=6), strong, ways)
    assert not is_beaten(racer([0] * 16, [0] * 16, tokens=4), strong, ways)


def test_a_rival_is_compared_on_the_samples_of_the_part_alone() -> None:
    part = racer([1] * 16, [1] * 16)
    rival = racer([0] * 16 + [1] * 500, [0] * 16 + [1] * 500)
    assert not is_beaten(part, rival, TASKS)


def test_few_that_belong_on_the_front_are_given_up() -> None:
    """The truth is all samples: who is on the front by them should be scored on them."""
    rng = np.random.default_rng(1)
    samples, lost, belonging, saved, hopeless = 128, 0, 0, 0, 0
    part = first_part(samples)

    def answers(skill: np.ndarray, hardness: np.ndarray) -> np.ndarray:
        chance = 1 / (1 + np.exp(hardness - skill[:, None]))
        return (rng.random(chance.shape) < chance).astype(int)

    for _ in range(60):
        hardness = rng.normal(0, 1.5, (2, samples))
        front: list[np.ndarray] = []
        for _ in range(20):
            angle, size = rng.uniform(0, np.pi / 2), rng.uniform(0, 5)
            skill = size * np.array([np.cos(angle), np.sin(angle)]) - 2
            own = answers(skill, hardness)
            mean = own.mean(axis=1)
            first = racer(*own[:, :part].tolist())
            given_up = any(is_beaten(first, racer(*other.tolist()), TASKS) for other in front)
            means = [other.mean(axis=1) for other in front]
            if any((m >= mean).all() and (m > mean).any() for m in means):
                worse = any((m > mean + 0.3).all() for m in means)
                hopeless += worse
                saved += worse and given_up
            else:
                belonging += 1
                lost += given_up
                front = [o for o, m in zip(front, means, strict=True) if (m > mean).any()] + [own]
    assert belonging > 200 and hopeless > 100
    assert lost / belonging < 0.01
    assert saved / hopeless > 0.5
