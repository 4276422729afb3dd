"""Profiles, what pressure makes of them, and the choice among variants."""

from __future__ import annotations

import random

import pytest

from cost.learning.arm import Arm, Observation
from cost.learning.choice import Candidate, choose
from cost.learning.profile import PROFILES, Profile, effective, learning_money, pressure

pytestmark = pytest.mark.unit

BALANCED, AGGRESSIVE, CONSERVATIVE = PROFILES["BALANCED"], PROFILES["AGGRESSIVE"], PROFILES["CONSERVATIVE"]


def test_pressure_has_two_thresholds_that_are_left_five_points_beyond() -> None:
    assert [pressure(rate) for rate in (0, 499, 500, 900, 901)] == ["eased", "eased", "none", "none", "high"]
    assert [pressure(rate, "high") for rate in (900, 851, 850)] == ["high", "high", "none"]
    assert [pressure(rate, "eased") for rate in (500, 549, 550)] == ["eased", "eased", "none"]
    assert [pressure(rate, "exceeded") for rate in (951, 860, 700)] == ["high", "high", "none"]
    assert pressure(100, exceeded=True) == "exceeded"


@pytest.mark.parametrize("base", PROFILES.values(), ids=lambda base: base.name)
def test_high_pressure_halves_and_its_end_restores_the_base(base: Profile) -> None:
    under = pressure(950)
    high = effective(base, under)
    assert (high.exploration, high.share, high.explores) == (base.exploration // 2, base.share // 2, False)
    assert effective(base, pressure(950, under)) == high
    assert effective(base, pressure(700, under)) == base
    assert effective(base, "exceeded").share == 0


def test_eased_raises_by_a_fifth_up_to_300_and_200() -> None:
    assert (effective(BALANCED, "eased").exploration, effective(BALANCED, "eased").share) == (120, 120)
    assert (effective(AGGRESSIVE, "eased").exploration, effective(AGGRESSIVE, "eased").share) == (240, 200)


def test_learning_may_cost_its_share_of_the_limit() -> None:
    assert [learning_money(1_999, each) for each in (CONSERVATIVE, BALANCED, AGGRESSIVE)] == [99, 199, 399]
    assert learning_money(1_999, effective(BALANCED, "high")) == 99


def test_below_the_least_runs_the_default_is_taken_and_without_exploring_the_best_that_is_known() -> None:
    known = [Candidate("", 60, 0.5, 100), Candidate("small", 39, 0.5, 50)]
    assert choose(known, AGGRESSIVE, 99).variant == ""
    assert choose([*known, Candidate("new", 0, 0, 0)], CONSERVATIVE, 1_000).variant == "small"
    assert choose([*known, Candidate("new", 0, 0, 0)], BALANCED, 500).variant == "new"
    with pytest.raises(ValueError, match="give the declared default first"):
        choose([], BALANCED, 500)


def test_a_choice_can_be_made_again_from_what_it_says() -> None:
    made = choose([Candidate("", 400, 0.8, 100), Candidate("small", 200, 0.7, 90)], BALANCED, 700)
    assert choose(made.candidates, BALANCED, made.seen) == made
    assert made.reason.startswith("bound ")


def test_the_best_of_four_variants_is_chosen_most_in_the_end_in_38_of_40_seeds() -> None:
    best = 0
    for seed in range(40):
        dice = random.Random(seed)
        # Quality per cost: 0.8/100, 0.75/75 (the best), 0.5/60, 0.9/140.
        truth = {"": (0.8, 100), "small": (0.75, 75), "tiny": (0.5, 60), "large": (0.9, 140)}
        arms = {name: Arm() for name in truth}
        chosen = []
        for _ in range(2_000):
            known = [Candidate(name, arm.tries, arm.mean_quality or 0.0, arm.cost.mean) for name, arm in arms.items()]
            name = choose(known, BALANCED, sum(arm.count for arm in arms.values())).variant
            quality, micros = truth[name]
            rated = min(1.0, max(0.0, dice.gauss(quality, 0.15)))
            arms[name].learn([Observation({"llm": int(micros * dice.lognormvariate(-0.125, 0.5))}, 10, quality=rated)])
            chosen.append(name)
        late = chosen[-400:]
        best += max(truth, key=late.count) == "small"
    assert best >= 38
