"""The pages of tenants, queues and schedules: what they say is what Redis and the record say."""

from __future__ import annotations

import pytest
from consoles import answer, post, told
from running import Running, until

from orchestrator.graph import Graph
from orchestrator.store import read
from tenancy.errors import BudgetRefused


def test_a_tenants_money_is_shown_as_it_is_spent_with_what_is_left_and_who_was_refused(stack: Running, console: str) -> None:
    client, tenant = stack.client, "page-money"
    client.tenants.create(tenant, name="<b>Money</b>", limit_per_day_micros=1_000_000)
    nodes = [{"id": "n", "task": "synthetic.spend", "params": {"category": "llm", "micros": 250_000}, "estimate": {"llm": 250_000}}]
    run = client.submit(Graph.parse({"name": "spends", "nodes": nodes}), tenant=tenant).wait(30)
    client.ledger.adjust(tenant, "0.6", category="compute")
    shown = until(
        lambda: next((each for each in told(f"{console}/tenants/data?q={tenant}")["tenants"] if each["settled"] >= 850_000), None)
    )
    usage = client.tenants.usage(tenant)
    assert (shown["settled"], shown["limit_per_day"], shown["level"]) == (usage.settled_micros, 1_000_000, usage.level)
    assert shown["level"] == "WARNING"
    assert shown["burn_per_hour"] >= 250_000
    left = 1_000_000 - shown["settled"] - shown["reserved"]
    assert abs(shown["lasts_s"] - left * 3600 / shown["burn_per_hour"]) < 1
    too_much = [{**nodes[0], "estimate": {"llm": 900_000}}]
    with pytest.raises(BudgetRefused):
        client.submit(Graph.parse({"name": "too-much", "nodes": too_much}), tenant=tenant)
    page = until(lambda: (found := told(f"{console}/tenant/{tenant}/data"))["refused"] >= 1 and found)
    today = page["days"][-1]["spent"]
    assert today["llm"] == 250_000
    assert sum(today.values()) == usage.settled_micros
    assert page["top"][0]["run_id"] == run.run_id
    assert page["policy"]["limit_per_day_micros"] == 1_000_000
    status, html = answer(f"{console}/tenant/{tenant}")
    assert status == 200
    assert "<b>Money" not in html
    assert answer(f"{console}/tenant/nobody")[0] == 404
    assert answer(f"{console}/tenant/nobody/data")[0] == 404
    assert answer(f"{console}/tenant/..%2f..%2fetc")[0] == 404


def test_a_tenant_is_paused_and_resumed_from_its_page_and_every_page_says_so(stack: Running, console: str) -> None:
    client, tenant = stack.client, "page-paused"
    client.tenants.create(tenant, enforcement="observe")
    try:
        assert post(f"{console}/tenant/{tenant}/pause", {"reason": "month end"}) == (200, {"said": "paused"})
        assert told(f"{console}/tenants/data?q={tenant}")["tenants"][0]["paused"]["reason"] == "month end"
        banner = told(f"{console}/console/banner")
        assert tenant in banner["tenants"]["names"]
        assert tenant in banner["observed"]["names"]
        for path in ("/runs", "/workers", "/tasks", "/broker"):
            assert 'id="hg-banner"' in answer(console + path)[1], path
        nodes = [{"id": "n", "task": "synthetic.noop"}]
        run = client.submit(Graph.parse({"name": "waits", "nodes": nodes}), tenant=tenant)
        waiting = until(lambda: next((each for each in told(f"{console}/queues/data")["tenants"] if each["tenant"] == tenant), None))
        assert waiting["paused"]
    finally:
        status, said = post(f"{console}/tenant/{tenant}/resume", {"reason": "done"})
    assert (status, said) == (200, {"said": "resumed"})
    assert run.wait(30).outcome == "succeeded"
    lines = {(line.action, line.actor, line.reason) for line in read.audit(client.engine, tenant)}
    assert lines >= {("scope.paused", "console", "month end"), ("scope.resumed", "console", "done")}
    assert post(f"{console}/tenant/nobody/pause", {})[0] == 404


def test_pools_and_schedules_are_shown_with_what_they_do(stack: Running, console: str) -> None:
    client = stack.client
    graph = Graph.parse({"name": "ticks", "nodes": [{"id": "n", "task": "synthetic.noop"}]})
    client.schedules.create("page-ticks", graph, every_s=3600)
    try:
        found = next(each for each in told(f"{console}/schedules/data?tenant=default")["schedules"] if each["name"] == "page-ticks")
        assert (found["graph"], found["when"], found["overdue_s"]) == ("ticks", "every 3600 s", 0.0)
        assert found["next"] > told(f"{console}/schedules/data")["now"]
        pool = next(each for each in told(f"{console}/queues/data")["pools"] if each["pool"] == "default")
        assert (pool["workers"], pool["slots"], pool["state"]) == (2, 4, "open")
        for path in ("/queues", "/schedules", "/tenants"):
            assert answer(console + path)[0] == 200, path
    finally:
        client.schedules.delete("page-ticks")
