"""Tenants on a running stack: each change is on record when its call returns, and running workers honour it within a second."""

from __future__ import annotations

import time
from typing import Any

import pytest
from running import Running, until
from ulid import ULID

from orchestrator import Conflict, Priority, Refused, Unknown
from orchestrator.client import Client
from orchestrator.graph import Graph
from orchestrator.store import read

TIMEOUT_S = 60


def new_tenant(stack: Running, **policy: Any) -> str:
    tenant = f"t-{str(ULID())[-12:].lower()}"
    made = stack.client.tenants.create(tenant, **policy)
    assert (made.id, made.status, made.version) == (tenant, "active", 1)
    return tenant


def sleeps(count: int, seconds: float) -> Graph:
    nodes: list[Any] = [{"id": f"n{at}", "task": "synthetic.sleep", "params": {"seconds": seconds}} for at in range(count)]
    return Graph.parse({"name": "sleeps", "nodes": nodes})


def starts(client: Client, run_id: str) -> list[float]:
    return [event.at for event in read.get_events(client.engine, run_id) if event.type == "node.began"]


def test_what_was_said_of_a_tenant_is_read_back_with_its_history(stack: Running) -> None:
    tenants = stack.client.tenants
    tenant = new_tenant(stack, weight=2, can_fork=True)
    assert tenants.update(tenant, reason="more", by="ann", weight=3, pool="gpu") == {"weight": (2, 3), "pool": (None, "gpu")}
    assert tenants.update(tenant, weight=3) == {}
    assert tenants.update(tenant, pool=None, version=2) == {"pool": ("gpu", None)}
    assert (tenants.get(tenant).version, tenants.get(tenant).policy.weight, tenants.get(tenant).policy.pool) == (3, 3, None)
    assert tenant in [each.id for each in tenants.list()]
    copy = tenants.fork(tenant, f"{tenant}-b", weight=4)
    assert (copy.policy.weight, copy.policy.can_fork, copy.version) == (4, False, 1)
    first, *rest = tenants.history(tenant)
    assert (first.action, first.new["weight"]) == ("tenant.created", 2)
    assert [(line.field, line.old, line.new, line.version) for line in rest if line.actor == "ann"] == [
        ("pool", None, "gpu", 2),
        ("weight", 2, 3, 2),
    ]
    assert {line.reason for line in rest if line.actor == "ann"} == {"more"}


def test_what_does_not_fit_is_refused_in_one_sentence(stack: Running) -> None:
    tenants = stack.client.tenants
    tenant = new_tenant(stack)
    with pytest.raises(Conflict, match="there is a tenant"):
        tenants.create(tenant)
    with pytest.raises(Conflict, match=r"has version 1 by now, not 7"):
        tenants.update(tenant, version=7, weight=2)
    with pytest.raises(Refused, match="no field 'wieght'; the nearest is 'weight'"):
        tenants.update(tenant, wieght=2)
    with pytest.raises(Refused, match="2 to 63 of a-z"):
        tenants.create("Not An Id")
    with pytest.raises(Refused, match="'default' cannot be closed"):
        tenants.close("default")
    with pytest.raises(Unknown, match="whose policy may be forked"):
        tenants.fork(tenant, f"{tenant}-b")
    sentences = set()
    for stranger in ("nobody-here", "Not An Id", "../etc"):
        for call in (tenants.get, tenants.suspend, tenants.resume, tenants.close, tenants.usage, tenants.history, tenants.update):
            with pytest.raises(Unknown) as unknown:
                call(stranger)
            sentences.add(str(unknown.value).replace(repr(stranger), "X"))
    assert sentences == {"there is no tenant X"}


def test_the_priority_of_a_tenant_s_runs_is_its_policy_s_unless_they_say_theirs(stack: Running) -> None:
    tenant = new_tenant(stack, default_priority="LOW")
    assert stack.client.tenants.default_priority(tenant) is Priority.LOW
    assert stack.client.tenants.default_priority("nobody-here") is Priority.NORMAL
    run = stack.client.submit(sleeps(1, 0.0), tenant=tenant)
    assert read.get_run(stack.client.engine, run.run_id).priority == 7
    assert read.get_run(stack.client.engine, stack.client.submit(sleeps(1, 0.0), tenant=tenant, priority="HIGH").run_id).priority == 3


def test_usage_is_what_runs_and_what_it_cost_so_far(stack: Running) -> None:
    client, tenant = stack.client, new_tenant(stack, limit_per_day_micros=5_000_000)
    spent = {"id": "a", "task": "synthetic.spend", "params": {"micros": 700, "category": "llm"}}
    client.submit(Graph.parse({"name": "spends", "nodes": [spent]}), tenant=tenant).wait(TIMEOUT_S)
    run = client.submit(sleeps(3, 1.0), tenant=tenant)
    during = until(lambda: found if (found := client.tenants.usage(tenant)).reserved_micros == 3 else None)
    assert (during.running_runs, during.waiting_runs, during.limit_per_day_micros) == (1, 0, 5_000_000)
    assert during.running_nodes == 3
    assert during.by_category_micros["llm"] == 700
    assert during.exposure_micros == during.settled_micros + during.reserved_micros + during.held_micros
    run.wait(TIMEOUT_S)
    after = client.tenants.usage(tenant)
    assert (after.running_runs, after.running_nodes, after.reserved_micros, after.held_micros) == (0, 0, 0, 0)
    assert after.settled_micros == sum(each.cost_micros for each in read.list_runs(client.engine, tenant=tenant))


def test_running_workers_honour_another_cap_within_a_second(stack: Running) -> None:
    client, tenant = stack.client, new_tenant(stack)
    held = f"hg1:held:tenant:{tenant}"
    run = client.submit(sleeps(400, 0.05), tenant=tenant)
    until(lambda: stack.redis.scard(held) > 2)
    assert client.tenants.update(tenant, max_running_nodes=1) == {"max_running_nodes": (None, 1)}
    until(lambda: stack.redis.scard(held) <= 1, 1.0)
    since = len(starts(client, run.run_id))
    seen = set()
    while len(starts(client, run.run_id)) < since + 10:
        seen.add(stack.redis.scard(held))
    assert seen == {0, 1} or seen == {1}
    client.tenants.update(tenant, max_running_nodes=None)
    until(lambda: stack.redis.scard(held) > 2, 1.0)
    run.cancel()
    run.wait(TIMEOUT_S)


def test_running_workers_honour_another_weight_within_a_second(stack: Running) -> None:
    client = stack.client
    light, heavy = new_tenant(stack), new_tenant(stack)
    for tenant in (light, heavy):
        client.submit(sleeps(4, 0.02), tenant=tenant).wait(TIMEOUT_S)  # what is put from here on is expected to take 20 ms, not a second
        client.pause(f"tenant:{tenant}")  # what may not go is no load, so neither run waits for the other to be admitted
    runs = [client.submit(sleeps(800, 0.02), tenant=tenant) for tenant in (light, heavy)]
    for tenant in (light, heavy):
        client.resume(f"tenant:{tenant}")
    until(lambda: all(len(starts(client, run.run_id)) > 40 for run in runs), 60)
    client.tenants.update(heavy, weight=8)
    since = time.time() + 1.0
    until(lambda: sum(at > since for at in starts(client, runs[1].run_id)) > 150, 60)
    end = starts(client, runs[1].run_id)[-1]
    began = [sum(since < at <= end for at in starts(client, run.run_id)) for run in runs]
    for run in runs:
        run.cancel()
        run.wait(TIMEOUT_S)
    assert 5 <= began[1] / began[0] <= 13, began


def test_a_suspended_tenant_begins_nothing_and_takes_no_run_until_it_is_resumed(stack: Running) -> None:
    client, tenant = stack.client, new_tenant(stack)
    run = client.submit(sleeps(60, 0.05), tenant=tenant)
    until(lambda: len(starts(client, run.run_id)) > 3)
    assert client.tenants.suspend(tenant, reason="unpaid", by="ann")
    until(lambda: stack.redis.scard(f"hg1:held:tenant:{tenant}") == 0, 1.0)
    with pytest.raises(Refused, match="suspended"):
        client.submit(sleeps(1, 0.0), tenant=tenant)
    assert client.submit(sleeps(8, 0.02)).wait(TIMEOUT_S).outcome == "succeeded"  # all slots were free for it meanwhile
    assert stack.redis.scard(f"hg1:held:tenant:{tenant}") == 0
    assert len(starts(client, run.run_id)) < 60
    assert not client.tenants.suspend(tenant)
    assert client.tenants.resume(tenant, reason="paid")
    until(lambda: stack.redis.scard(f"hg1:held:tenant:{tenant}") > 0, 1.0)
    assert run.wait(TIMEOUT_S).outcome == "succeeded"


def test_a_closed_tenant_s_live_run_finishes_and_no_other_begins(stack: Running) -> None:
    client, tenant = stack.client, new_tenant(stack)
    run = client.submit(sleeps(20, 0.05), tenant=tenant)
    assert client.tenants.close(tenant, reason="gone")
    with pytest.raises(Refused, match="closed"):
        client.submit(sleeps(1, 0.0), tenant=tenant)
    with pytest.raises(Refused, match="is closed, which is final"):
        client.tenants.resume(tenant)
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
    assert client.tenants.get(tenant).status == "closed"
