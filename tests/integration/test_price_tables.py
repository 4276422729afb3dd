"""Prices that change while nodes run: who pays what, from when on, and after a loss of Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from running import Running, by_id, until
from sqlalchemy import select
from taxed import Taxed, worker
from ulid import ULID

from cost.price_book import LOOK_AFTER_S, PriceBook
from cost.prices import DEFAULT_PRICES
from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.recorder import append_request, await_answer
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.store import read
from orchestrator.store import tables as t
from tenancy.errors import Conflict, Refused, Unavailable, Unknown
from tests.integration.hands import make_recorder

TIMEOUT_S = 30


def version() -> str:
    return f"v-{str(ULID())[-10:].lower()}"


def new_tenant(stack: Running) -> str:
    return stack.client.tenants.create(f"t-{str(ULID())[-12:].lower()}").id


def using(count: int, seconds: float = 0.0, tokens: int = 1) -> Graph:
    params = {"tokens": tokens, "seconds": seconds}
    return Graph.parse({"name": "using", "nodes": [{"id": f"n{at}", "task": "node_tasks.use", "params": params} for at in range(count)]})


def cost_of(stack: Running, run: RunHandle) -> dict[str, int]:
    return read.run_cost(stack.client.engine, run.run_id, run.generation)


@contextmanager
def platform_prices(stack: Running, **prices: str) -> Iterator[None]:
    stack.client.prices.set(version(), {"compute/second": "0", **prices})
    try:
        yield
    finally:
        stack.client.prices.set(DEFAULT_PRICES.version)


def test_running_workers_price_by_another_table_within_a_second(stack: Running) -> None:
    client, tenant, other = stack.client, new_tenant(stack), new_tenant(stack)
    client.prices.set(version(), {"compute/second": "0", "llm/token": "20"}, tenant=tenant)
    run, beside = (client.submit(using(count, 0.1), tenant=each) for count, each in ((100, tenant), (4, other)))
    until(lambda: sum(event.type == "money.settled" for event in read.get_events(client.engine, run.run_id)) > 8)
    before = time.time()
    assert client.prices.set(version(), {"compute/second": "0", "llm/token": "70"}, tenant=tenant, reason="dearer", by="ann")
    after = time.time()
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
    nodes = by_id(run).values()
    earlier = {node["cost_micros"] for node in nodes if node["finished_at"] < before}
    later = [node["cost_micros"] for node in nodes if node["started_at"] > after + 1]
    assert earlier == {20}
    assert set(later) == {70}, later
    assert len(later) > 10
    assert cost_of(stack, beside.wait(TIMEOUT_S))["llm"] == 4 * 20  # the built-in price: a tenant's table is its own


def test_every_settled_entry_carries_the_version_that_it_was_priced_by(stack: Running) -> None:
    client, tenant, first, second = stack.client, new_tenant(stack), version(), version()
    carried = []
    for name in (first, second):
        client.prices.set(name, {"compute/second": "1", "llm/token": "2"}, tenant=tenant)
        until(lambda name=name: PriceBook(client.kernel.link).of(tenant).version == name)  # type: ignore[misc]
        run = client.submit(using(60, 0.1), tenant=tenant).wait(TIMEOUT_S)
        late = {node["id"] for node in run.nodes if node["started_at"] > min(each["started_at"] for each in run.nodes) + LOOK_AFTER_S}
        with client.engine.connect() as connection:
            rows = connection.execute(select(t.ledger).where(t.ledger.c.run_id == run.run_id)).mappings().all()
        assert {row["price_version"] for row in rows if row["kind"] == "reserve"} == {""}
        carried.append({row["price_version"] for row in rows if row["kind"] == "settle" and (row["node_id"] in late or name == first)})
    assert carried == [{first}, {second}]


def test_timed_seconds_are_charged_where_a_table_has_a_price_for_them(stack: Running) -> None:
    tenant = new_tenant(stack)
    stack.client.prices.set(version(), {"compute/second": "0", "llm/token": "0", "llm/wall_second": "1000000"}, tenant=tenant)
    cost = cost_of(stack, stack.client.submit(using(1, 0.2), tenant=tenant).wait(TIMEOUT_S))
    assert set(cost) == {"llm"}
    assert 200_000 <= cost["llm"] < 400_000


def test_wall_seconds_of_a_whole_node_are_charged_where_a_table_has_a_price_for_them(stack: Running) -> None:
    tenant = new_tenant(stack)
    stack.client.prices.set(version(), {"compute/second": "0", "compute/wall_second": "1000000"}, tenant=tenant)
    slept = {"name": "slept", "nodes": [{"id": "n", "task": "synthetic.sleep", "params": {"seconds": 0.2}}]}
    cost = cost_of(stack, stack.client.submit(Graph.parse(slept), tenant=tenant).wait(TIMEOUT_S))
    assert 200_000 <= cost["compute"] < 400_000


def test_the_platform_s_table_holds_for_whoever_has_none_and_a_reset_gives_it_back(stack: Running) -> None:
    client, tenant = stack.client, new_tenant(stack)
    with platform_prices(stack, **{"llm/token": "3"}):
        assert client.prices.set("1", tenant=tenant)
        assert not client.prices.set("1", tenant=tenant)
        assert client.prices.in_force(tenant).price("llm", 1, "token") == 20
        assert client.prices.in_force().price("llm", 1, "token") == 3
        assert client.prices.reset(tenant)
        assert client.prices.in_force(tenant) == client.prices.in_force()
        book = PriceBook(client.kernel.link)
        assert book.of(tenant).price("llm", 1, "token") == 3
    assert until(lambda: book.of(tenant) == DEFAULT_PRICES, 1.0)


def test_what_does_not_fit_is_refused_in_one_sentence(stack: Running) -> None:
    prices, taken = stack.client.prices, version()
    tenant = new_tenant(stack)
    prices.set(taken, {"compute/second": "1"}, tenant=tenant)
    with pytest.raises(Conflict, match="is on record with other prices"):
        prices.set(taken, {"compute/second": "2"})
    with pytest.raises(Refused, match="needs compute/second"):
        prices.set(version(), {"llm/token": "1"})
    with pytest.raises(Refused, match="such as"):
        prices.set(version(), {"compute/second": "0x10"})
    for stranger in ("nobody-here", "Not An Id", "*"):
        with pytest.raises(Unknown, match="there is no tenant"):
            prices.set(taken, tenant=stranger)
    with pytest.raises(Unknown):
        prices.get("never-made")


# -- ordinary Celery tasks -----------------------------------------------------------------------------------------------------


def test_an_ordinary_task_pays_by_its_tenant_s_table(redis_server: RedisServer, tmp_path: Path) -> None:
    taxed = Taxed(redis_server)

    def cost() -> int:
        sent = taxed.send("t.dear")
        sent.get()
        taxed.closed(sent.id)
        return next(int(event["amount"]) for event in taxed.events(sent.id) if event["t"] == "money.settled")

    try:
        with worker(taxed, tmp_path / "w.log"):
            assert cost() < 10_000
            taxed.money.hset("hg1:pricetable:2", mapping={"compute/second": "0", "compute/wall_second": "1000000000"})
            taxed.money.hset("hg1:prices", "acme", "2")
            until(lambda: cost() > 10_000, 2.0)
    finally:
        taxed.close()


# -- without workers -----------------------------------------------------------------------------------------------------------


def ask(recorder: Recorder, **fields: object) -> dict[str, object]:
    request = append_request(recorder.link, "request.prices", {"tenant": "", "by": "ann", "reason": "", **fields})
    while recorder.step(None):
        pass
    return dict(await_answer(recorder.link, request, 1) or {})


def test_prices_are_published_before_the_answer_and_again_after_a_loss_of_redis(recorder: Recorder) -> None:
    book = PriceBook(recorder.link)
    assert book.of("default") == DEFAULT_PRICES
    assert ask(recorder, version="2", prices={"compute/second": "7"})["status"] == "accepted"
    assert ask(recorder, version="3", prices={"compute/second": "9"}, tenant="default")["status"] == "accepted"
    client = recorder.link.client
    published = {key: client.hgetall(key) for key in ("hg1:prices", "hg1:pricetable:2", "hg1:pricetable:3")}
    assert published["hg1:prices"] == {"*": "2", "default": "3"}
    client.flushall()
    recorder.prepare()
    assert {key: client.hgetall(key) for key in published} == published


def test_a_version_whose_table_is_not_published_prices_nothing(recorder: Recorder) -> None:
    recorder.link.client.hset("hg1:prices", "acme", "9")
    with pytest.raises(Unavailable, match="price table 9 is not published"):
        PriceBook(recorder.link).of("acme")


def test_while_redis_is_away_an_ordinary_task_pays_by_what_was_known_last(redis_server: RedisServer, settings: Settings) -> None:
    recorder = make_recorder(redis_server, settings)
    now = [0.0]
    book = PriceBook(recorder.link, clock=lambda: now[0])
    ask(recorder, version="2", prices={"compute/second": "7"})
    assert book.last("acme").version == "2"
    redis_server.stop()
    now[0] = 10.0
    with pytest.raises(Unavailable):
        book.of("acme")
    assert book.last("acme").version == "2"
    assert book.last("birch") == DEFAULT_PRICES  # of whom nothing was ever read


def test_a_worker_reads_a_version_at_most_twice_a_second_and_a_table_once(recorder: Recorder) -> None:
    now = [0.0]
    book = PriceBook(recorder.link, clock=lambda: now[0])
    ask(recorder, version="2", prices={"compute/second": "7"})
    assert book.of("acme").price("compute", 1, "second") == 7
    client = recorder.link.client
    client.hset("hg1:pricetable:2", "compute/second", "8")
    client.hset("hg1:prices", "acme", "1")
    now[0] = 0.4
    assert book.of("acme").version == "2"
    now[0] = 0.6
    assert book.of("acme").version == "1"
    client.hdel("hg1:prices", "acme")
    now[0] = 1.2
    assert book.of("acme").price("compute", 1, "second") == 7


def test_a_price_of_many_digits_arrives_whole(recorder: Recorder) -> None:
    exact = "9007199254740990.123456789012"
    assert ask(recorder, version="2", prices={"compute/second": exact})["status"] == "accepted"
    assert PriceBook(recorder.link).of("acme").price("compute", 1, "second") == Decimal(exact)
    stored = json.loads(str(recorder.link.client.xrevrange("hg1:events", count=1)[0][1]["e"]))
    assert json.loads(stored["prices"]) == {"compute/second": exact}
