"""What is learned of a task from its executions, on simulated tasks with heavy tails, correlation within a run, and drift."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from cost.learning.arm import Arm, Observation
from cost.learning.calibration import Calibration

pytestmark = pytest.mark.unit

SEEDS = range(5)
CHANGE = 300


class Ended(NamedTuple):
    """A run: its number, what it was estimated at before it began, what it cost, what such a run costs on average, and its P90."""

    number: int
    estimate: int
    cost: int
    expected: float
    p90: int


def runs(seed: int, number: int, becomes: float = 1.0) -> Iterator[Ended]:
    """Runs of ten nodes of five tasks: log-normal and Pareto costs, dear and cheap runs, and from run 300 on all costs `becomes` times."""
    dice = random.Random(seed)
    base = [dice.randint(500, 20_000) for _ in range(5)]
    tails: list[Callable[[], float]] = [lambda: math.exp(dice.gauss(-0.32, 0.8))] * 3 + [lambda: dice.paretovariate(2.5) * 0.6] * 2
    arms, calibration = [Arm() for _ in base], Calibration()
    for at in range(number):
        dear = math.exp(dice.gauss(-0.045, 0.3)) * (becomes if at >= CHANGE else 1)
        costs = [[int(mean * tail() * dear) for _ in range(2)] for mean, tail in zip(base, tails, strict=True)]
        estimate = 2 * sum(sum(arm.estimate().values()) for arm in arms)
        cost = sum(map(sum, costs))
        if at:
            yield Ended(at, estimate, cost, 2 * sum(base) * (becomes if at >= CHANGE else 1), calibration.p90(estimate))
            calibration = calibration.seen(estimate, cost)
        for arm, each in zip(arms, costs, strict=True):
            arm.learn([Observation({"llm": micros}, 100) for micros in each])


def covered(some: list[Ended]) -> float:
    return sum(run.cost <= run.p90 for run in some) / len(some)


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


@pytest.mark.parametrize("becomes", [1.0, 2.0, 0.6, 1.3])
def test_the_p90_of_a_run_covers_88_to_92_per_cent_after_200_runs_and_the_estimate_is_within_10_per_cent(becomes: float) -> None:
    off = []
    for seed in SEEDS:
        late = [run for run in runs(seed, 1_000, becomes) if run.number >= 200]
        assert 0.88 <= covered(late) <= 0.92, seed
        off.append(mean([abs(run.estimate / run.expected - 1) for run in late]))
    assert max(off) < 0.12
    assert mean(off) < 0.10


@pytest.mark.parametrize("becomes", [2.0, 0.6, 1.3])
def test_what_begins_to_cost_something_else_is_estimated_so_within_100_runs(becomes: float) -> None:
    before, after = [], []
    for seed in SEEDS:
        ended = {run.number: run for run in runs(seed, CHANGE + 110, becomes)}
        before.append(ended[CHANGE].estimate / ended[CHANGE].expected - 1)
        after.append(mean([ended[CHANGE + at].estimate / ended[CHANGE + at].expected - 1 for at in range(95, 105)]))
    assert mean([abs(each) for each in before]) > 0.2, "nothing changed"
    assert mean([abs(each) for each in after]) < 0.10


def test_below_thirty_runs_the_p90_is_twice_the_estimate() -> None:
    calibration = Calibration()
    for _ in range(29):
        calibration = calibration.seen(100, 100)
    assert (calibration.proven, calibration.p90(100), calibration.coverage) == (False, 200, None)
    calibration = calibration.seen(100, 100).seen(0, 50)
    assert (calibration.proven, calibration.p90(100)) == (True, 100)
    assert calibration.seen(100, 101).coverage == 0
    assert calibration.seen(100, 100).coverage == 1


def test_an_estimate_is_the_mean_by_category_of_what_succeeded() -> None:
    arm = Arm()
    arm.learn(
        [
            Observation({"llm": 10, "compute": 1}, 50),
            Observation({"llm": 21}, 150, quality=0.5),
            Observation({"llm": 900}, 9, succeeded=False),
        ]
    )
    assert arm.estimate() == {"compute": 1, "llm": 16}
    assert (arm.count, arm.duration.mean, arm.mean_quality) == (3, 100, 0.5)
    assert arm.success_rate == pytest.approx(2 / 3)
    assert (Arm().estimate(), Arm().success_rate, Arm().mean_quality) == ({}, 1.0, None)


def test_an_arm_is_read_back_from_json_as_it_was() -> None:
    arm, dice = Arm(), random.Random(3)
    for _ in range(60):
        arm.learn(
            [Observation({"llm": dice.randint(1, 10**9)}, dice.randint(1, 10**6), dice.random() < 0.9, dice.random()) for _ in range(3)]
        )
    text = json.dumps(arm.to_document())
    again = Arm.from_document(json.loads(text))
    assert json.dumps(again.to_document()) == text
    for each in (arm, again):
        each.learn([Observation({"llm": 7}, 7)])
    assert again.estimate() == arm.estimate()
    assert len(text) < 20_000
