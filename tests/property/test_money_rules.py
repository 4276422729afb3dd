"""Any graphs, costs and interleavings: what is promised of money holds in the rules themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cost.plan import NodeCost, VariantCost
from cost.simulator import Account, Policy, RunKey, Simulator, play, steps

pytestmark = pytest.mark.property

START = 1_769_900_000_000  # 2026-01-31 22:53 UTC: the first midnight is also the end of a month
HOUR = 3_600_000
KINDS = ("generation", "retrieval", "variant")

policies = st.builds(
    Policy,
    limit_day=st.sampled_from([0, 40, 100, 100, 200, 1_000]),
    limit_month=st.sampled_from([None, None, 150, 1_000]),
    max_runs=st.sampled_from([1, 2, 10]),
    on_budget_limit=st.sampled_from(["reject", "hold"]),
    on_runs_limit=st.sampled_from(["hold", "hold", "reject"]),
    admit=st.sampled_from(["floor", "floor", "full"]),
    concurrency=st.sampled_from([80, None]),
)


@st.composite
def graphs(draw: st.DrawFn) -> list[NodeCost]:
    nodes = []
    count = draw(st.integers(1, 5))
    for index in range(count):
        estimate = draw(st.sampled_from([0, 1, 10, 10, 30]))
        variants = tuple(
            VariantCost(kind, kind, draw(st.integers(0, estimate)), draw(st.integers(0, 3)))
            for kind in draw(st.sets(st.sampled_from(KINDS)))
        )
        children = tuple(f"n{other}" for other in range(index + 1, count) if draw(st.booleans()))
        most = draw(st.sampled_from([None, estimate * 2]))
        nodes.append(NodeCost(f"n{index}", draw(st.booleans()), draw(st.integers(1, 5)), estimate, most, variants, children))
    return nodes


def split(total: int) -> dict[str, int]:
    return {"llm": total - total // 3, "compute": total // 3}


class MoneyMachine(RuleBasedStateMachine):
    """One tenant, everything that may happen to it in any order, and what must hold after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.simulator = Simulator(START)
        self.ledger = self.simulator.ledger
        self.highest: dict[int, int] = {10: 0, 7: 0}
        self.before: tuple[int, int, dict[int, int]] = (0, 0, {10: 0, 7: 0})
        self.disturbed: set[RunKey] = set()
        self.lost: list[tuple[RunKey, str, int]] = []
        self.count = 0

    @property
    def account(self) -> Account:
        return self.ledger.accounts["acme"]

    @initialize(policy=policies, strict=st.sampled_from([False, False, True]))
    def open(self, policy: Policy, strict: bool) -> None:
        self.strict = strict
        self.set_policy(policy)

    @rule(policy=policies)
    def set_policy(self, policy: Policy) -> None:
        self.simulator.policy("acme", replace(policy, strict=self.strict))

    @rule(nodes=graphs(), budget=st.sampled_from([None, None, None, 30, 100]))
    def submit(self, nodes: list[NodeCost], budget: int | None) -> None:
        self.count += 1
        self.simulator.submit("acme", f"r{self.count}", nodes, budget)

    def running(self) -> list[tuple[RunKey, str]]:
        return [(step.run, step.node) for step in steps(self.simulator) if step.kind == "finish"]

    def ready(self) -> list[tuple[RunKey, str]]:
        return [(step.run, step.node) for step in steps(self.simulator) if step.kind == "start"]

    @precondition(lambda self: self.ready())
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.simulator.start(*data.draw(st.sampled_from(self.ready())))

    @precondition(lambda self: self.running())
    @rule(data=st.data(), per_cent=st.sampled_from([0, 50, 100, 100, 100, 300]), succeeded=st.sampled_from([True, True, True, False]))
    def finish(self, data: st.DataObject, per_cent: int, succeeded: bool) -> None:
        key, node = data.draw(st.sampled_from(self.running()))
        execution = self.simulator.runs[key].execution(node)
        reserved = self.ledger.reservations[execution].amount
        cost = reserved * (min(per_cent, 100) if self.strict else per_cent) // 100
        if cost > reserved or not succeeded:
            self.disturbed.add(key)
        self.simulator.finish(key, node, split(cost), succeeded=succeeded)
        unfinished = self.simulator.runs[key].unfinished
        assert self.ledger.settle(execution, split(cost), unfinished=unfinished, now_ms=self.simulator.now_ms).status == "same"
        assert self.ledger.settle(execution, split(cost + 1), unfinished=unfinished, now_ms=self.simulator.now_ms).status == "conflict"
        assert self.ledger.void(execution, unfinished=unfinished, now_ms=self.simulator.now_ms).status == "conflict"

    @precondition(lambda self: self.running())
    @rule(data=st.data(), more=st.sampled_from([0, 1, 10, 100]))
    def charge(self, data: st.DataObject, more: int) -> None:
        key, node = data.draw(st.sampled_from(self.running()))
        reserved = self.ledger.reservations[self.simulator.runs[key].execution(node)].amount
        needed, hold = self.ledger.purses[key].needed, self.ledger.purses[key].hold
        if self.simulator.charge(key, node, reserved + more) == "extended":
            self.disturbed.add(key)
            assert self.ledger.purses[key].hold >= min(needed, hold), "an extension took what required nodes need"

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        key, node = data.draw(st.sampled_from(self.running()))
        self.lost.append((key, node, self.simulator.runs[key].nodes[node].attempt))
        self.disturbed.add(key)
        self.simulator.lose(key, node)

    @precondition(lambda self: self.lost)
    @rule(data=st.data(), cost=st.sampled_from([0, 5, 30]))
    def late(self, data: st.DataObject, cost: int) -> None:
        key, node, attempt = self.lost.pop(data.draw(st.integers(0, len(self.lost) - 1)))
        assert self.simulator.late(key, node, attempt, split(cost)) == "waste"

    @rule(hours=st.sampled_from([0, 1, 2, 24]))
    def time_passes(self, hours: int) -> None:
        self.simulator.now_ms += hours * HOUR
        self.simulator.beat()

    @rule(amount=st.sampled_from([1, 10]), refund=st.booleans())
    def adjust(self, amount: int, refund: bool) -> None:
        self.count += 1
        for expected in (("adjusted", "refused"), ("same", "refused")):
            answer = self.ledger.adjust(
                f"a{self.count}", "acme", amount, "llm", refund=refund, cause="support", now_ms=self.simulator.now_ms
            )
            assert answer.status in expected
            self.simulator.heard(answer)

    @invariant()
    def the_limit_is_passed_by_overshoot_only(self) -> None:
        if "acme" not in self.ledger.accounts:
            return
        account = self.account
        over, charged = self.overshoot(), self.adjusted()
        exposures = {}
        for period in account.periods:
            kind = len(period)
            self.highest[kind] = max(self.highest[kind], account.limit(period))
            exposures[kind] = account.exposure(period)
            allowed = max(self.before[2].get(kind, 10**9), account.limit(period)) + over - self.before[0] + charged - self.before[1]
            assert exposures[kind] <= allowed, f"{period}: one step granted more than there was"
        # A limit per month that comes and goes bounds nothing in between.
        self.before = (over, charged, exposures)
        for period, book in account.books.items():
            if len(period) == 10:
                beyond = sum(r.over for r in self.ledger.reservations.values() if period in r.parts)
                assert book.committed <= self.highest[10] + beyond + charged, period
        if self.strict:
            assert all(r.over == 0 for r in self.ledger.reservations.values() if r.state != "waste")

    def overshoot(self) -> int:
        return sum(reservation.overshoot for reservation in self.ledger.reservations.values())

    def adjusted(self) -> int:
        return sum(entry.amount for entry in self.ledger.entries if entry.kind == "adjust" and entry.amount > 0)

    @invariant()
    def what_is_required_stays_in_the_hold(self) -> None:
        for key, purse in self.ledger.purses.items():
            run = self.simulator.runs[key]
            if run.status == "running":
                assert purse.needed == run.needed, key
                if key not in self.disturbed:
                    assert purse.hold >= purse.needed, key

    @invariant()
    def nobody_waits_for_a_place_that_is_free(self) -> None:
        if "acme" in self.ledger.accounts and self.account.line and self.account.policy.on_budget_limit == "reject":
            assert self.account.running >= self.account.policy.max_runs

    def teardown(self) -> None:
        if "acme" not in self.ledger.accounts:
            return

        def actual(key: RunKey, node: str) -> Mapping[str, int]:
            return split(self.ledger.reservations[self.simulator.runs[key].execution(node)].amount)

        play(self.simulator, actual)
        blocked = self.account.policy.on_budget_limit == "hold"
        for key, run in self.simulator.runs.items():
            assert run.status != "running", f"{key} neither runs nor ends: {run.nodes}"
            assert run.status != "waiting" or blocked, key
            if key in self.ledger.purses and key not in self.disturbed:
                assert run.status in ("succeeded", "degraded"), f"{key}: the floor fitted, and it is {run.status}"
                if self.held_in_full(key) and not self.crowded(key):
                    assert not run.given_up, f"{key} fitted, and gave up {run.given_up}"
        assert self.account.held == 0 or blocked
        assert self.account.reserved == 0
        self.the_limit_is_passed_by_overshoot_only()

    def held_in_full(self, key: RunKey) -> bool:
        admitted = next(event for event in self.simulator.events if event.type == "run.admitted" and event.run == key.run)
        return admitted.detail["hold"] == admitted.detail["estimate"]

    def crowded(self, key: RunKey) -> bool:
        return any(other == key and decision.reason.startswith("concurrency") for other, _, decision in self.simulator.decisions)


TestMoney = MoneyMachine.TestCase
TestMoney.settings = settings(deadline=None, max_examples=150, stateful_step_count=30)
