"""The rules of money, scenario by scenario: each is a day that a tenant can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from cost.plan import NodeCost, VariantCost
from cost.simulator import (
    WASTE,
    Execution,
    Latches,
    Ledger,
    Policy,
    Request,
    RunKey,
    RunView,
    Simulator,
    Step,
    TenantView,
    decide,
    play,
)

NOON = 1_769_860_800_000  # 2026-01-31 12:00 UTC
HOUR = 3_600_000
DAY, MONTH = "2026-01-31", "2026-01"
TODAY = Policy(limit_day=100)


def article(times: int = 1) -> list[NodeCost]:
    """Ten micros to load, three drafts of 25 (one required, all with a cheap variant), 15 to merge: 100, floor 30."""
    cheap = (VariantCost("few", "generation", 5 * times, 6),)
    return [
        NodeCost("load", True, 1, 10 * times, children=("draft-1", "draft-2", "draft-3")),
        NodeCost("draft-1", True, 9, 25 * times, variants=cheap, children=("merge",)),
        NodeCost("draft-2", False, 9, 25 * times, variants=cheap, children=("merge",)),
        NodeCost("draft-3", False, 9, 25 * times, variants=cheap, children=("merge",)),
        NodeCost("merge", True, 1, 15 * times),
    ]


def chain(estimates: Sequence[int], *, required: bool = True) -> list[NodeCost]:
    last = len(estimates) - 1
    return [NodeCost(f"n{i}", required, 1, estimate, children=(f"n{i + 1}",) if i < last else ()) for i, estimate in enumerate(estimates)]


def world(policy: Policy = TODAY, *, agent: bool = True) -> Simulator:
    simulator = Simulator(NOON, agent=agent)
    simulator.policy("acme", policy)
    return simulator


def as_estimated(simulator: Simulator, factor: Mapping[str, int] | None = None):  # type: ignore[no-untyped-def]
    def actual(key: RunKey, node: str) -> dict[str, int]:
        return {"llm": simulator.runs[key].nodes[node].chosen.estimate_micros * (factor or {}).get(node, 1)}

    return actual


def finish_first(possible: Sequence[Step]) -> Step:
    """One node at a time: what runs ends before anything else starts."""
    return min(possible, key=lambda step: step.kind != "finish")


def actions(simulator: Simulator) -> set[str]:
    return {decision.action for _, _, decision in simulator.decisions}


def given_up(simulator: Simulator) -> list[str]:
    return [node for run in simulator.runs.values() for node in run.given_up]


def settled(simulator: Simulator, period: str = DAY) -> int:
    return simulator.ledger.accounts["acme"].book(period).settled


def test_an_estimate_of_exactly_the_limit_runs_at_full_quality() -> None:
    simulator = world()
    assert simulator.submit("acme", "a", article()) == "admitted"
    play(simulator, as_estimated(simulator))
    assert simulator.runs[RunKey("a")].status == "succeeded"
    assert (actions(simulator), given_up(simulator), settled(simulator)) == ({"continue"}, [], 100)


def test_an_estimate_of_one_and_a_half_limits_is_planned_down_before_its_first_node_and_keeps_what_it_needs() -> None:
    simulator = world()
    nodes = [replace(node, variants=[v._replace(estimate_micros=7) for v in node.variants]) for node in article()]
    nodes = [replace(node, estimate_micros=node.estimate_micros * 3 // 2) for node in nodes]
    simulator.submit("acme", "a", nodes)
    key, trigger, decision = simulator.decisions[0]
    assert (trigger, decision.action) == ("admission", "degrade")
    assert decision.plan is not None
    assert simulator.ledger.purses[key].hold == decision.plan.cost_micros <= 100
    play(simulator, as_estimated(simulator))
    assert simulator.runs[key].status == "degraded"
    assert settled(simulator) == decision.plan.cost_micros
    assert not [d for _, t, d in simulator.decisions if d.action != "continue" and t != "admission"]


def test_ten_runs_at_once_that_fit_together_give_up_nothing() -> None:
    simulator = world(Policy(limit_day=1000))
    for index in range(10):
        assert simulator.submit("acme", f"r{index}", article()) == "admitted"
    play(simulator, as_estimated(simulator))
    assert {run.status for run in simulator.runs.values()} == {"succeeded"}
    assert (actions(simulator), given_up(simulator), settled(simulator)) == ({"continue"}, [], 1000)
    assert any("CONCURRENCY_HIGH" in decision.flags for _, _, decision in simulator.decisions)


def test_ten_runs_at_once_on_half_the_money_are_held_planned_down_or_refused_and_never_pass_the_limit() -> None:
    simulator = world(Policy(limit_day=540))
    answers = [simulator.submit("acme", f"r{index}", article()) for index in range(10)]
    play(simulator, as_estimated(simulator))
    assert answers == ["admitted"] * 6 + ["refused"] * 4
    assert [run.status for run in simulator.runs.values()] == ["succeeded"] * 5 + ["degraded"] + ["refused"] * 4
    assert 500 < settled(simulator) <= 540


def test_one_run_at_a_time_serves_a_line_in_order_at_full_quality() -> None:
    simulator = world(Policy(limit_day=1000, max_runs=1))
    answers = [simulator.submit("acme", f"r{index}", article()) for index in range(4)]
    assert answers == ["admitted", "waiting", "waiting", "waiting"]
    simulator.beat()
    play(simulator, as_estimated(simulator))
    admitted = [event.run for event in simulator.events if event.type == "run.admitted"]
    assert admitted == ["r0", "r1", "r2", "r3"]
    assert (actions(simulator), given_up(simulator)) == ({"continue"}, [])


def test_nobody_overtakes_in_line_though_a_smaller_run_would_fit() -> None:
    simulator = world(Policy(limit_day=100, max_runs=2, on_budget_limit="hold"))
    assert simulator.submit("acme", "a", chain([80])) == "admitted"
    assert simulator.submit("acme", "large", chain([50])) == "waiting"
    assert simulator.submit("acme", "small", chain([5])) == "waiting"
    assert simulator.submit("acme", "never", chain([101])) == "refused"
    simulator.start(RunKey("a"), "n0")
    simulator.finish(RunKey("a"), "n0", {"llm": 40})
    assert simulator.runs[RunKey("large")].status == "running"
    assert simulator.runs[RunKey("small")].status == "running"


def test_nine_of_ten_runs_all_day_at_five_per_cent_give_up_nothing() -> None:
    simulator = world(Policy(limit_day=20_000))
    for hour in range(1, 12):
        for index in range(9):
            assert simulator.submit("acme", f"r{hour}.{index}", chain([4, 6])) == "admitted"
        simulator.beat()
        play(simulator, as_estimated(simulator))
        simulator.now_ms = NOON + hour * HOUR
    assert settled(simulator) == 11 * 9 * 10
    assert (actions(simulator), given_up(simulator)) == ({"continue"}, [])
    assert simulator.ledger.accounts["acme"].level == "HEALTHY"


def test_runs_that_wait_for_one_of_several_places_trip_the_second_threshold_and_a_policy_can_switch_it_off() -> None:
    for concurrency, expected in ((80, {"degrade"}), (None, {"continue"})):
        simulator = world(Policy(limit_day=10_000, max_runs=2, concurrency=concurrency))
        for index in range(3):
            simulator.submit("acme", f"r{index}", article())
        simulator.beat()
        assert actions(simulator) == expected


def test_midnight_under_load_books_each_charge_once_in_the_period_of_its_reservation_and_carries_the_holds() -> None:
    simulator = world(Policy(limit_day=1000, limit_month=1500))
    for index in range(10):
        simulator.submit("acme", f"r{index}", article())
    # One step takes 20 minutes, so that midnight, also the month's, comes in the middle of everything.
    play(simulator, as_estimated(simulator), step_ms=20 * 60_000)
    books = simulator.ledger.accounts["acme"].books
    days = [period for period in books if len(period) == 10]
    assert len(days) > 1
    assert sum(books[day].settled for day in days) == 1000 == books[MONTH].settled + books["2026-02"].settled
    assert {run.status for run in simulator.runs.values()} == {"succeeded"}
    assert actions(simulator) == {"continue"}
    first = {(e.run, e.node): e.day for e in simulator.ledger.entries if e.kind == "reserve"}
    assert all(first[e.run, e.node] == e.day for e in simulator.ledger.entries if e.kind == "settle")


def test_what_is_reserved_over_midnight_and_comes_back_is_not_promised_twice() -> None:
    simulator = world()
    simulator.submit("acme", "old", chain([80, 20]))
    simulator.start(RunKey("old"), "n0")
    simulator.now_ms += 12 * HOUR
    assert simulator.submit("acme", "new", chain([60])) == "refused"
    simulator.finish(RunKey("old"), "n0", {"llm": 1})
    assert simulator.ledger.purses[RunKey("old")].hold == 99
    assert settled(simulator) == 1
    assert settled(simulator, "2026-02-01") == 0


def test_what_an_execution_asks_for_after_midnight_belongs_to_the_new_day() -> None:
    simulator = world()
    simulator.submit("acme", "a", chain([100]))
    simulator.start(RunKey("a"), "n0")
    simulator.now_ms += 12 * HOUR
    simulator.policy("acme", Policy(limit_day=170))
    assert simulator.charge(RunKey("a"), "n0", 150) == "extended"
    simulator.finish(RunKey("a"), "n0", {"llm": 90, "compute": 40})
    assert [(e.day, e.category, e.amount) for e in simulator.ledger.entries if e.kind == "settle"] == [
        (DAY, "compute", 40),
        (DAY, "llm", 60),
        ("2026-02-01", "llm", 30),
    ]


def test_a_limit_that_is_lowered_takes_nothing_from_those_who_hold_and_one_that_is_raised_lets_others_in() -> None:
    simulator = world(Policy(limit_day=200))
    simulator.submit("acme", "a", article())
    simulator.start(RunKey("a"), "load")
    simulator.policy("acme", Policy(limit_day=5))
    assert simulator.submit("acme", "b", chain([1])) == "refused"
    simulator.beat()
    simulator.finish(RunKey("a"), "load", {"llm": 10})
    simulator.policy("acme", Policy(limit_day=50))
    assert simulator.submit("acme", "c", article()) == "refused"
    simulator.policy("acme", Policy(limit_day=250))
    assert simulator.submit("acme", "d", article()) == "admitted"
    play(simulator, as_estimated(simulator))
    assert [simulator.runs[RunKey(run)].status for run in "abcd"] == ["succeeded", "refused", "refused", "succeeded"]


def test_a_first_node_at_three_times_its_estimate_costs_what_is_optional_and_nothing_that_is_required() -> None:
    simulator = world()
    simulator.submit("acme", "a", article())
    play(simulator, as_estimated(simulator, {"load": 3}), finish_first)
    assert simulator.runs[RunKey("a")].status == "degraded"
    assert {simulator.runs[RunKey("a")].nodes[node].state for node in ("load", "draft-1", "merge")} == {"succeeded"}
    assert settled(simulator) <= 100


def test_a_first_node_at_three_times_its_estimate_gives_up_nothing_where_everything_still_fits() -> None:
    small = [NodeCost("peek", True, 1, 1), NodeCost("must", True, 1, 50), NodeCost("extra", False, 1, 49)]
    simulator = world(Policy(limit_day=110))
    simulator.submit("acme", "a", small)
    play(simulator, as_estimated(simulator, {"peek": 3}), finish_first)
    assert (actions(simulator), given_up(simulator), settled(simulator)) == ({"continue"}, [], 102)
    assert any("PROJECTED_OVERRUN" in decision.flags for _, _, decision in simulator.decisions)


def test_nodes_that_all_cost_three_times_their_estimate_pass_the_limit_by_one_node_only() -> None:
    simulator = world()
    simulator.submit("acme", "a", chain([10] * 10))
    play(simulator, as_estimated(simulator, {f"n{i}": 3 for i in range(10)}), finish_first)
    assert simulator.runs[RunKey("a")].status == "terminated_by_cost"
    assert settled(simulator) <= 120


def test_an_overshoot_of_one_run_costs_no_other_run_anything() -> None:
    simulator = world(Policy(limit_day=200))
    simulator.submit("acme", "bad", chain([20] * 5))
    simulator.submit("acme", "good", article())
    simulator.start(RunKey("bad"), "n0")
    simulator.finish(RunKey("bad"), "n0", {"llm": 100})
    simulator.beat()
    play(simulator, as_estimated(simulator))
    assert simulator.runs[RunKey("bad")].status == "terminated_by_cost"
    assert simulator.runs[RunKey("good")].status == "succeeded"
    assert simulator.runs[RunKey("good")].given_up == []


def test_exposure_of_exactly_the_limit_by_holds_alone_changes_nothing() -> None:
    simulator = world(Policy(limit_day=300))
    for run in "abc":
        simulator.submit("acme", run, article())
    account = simulator.ledger.accounts["acme"]
    assert (account.exposure(DAY), account.room, account.level) == (300, 0, "HEALTHY")
    for _ in range(3):
        simulator.beat()
    play(simulator, as_estimated(simulator))
    assert {run.status for run in simulator.runs.values()} == {"succeeded"}
    assert (actions(simulator), given_up(simulator), settled(simulator)) == ({"continue"}, [], 300)


@pytest.mark.parametrize(("committed", "level"), [(7_999, "HEALTHY"), (8_000, "WARNING"), (9_000, "CRITICAL"), (10_000, "EXCEEDED")])
def test_levels_begin_exactly_at_their_thresholds(committed: int, level: str) -> None:
    simulator = world(Policy(limit_day=10_000))
    simulator.submit("acme", "a", [NodeCost("a", True, 1, committed), NodeCost("b", True, 1, 10_000 - committed)])
    simulator.start(RunKey("a"), "a")
    assert simulator.ledger.accounts["acme"].level == level


def test_a_level_is_left_five_points_lower_and_each_entry_has_a_number() -> None:
    latches = Latches()
    told = [latches.update(committed, 100, (80, 90, 100), 5) for committed in (79, 85, 76, 80, 74, 80, 100, 95, 94)]
    assert [[(c.level, c.entered, c.entry) for c in changes] for changes in told] == [
        [],
        [("WARNING", True, 1)],
        [],
        [],
        [("WARNING", False, 1)],
        [("WARNING", True, 2)],
        [("CRITICAL", True, 1), ("EXCEEDED", True, 1)],
        [],
        [("EXCEEDED", False, 1)],
    ]
    assert latches.level == "CRITICAL"


def test_a_level_that_is_not_left_yet_refuses_nothing_that_fits() -> None:
    simulator = world()
    simulator.submit("acme", "a", chain([100]))
    play(simulator, as_estimated(simulator))
    assert simulator.submit("acme", "b", chain([1])) == "refused"
    simulator.ledger.adjust("credit", "acme", 4, "llm", refund=True, cause="credit", now_ms=NOON)
    assert simulator.ledger.accounts["acme"].level == "EXCEEDED"
    assert simulator.submit("acme", "c", chain([4])) == "admitted"


def test_near_the_limit_nothing_is_given_up_for_what_the_room_still_covers() -> None:
    cheap = (VariantCost("few", "retrieval", 1, 1),)
    simulator = world()
    nodes = [NodeCost("a", True, 1, 85, children=("b",)), NodeCost("b", True, 1, 5, variants=cheap)]
    simulator.submit("acme", "a", nodes)
    simulator.start(RunKey("a"), "a")
    simulator.finish(RunKey("a"), "a", {"llm": 92})
    simulator.beat()
    assert simulator.ledger.purses[RunKey("a")].hold < 5
    play(simulator, as_estimated(simulator))
    assert (actions(simulator), given_up(simulator), settled(simulator)) == ({"continue"}, [], 97)


def test_what_was_spent_before_midnight_does_not_count_in_the_projection_of_the_new_day() -> None:
    simulator = world()
    simulator.submit("acme", "a", chain([80, 20]))
    simulator.start(RunKey("a"), "n0")
    simulator.finish(RunKey("a"), "n0", {"llm": 80})
    simulator.now_ms += 12 * HOUR
    simulator.submit("acme", "b", chain([30]))
    simulator.beat()
    assert [decision.projected for _, _, decision in simulator.decisions[-2:]] == [50, 50]


def test_a_run_that_costs_more_than_estimated_keeps_what_its_rest_is_expected_to_cost() -> None:
    cheap = (VariantCost("few", "variant", 10, 1),)
    simulator = world()
    nodes = [NodeCost("a", True, 1, 20, children=("b",)), NodeCost("b", True, 1, 20), NodeCost("c", False, 1, 60, variants=cheap)]
    simulator.submit("acme", "a", nodes)
    simulator.start(RunKey("a"), "a")
    simulator.finish(RunKey("a"), "a", {"llm": 40})
    simulator.beat()
    # 40 spent for an estimate of 20: twice as much and 2 % more. 30 may become 62, and 60 are left: so it is 20, which may become 41.
    assert (given_up(simulator), simulator.ledger.purses[RunKey("a")].hold) == (["c"], 41)


def test_a_run_that_was_planned_down_is_projected_at_its_plan() -> None:
    simulator = world(Policy(limit_day=70))
    simulator.submit("acme", "a", article())
    play(simulator, as_estimated(simulator))
    assert next(decision.action for _, _, decision in simulator.decisions) == "degrade"
    assert all(decision.projected <= 70 for _, trigger, decision in simulator.decisions if trigger == "beat")


def test_a_limit_of_zero_is_exceeded_and_admits_nothing_that_may_cost_anything_or_not() -> None:
    simulator = world(Policy(limit_day=0))
    assert simulator.submit("acme", "a", chain([1])) == "refused"
    assert simulator.submit("acme", "free", chain([0])) == "refused"
    assert simulator.ledger.accounts["acme"].level == "EXCEEDED"


def test_an_exhausted_budget_stops_the_next_unfunded_node_while_the_agent_is_down() -> None:
    simulator = world(agent=False)
    simulator.submit("acme", "a", chain([50, 50]))
    simulator.start(RunKey("a"), "n0")
    simulator.finish(RunKey("a"), "n0", {"llm": 100})
    assert simulator.ledger.accounts["acme"].level == "EXCEEDED"
    assert simulator.start(RunKey("a"), "n1") == "refused"
    assert simulator.submit("acme", "b", chain([1])) == "refused"
    simulator.agent = True
    simulator.beat()
    assert simulator.runs[RunKey("a")].status == "terminated_by_cost"


def test_a_node_that_the_gate_refuses_goes_on_as_its_cheaper_variant() -> None:
    cheap = (VariantCost("few", "variant", 5, 1),)
    simulator = world()
    simulator.submit("acme", "a", [NodeCost("a", True, 1, 50, children=("b",)), NodeCost("b", True, 9, 50, variants=cheap)])
    simulator.agent = False
    simulator.start(RunKey("a"), "a")
    simulator.finish(RunKey("a"), "a", {"llm": 60})
    simulator.agent = True
    assert simulator.start(RunKey("a"), "b") == "refused"
    assert simulator.start(RunKey("a"), "b") == "reserved"
    simulator.finish(RunKey("a"), "b", {"llm": 5})
    assert simulator.runs[RunKey("a")].status == "degraded"


def test_an_optional_node_cannot_take_the_money_of_a_required_one() -> None:
    simulator = world(Policy(limit_day=20))
    simulator.submit("acme", "a", [NodeCost("extra", False, 1, 10, children=("must",)), NodeCost("must", True, 1, 10)])
    simulator.start(RunKey("a"), "extra")
    assert simulator.charge(RunKey("a"), "extra", 11) == "refused"
    simulator.finish(RunKey("a"), "extra", {"llm": 10}, succeeded=False)
    assert simulator.start(RunKey("a"), "extra") == "refused"
    play(simulator, as_estimated(simulator))
    assert simulator.runs[RunKey("a")].status == "degraded"
    assert settled(simulator) == 20


def test_a_run_waits_for_what_its_open_executions_give_back_before_it_is_terminated() -> None:
    simulator = world()
    wide = [NodeCost("a", True, 1, 30), NodeCost("b", True, 1, 40), NodeCost("c", True, 1, 30)]
    simulator.submit("acme", "a", wide)
    simulator.start(RunKey("a"), "a")
    simulator.start(RunKey("a"), "b")
    simulator.finish(RunKey("a"), "a", {"llm": 50})
    simulator.beat()
    assert simulator.runs[RunKey("a")].status == "running"
    assert simulator.start(RunKey("a"), "c") == "refused"
    simulator.finish(RunKey("a"), "b", {"llm": 10})
    assert simulator.start(RunKey("a"), "c") == "reserved"


def test_a_strict_tenant_reserves_the_maximum_and_never_passes_it() -> None:
    nodes = [NodeCost("a", True, 1, 10, max_cost=30, children=("b",)), NodeCost("b", True, 1, 10, max_cost=30)]
    simulator = world(Policy(limit_day=60, strict=True))
    simulator.submit("acme", "a", nodes)
    simulator.start(RunKey("a"), "a")
    simulator.finish(RunKey("a"), "a", {"llm": 30})
    assert simulator.start(RunKey("a"), "b") == "reserved"
    simulator.finish(RunKey("a"), "b", {"llm": 30})
    assert (simulator.runs[RunKey("a")].status, settled(simulator)) == ("succeeded", 60)
    assert world(Policy(limit_day=59, strict=True)).submit("acme", "a", nodes) == "refused"


def test_observing_records_what_would_have_been_refused_and_refuses_nothing() -> None:
    simulator = world(Policy(limit_day=50, max_runs=1, enforcement="observe"))
    assert [simulator.submit("acme", run, article()) for run in "ab"] == ["admitted", "admitted"]
    play(simulator, as_estimated(simulator, {"load": 3}))
    assert {run.status for run in simulator.runs.values()} == {"succeeded"}
    assert given_up(simulator) == []
    assert "budget" in {event.detail["reason"] for event in simulator.events if event.type == "observed"}
    assert all("OBSERVED_ONLY" in decision.flags for _, _, decision in simulator.decisions)


def test_a_run_has_a_limit_of_its_own() -> None:
    simulator = world(Policy(limit_day=1000))
    assert simulator.submit("acme", "a", article(), budget=29) == "refused"
    assert simulator.submit("acme", "b", article(), budget=60) == "admitted"
    play(simulator, as_estimated(simulator))
    assert simulator.runs[RunKey("b")].status == "degraded"
    assert settled(simulator) <= 60


def test_a_month_limits_as_a_day_does() -> None:
    simulator = world(Policy(limit_day=100, limit_month=130))
    simulator.submit("acme", "a", chain([100]))
    play(simulator, as_estimated(simulator))
    simulator.now_ms -= 24 * HOUR  # a clock that is set back reopens nothing
    assert simulator.submit("acme", "b", chain([20])) == "refused"
    simulator.now_ms = NOON + 24 * HOUR
    assert simulator.submit("acme", "c", chain([100])) == "admitted"
    assert [(e.detail["period"], e.detail["level"]) for e in simulator.events if e.type == "level.entered"] == [
        (DAY, "WARNING"),
        (DAY, "CRITICAL"),
        (DAY, "EXCEEDED"),
    ]


def test_an_execution_is_charged_once_and_what_a_superseded_one_spends_is_waste() -> None:
    simulator = world()
    simulator.submit("acme", "a", chain([20]))
    key = RunKey("a")
    simulator.start(key, "n0")
    simulator.lose(key, "n0")
    simulator.start(key, "n0")
    assert simulator.late(key, "n0", 1, {"llm": 3}) == "waste"
    assert simulator.late(key, "n0", 1, {"llm": 3}) == "same"
    assert simulator.late(key, "n0", 1, {"llm": 4}) == "conflict"
    simulator.finish(key, "n0", {"llm": 5, "tea": 2})
    book = simulator.ledger.accounts["acme"].book(DAY)
    assert (book.settled, book.waste, dict(book.categories)) == (10, 3, {"llm": 8, "other": 2})
    assert [e.amount for e in simulator.ledger.entries if e.cause == WASTE] == [3]


def test_adjustments_and_refunds_are_entries_of_their_own_and_refund_no_more_than_was_charged() -> None:
    ledger = Ledger()
    ledger.set_policy("acme", TODAY, NOON)
    ledger.admit("acme", Request(RunKey("a"), 10, 10), NOON)
    execution = Execution("a", 1, "n", 1)
    assert [ledger.reserve(execution, amount, 0, NOON).status for amount in (10, 10, 9)] == ["reserved", "same", "conflict"]
    ledger.settle(execution, {"llm": 10}, unfinished=False, now_ms=NOON)

    def adjust(key: str, amount: int, *, refund: bool) -> str:
        return ledger.adjust(key, "acme", amount, "llm", refund=refund, cause="credit", now_ms=NOON, execution=execution).status

    assert [adjust("x", 4, refund=True), adjust("x", 4, refund=True), adjust("x", 5, refund=True)] == ["adjusted", "same", "conflict"]
    assert [adjust("y", 7, refund=True), adjust("z", 2, refund=False)] == ["refused", "adjusted"]
    assert ledger.accounts["acme"].book(DAY).settled == 8
    assert [entry.kind for entry in ledger.entries] == ["hold", "reserve", "settle", "adjust", "adjust"]


@pytest.mark.parametrize(
    "amount",
    [-1, 2**53, 1.0, float("nan"), float("inf"), "0x10", True, 10**5000],
    ids=["negative", "2^53", "float", "nan", "inf", "hex", "bool", "5,000 digits"],
)
def test_senseless_amounts_change_nothing(amount: object) -> None:
    simulator = world()
    simulator.submit("acme", "a", chain([10]))
    ledger, execution = simulator.ledger, Execution("a", 1, "n0", 1)
    for call in (
        lambda: ledger.reserve(execution, amount, 0, NOON),  # type: ignore[arg-type]
        lambda: ledger.admit("acme", Request(RunKey("b"), 0, amount), NOON),  # type: ignore[arg-type]
        lambda: ledger.verdict(RunKey("a"), amount, NOON),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=r"amount|estimate|cost"):
            call()
    simulator.start(RunKey("a"), "n0")
    with pytest.raises(ValueError, match="llm"):
        ledger.settle(execution, {"llm": amount}, unfinished=False, now_ms=NOON)  # type: ignore[dict-item]
    simulator.check()
    assert settled(simulator) == 0


def test_confidence_grows_with_what_is_done_and_shrinks_with_other_runs() -> None:
    run = RunView("a", 0, 0, 100, 0, 100, 0, 0, ())
    done = replace(run, finished=100)
    assert [run.confidence(1), run.confidence(2), run.confidence(9), done.confidence(1), done.confidence(2)] == [
        500,
        400,
        300,
        950,
        850,
    ]


def test_a_run_with_no_pending_node_is_never_terminated_and_a_decision_is_a_function_of_its_inputs() -> None:
    run = RunView("a", 90, 0, 0, 10, 100, 90, 0, (), any_pending=False)
    tenant = TenantView(limit=50, committed=100, elsewhere=0, others=0, active=1, running=1, max_runs=1, waiting=0)
    assert decide(tenant, run).action == "continue"
    pending = replace(run, any_pending=True, pending=[NodeCost("b", True, 1, 60)])
    assert decide(tenant, pending).action == "terminate"
    assert decide(tenant, pending) == decide(tenant, pending)
