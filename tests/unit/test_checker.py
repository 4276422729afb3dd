"""The chaos checker sees each kind of violation, in logs made by hand, and nothing in a log that is right."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.chaos.checker import check
from benchmarks.chaos.faults import KINDS, POWER, Done, schedule
from benchmarks.chaos.graphs import shape_of
from benchmarks.chaos.log import Entry, Event, Evidence, NodeShape, RunRow
from benchmarks.chaos.recovery_times import recoveries
from benchmarks.chaos.seed import Plan
from orchestrator.graph import Graph

RUN = ("run-1", 1)
DAY = 20_000


def log(*events: dict[str, Any]) -> list[Event]:
    """Events of one epoch, in order; what runs and nodes need is filled in."""
    made = [{"t": "epoch.opened", "rebuilt": 0}, *events]
    return [Event(1, seq, {"at": 1_000 * seq, "run": "run-1", "gen": 1, "tenant": "acme", **event}) for seq, event in enumerate(made, 1)]


def began(node: str, attempt: int = 1, inc: str = "host.11.aa") -> dict[str, Any]:
    return {"t": "node.began", "node": node, "attempt": attempt, "inc": inc, "amount": "10", "day": DAY}


def ended(node: str, outcome: str = "succeeded", **more: Any) -> dict[str, Any]:
    return {"t": "node.ended", "node": node, "outcome": outcome, **({"attempt": 1} if outcome == "succeeded" else {}), **more}


def lost(node: str, attempt: int = 1) -> dict[str, Any]:
    return {"t": "node.lost", "node": node, "attempt": attempt, "inc": "host.11.aa"}


def settled(node: str, amount: int, attempt: int = 1, kind: str = "settle") -> dict[str, Any]:
    return {"t": "money.settled", "node": node, "attempt": attempt, "amount": str(amount), "cats": {"llm": str(amount)}, "kind": kind}


def voided(node: str, attempt: int = 1) -> dict[str, Any]:
    return {"t": "money.voided", "node": node, "attempt": attempt, "reserved": "10"}


def entry(node: str, kind: str, amount: int = 10, attempt: int = 1, category: str = "") -> Entry:
    return Entry("run-1", 1, node, attempt, "acme", kind, category, amount, DAY)


def over(outcome: str = "succeeded", cost: int = 12, **counts: int) -> dict[str, Any]:
    return {"t": "run.ended", "outcome": outcome, "cost": str(cost), "counts": counts or {"succeeded": 2}}


GOOD_LOG = (
    began("a"),
    lost("a"),
    voided("a"),
    began("a", 2),
    ended("a", attempt=2),
    settled("a", 7, 2),
    began("b"),
    ended("b"),
    settled("b", 5),
    over(),
)

GOOD = Evidence(
    events=log(*GOOD_LOG),
    shapes={RUN: {"a": NodeShape(charge={"llm": 7}), "b": NodeShape(("a",))}},
    runs=[RunRow("run-1", "acme", "ended", "succeeded", 12)],
    outcomes={("run-1", 1, "a"): "succeeded", ("run-1", 1, "b"): "succeeded"},
    ledger=[
        entry("a", "reserve"),
        entry("a", "void"),
        entry("a", "reserve", attempt=2),
        entry("a", "settle", 7, 2, "llm"),
        entry("b", "reserve"),
        entry("b", "settle", 5, 1, "llm"),
    ],
    counters={"acme": {"held": 0, "running": 0}},
    spent={("acme", DAY): {"settled": 12, "reserved": 0, "waste": 0, "c:llm": 12}},
    submitted={"key": "run-1"},
    keys=["key"],
)


def changed(*, without: int | None = None, insert: tuple[int, dict[str, Any]] | None = None, **fields: Any) -> Evidence:
    """The good evidence with an event of `GOOD_LOG` left out or put in, or with other fields."""
    events = list(GOOD_LOG)
    if without is not None:
        del events[without]
    if insert is not None:
        events.insert(*insert)
    return replace(GOOD, **{"events": log(*events), **fields})


def test_a_log_with_a_lost_execution_that_was_repeated_is_right() -> None:
    assert check(GOOD) == []


WRONG: dict[str, tuple[str, Callable[[], Evidence]]] = {
    "a hole in the log": ("log", lambda: replace(GOOD, events=[e for e in GOOD.events if e.seq != 3])),
    "an incident": ("log", lambda: changed(incidents=["gap.1-4"])),
    "a submission without its run": ("submission", lambda: changed(submitted={"key": "run-1", "other": "run-2"}, keys=["key", "other"])),
    "two runs with one key": ("submission", lambda: changed(keys=["key", "key"])),
    "a run that goes on": ("submission", lambda: changed(runs=[RunRow("run-1", "acme", "running", "succeeded", 12)])),
    "a node without an outcome": ("one outcome", lambda: changed(without=7)),
    "a node with two outcomes": ("one outcome", lambda: changed(insert=(8, ended("b", "cancelled")))),
    "a join that succeeded twice": ("succeeded twice", lambda: changed(insert=(8, ended("b")))),
    "a row that says something else": ("one outcome", lambda: changed(outcomes={**GOOD.outcomes, ("run-1", 1, "b"): "failed"})),
    "a node of no graph": ("one outcome", lambda: changed(insert=(8, ended("c", "skipped")))),
    "a child before its parent": ("parents first", lambda: replace(GOOD, events=log(began("b"), ended("b"), *GOOD_LOG[:6], *GOOD_LOG[8:]))),
    "a child after a required parent that failed": (
        "parents first",
        lambda: replace(GOOD, events=log(began("a"), ended("a", "failed", attempt=1), began("b"))),
    ),
    "a beginning after the fence": ("parents first", lambda: changed(insert=(6, {"t": "run.cancelling", "reason": "", "by": "me"}))),
    "a beginning after the outcome": ("parents first", lambda: changed(insert=(8, began("b", 2)))),
    "two executions at once": ("one at once", lambda: changed(without=1)),
    "an attempt with the number of an earlier one": ("one at once", lambda: changed(insert=(3, began("a", 1)))),
    "an execution that never ended": ("one at once", lambda: changed(insert=(9, began("b", 2)))),
    "a success without an execution": ("one at once", lambda: changed(without=6)),
    "the end of another attempt": ("one at once", lambda: replace(GOOD, events=log(began("a", 2), ended("a", attempt=1)))),
    "a loss of what does not run": ("one at once", lambda: changed(insert=(8, lost("b")))),
    "a failure that the task did not make": (
        "fails by itself",
        lambda: changed(insert=(7, {"t": "node.retry", "node": "b", "attempt": 1, "outcome": "failed", "error": "no connection"})),
    ),
    "an execution settled and void": ("charged once", lambda: changed(ledger=[*GOOD.ledger, entry("b", "void")])),
    "an execution neither settled nor void": ("charged once", lambda: changed(ledger=GOOD.ledger[:5])),
    "an execution settled twice": ("charged once", lambda: changed(insert=(9, settled("b", 5)))),
    "an entry without an execution": ("charged once", lambda: changed(ledger=[*GOOD.ledger, entry("b", "reserve", attempt=2)])),
    "an execution without a reservation": (
        "charged once",
        lambda: changed(ledger=[e for e in GOOD.ledger if e.node != "b" or e.kind != "reserve"]),
    ),
    "waste of what was not void": ("charged once", lambda: changed(ledger=[*GOOD.ledger, entry("b", "waste", 1, 1, "llm")])),
    "a void that no event made": ("charged once", lambda: changed(without=2)),
    "a charge of another amount": (
        "charged exactly",
        lambda: changed(shapes={RUN: {**GOOD.shapes[RUN], "a": NodeShape(charge={"llm": 8})}}),
    ),
    "a counter that differs": ("counters", lambda: changed(spent={("acme", DAY): {**GOOD.spent["acme", DAY], "settled": 13}})),
    "a category that differs": ("counters", lambda: changed(spent={("acme", DAY): {**GOOD.spent["acme", DAY], "c:llm": 11}})),
    "a reservation that is left": ("counters", lambda: changed(spent={("acme", DAY): {**GOOD.spent["acme", DAY], "reserved": 10}})),
    "a counter of a day without entries": ("counters", lambda: changed(spent={**GOOD.spent, ("acme", DAY + 1): {"settled": 1}})),
    "a hold that is left": ("counters", lambda: changed(counters={"acme": {"held": 3, "running": 0}})),
    "a place that is left": ("counters", lambda: changed(counters={"acme": {"held": 0, "running": 1}})),
    "an outcome that does not follow": ("run outcome", lambda: changed(runs=[RunRow("run-1", "acme", "ended", "degraded", 12)])),
    "a cancelled run that succeeded": ("run outcome", lambda: changed(insert=(9, {"t": "run.cancelling", "reason": "", "by": "me"}))),
    "a run that ended twice": ("run outcome", lambda: changed(insert=(9, over()))),
    "counts that are not its nodes'": ("run outcome", lambda: replace(GOOD, events=log(*GOOD_LOG[:-1], over(succeeded=3)))),
    "a cost that is not its settlements'": ("run cost", lambda: changed(runs=[RunRow("run-1", "acme", "ended", "succeeded", 13)])),
    "an end that says another cost": ("run cost", lambda: replace(GOOD, events=log(*GOOD_LOG[:-1], over(cost=11)))),
    "a log that does not make the record": ("replay", lambda: changed(replays=["run-1.1: event 1-3: was added"])),
    "a message that is left": ("leftovers", lambda: changed(leftovers={"hg1:msg": 1})),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_violation_is_seen(name: str) -> None:
    rule, made = WRONG[name]
    assert rule in {violation.rule for violation in check(made())}


def test_what_ran_when_redis_was_rebuilt_is_over_and_void_by_recovery() -> None:
    events = [
        Event(epoch, seq, {"at": seq, "run": "run-1", "gen": 1, "tenant": "acme", **data})
        for epoch, seq, data in (
            (1, 1, {"t": "epoch.opened", "rebuilt": 0}),
            (1, 2, began("a")),
            (2, 1, {"t": "epoch.opened", "rebuilt": 1}),
            (2, 2, began("a", 101)),
            (2, 3, ended("a", attempt=101)),
            (2, 4, settled("a", 7, 101)),
            (2, 5, over(cost=7, succeeded=1)),
        )
    ]
    evidence = replace(
        GOOD,
        events=events,
        shapes={RUN: {"a": NodeShape()}},
        runs=[RunRow("run-1", "acme", "ended", "succeeded", 7)],
        outcomes={("run-1", 1, "a"): "succeeded"},
        ledger=[entry("a", "reserve"), entry("a", "void"), entry("a", "reserve", attempt=101), entry("a", "settle", 7, 101, "llm")],
        spent={("acme", DAY): {"settled": 7, "c:llm": 7}},
    )
    assert check(evidence) == []


def test_late_work_of_a_worker_that_was_given_up_is_waste_and_part_of_the_cost() -> None:
    evidence = changed(
        insert=(9, settled("a", 4, 1, "waste")),
        ledger=[*GOOD.ledger, entry("a", "waste", 4, 1, "llm")],
        runs=[RunRow("run-1", "acme", "ended", "succeeded", 16)],
        spent={("acme", DAY): {"settled": 16, "waste": 4, "c:llm": 16}},
    )
    assert [violation.rule for violation in check(evidence)] == ["run cost"]  # its end is said to cost 12 and came after the waste
    late = replace(evidence, events=log(*GOOD_LOG, settled("a", 4, 1, "waste")))
    assert check(late) == []


def test_an_optional_node_that_failed_lets_its_child_begin_and_degrades_the_run() -> None:
    evidence = replace(
        GOOD,
        events=log(began("a"), ended("a", "failed", attempt=1), settled("a", 7), *GOOD_LOG[6:-1], over("degraded", failed=1, succeeded=1)),
        shapes={RUN: {"a": NodeShape(required=False, may_fail=True), "b": NodeShape(("a",))}},
        runs=[RunRow("run-1", "acme", "ended", "degraded", 12)],
        outcomes={("run-1", 1, "a"): "failed", ("run-1", 1, "b"): "succeeded"},
        ledger=[entry("a", "reserve"), entry("a", "settle", 7, 1, "llm"), *GOOD.ledger[4:]],
    )
    assert check(evidence) == []


def test_a_seed_always_gives_the_same_plan_of_valid_graphs() -> None:
    for seed in range(1, 11):
        plan = Plan.of(seed)
        assert plan == Plan.of(seed)
        assert 6 <= len(plan.graphs) <= 9
        assert {fault.kind for fault in plan.faults} - {POWER} == set(KINDS)
        for _, _, document in plan.graphs:
            graph = Graph.parse(document)
            assert graph.parents().keys() == shape_of(document).keys()
            assert {node: set(before) for node, before in graph.parents().items()} == {
                node: set(shape.parents) for node, shape in shape_of(document).items()
            }


def test_no_seed_freezes_twice() -> None:
    assert all(sum(fault.kind == "freeze" for fault in schedule(random.Random(seed), 12)) == 1 for seed in range(20))


def test_recovery_is_measured_from_the_fault_that_hit_the_process() -> None:
    done = [Done("worker", 2_000, "w1", 11), Done("beat", 2_500, "beat", 12), Done("redis", 2_600, "redis", 13)]
    events = log(began("a"), lost("a"), began("a", 2))
    later = Event(2, 1, {"t": "epoch.opened", "rebuilt": 0, "at": 5_000})
    assert recoveries([*events, later], done, {2_000: 350}) == {"recorder": [350], "redis": [2_400], "worker": [2_000]}
