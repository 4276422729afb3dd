"""The ledger of a running stack: export, repricing and adjustments agree with the counters to the micro."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from click.testing import CliRunner, Result
from running import Running, until
from sqlalchemy import select
from ulid import ULID

from cost.period import day_of
from orchestrator.auditor import Auditor
from orchestrator.cli import main
from orchestrator.graph import Graph
from orchestrator.store import tables as t
from tenancy.errors import Conflict, Refused, Unknown

TIMEOUT_S = 30


def new_tenant(stack: Running) -> str:
    return stack.client.tenants.create(f"t-{str(ULID())[-12:].lower()}").id


def version() -> str:
    return f"v-{str(ULID())[-10:].lower()}"


def use(stack: Running, tenant: str, count: int = 3, tokens: int = 100) -> None:
    nodes = [{"id": f"n{at}", "task": "node_tasks.use", "params": {"tokens": tokens, "seconds": 0.0}} for at in range(count)]
    run = stack.client.submit(Graph.parse({"name": "using", "nodes": nodes}), tenant=tenant).wait(TIMEOUT_S)
    assert run.outcome == "succeeded"
    until(lambda: len([row for row in entries(stack, tenant) if row["kind"] == "release" and row["run_id"] == run.run_id]) <= 1)


def entries(stack: Running, tenant: str) -> list[dict[str, Any]]:
    with stack.client.engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(t.ledger).where(t.ledger.c.tenant == tenant)).mappings()]


def today(stack: Running) -> date:
    seconds, _ = stack.client.kernel.link.read("TIME")
    return datetime.fromtimestamp(int(seconds), UTC).date()


def month_book(stack: Running, tenant: str) -> dict[str, int]:
    found: dict[str, str] = stack.redis.hgetall(f"hg1:spent:{tenant}:m{today(stack):%Y%m}")  # type: ignore[assignment]
    return {name: int(value) for name, value in found.items()}


def agree(stack: Running, tenant: str) -> bool:
    return Auditor(stack.client.kernel.link, stack.client.engine).audit(tenant) == []


@pytest.fixture
def headgate(stack: Running, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("orchestrator.cli.ledger.running_here", lambda: stack.client)
    monkeypatch.setattr("orchestrator.cli.ledger.recorded_here", lambda: stack.client)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["ledger", *arguments])

    return call


def test_an_export_has_every_entry_and_adds_up_to_the_counters(stack: Running, headgate: Any) -> None:
    tenant = new_tenant(stack)
    use(stack, tenant)
    stack.client.ledger.adjust(tenant, -17, "llm", reason='=goodwill, "so"')
    month = f"{today(stack):%Y-%m}"
    done = headgate("export", "--tenant", tenant, "--month", month)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {row["id"] for row in rows} == {row["id"] for row in entries(stack, tenant)}
    assert [row["cause"] for row in rows if row["kind"] == "adjust"] == ['=goodwill, "so"']
    times = [(row["period"], int(row["at"]), row["id"]) for row in rows]
    assert times == sorted(times)
    charged = [row for row in rows if row["kind"] in ("settle", "waste", "adjust")]
    book = month_book(stack, tenant)
    assert sum(int(row["amount"]) for row in charged) == book["settled"] > 0
    assert sum(int(row["amount"]) for row in charged if row["category"] == "llm") == book["c:llm"] == 6_000 - 17
    assert f"charged {book['settled'] / 1e6:.6f}".rstrip("0") in done.stderr
    assert [row["units"] for row in charged if row["kind"] == "adjust"] == ["-0.000017"]
    as_json = headgate("export", "--tenant", tenant, "--month", month, "--format", "json")
    assert [json.loads(line)["id"] for line in as_json.stdout.splitlines()] == [row["id"] for row in rows]
    assert headgate("export", "--tenant", tenant, "--month", "2026-13").exit_code == 2
    assert headgate("export", "--tenant", "nobody", "--month", month).exit_code == 2
    assert agree(stack, tenant)


def test_an_adjustment_by_command_is_on_record_when_it_returns(stack: Running, headgate: Any) -> None:
    tenant = new_tenant(stack)
    assert headgate("adjust", tenant, "0.06", "--category", "storage", "--key", "k", "--by", "ann", "--reason", "disk").exit_code == 0
    assert "before" in headgate("adjust", tenant, "0.06", "--category", "storage", "--key", "k").output
    (row,) = entries(stack, tenant)
    assert (row["kind"], row["amount"], row["by"], row["cause"]) == ("adjust", 60_000, "ann", "disk")
    assert headgate("adjust", tenant, "0.07", "--category", "storage", "--refund").exit_code == 2
    assert headgate("adjust", tenant, "0.06", "--category", "storage", "--refund").exit_code == 0
    assert month_book(stack, tenant)["settled"] == 0


def test_an_adjustment_that_cannot_be_says_why(stack: Running) -> None:
    tenant, ledger = new_tenant(stack), stack.client.ledger
    ledger.adjust(tenant, 5, "llm", id="k")
    with pytest.raises(Conflict):
        ledger.adjust(tenant, 6, "llm", id="k")
    with pytest.raises(Unknown):
        ledger.adjust("nobody", 6, "llm")
    for amount in (0, True, 1.5, float("nan"), 2**53, -(2**53), "0x10", "", "--1", "1e3", "9" * 5_000):
        with pytest.raises(Refused):
            ledger.adjust(tenant, amount, "llm")  # type: ignore[arg-type]
    for day in ("2020-01-01", "2026-02-30", "9999-01-01", "1960-01-01"):
        with pytest.raises(Refused):
            ledger.adjust(tenant, 1, "llm", day=day)
    for key in ("", "x" * 201, "a\nb", "reprice:1"):
        with pytest.raises(Refused):
            ledger.adjust(tenant, 1, "llm", id=key)
    with pytest.raises(Refused, match="no category"):
        ledger.adjust(tenant, 1, "gpu")
    assert [row["amount"] for row in entries(stack, tenant)] == [5]


def test_repricing_books_the_difference_once_and_back_again(stack: Running, headgate: Any) -> None:
    tenant, client, dear = new_tenant(stack), stack.client, version()
    client.prices.set(version(), {"compute/second": "0", "llm/token": "20"}, tenant=tenant)
    use(stack, tenant)
    assert month_book(stack, tenant)["c:llm"] == 6_000
    first = client.prices.in_force(tenant).version
    client.prices.set(dear, {"compute/second": "0", "llm/token": "30"}, tenant=tenant)
    since = today(stack).isoformat()

    tried = headgate("reprice", "--from", since, "--version", dear, "--tenant", tenant, "--dry-run")
    assert tried.stdout.split()[-3:] == [tenant, "llm", "0.003"]
    assert month_book(stack, tenant)["c:llm"] == 6_000

    for _ in range(2):
        assert headgate("reprice", "--from", since, "--version", dear, "--tenant", tenant).exit_code == 0
        assert month_book(stack, tenant)["c:llm"] == 9_000
    adjusted = [row for row in entries(stack, tenant) if row["kind"] == "adjust"]
    assert [(row["amount"], row["price_version"]) for row in adjusted] == [(1_000, dear)] * 3
    assert sum(row["amount"] for row in entries(stack, tenant) if row["kind"] == "settle") == 6_000  # never rewritten
    found = client.ledger.reprice(today(stack), first, tenant=tenant)
    assert found.micros == {(tenant, "llm"): -3_000}
    assert (found.executions[tenant], found.adjustments[tenant]) == (3, 3)
    assert month_book(stack, tenant)["c:llm"] == 6_000
    assert client.ledger.reprice(today(stack), dear, tenant=tenant).adjustments[tenant] == 3
    assert month_book(stack, tenant)["c:llm"] == 9_000
    assert agree(stack, tenant)


def test_what_cannot_be_priced_is_named_and_the_rest_is_booked(stack: Running, headgate: Any) -> None:
    tenant, client, other = new_tenant(stack), stack.client, version()
    client.prices.set(other, {"compute/second": "0", "llm/image": "1"})
    client.prices.set("1")
    use(stack, tenant, count=1)
    done = headgate("reprice", "--from", today(stack).isoformat(), "--version", other, "--tenant", tenant)
    assert "not repriceable: price table" in done.stderr
    assert "n0.1" in done.stderr
    assert headgate("reprice", "--from", "2020-01-01", "--version", other).exit_code == 2
    assert headgate("reprice", "--from", "2026-01-01", "--version", "never").exit_code == 2


def test_an_audit_by_command_ends_with_1_where_something_differs(stack: Running, headgate: Any) -> None:
    tenant = new_tenant(stack)
    use(stack, tenant)
    assert headgate("audit", "--tenant", tenant).exit_code == 0
    day = day_of(int(stack.client.kernel.link.read("TIME")[0]) * 1000)
    stack.redis.hincrby(f"hg1:spent:{tenant}:{day}", "c:llm", 1)
    done = headgate("audit", "--tenant", tenant, "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)["differences"]
    assert next(each["counter"] - each["ledger"] for each in found if each["what"].endswith("c:llm")) == 1
    stack.redis.hincrby(f"hg1:spent:{tenant}:{day}", "c:llm", -1)
    assert headgate("audit", "--tenant", tenant).exit_code == 0


def test_beat_has_every_tenant_audited_in_its_turn(stack: Running) -> None:
    tenant, app = new_tenant(stack), stack.client.kernel.app
    assert app.conf.beat_schedule["audit"]["task"] == "headgate.audit"
    assert app.headgate_auditor.tick() == []
    stack.redis.hincrby(f"hg1:tenant:{tenant}", "held", 1)
    every_second = Auditor(stack.client.kernel.link, stack.client.engine, every_s=1.0)
    found = until(every_second.tick, 60.0)
    assert [each.what for each in found] == [f"tenant:{tenant} held"]
    stack.redis.hincrby(f"hg1:tenant:{tenant}", "held", -1)
