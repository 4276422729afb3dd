"""The live view of the queues and the dead letters, on a Redis with nothing but the transport in it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import main
from orchestrator.embedded.redis_server import RedisServer
from orchestrator.redis_url import for_client
from orchestrator.settings import Settings
from tenancy import keys
from tenancy.link import Link
from tenancy.transport.fleet import workers
from tenancy.transport.letters import letters
from tenancy.transport.view import TenantLoad, View, look

INC = "worker-1"
INFO = {"name": "w1@here", "host": "here", "pid": 1, "pools": ["default", "gpu"], "slots": 3, "tasks": ["work", "other"]}


@pytest.fixture
def link(redis_server: RedisServer) -> Iterator[Link]:
    """A link to a Redis with an open epoch and one worker."""
    found = Link(for_client(redis_server.url))
    found.client.hset("hg1:epoch", mapping={"epoch": 1, "server": found.server_id(), "seq": 0})
    enroll(found, INC)
    yield found
    found.close()


def enroll(link: Link, inc: str) -> None:
    link.call("tenancy/transport/enroll", inc, 60_000, json.dumps(INFO))


def put(link: Link, tenant: str, priority: int = 5, pool: str = "default", delay_ms: int = 0, run: str = "") -> str:
    return str(link.call("tenancy/transport/put", "{}", tenant, priority, pool, 0, "", 0, delay_ms, run, "work", "[]"))


def pop(link: Link, pool: str = "default", inc: str = INC) -> list[Any]:
    return list(link.call("tenancy/transport/pop", inc, pool, 1_000))


def now_ms(link: Link) -> int:
    seconds, micros = link.read("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


def see(link: Link, **only: str) -> View:
    return look(link, backlog_per_slot=20, **only)


def of(view: View, tenant: str) -> TenantLoad:
    return next(each for each in view.tenants if each.tenant == tenant)


def test_nothing_at_all_is_an_empty_view(link: Link) -> None:
    view = see(link)
    assert (view.tenants, view.letters, view.waiting, view.paused) == ((), 0, 0, False)
    assert [(pool.pool, pool.slots, pool.load, pool.capacity, pool.state) for pool in view.pools] == [
        ("default", 3, 0, 60, "open"),
        ("gpu", 3, 0, 60, "open"),
    ]


def test_each_tenant_is_shown_with_what_waits_runs_is_parked_and_delayed(link: Link) -> None:
    link.client.hset("hg1:tenant:acme", mapping={"weight": 3, "status": "suspended"})
    put(link, "birch", 1)
    assert len(pop(link)) == 3
    for priority in (1, 1, 9):
        put(link, "acme", priority)
    put(link, "acme", 5, pool="gpu")
    put(link, "birch", delay_ms=60_000)
    link.call("tenancy/transport/pause", "run:r.1", "me", "")
    put(link, "cedar", run="r.1")
    pop(link)
    view = see(link)
    acme, birch, cedar = (of(view, name) for name in ("acme", "birch", "cedar"))
    assert [(line.pool, dict(line.queued), line.running) for line in acme.lines] == [
        ("default", {"critical": 2, "batch": 1}, 0),
        ("gpu", {"normal": 1}, 0),
    ]
    assert (acme.queued, acme.weight, acme.status) == (4, 3, "suspended")
    assert (birch.running, birch.delayed, birch.queued) == (1, 1, 0)
    assert (cedar.parked, cedar.queued) == (1, 0)
    assert see(link, tenant="birch").tenants == (birch,)
    assert [each.tenant for each in see(link, pool="gpu").tenants] == ["acme"]
    link.call("tenancy/transport/pause", "tenant:birch", "me", "")
    link.call("tenancy/transport/pause", "platform", "me", "")
    view = see(link)
    assert (of(view, "birch").paused, of(view, "cedar").paused, view.paused) == (True, False, True)


def test_the_oldest_that_waits_is_found_past_entries_that_count_no_more(link: Link) -> None:
    stale = [put(link, "acme") for _ in range(80)]
    since = now_ms(link)
    while now_ms(link) < since + 40:
        pass
    put(link, "acme")
    second = now_ms(link)
    assert of(see(link), "acme").lines[0].oldest_s >= 0.04  # type: ignore[operator]
    link.call("tenancy/transport/remove", "tag", *stale)
    age_s = of(see(link), "acme").lines[0].oldest_s
    assert age_s is not None
    assert age_s <= (now_ms(link) - second + 5) / 1000


def test_shares_are_of_what_was_received_lately_and_due_ones_of_those_who_wanted_some(link: Link) -> None:
    link.client.hset("hg1:tenant:acme", mapping={"weight": 3})
    minute = now_ms(link) // 60_000
    link.client.hset(keys.served(minute), mapping={"acme": 1_000, "birch": 500})
    link.client.hset(keys.served(minute - 1), mapping={"acme": 500})
    link.client.hset(keys.served(minute - 60), mapping={"birch": 10_000})
    put(link, "cedar")
    view = see(link)
    assert {each.tenant: (each.share, each.due) for each in view.tenants} == {
        "acme": (0.75, 0.6),
        "birch": (0.25, 0.2),
        "cedar": (0.0, 0.2),
    }


def test_a_pool_shows_its_pressure(link: Link) -> None:
    before = now_ms(link)
    link.client.hset("hg1:pressure:gpu", mapping={"state": "parked", "since": before - 2_000, "parked": 3, "parked_ms": 1_000})
    gpu = see(link, pool="gpu").pools[0]
    assert (gpu.state, gpu.parked, gpu.since) == ("parked", 3, (before - 2_000) / 1000)
    assert 3.0 <= gpu.parked_s < 30.0


def test_five_thousand_tenants_are_seen_within_seconds(link: Link) -> None:
    for first in range(0, 5_000, 500):
        names = [f"t{each}" for each in range(first, first + 500)]
        link.batch([("tenancy/transport/put", ("{}", name, 5, "default", 0, "", 0, 0, "", "work", "[]")) for name in names])
    began = time.monotonic()
    assert len(see(link).tenants) == 5_000
    assert time.monotonic() - began < 5.0


def test_workers_are_seen_with_what_they_hold(link: Link) -> None:
    put(link, "acme")
    pop(link)
    link.call("tenancy/transport/slots", INC, 7)
    (worker,) = workers(link)
    assert (worker.name, worker.pools, worker.slots, worker.running, worker.tasks) == (
        "w1@here",
        ("default", "gpu"),
        7,
        1,
        ("other", "work"),
    )
    assert worker.since is not None
    assert worker.since <= worker.beat


@pytest.fixture
def dead(link: Link) -> list[str]:
    """Two dead letters: three workers died with each."""
    tags = [put(link, tenant) for tenant in ("acme", "birch")]
    for number in range(3):
        inc = f"doomed-{number}"
        enroll(link, inc)
        assert {pop(link, inc=inc)[0] for _ in tags} == set(tags)
        link.client.zadd("hg1:incarnations", {inc: 0})
        link.call("tenancy/transport/reclaim", 4_000, 200)
    return tags


def headgate(monkeypatch: pytest.MonkeyPatch, server: RedisServer, *words: str) -> Result:
    monkeypatch.setenv("HEADGATE_REDIS_URL", server.url)
    Settings.forget()
    return CliRunner().invoke(main, list(words))


def test_dead_letters_are_listed_with_their_history_requeued_and_discarded(
    link: Link, dead: list[str], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = dead
    listed = headgate(monkeypatch, redis_server, "queues", "letters", "--json")
    assert listed.exit_code == 0
    found = {each["tag"]: each for each in json.loads(listed.stdout)}
    assert found.keys() == set(dead)
    assert (found[first]["tenant"], found[first]["task"], found[first]["deliveries"]) == ("acme", "work", 3)
    assert [death["worker"] for death in found[first]["deaths"]] == ["doomed-0", "doomed-1", "doomed-2"]
    assert "doomed-2" in headgate(monkeypatch, redis_server, "queues", "letters").stdout
    assert "2 dead letters" in headgate(monkeypatch, redis_server, "queues").stdout
    unknown = headgate(monkeypatch, redis_server, "queues", "requeue", "m999")
    assert (unknown.exit_code, "there is no dead letter 'm999'" in unknown.stderr) == (2, True)
    assert headgate(monkeypatch, redis_server, "queues", "requeue").exit_code == 2
    assert headgate(monkeypatch, redis_server, "queues", "requeue", first).stdout == "1 is back in line\n"
    assert pop(link)[0] == first
    assert json.loads(headgate(monkeypatch, redis_server, "queues", "discard", "--all", "--json").stdout) == {"discarded": 1, "left": []}
    assert letters(link) == []
    assert second not in link.read("HKEYS", "hg1:msg")


def test_watching_needs_a_terminal(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, link: Link) -> None:
    done = headgate(monkeypatch, redis_server, "queues", "--watch")
    assert done.exit_code == 2
    assert "--watch draws on a terminal" in done.stderr
