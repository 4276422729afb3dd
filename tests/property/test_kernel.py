"""The kernel in Redis and the plain model take the same calls: they answer the same and end in the same state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from clock import moved_clock
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from kernel_graphs import Graph
from kernel_machine import LAG_MS, KernelMachine

from orchestrator.embedded import RedisServer
from orchestrator.model import NodeRow, RunState


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    redis_server = RedisServer(tmp_path_factory.mktemp("kernel"))
    redis_server.start()
    with moved_clock():
        yield redis_server
    redis_server.stop()


@pytest.mark.timeout(0)
def test_the_kernel_does_what_the_model_does(server: RedisServer, request: pytest.FixtureRequest) -> None:
    KernelMachine.url = server.client_url
    profile = request.config.getoption("--hypothesis-profile") or "kernel"
    run_state_machine_as_test(
        KernelMachine,
        settings=settings(settings.get_profile(profile), suppress_health_check=list(HealthCheck), report_multiple_bugs=False),
    )


# What random calls rarely come to


@pytest.fixture
def world(server: RedisServer) -> Iterator[KernelMachine]:
    """Both sides with one tenant and one worker; compared and driven to the end when the test is done."""
    KernelMachine.url = server.client_url
    machine = KernelMachine()
    machine.open_epoch()
    machine.model.account("acme", 2**53 - 1, 3)
    machine.kernel.account("acme", 2**53 - 1, 3)
    machine.enroll()
    yield machine
    machine.same_state()
    machine.same_events()
    machine.teardown()


def row(node: str, wait: int, *children: str, required: bool = True, amount: int = 10, attempts: int = 1) -> NodeRow:
    ctl = {"amounts": {"": str(amount)}, "required": required, "attempts": attempts, "next": children}
    return node, wait, json.dumps(ctl), f"spec of {node}", "", "0"


def graph_of(*rows: NodeRow) -> Graph:
    total = sum(int(json.loads(row[2])["amounts"][""]) for row in rows)
    want = {"graph": "g", "total": len(rows), "estimate": str(total), "floor": "0", "budget": "", "priority": 5}
    return Graph("r1", "acme", rows, 0, json.dumps(want))


def submitted(world: KernelMachine, *rows: NodeRow, until: int = 9) -> RunState:
    world.graphs["r1"] = graph_of(*rows)
    world.complete(world.graphs["r1"], until)
    return world.model.runs["r1", 1]


def test_a_run_that_is_cancelled_while_it_is_loaded_ends(world: KernelMachine) -> None:
    run = submitted(world, row("a", 0, "b"), row("b", 1), until=1)
    world.both("cancel", "r1", 1, "changed my mind", "alice")
    world.drive_to_the_end()
    assert run.outcome == "cancelled"


def test_a_node_that_is_skipped_with_its_parent_does_not_become_due(world: KernelMachine) -> None:
    submitted(world, row("a", 0, "b", required=False), row("b", 1, "c", required=False), row("c", 1))
    assert world.both("skip", "r1", 1, "too dear", ["a", "b"]) == [2, "c"]
    assert [event["nodes"] for event in world.model.events if event["t"] == "node.due"] == [["a"], ["c"]]


def test_a_node_is_poison_also_when_the_sweeper_found_that_its_last_worker_was_lost(world: KernelMachine) -> None:
    run = submitted(world, row("a", 0))
    for _ in range(3):
        claim = world.pop("i1")
        assert claim is not None
        assert world.begin(claim)
        world.both("ack", "i1", claim.tag, claim.delivery)  # acknowledged by someone who did not finish it
        world.publish("r1", world.both("stale", "r1", 1, 0, ["a"]))
    assert run.nodes["a"].lost == 3
    claim = world.pop("i1")
    assert claim is not None
    assert world.begin(claim) is None
    assert run.nodes["a"].state == "failed"


def test_a_sweep_gives_back_what_a_dead_worker_had_reserved_though_its_message_waits_in_line(world: KernelMachine) -> None:
    run = submitted(world, row("a", 0))
    claim = world.pop("i1")
    assert claim is not None
    begun = world.begin(claim)
    assert begun is not None
    world.both("pause", "tenant:acme", "alice", "lunch")
    world.die("i1")
    assert world.model.purses["r1", 1].reserved == 10
    assert world.both("stale", "r1", 1, 0, ["a"]) == []  # its message is there, and waits for the tenant
    assert run.nodes["a"].state == "due"
    purse = world.model.purses["r1", 1]
    assert (purse.reserved, purse.hold, world.model.reservations["r1", 1]["a", 1].state) == (0, 10, "void")
    assert world.both("settle", "r1", 1, "a", 1, "llm=3", "signal")[0] == "waste"  # it was no more dead than it seemed
    world.both("resume", "tenant:acme", "alice", "")
    world.enroll()
    again = world.pop("i2")
    assert again is not None
    second = world.begin(again)
    assert second is not None
    assert (second.attempt, run.nodes["a"].lost) == (2, 1)


def test_nothing_begins_while_the_record_is_too_far_behind_and_an_idle_recorder_is_not(world: KernelMachine) -> None:
    submitted(world, row("a", 0), row("b", 0))
    world.catch_up()
    world.now_ms += 10 * LAG_MS  # nothing happens for long, and the recorder says nothing
    first = world.pop("i1")
    assert first is not None
    begun = world.begin(first)
    assert begun is not None
    world.now_ms += LAG_MS + 1  # what began is not on record yet
    second = world.pop("i1")
    assert second is not None
    asked = ("begin", "r1", 1, second.node, "i1", second.tag, second.delivery, "w@h", LAG_MS)
    assert world.both(*asked) == ["later", 2_000]
    assert world.model.purses["r1", 1].open == 1
    assert world.finish(begun, "succeeded", "llm=1", -1)[0] == "done"  # what runs goes on
    assert world.both("settle", "r1", 1, begun.node, 1, "llm=1", "signal")[0] == "settled"
    world.catch_up()
    world.time_passes()
    again = world.pop("i1")
    assert again is not None
    assert world.begin(again) is not None


def test_the_fate_of_many_descendants_is_written_in_pieces(world: KernelMachine) -> None:
    names = [f"n{i}" for i in range(203)]
    run = submitted(world, row("a", 0, *names), *[row(name, 1) for name in names])
    claim = world.pop("i1")
    assert claim is not None
    begun = world.begin(claim)
    assert begun is not None
    assert world.finish(begun, "failed", "", -1) == ["done", 1]
    assert world.finish(begun, "failed", "", -1) == ["done", 1]
    assert world.both("cascade", "r1", 1, 1) == [1]
    assert world.both("settle", "r1", 1, "a", 1, "", "worker") == ["settled", 0, 0]
    assert run.left == 2
    assert world.both("cascade", "r1", 1, 2) == [0]
    assert run.outcome == "failed"


def test_the_largest_amount_goes_through_unrounded(world: KernelMachine) -> None:
    most = 2**53 - 1
    submitted(world, row("a", 0, amount=most))
    claim = world.pop("i1")
    assert claim is not None
    assert world.begin(claim)
    assert world.both("settle", "r1", 1, "a", 1, f"llm={most}", "worker") == ["settled", 0, 0]
    assert world.model.purses["r1", 1].spent == most


def test_messages_that_a_worker_takes_again_are_told_apart_by_their_delivery(world: KernelMachine) -> None:
    submitted(world, row("a", 0))
    first = world.pop("i1")
    assert first is not None
    world.both("requeue", "i1", first.tag, first.delivery, 0)
    second = world.pop("i1")
    assert second is not None
    assert (second.tag, second.delivery) == (first.tag, 2)
    assert world.begin(first) is None
    assert world.begin(second) is not None


def test_a_late_word_about_an_earlier_delivery_says_nothing_about_the_next(world: KernelMachine) -> None:
    run = submitted(world, row("a", 0, attempts=2))
    first = world.pop("i1")
    assert first is not None
    begun = world.begin(first)
    assert begun is not None
    assert world.finish(begun, "failed", "", 0) == ["retry", 0]
    second = world.pop("i1")
    assert second is not None
    again = world.begin(second)
    assert again is not None
    assert world.both("ack", "i1", first.tag, first.delivery) == 0
    assert world.finish(again, "succeeded", "", -1)[0] == "done"
    assert run.nodes["a"].state == "succeeded"


def test_a_run_that_is_over_on_record_leaves_nothing_not_even_what_was_parked_of_it(world: KernelMachine) -> None:
    submitted(world, row("a", 0), row("b", 0))
    world.both("pause", "run:r1.1", "alice", "why not")
    world.take("i1")
    world.both("cancel", "r1", 1, "changed my mind", "alice")
    world.both("revoke", "r1", 1, "cancelled", "changed my mind", ["a", "b"])
    world.publish("r1", ["a"])  # whoever sent it did not know
    world.take("i1")
    assert world.both("forget", 0, "r1.1") == [0, 0]  # not on record yet
    world.model.over["r1.1"] = world.now_ms
    world.kernel.record_end("r1.1", world.now_ms)
    assert world.both("forget", 1000, "r1.1") == [0, 0]  # not for long enough
    assert world.both("forget", 1, "r1.1", "r1.1", "unknown.1") == [1, 0]
    assert "r1" not in str(world.kernel.everything())


def test_a_run_that_is_refused_while_it_waits_leaves_nothing(world: KernelMachine) -> None:
    world.account("acme", 100, 1)
    submitted(world, row("a", 0))
    waiting = Graph("r2", "acme", (row("b", 0),), 0, graph_of(row("b", 0)).want)
    assert world.both("admit", "r2", 1, "acme", waiting.want)[0] == "held"
    assert world.both("deadline", "r2", 1, 900, "", "it takes longer", "alice") == "0"
    assert world.both("rank", "r2", 1, 3, "it is late", "alice") == "5"
    world.account("acme", 5, 1)
    assert world.both("let_in", 10) == [0]
    world.both("cancel", "r1", 1, "changed my mind", "alice")
    world.account("acme", 5, 2, status="closed")
    assert world.both("let_in", 10) == [0]
    assert "r2" not in str(world.kernel.everything())


def test_who_comes_to_start_a_run_after_it_may_have_been_forgotten_starts_nothing(world: KernelMachine) -> None:
    run = graph_of(row("a", 0))
    assert world.both("admit", "r1", 1, "acme", run.want, world.now_ms - 1) == ["stale"]
    assert world.both("admit", "r1", 1, "acme", run.want, world.now_ms + 1000)[0] == "admitted"
    assert world.both("admit", "r1", 1, "acme", run.want, world.now_ms - 1)[0] == "admitted"  # known: it is not forgotten
    world.graphs["r1"] = run


def test_a_run_that_is_paused_gives_its_place_up_and_in_time_its_hold_and_has_both_again(world: KernelMachine) -> None:
    world.account("acme", 100, 1)
    first = graph_of(row("a", 0, amount=60), row("b", 0, amount=10))
    world.graphs["r1"] = replace(first, want=first.want.replace('"floor": "0"', '"floor": "70"'))
    world.complete(world.graphs["r1"])
    account, purse = world.model.accounts["acme"], world.model.purses["r1", 1]
    world.both("pause", "run:r1.1", "alice", "why not")
    assert world.both("stand_by", "r1", 1, 1_000) == "away"
    assert (account.running, purse.hold) == (0, 70)
    second = world.graphs["r2"] = Graph("r2", "acme", (row("c", 0, amount=20),), 0, graph_of(row("c", 0, amount=20)).want)
    assert world.both("admit", "r2", 1, "acme", second.want)[0] == "admitted", "its place is another's"
    assert world.both("stand_by", "r1", 1, 1_000) == ""
    world.now_ms += 1_000
    assert world.both("stand_by", "r1", 1, None) == ""
    assert world.both("stand_by", "r1", 1, 1_000) == "lapsed"
    assert world.both("stand_by", "r1", 1, 1_000) == ""
    assert (purse.hold, account.held) == (0, 20)
    world.both("resume", "run:r1.1", "alice", "")
    assert world.both("stand_by", "r1", 1, 1_000) == "back"
    assert world.both("stand_by", "r1", 1, 1_000) == ""
    assert (account.running, purse.hold) == (2, 70), "what its required nodes need is held again"


def test_a_run_that_is_cancelled_while_it_is_paused_gives_its_place_up_once(world: KernelMachine) -> None:
    submitted(world, row("a", 0))
    world.both("pause", "run:r1.1", "alice", "why not")
    assert world.both("stand_by", "r1", 1, None) == "away"
    world.both("cancel", "r1", 1, "changed my mind", "alice")
    assert world.both("stand_by", "r1", 1, None) == ""
    world.both("revoke", "r1", 1, "cancelled", "changed my mind", ["a"])
    assert (world.model.runs["r1", 1].status, world.model.accounts["acme"].running, world.model.away) == ("ended", 0, {})
