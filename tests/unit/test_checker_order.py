"""The chaos checker knows joins, conditions, pauses and reruns: what breaks each is seen, and nothing in what is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos.log import Event, Evidence, NodeShape, RunRow, Violation, with_items
from benchmarks.chaos.order import (
    fates_follow_from_parents,
    nothing_begins_while_paused,
    one_execution_at_once,
    parents_first,
    reruns_repeat_nothing,
)
from benchmarks.chaos.points import Points, arm, reached

PARENTS = {"a": NodeShape(), "b": NodeShape(), "c": NodeShape(required=False)}


def log(*events: dict[str, Any]) -> list[Event]:
    return [Event(1, seq, {"at": seq, "run": "r", "gen": 1, "tenant": "acme", **event}) for seq, event in enumerate(events, 1)]


def began(node: str, **more: Any) -> dict[str, Any]:
    return {"t": "node.began", "node": node, "attempt": 1, **more}


def ended(node: str, outcome: str = "succeeded", **more: Any) -> dict[str, Any]:
    return {"t": "node.ended", "node": node, "outcome": outcome, **more}


def seen(rule: Any, shape: Mapping[str, NodeShape], *events: dict[str, Any], generations: int = 1) -> list[str]:
    rows = [RunRow("r", "acme", "ended", "failed", 0, at + 1) for at in range(generations)]
    found: list[Violation] = list(rule(Evidence(log(*events), {("r", 1): shape}, rows, {}, [])))
    return [violation.detail for violation in found]


def joined(join: str | int, when: tuple[str, str, bool] | None = None) -> dict[str, NodeShape]:
    return {**PARENTS, "j": NodeShape(("a", "b", "c"), join=join, when=when)}


def test_a_tolerant_join_begins_when_all_have_ended_and_not_before() -> None:
    bad = (ended("a", "failed"), ended("b", "upstream_failed"))
    assert seen(parents_first, joined("all_done"), *bad, ended("c"), began("j")) == []
    assert seen(parents_first, joined("all_done"), *bad, began("j")) == ["its parent c is not ended"]
    assert seen(parents_first, joined("all_succeeded"), *bad, ended("c"), began("j")) == [
        "its parent a is failed",
        "its parent b is upstream_failed",
    ]


def test_at_least_begins_with_its_nth_success() -> None:
    assert seen(parents_first, joined(2), ended("a"), ended("c"), began("j")) == []
    assert seen(parents_first, joined(2), ended("a"), ended("c", "failed"), began("j")) == [
        "1 of its parents have succeeded, and it waits for 2"
    ]


@pytest.mark.parametrize(("result", "equal", "holds"), [("1", True, True), ("2", True, False), ("1", False, False), ("2", False, True)])
def test_a_condition_must_hold_where_its_node_begins_and_must_not_where_it_is_left_out(result: str, equal: bool, holds: bool) -> None:
    shape = joined("all_done", when=("a", "1", equal))
    parents = (ended("a", result=result), ended("b"), ended("c"))
    assert bool(seen(parents_first, shape, *parents, began("j"))) is not holds
    assert bool(seen(fates_follow_from_parents, shape, *parents, ended("j", "skipped", reason="not taken: a is not 1"))) is holds


def test_a_map_gathers_when_its_items_let_it_and_its_items_are_nodes_of_their_own() -> None:
    expands = {"t": "node.expanded", "node": "m", "first": 0, "count": 2, "of": 2}

    def gathers(over: str | int, *ends: dict[str, Any]) -> list[str]:
        events = log(ended("a"), began("m"), expands, *ends, began("m", attempt=2))
        shape = {"a": NodeShape(), "m": NodeShape(("a",), over=over)}
        whole = with_items(Evidence(events, {("r", 1): shape}, [], {}, []))
        assert whole.shapes["r", 1].keys() == {"a", "m", "m.0", "m.1"}
        assert whole.shapes["r", 1]["m.0"].required is (over == "all_succeeded")
        assert list(one_execution_at_once(replace(whole, events=events[1:3]))) == []
        return [violation.detail for violation in parents_first(whole)]

    assert gathers("all_succeeded", ended("m.0"), ended("m.1")) == []
    assert gathers("all_succeeded", ended("m.0"), ended("m.1", "failed")) == ["its item m.1 is failed"]
    assert gathers("all_done", ended("m.0"), ended("m.1", "failed")) == []
    assert gathers("all_done", ended("m.0")) == ["its item m.1 is not ended"]
    assert gathers(2, ended("m.0"), ended("m.1", "failed")) == ["1 of its items have succeeded, and it waits for 2"]


def test_nobody_is_left_out_without_a_cause() -> None:
    all_well = (ended("a"), ended("b"), ended("c"))
    assert seen(fates_follow_from_parents, joined("all_succeeded"), *all_well, ended("j", "upstream_failed"))
    assert seen(fates_follow_from_parents, joined("all_done"), ended("a", "failed"), ended("j", "upstream_failed"))
    assert seen(fates_follow_from_parents, joined(2), ended("a"), ended("c"), ended("j", "upstream_failed"))
    assert seen(fates_follow_from_parents, joined("all_succeeded"), *all_well, ended("j", "cancelled"))
    assert seen(fates_follow_from_parents, joined("all_succeeded"), *all_well, ended("j", "skipped", reason="given up"))
    assert seen(fates_follow_from_parents, joined("all_done"), *all_well, ended("j", "skipped", reason="not taken: "))
    told = {"t": "node.cancelling", "nodes": ["j"], "reason": "", "by": ""}
    assert seen(fates_follow_from_parents, joined("all_done"), told, *all_well, ended("j", "cancelled")) == []
    assert seen(fates_follow_from_parents, joined("all_succeeded"), ended("b", "failed"), ended("j", "upstream_failed")) == []
    assert seen(fates_follow_from_parents, joined(3), ended("a"), ended("b"), ended("c", "failed"), ended("j", "upstream_failed")) == []


def test_nothing_begins_after_its_cancellation_or_a_failure_that_stops_the_run() -> None:
    told = {"t": "node.cancelling", "nodes": ["a"], "reason": "", "by": ""}
    assert seen(parents_first, PARENTS, told, began("b"), began("a")) == ["begins after node.cancelling"]
    assert seen(parents_first, PARENTS, {"t": "run.stopping", "node": "b"}, began("a")) == ["begins after run.stopping"]


@pytest.mark.parametrize("scope", ["platform", "tenant:acme", "run:r.1"])
def test_nothing_of_a_scope_begins_while_it_is_paused(scope: str) -> None:
    paused, resumed = ({"t": f"scope.{how}", "scope": scope} for how in ("paused", "resumed"))
    assert seen(nothing_begins_while_paused, PARENTS, paused, began("a")) == [f"begins while {scope} is paused"]
    assert seen(nothing_begins_while_paused, PARENTS, paused, resumed, began("a")) == []
    assert seen(nothing_begins_while_paused, PARENTS, {**paused, "scope": "run:other.1"}, began("a")) == []


def test_a_rerun_adopts_what_had_succeeded_and_begins_none_of_it() -> None:
    before = (began("a"), ended("a"), began("b"), ended("b", "failed"))
    adopts = {"t": "node.adopted", "gen": 2, "nodes": {"a": 1}}
    assert seen(reruns_repeat_nothing, PARENTS, *before, adopts, began("b", gen=2), generations=2) == []
    assert seen(reruns_repeat_nothing, PARENTS, *before, adopts, began("a", gen=2), generations=2) == ["had succeeded, and began again"]
    assert seen(reruns_repeat_nothing, PARENTS, *before, began("b", gen=2), generations=2) == ["had succeeded, and was not adopted"]


def test_a_point_kills_whoever_comes_first_once_and_says_so(tmp_path: Path) -> None:
    died: list[str] = []
    mine = Points("worker", tmp_path, lambda: died.append("mine"))
    other = Points("producer", tmp_path, lambda: died.append("other"))
    arm(tmp_path, "worker", "finish", "after")
    assert other.around("finish", lambda: "done") == mine.around("begin", lambda: "done") == "done"
    assert died == []
    mine.around("finish", lambda: died.append("finished"))
    mine.around("finish", lambda: died.append("again"))
    assert died == ["finished", "mine", "again"]
    assert [name for name, _, _ in reached(tmp_path)] == ["worker.finish.after"]
