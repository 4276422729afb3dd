from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.model import Model, NodeRow
from tenancy.errors import Fenced

RUN, GEN = "r1", 1


def row(node: str, wait: int, *children: str, required: bool = True, amount: int = 10, attempts: int = 3, verdict: str = "") -> NodeRow:
    ctl = {"amounts": {"": str(amount), "cheap": str(amount // 2)}, "required": required, "attempts": attempts, "next": children}
    return node, wait, json.dumps(ctl), f"spec of {node}", verdict, "0"


def want(total: int, estimate: int = 100, floor: int = 0, budget: int | str = "") -> str:
    return json.dumps({"graph": "g", "total": total, "estimate": str(estimate), "floor": str(floor), "budget": str(budget), "priority": 5})


class World:
    """A model with a tenant, a worker and, where asked for, a launched run; every change is checked."""

    def __init__(self, *rows: NodeRow, limit: int = 1000, **terms: Any) -> None:
        self.model = Model(server="s1", now_ms=1_000_000)
        self.model.account("acme", limit, 3)
        self.model.enroll("w1", 0, {"tasks": ["draft"]})
        if rows:
            self.model.admit(RUN, GEN, "acme", want(len(rows), **terms))
            self.model.load(RUN, GEN, rows, {"0": "{}"})
            self.publish(*self.model.launch(RUN, GEN, 0, 1, [node for node, wait, *_ in rows if not wait]))

    @property
    def run(self) -> Any:
        return self.model.runs[RUN, GEN]

    def publish(self, *nodes: str, replace: int = 0) -> None:
        for node in nodes:
            self.model.put(node, "acme", 5, "default", 1000, self.run.task_id(node), replace, 0)

    def begin(self, inc: str = "w1") -> tuple[str, str, int, list[Any]]:
        tag, node, delivery = self.model.pop_row(inc, "default", 1000)
        return node, tag, delivery, self.model.begin(RUN, GEN, node, inc, tag, delivery, "worker")

    def finish(self, node: str, outcome: str = "succeeded", *, attempt: int = 0, inc: str = "w1", delay_ms: int = -1) -> list[Any]:
        return self.model.finish(RUN, GEN, node, attempt, inc, outcome, '"x"', '{"type": "E", "message": ""}', "llm=4", delay_ms)

    def step(self, outcome: str = "succeeded", cats: str = "llm=4") -> str:
        node, tag, delivery, row = self.begin()
        assert row[0] == "run", row
        self.publish(*self.finish(node, outcome)[2:])
        self.model.settle(RUN, GEN, node, row[1], cats, "worker")
        self.model.ack("w1", tag, delivery)
        self.model.check()
        return node

    def states(self) -> dict[str, str]:
        return {node: it.state for node, it in self.run.nodes.items()}


def log(world: World) -> list[str]:
    return [event["t"] for event in world.model.events]


def test_a_chain_runs_in_its_order_and_the_run_ends_when_all_is_settled() -> None:
    world = World(row("a", 0, "b"), row("b", 1, "c"), row("c", 1))
    assert [world.step() for _ in range(3)] == ["a", "b", "c"]
    assert (world.run.status, world.run.outcome) == ("ended", "succeeded")
    account = world.model.accounts["acme"]
    assert (account.held, account.running, world.model.exposure("acme")) == (0, 0, 12)
    assert world.model.events[-1]["counts"] == {"succeeded": 3}


def test_a_join_waits_for_all_of_its_parents() -> None:
    world = World(row("a", 0, "j"), row("b", 0, "j"), row("j", 2))
    world.step()
    assert world.states()["j"] == "pending"
    world.step()
    assert world.states()["j"] == "due"


def test_each_caller_of_another_server_run_is_refused_and_changes_nothing() -> None:
    world = World(row("a", 0))
    before = world.model.snapshot()
    world.model.server = "s2"
    with pytest.raises(Fenced):
        world.model.pop_row("w1", "default", 0)
    with pytest.raises(Fenced):
        world.finish("a")
    assert world.model.epoch == before.epoch
    assert world.model.events == before.events
    world.model.open_epoch("s2")
    assert world.model.events[-1]["id"] == (2, 1)
    assert world.model.beat("w1") == 1


def test_a_rollback_brings_everything_back() -> None:
    world = World(row("a", 0))
    before = world.model.snapshot()
    world.step()
    assert world.run.status == "ended"
    world.model.restore(before)
    assert world.states() == {"a": "due"}
    assert world.step() == "a"


def test_tenants_take_turns_by_virtual_time_and_priorities_order_one_tenants_work() -> None:
    model = World().model
    for tenant, priority, name in (("a", 5, "a1"), ("a", 5, "a2"), ("a", 1, "a0"), ("b", 9, "b1"), ("b", 9, "b2")):
        model.put(name, tenant, priority, "default", 1000, "", 0, 0)
    assert [model.pop_row("w1", "default", 0)[1] for _ in range(5)] == ["a0", "b1", "a1", "b2", "a2"]
    model.check()


def test_time_that_a_tenant_was_idle_earns_it_nothing() -> None:
    model = World().model
    for _ in range(3):
        model.put("a", "a", 5, "default", 1000, "", 0, 0)
    model.pop_row("w1", "default", 0)
    model.pop_row("w1", "default", 0)
    for _ in range(3):
        model.put("b", "b", 5, "default", 1000, "", 0, 0)
    assert model.pools["default"].ready == {"a": 2000, "b": 1000}


def test_messages_of_the_dead_go_first_in_line_in_their_order() -> None:
    model = World().model
    for name in ("1", "2", "3"):
        model.put(name, "a", 5, "default", 1, "", 0, 0)
    model.pop_row("w1", "default", 0)
    model.pop_row("w1", "default", 0)
    model.now_ms += 10
    model.enroll("w2", 0, {})
    assert model.reclaim(5, 1) == (1, 1)
    model.check()
    assert model.reclaim(5, 9) == (1, 0)
    assert model.pop_row("w1", "default", 0) == ["DEAD"]
    assert [model.pop_row("w2", "default", 0)[1:] for _ in range(3)] == [["1", 2], ["2", 2], ["3", 1]]
    model.check()


def test_a_message_is_outstanding_once_and_a_late_acknowledgement_does_nothing() -> None:
    model = World().model
    tag = model.put("x", "a", 5, "default", 1, "once", 0, 0)
    assert model.put("x", "a", 5, "default", 1, "once", 0, 0) == ""
    assert model.pop_row("w1", "default", 0)[0] == tag
    model.retire("w1")
    assert model.ack("w1", tag, 1) == 0
    assert model.messages[tag].deliveries == 1
    model.check()


def test_nobody_begins_what_another_runs_and_a_repeated_begin_answers_the_same() -> None:
    world = World(row("a", 0))
    node, tag, delivery, first = world.begin()
    assert first == ["run", 1, "spec of a", "", 0, "10"]
    assert world.model.begin(RUN, GEN, node, "w1", tag, delivery, "worker") == first
    world.publish("a", replace=1)
    assert world.begin()[3] == ["held"]
    assert log(world).count("node.began") == 1


def test_a_zombie_cannot_finish_and_its_money_returns_when_another_begins() -> None:
    world = World(row("a", 0))
    world.begin()
    world.model.now_ms += 10
    world.model.enroll("w2", 0, {})
    world.model.reclaim(5, 200)
    assert world.finish("a", attempt=1) == ["fenced"]
    assert world.begin("w2")[3][:2] == ["run", 2]
    assert world.finish("a", attempt=1) == ["fenced"]
    assert world.model.reservations[RUN, GEN]["a", 1].state == "void"
    assert world.model.settle(RUN, GEN, "a", 1, "llm=7", "worker") == ["waste", 0, 0]
    assert world.model.spent["acme", world.model.today].waste == 7
    world.model.check()


def test_three_lost_workers_are_poison() -> None:
    world = World(row("a", 0))
    for number in range(3):
        world.model.enroll(f"v{number}", 0, {})
        assert world.begin(f"v{number}")[3][0] == "run"
        world.model.retire(f"v{number}")
    assert world.begin()[3][:2] == ["poison", "failed"]
    assert (world.run.outcome, world.run.counts) == ("failed", {"failed": 1})
    world.model.check()


def test_a_finish_whose_reply_was_lost_is_answered_the_same() -> None:
    world = World(row("a", 0, "b"), row("b", 1))
    world.begin()
    assert world.finish("a", attempt=1) == ["done", 0, "b"]
    assert world.finish("a", attempt=1) == ["done", 0, "b"]
    assert log(world).count("node.ended") == 1


def test_a_retry_waits_for_its_time_one_priority_lower() -> None:
    world = World(row("a", 0, attempts=2))
    node, tag, *_ = world.begin()
    assert world.finish(node, "failed", delay_ms=500) == ["retry", 500]
    assert world.finish(node, "failed", attempt=1, delay_ms=500) == ["retry", 500]
    assert world.model.ack("w1", tag, 1) == 0
    assert world.model.pop_row("w1", "default", 1000) == ["SLEEP", 500]
    world.publish("a", replace=1)
    assert world.begin()[3] == ["later", 500]
    world.model.now_ms += 500
    assert world.begin()[3][:2] == ["run", 2]
    assert world.model.messages[tag].priority == 7
    assert world.finish(node, "failed", delay_ms=500) == ["done", 0]
    world.model.check()


def test_a_required_failure_gives_all_descendants_their_outcome_and_an_optional_one_none() -> None:
    world = World(row("a", 0, "b"), row("b", 1, "c"), row("c", 1), row("o", 0, "d", required=False), row("d", 1))
    assert [world.step("failed"), world.step("failed"), world.step()] == ["a", "o", "d"]
    assert world.states() == {"a": "failed", "b": "upstream_failed", "c": "upstream_failed", "o": "failed", "d": "succeeded"}
    assert world.run.outcome == "failed"


def test_a_body_that_comes_too_early_is_dropped_and_can_be_published_again() -> None:
    world = World(row("a", 0, "b"), row("b", 1))
    world.publish("b")
    world.model.requeue("w1", world.model.pop_row("w1", "default", 0)[0], 1, 0)
    assert world.begin()[3][0] == "run"
    assert world.begin()[3] == ["early"]
    assert world.finish("a") == ["done", 0, "b"]
    world.publish("b")
    assert world.begin()[0] == "b"
    world.model.check()


def test_skipped_nodes_let_their_joins_pass_and_never_become_due() -> None:
    world = World(row("a", 0, "b", required=False), row("b", 1, "c", required=False), row("c", 1))
    assert world.model.skip(RUN, GEN, "too dear", ["a", "b", "c"]) == [2, "c"]
    world.publish("c")
    assert world.step() == "c"
    assert world.run.outcome == "degraded"


def test_nothing_begins_after_a_cancel_and_revoking_ends_the_run() -> None:
    world = World(row("a", 0, "b"), row("b", 1), row("c", 0))
    assert world.model.cancel(RUN, GEN, "enough", "alice") == 1
    assert world.begin()[3] == ["stopped"]
    assert world.model.revoke(RUN, GEN, "cancelled", "enough", ["a", "b", "c"]) == [2, 0]
    assert world.run.outcome == "cancelled"
    assert world.model.cancel(RUN, GEN, "enough", "alice") == 0
    world.model.check()


def test_a_run_that_is_cancelled_while_it_is_loaded_can_still_end() -> None:
    world = World()
    world.model.admit(RUN, GEN, "acme", want(2))
    world.model.cancel(RUN, GEN, "enough", "alice")
    world.model.load(RUN, GEN, [row("a", 0, "b"), row("b", 1)], {})
    assert world.model.launch(RUN, GEN, 0, 1, ["a"]) == []
    world.model.revoke(RUN, GEN, "cancelled", "enough", ["a", "b"])
    assert world.run.outcome == "cancelled"


def test_the_sweeper_is_told_what_nobody_has_published() -> None:
    world = World(row("a", 0), row("b", 0))
    node, tag, *_ = world.begin()
    world.model.ack("w1", tag, 1)
    world.model.now_ms += 10
    assert world.model.stale(RUN, GEN, 5, ["a", "b"]) == [node]
    assert world.states() == {"a": "due", "b": "due"}
    world.publish(node)
    assert world.model.stale(RUN, GEN, 5, ["a", "b"]) == []
    world.model.check()


@pytest.mark.parametrize(
    ("tenant", "terms", "refusal"),
    [
        ("nobody", {}, ["unknown", "", "", ""]),
        ("idle", {}, ["suspended", "", "", ""]),
        ("acme", {"floor": 1001}, ["budget", "1000", "0", ""]),
        ("acme", {"floor": 50, "budget": 49}, ["run_budget", "49", "50", ""]),
    ],
)
def test_a_refused_run_leaves_nothing_but_the_event(tenant: str, terms: dict[str, Any], refusal: list[str]) -> None:
    world = World()
    world.model.account("idle", 100, 1, "suspended")
    assert world.model.admit(RUN, GEN, tenant, want(1, **terms)) == ["refused", *refusal]
    assert not world.model.runs
    assert log(world)[-1] == "run.refused"


def test_runs_are_limited_and_one_run_is_admitted_once() -> None:
    world = World()
    world.model.account("acme", 1000, 1)
    assert world.model.admit(RUN, GEN, "acme", want(1)) == ["admitted", "100"]
    assert world.model.admit(RUN, GEN, "acme", want(1)) == ["admitted", "100"]
    assert world.model.admit("r2", GEN, "acme", want(1)) == ["held", "runs", 0]


def test_a_node_that_its_runs_hold_covers_starts_and_an_excess_must_fit() -> None:
    world = World(row("a", 0, "b", amount=60), row("b", 1, amount=60, required=False), estimate=100, limit=100)
    world.step(cats="llm=60")
    assert world.begin()[3][:2] == ["refused", "skipped"]
    assert world.run.outcome == "degraded"
    world.model.check()


def test_a_verdict_reserves_what_the_variant_costs() -> None:
    world = World(row("a", 0, amount=60, verdict="cheap"))
    world.begin()
    assert world.model.reservations[RUN, GEN]["a", 1].amount == 30


def test_an_execution_is_charged_once_with_the_same_amount() -> None:
    world = World(row("a", 0, "b"), row("b", 1))
    world.begin()
    world.finish("a")
    answers = [world.model.settle(RUN, GEN, "a", 1, cats, "worker")[0] for cats in ("llm=4", "llm=4", "llm=5")]
    assert answers == ["settled", "same", "conflict"]
    assert world.model.void(RUN, GEN, "a", 1, "sweeper") == "conflict"
    assert world.model.settle(RUN, GEN, "a", 2, "", "worker") == ["unknown", 0, 0]
    assert world.model.purses[RUN, GEN].hold == 96
    world.model.check()


def test_reservations_stay_in_the_day_that_made_them_and_holds_move_on() -> None:
    world = World(row("a", 0, "b"), row("b", 1))
    world.begin()
    yesterday = world.model.today
    world.model.now_ms += 86_400_000
    assert world.model.exposure("acme") == 100, "what is reserved may yet return to a hold of today"
    world.finish("a")
    world.model.settle(RUN, GEN, "a", 1, "llm=4", "worker")
    assert world.model.spent["acme", yesterday].settled == 4
    assert world.model.exposure("acme") == 96


@pytest.mark.parametrize(
    "harm",
    [
        lambda model: model.queues.clear(),
        lambda model: model.once.update({"x": "m99"}),
        lambda model: setattr(model.accounts["acme"], "held", 1),
        lambda model: setattr(model.purses[RUN, GEN], "open", 1),
        lambda model: setattr(model.runs[RUN, GEN], "left", 0),
        lambda model: setattr(model.runs[RUN, GEN].nodes["b"], "wait", 0),
        lambda model: setattr(model.runs[RUN, GEN].nodes["a"], "state", "succeeded"),
    ],
)
def test_the_check_notices_what_does_not_add_up(harm: Any) -> None:
    world = World(row("a", 0, "b"), row("b", 1))
    world.model.check()
    harm(world.model)
    with pytest.raises(AssertionError):
        world.model.check()


def test_a_rollback_forgets_what_the_recorder_said_for_the_first_time_after_the_copy() -> None:
    model = Model()
    copy = model.snapshot()
    model.record()
    model.restore(copy)
    assert model.recorded is None
