"""Under asyncio the client's calls are awaited: the same calls, in threads."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import Any

import pytest
from running import Running, until
from ulid import ULID

from orchestrator.client import Client
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.ledger import Ledger
from orchestrator.price_tables import PriceTables
from orchestrator.schedules.book import Schedules
from orchestrator.settings import Settings
from orchestrator.tenants import Tenants
from tenancy.errors import Conflict, GraphInvalid, Refused, Unknown, WaitTimeout


def graph(seconds: float = 0.0, name: str = "awaited") -> Graph:
    return Graph.parse({"name": name, "nodes": [{"id": "a", "task": "synthetic.sleep", "params": {"seconds": seconds}}]})


def busy(client: Client) -> int:
    """Subscriptions to the ends of runs: one for each wait at work."""
    return int(client.kernel.link.client.pubsub_numsub("hg1:ended")[0][1])


def test_submit_wait_and_result_are_awaited_and_the_loop_serves_others_meanwhile(stack: Running) -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        run = await stack.client.asubmit(graph(0.5), key=str(ULID()))
        same = await stack.client.arun(run.run_id)
        assert await same.await_(timeout_s=60) is same
        assert ticks > 10
        view = await run.aview()
        assert (view.outcome, view.status) == ("succeeded", "ended")
        assert await run.aresult() == run.result()
        assert [node["outcome"] for node in await run.anodes()] == ["succeeded"]
        assert {event["t"] for event in await run.aevents()} >= {"run.started", "node.ended", "run.ended"}
        ticking.cancel()

    asyncio.run(main())


def test_forty_submissions_at_once_have_one_kernel_and_are_waited_for_together(stack: Running) -> None:
    fresh = Client(Settings(home=stack.client.settings.home, redis_url=stack.client.settings.redis_url))

    async def main() -> list[str | None]:
        runs = await asyncio.gather(*(fresh.asubmit(graph(0.05)) for _ in range(40)))
        await asyncio.gather(*(run.await_(timeout_s=90) for run in runs))
        assert len({run.run_id for run in runs}) == 40
        return [(await run.aview()).outcome for run in runs]

    assert set(asyncio.run(main())) == {"succeeded"}
    fresh.engine.dispose()
    fresh.kernel.link.close()
    fresh.kernel.app.close()


def test_errors_come_as_they_do_without_asyncio(stack: Running) -> None:
    async def main() -> None:
        with pytest.raises(Unknown, match="no run"):
            await stack.client.arun("01" * 13)
        with pytest.raises(GraphInvalid):
            await stack.client.asubmit(Graph.parse({"name": "x", "nodes": [{"id": "a", "task": "nobody.knows"}]}))
        run = await stack.client.asubmit(graph(30))
        with pytest.raises(WaitTimeout, match="it goes on"):
            await run.await_(timeout_s=0.05)
        assert await run.acancel(now=True, reason="enough")
        assert (await (await run.await_(timeout_s=60)).aview()).outcome == "cancelled"

    asyncio.run(main())


def test_who_is_cancelled_stops_waiting_at_once_and_the_run_goes_on(stack: Running) -> None:
    client = stack.client

    async def main() -> RunHandle:
        run = await client.asubmit(graph(1.5))
        task = asyncio.create_task(run.await_())
        await asyncio.to_thread(until, lambda: busy(client))
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 10
        return run

    run = asyncio.run(main())
    until(lambda: busy(client) == 0)  # its thread has noticed
    assert run.wait(60).outcome == "succeeded"


def test_a_submission_that_was_given_up_is_found_again_by_its_key(stack: Running) -> None:
    key = str(ULID())

    async def main() -> RunHandle:
        task = asyncio.create_task(stack.client.asubmit(graph(), key=key))
        await asyncio.sleep(0)  # it has begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await (await stack.client.asubmit(graph(), key=key)).await_(60)

    run = asyncio.run(main())
    assert run.outcome == "succeeded"
    assert [found.run_id for found in _runs_of(stack.client, key)] == [run.run_id]


def _runs_of(client: Client, key: str) -> list[Any]:
    from orchestrator.store import read

    return list(read.list_runs(client.engine, key=key))


def test_a_backfill_is_an_async_iterator_that_gives_its_lease_up_when_it_is_left(stack: Running) -> None:
    tenant = stack.client.tenants.create(f"t-{str(ULID())[-12:].lower()}").id
    given: dict[str, Any] = {"tenant": tenant, "cron": "0 3 * * *"}
    params = {"seconds": 0.0, "inputs": [{"$schedule": "date"}]}
    daily = Graph.parse({"name": "daily", "nodes": [{"id": "a", "task": "synthetic.sleep", "params": params}]})

    async def first() -> str:
        async for each in stack.client.abackfill(daily, "2026-03-01", "2026-03-04", **given):
            return each.run.run_id
        raise AssertionError

    async def all_of_it() -> list[str]:
        return [each.run.run_id async for each in stack.client.abackfill(daily, "2026-03-01", "2026-03-04", **given)]

    begun = asyncio.run(first())
    found = asyncio.run(all_of_it())
    assert len(found) == 3
    assert begun in found


def test_tenants_prices_the_ledger_and_schedules_are_awaited_too(stack: Running) -> None:
    client, tenant = stack.client, f"t-{str(ULID())[-12:].lower()}"

    async def main() -> None:
        assert (await client.tenants.acreate(tenant, limit_per_day_micros=5_000)).id == tenant
        with pytest.raises(Conflict, match="already"):
            await client.tenants.acreate(tenant)
        assert await client.tenants.aupdate(tenant, weight=3) == {"weight": (1, 3)}
        month = client.tenants.usage(tenant).day[:7]
        await asyncio.gather(*(client.ledger.aadjust(tenant, 100 + each, "llm") for each in range(3)))
        assert sorted([entry["amount"] async for entry in client.ledger.aentries(tenant, month)]) == [100, 101, 102]
        async for entry in client.ledger.aentries(tenant, month):
            assert entry["tenant"] == tenant
            break
        with pytest.raises(Refused, match="no month"):
            await anext(client.ledger.aentries(tenant, "soon"))
        used, tables = await asyncio.gather(client.tenants.ausage(tenant), client.prices.alist())
        assert (used.settled_micros, used.limit_per_day_micros) == (303, 5_000)
        assert await client.prices.ain_force(tenant) in [each.table for each in tables]
        assert (await client.schedules.acreate("hourly", graph(), tenant=tenant, every_s=3_600)).name == "hourly"
        assert await client.schedules.apause("hourly", tenant=tenant)
        assert [each.name for each in await client.schedules.alist(tenant)] == ["hourly"]
        await client.schedules.adelete("hourly", tenant=tenant)
        with pytest.raises(Unknown):
            await client.schedules.ashow("hourly", tenant=tenant)

    asyncio.run(main())


@pytest.mark.parametrize("of", [Client, RunHandle, Tenants, PriceTables, Ledger, Schedules], ids=lambda of: str(of.__name__))
def test_every_call_that_talks_to_a_service_has_its_awaited_twin(of: type) -> None:
    odd = {(RunHandle, "wait"): "await_"}
    calls = {name: found for name, found in vars(of).items() if inspect.isfunction(found) and not name.startswith("_")}
    awaited = {name for name, found in calls.items() if inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found)}
    plain = set(calls) - awaited
    assert plain
    assert {odd.get((of, name), f"a{name}") for name in plain} <= awaited
