"""The four strategies, each alone, and when each is applied unasked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cost.agent import TenantView
from cost.plan import AS_IS, NodeCost, VariantCost
from cost.strategies import EVERY, Choosable, Strategy, chosen, fitting, stages, to_the_full, unasked

pytestmark = pytest.mark.unit

TENANT = TenantView(limit=10_000, committed=0, elsewhere=0, others=0, active=1, running=1, max_runs=10, waiting=0)
NODES = (
    NodeCost(
        "ask", True, 9, 100, variants=(VariantCost("one", "generation", 40, 6), VariantCost("small", "variant", 20, 4)), children=("rank",)
    ),
    NodeCost("find", True, 9, 100, variants=(VariantCost("top-3", "retrieval", 60, 7),), children=("rank",)),
    NodeCost("rank", True, 1, 10),
    NodeCost("extra", False, 3, 50, children=("more",)),
    NodeCost("more", False, 1, 5),
)
"""265 micros in full, value 23."""


@pytest.mark.parametrize(
    ("strategy", "choices", "cost"),
    [
        ("skip", {"extra": "skip", "more": "skip"}, 210),
        ("generation", {"ask": "one"}, 205),
        ("retrieval", {"find": "top-3"}, 225),
        ("variant", {"ask": "small"}, 185),
    ],
)
def test_each_strategy_alone_changes_what_it_is_for_and_nothing_else(strategy: Strategy, choices: dict[str, str], cost: int) -> None:
    plan = to_the_full(NODES, {strategy})
    assert {node: choice for node, choice in plan.choices.items() if choice != AS_IS} == choices
    assert plan.cost_micros == cost
    assert {change.type for change in plan.modifications} == {strategy}


def test_a_strategy_alone_gives_up_no_more_than_it_has_to() -> None:
    assert fitting(NODES, {"skip"}, 260).choices["extra"] == AS_IS
    assert fitting(NODES, {"skip"}, 260).choices["more"] == "skip"
    assert not fitting(NODES, {"retrieval"}, 224).fits
    assert fitting(NODES, EVERY, 265).modifications == ()


@pytest.mark.parametrize(
    ("committed", "running", "crowded", "allowed"),
    [
        (0, 1, False, {"retrieval"}),
        # Less than 5 % remain: 9,501 of 10,000; exactly 5 % is not less.
        (9_500, 1, False, {"retrieval"}),
        (9_501, 1, False, {"retrieval", "generation"}),
        # Less than 1 %.
        (9_900, 1, False, {"retrieval", "generation"}),
        (9_901, 1, False, {"retrieval", "generation", "skip"}),
        # A factor above 70 %.
        (0, 7, False, {"retrieval"}),
        (0, 8, False, {"retrieval", "variant"}),
        # Concurrency tripped.
        (0, 8, True, {"retrieval", "variant", "skip"}),
        (9_999, 8, True, {"retrieval", "variant", "skip", "generation"}),
    ],
)
def test_when_each_strategy_is_applied_unasked(committed: int, running: int, crowded: bool, allowed: set[str]) -> None:
    assert unasked(replace(TENANT, committed=committed, running=running), crowded=crowded) == allowed


def test_what_is_still_short_tries_cheaper_variants_and_then_everything() -> None:
    assert list(stages(TENANT)) == [{"retrieval"}, {"retrieval", "variant"}, EVERY]
    assert list(stages(replace(TENANT, committed=9_999, running=8))) == [EVERY]


def test_a_limit_of_nothing_leaves_nothing() -> None:
    assert unasked(replace(TENANT, limit=0)) == {"retrieval", "generation", "skip"}


def test_what_is_chosen_now_can_only_fall_and_what_is_raised_stops_at_what_it_was() -> None:
    both = Choosable(NODES, {"ask": "one"})
    assert chosen(NODES[0], "one").estimate_micros == 40
    assert [each.name for each in both.lowered()[0].variants] == ["small"]
    assert list(both.lowered(kept=True)[0].variants) == []
    assert [each.name for each in both.raised()[0].variants] == ["one"]
    assert all(node.required for node in both.raised())
    assert list(both.raised()[1].variants) == []
