from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import select

from orchestrator.embedded import RedisServer
from orchestrator.logs.capture import Logs
from orchestrator.logs.line import LogName, encode
from orchestrator.logs.reading import NodeLogs
from orchestrator.logs.spool import Spool
from orchestrator.objects import Directory
from orchestrator.recorder.loop import Recorder
from orchestrator.recovery import Superseded, recover
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.engine import open_engine
from orchestrator.store.read import get_nodes, get_run, recorded
from tenancy.errors import Fenced, Unavailable
from tenancy.link import Link
from tests.integration.hands import POOL, Hands, drain, layers

pytestmark = pytest.mark.both_records

Content = dict[str, Any]

VOLATILE = ("hg1:epoch", "hg1:events", "hg1:runs", "hg1:recorded", "hg1:recorder")


def content(client: redis.Redis) -> Content:
    """Everything in Redis, by key, except what two recoveries of the same record may differ in."""
    reads = {"hash": client.hgetall, "string": client.get, "set": client.smembers}
    found: Content = {}
    for key in sorted(client.scan_iter("hg1:*")):
        kind = client.type(key)
        if key.startswith(VOLATILE):
            continue
        if kind == "zset":
            found[key] = client.zrange(key, 0, -1, withscores=True)
        else:
            found[key] = client.lrange(key, 0, -1) if kind == "list" else reads[kind](key)
    return found


def rows(recorder: Recorder, table: Any) -> list[dict[str, Any]]:
    with recorder.engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()]


def check_counters(recorder: Recorder) -> None:
    """Counters of tenants and purses are what the record says, to the micro."""
    client = recorder.link.client
    drain(recorder)
    ledger = rows(recorder, t.ledger)
    charged = [row for row in ledger if row["kind"] in ("settle", "waste")]
    closed = {(row["run_id"], row["node_id"], row["attempt"]) for row in ledger if row["kind"] not in ("reserve", "extend")}
    still = [row for row in ledger if row["kind"] == "reserve" and (row["run_id"], row["node_id"], row["attempt"]) not in closed]
    days = [client.hgetall(key) for key in client.keys("hg1:spent:default:[0-9]*")]
    assert sum(int(day["settled"]) for day in days) == sum(row["amount"] for row in charged)
    assert sum(int(day["reserved"]) for day in days) == sum(row["amount"] for row in still)
    for category in ("llm", "compute"):
        assert sum(int(day.get(f"c:{category}", 0)) for day in days) == sum(r["amount"] for r in charged if r["category"] == category)
    live = [row for row in rows(recorder, t.run) if row["status"] in t.LIVE and row["hold"] is not None]
    purses = [client.hgetall(f"hg1:purse:{row['run_id']}.1") for row in live]
    counters = client.hgetall("hg1:tenant:default")
    assert int(counters["running"]) == len(live)
    assert int(counters["held"]) == sum(int(purse["hold"]) for purse in purses)
    for row, purse in zip(live, purses, strict=True):
        assert int(purse["spent"]) == sum(entry["amount"] for entry in charged if entry["run_id"] == row["run_id"])
        assert int(purse["open"]) == sum(1 for entry in still if entry["run_id"] == row["run_id"])


def finish_all(recorder: Recorder, hands: Hands, runs: list[str]) -> None:
    """Work until every run has ended; what is due and has no message is published as the sweeper does it."""
    hands.enroll()
    for _ in range(50):
        for run in runs:
            hands.sweep(run)
        hands.work()
        drain(recorder)
        if all(get_run(recorder.engine, run).status == "ended" for run in runs):
            return
    raise AssertionError("the runs do not end")


def start(recorder: Recorder, hands: Hands, width: int = 3, depth: int = 4) -> str:
    graph = layers(width, depth)
    run, _ = hands.request(graph)
    drain(recorder)
    hands.start(run, graph)
    return run


def roll_back(server: RedisServer, copy: Path) -> None:
    """Make the server what it was when `copy` was taken, as losing the tail of its log does."""
    server.kill()
    shutil.rmtree(server.directory / "appendonlydir")
    shutil.copytree(copy, server.directory / "appendonlydir")
    server.start()


def take_copy(server: RedisServer, to: Path) -> Path:
    """Copy the log as it is on disk: every command that was answered is in it."""
    shutil.copytree(server.directory / "appendonlydir", to)
    return to


def test_a_restart_that_lost_nothing_opens_the_next_epoch_and_changes_nothing_else(
    recorder: Recorder, hands: Hands, redis_server: RedisServer
) -> None:
    run = start(recorder, hands)
    hands.work(4)
    claimed = hands.begin()
    assert claimed
    before = content(hands.link.client)
    redis_server.kill()
    redis_server.start()
    with pytest.raises(Fenced):
        hands.queue.beat(hands.inc)
    recorder.prepare()
    assert content(hands.link.client) == before
    assert hands.link.client.hmget("hg1:epoch", ["epoch", "server"]) == ["2", hands.link.server_id()]
    hands.finish(*claimed)  # the worker lives on with its lease
    finish_all(recorder, hands, [run])
    assert get_run(recorder.engine, run).outcome == "succeeded"
    assert max(node.attempt for node in get_nodes(recorder.engine, run)) == 1
    opened = [json.loads(row["data"]) for row in rows(recorder, t.event) if row["type"] == "epoch.opened"]
    assert [(event["epoch"], event["rebuilt"]) for event in opened] == [(1, 0), (2, 0)]
    assert rows(recorder, t.incident) == []


def test_an_empty_redis_is_rebuilt_from_the_record(recorder: Recorder, hands: Hands, redis_server: RedisServer) -> None:
    run, other = start(recorder, hands), start(recorder, hands, 2, 2)
    hands.work(7)
    claimed = hands.begin()
    assert claimed
    drain(recorder)
    nodes = {node.id: node for node in get_nodes(recorder.engine, run)}
    redis_server.kill()
    shutil.rmtree(redis_server.directory / "appendonlydir")
    redis_server.start()
    recorder.prepare()

    client = hands.link.client
    assert client.hget("hg1:epoch", "epoch") == "2"
    states = client.hgetall(f"hg1:state:{run}.1")
    for node_id, node in nodes.items():
        assert states[node_id] == (node.outcome or ("due" if node.state in ("due", "running") else "pending"))
    check_counters(recorder)
    zombie_run, node, attempt, _ = claimed
    assert hands.state.finish(zombie_run, 1, node, attempt, hands.inc, "succeeded", "1", "", "llm=1", -1) == ["fenced"]
    assert hands.state.settle(zombie_run, 1, node, attempt, "llm=77", "signal") == "waste"
    finish_all(recorder, hands, [run, other])
    check_counters(recorder)
    assert {get_run(recorder.engine, name).outcome for name in (run, other)} == {"succeeded"}
    assert get_run(recorder.engine, zombie_run).cost_micros == int(str(client.hget(f"hg1:purse:{zombie_run}.1", "spent")))
    again = {node.id: node.attempt for node in get_nodes(recorder.engine, run)}
    assert all(attempt == 1 or attempt > 100 for attempt in again.values())
    assert {node_id for node_id, node in nodes.items() if node.outcome} <= {node_id for node_id, n in again.items() if n == 1}
    assert rows(recorder, t.incident) == []


def money_of(client: redis.Redis) -> Content:
    """Every counter of money, without the zeros that a counter leaves behind."""
    kept = {key: client.hgetall(key) for kind in ("purse:*", "spent:*", "settled_by") for key in client.scan_iter(f"hg1:{kind}")}
    kept["tenant"] = dict(
        zip(("held", "reserved", "running"), client.hmget("hg1:tenant:default", "held", "reserved", "running"), strict=True)
    )
    return {key: {name: value for name, value in row.items() if value not in (None, "0")} for key, row in kept.items()}


def test_a_rebuild_finds_the_money_that_was_there(recorder: Recorder, hands: Hands, redis_server: RedisServer) -> None:
    """Retries, extensions, costs beyond a reservation, waste: with nothing open, the sums of the entries are the counters."""
    runs = [start(recorder, hands), start(recorder, hands)]
    hands.work(9, fail=0.4)
    for cats in ("llm=1500", "llm=2500"):
        claimed = hands.begin()
        assert claimed
        run, node, attempt, delivery = claimed
        assert hands.state.extend(run, 1, node, attempt, hands.inc, "llm=1200") == ["ok"]
        hands.publish(run, hands.state.finish(run, 1, node, attempt, hands.inc, "succeeded", "1", "", cats, -1)[2:])
        assert hands.state.settle(run, 1, node, attempt, cats, "sweeper") == "settled"
        hands.queue.ack(hands.inc, delivery.tag, delivery.number)
    claimed = hands.begin()
    assert claimed
    hands.queue.retire(hands.inc)
    assert hands.state.stale(claimed[0], 1, 0, [claimed[1]]) == []
    hands.enroll()
    again = hands.begin()
    assert again is not None
    assert again[1:3] == (claimed[1], 2)
    assert hands.state.settle(*claimed[:1], 1, claimed[1], 1, "llm=9", "fenced") == "waste"
    hands.finish(*again)
    drain(recorder)
    client = hands.link.client
    before = money_of(client)
    assert int(before["tenant"]["held"]) > 0
    redis_server.kill()
    shutil.rmtree(redis_server.directory / "appendonlydir")
    redis_server.start()
    recorder.prepare()
    assert money_of(client) == before
    check_counters(recorder)
    finish_all(recorder, hands, runs)
    assert client.hmget("hg1:tenant:default", "held", "reserved", "running") == ["0", "0", "0"]


@pytest.mark.parametrize("seed", range(4))
def test_a_redis_rolled_back_to_any_earlier_moment_is_rebuilt_and_the_runs_end(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    runs = [start(recorder, hands) for _ in range(3)]
    hands.work(dice.randint(0, 8), fail=0.1)
    copy = take_copy(redis_server, tmp_path / "copy")
    hands.work(dice.randint(1, 12), fail=0.1)
    hands.begin()
    drain(recorder)
    at = recorded(recorder.engine)
    hands.work(dice.randint(0, 3))  # never recorded: lost for good
    roll_back(redis_server, copy)
    recorder.prepare()
    client = hands.link.client
    assert int(str(client.hget("hg1:epoch", "epoch"))) == at.epoch + 1
    check_counters(recorder)
    finish_all(recorder, hands, runs)
    check_counters(recorder)
    for run in runs:
        nodes = {node.id: node.outcome for node in get_nodes(recorder.engine, run)}
        assert None not in nodes.values()
        # A run that had ended on record needs no state any more.
        assert client.hgetall(f"hg1:state:{run}.1") in (nodes, {})
    ledger = rows(recorder, t.ledger)
    settled = [(row["run_id"], row["node_id"], row["attempt"], row["category"]) for row in ledger if row["kind"] == "settle"]
    assert len(settled) == len(set(settled))
    assert rows(recorder, t.incident) == []


def test_a_rollback_behind_what_is_recorded_again_and_again_never_reuses_an_attempt(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, tmp_path: Path
) -> None:
    run = start(recorder, hands, 1, 2)
    drain(recorder)
    copy = take_copy(redis_server, tmp_path / "copy")
    hands.state.skip(run, 1, "nothing to skip", [])  # recorded after the copy: the copy is behind
    hands.enroll()
    drain(recorder)
    attempts = []
    for _ in range(3):
        claimed = hands.begin()
        assert claimed
        attempts.append(claimed[2])
        roll_back(redis_server, copy)  # the claim was never recorded
        recorder.prepare()
        hands.enroll()
        hands.sweep(run)
        drain(recorder)
    assert attempts == [1, 101, 201]


@pytest.mark.parametrize("dies_after", [0, 1, 2, 3, 5, 8, 13, 17])
def test_a_rebuild_that_dies_halfway_and_starts_again_gives_the_same(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, settings: Settings, tmp_path: Path, dies_after: int
) -> None:
    start(recorder, hands)
    copy = take_copy(redis_server, tmp_path / "copy")
    hands.work(6, fail=0.2)
    hands.begin()
    hands.queue.put("ordinary", "default", 5, POOL, 1000)
    drain(recorder)
    roll_back(redis_server, copy)

    steps = 0

    def die() -> None:
        nonlocal steps
        steps += 1
        if steps > dies_after:
            raise Superseded("killed here")

    with pytest.raises(Superseded):
        recover(recorder.link, recorder.engine, settings, alive=die)
    with pytest.raises(Fenced):
        hands.queue.beat(hands.inc)
    recover(recorder.link, recorder.engine, settings)
    once = content(recorder.link.client)
    roll_back(redis_server, copy)
    recover(recorder.link, recorder.engine, settings)
    again = content(recorder.link.client)
    assert once.keys() == again.keys()
    assert once == again
    recorder.prepare()
    check_counters(recorder)


def test_ordinary_messages_survive_a_rebuild_in_line_and_those_of_nodes_go(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, tmp_path: Path
) -> None:
    hands.queue.put("held", "default", 5, POOL, 1000)
    assert hands.queue.pop(hands.inc, POOL, 1)
    for name in ("one", "two", "three"):
        hands.queue.put(name, "default", 5, POOL, 1000)
    hands.queue.put("later", "default", 5, POOL, 1000, delay_ms=3_600_000)
    run = start(recorder, hands)
    copy = take_copy(redis_server, tmp_path / "copy")
    hands.enroll()
    drain(recorder)
    roll_back(redis_server, copy)
    recorder.prepare()
    client = hands.link.client
    assert client.hlen("hg1:meta") == client.hlen("hg1:msg") == 5
    assert client.zcard("hg1:delayed") == 1
    assert client.hgetall("hg1:load") == {POOL: "4", f"{POOL}|ms": "4000"}
    assert client.hgetall("hg1:delayed:by") == {"default": "1"}
    hands.enroll()
    popped = []
    while delivery := hands.queue.pop(hands.inc, POOL, 1):
        popped.append(delivery.payload)
        hands.queue.ack(hands.inc, delivery.tag, delivery.number)
    assert popped == ["held", "one", "two", "three"]
    assert client.hmget("hg1:load", POOL, f"{POOL}|ms") == ["0", "0"]
    assert not client.exists(f"hg1:work:{POOL}")
    finish_all(recorder, hands, [run])


def test_what_nodes_had_said_survives_a_rebuild_and_is_put_away_after_it(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, tmp_path: Path
) -> None:
    run = start(recorder, hands, 1, 1)
    name, spool, objects = LogName(run, 1, "n0.0", 1), Spool(hands.link, 10_000), Directory(tmp_path / "results")
    spool.append(name, [(100, encode(1, 1000, "INFO", "x", "said"))])
    copy = take_copy(redis_server, tmp_path / "copy")
    hands.enroll()
    drain(recorder)
    roll_back(redis_server, copy)
    with pytest.raises(Unavailable):
        spool.append(name, [(200, encode(2, 2000, "INFO", "x", "between two epochs"))])
    recorder.prepare()
    spool.append(name, [(200, encode(2, 2000, "INFO", "x", "kept back until then"))])
    assert Logs(spool, objects, 10_000).put_away(0) == 1
    assert [line.text for line in NodeLogs(spool, objects).read(name)] == ["said", "kept back until then"]
    assert hands.link.client.keys("hg1:log*") == []
    finish_all(recorder, hands, [run])


def test_a_cancelled_run_stays_cancelled_through_a_rebuild(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, tmp_path: Path
) -> None:
    run = start(recorder, hands)
    copy = take_copy(redis_server, tmp_path / "copy")
    hands.work(2)
    hands.state.cancel(run, 1, "enough", "ann")
    drain(recorder)
    roll_back(redis_server, copy)
    recorder.prepare()
    client = hands.link.client
    assert client.hmget(f"hg1:run:{run}.1", ["status", "reason"]) == ["cancelling", "enough"]
    left = [node for node, state in client.hgetall(f"hg1:state:{run}.1").items() if state in ("pending", "due")]
    hands.state.revoke(run, 1, "cancelled", "enough", left)
    drain(recorder)
    assert get_run(recorder.engine, run).outcome == "cancelled"
    check_counters(recorder)


def test_an_admitted_run_that_was_not_launched_is_loaded_again(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, tmp_path: Path
) -> None:
    graph = layers(2, 2)
    run, _ = hands.request(graph)
    drain(recorder)
    copy = take_copy(redis_server, tmp_path / "copy")
    want = {"graph": "layers", "total": 4, "estimate": "4000", "floor": "2000", "budget": "", "priority": 5}
    hands.state.admit(run, 1, "default", want)
    drain(recorder)
    roll_back(redis_server, copy)
    recorder.prepare()
    assert hands.link.client.hget(f"hg1:run:{run}.1", "status") == "loading"
    check_counters(recorder)
    hands.start(run, graph)
    finish_all(recorder, hands, [run])


def test_a_run_whose_last_node_ended_in_the_recorded_prefix_ends_after_the_rebuild(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch may cut the events of one script in two: node.ended is on record, run.ended is not."""
    run = start(recorder, hands, 1, 1)
    copy = take_copy(redis_server, tmp_path / "copy")
    claimed = hands.begin()
    assert claimed
    name, node, attempt, _ = claimed
    assert hands.state.settle(name, 1, node, attempt, "llm=5", "signal") == "settled"
    hands.state.finish(name, 1, node, attempt, hands.inc, "succeeded", "1", "", "llm=5", -1)
    types = [json.loads(fields["e"])["t"] for _, fields in hands.link.client.xrange("hg1:events")]
    assert types[-2:] == ["node.ended", "run.ended"]
    last = str(hands.link.client.xrevrange("hg1:events", count=1)[0][0])
    hands.link.client.xdel("hg1:events", last)
    drain(recorder)
    roll_back(redis_server, copy)
    recorder.prepare()
    drain(recorder)
    assert (get_run(recorder.engine, run).outcome, get_run(recorder.engine, run).cost_micros) == ("succeeded", 5)
    check_counters(recorder)


def test_a_stream_that_tells_another_story_is_an_incident_and_the_record_stands(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, settings: Settings, tmp_path: Path
) -> None:
    """Two servers went on under one epoch, as a split failover does: what is recorded is the truth, the rest is told."""
    start(recorder, hands)
    copy = take_copy(redis_server, tmp_path / "copy")
    hands.work(3)
    drain(recorder)
    kept = [row["data"] for row in rows(recorder, t.event)]
    roll_back(redis_server, copy)
    client = hands.link.client
    client.hset("hg1:epoch", "server", hands.link.server_id())  # the fence is broken by hand
    hands.enroll()
    for _ in range(20):
        hands.queue.retire(hands.inc)
        hands.enroll()
    recorder.prepare()
    drain(recorder)
    assert {row["kind"] for row in rows(recorder, t.incident)} == {"conflict"}
    assert [row["data"] for row in rows(recorder, t.event)][: len(kept)] == kept
    assert client.hget("hg1:epoch", "epoch") == "2"
    check_counters(recorder)


def test_of_two_recoveries_at_once_one_goes_on_and_the_other_stops_writing(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, settings: Settings, tmp_path: Path
) -> None:
    start(recorder, hands)
    copy = take_copy(redis_server, tmp_path / "copy")
    hands.work(3)
    drain(recorder)
    roll_back(redis_server, copy)
    other = make_other(redis_server, settings)
    steps = 0

    def overtaken() -> None:
        nonlocal steps
        steps += int(hands.link.client.hexists("hg1:epoch", "rebuild"))  # while the rebuild goes on, not before
        if steps == 4:
            recover(other.link, other.engine, settings)

    with pytest.raises(Superseded):
        recover(recorder.link, recorder.engine, settings, alive=overtaken)
    recorder.prepare()
    assert hands.link.client.hget("hg1:epoch", "epoch") == "2"
    check_counters(recorder)


def make_other(server: RedisServer, settings: Settings) -> Recorder:
    return Recorder(Link(server.client_url), open_engine(settings.resolved_database_url(), writer=True), settings)
