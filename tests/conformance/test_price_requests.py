"""Requests about prices, on a real database: a version has one content for good, and what holds for whom leaves a trail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from cost.prices import DEFAULT_PRICES
from orchestrator.recorder.prices import price_hashes
from orchestrator.recorder.requests import decide
from orchestrator.recorder.tenants import create_tenant
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.prices import price_table, price_table_in_force, price_tables
from orchestrator.store.read import audit
from tenancy.errors import Unknown
from tenancy.policy import Policy

pytestmark = pytest.mark.both_records


CHEAP = {"compute/second": "1", "llm/token": "0.5"}
DEAR = {"compute/second": "1000", "llm/token": "40"}


class Desk:
    """Decides requests one at a time, as they come out of the log."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.asked = 0

    def ask(self, version: str, prices: Any = None, tenant: str = "", request: str = "") -> dict[str, Any]:
        self.asked += 1
        event = {"t": "request.prices", "request": request or f"r{self.asked}", "at": self.asked * 1000, "by": "ann", "reason": "because"}
        with self.engine.begin() as connection:
            event |= {"tenant": tenant, "version": version, "prices": json.dumps(prices or {})}
            (answer,) = decide(connection, [event], {}).values()
        return answer

    def published(self) -> dict[str, dict[str, str]]:
        with self.engine.connect() as connection:
            return price_hashes(connection)


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=0, seq=0))
        for tenant in ("acme", "birch"):
            create_tenant(connection, tenant, tenant, Policy(), 0, actor="headgate")
    yield Desk(engine)
    engine.dispose()


def test_without_a_table_on_record_the_built_in_one_holds(desk: Desk) -> None:
    assert desk.published() == {"hg1:prices": {"*": "1"}, "hg1:pricetable:1": DEFAULT_PRICES.texts()}
    assert price_table_in_force(desk.engine, "acme") == price_table(desk.engine, "1") == DEFAULT_PRICES
    assert [(view.table.version, view.platform) for view in price_tables(desk.engine)] == [("1", True)]


def test_a_tenant_s_own_table_goes_before_the_platform_s_and_is_nobody_else_s(desk: Desk) -> None:
    assert desk.ask("2", CHEAP) == {"status": "accepted", "changed": {"version": ["1", "2"]}, "of": "", "version": "2"}
    assert desk.ask("acme-1", DEAR, "acme")["changed"] == {"version": [None, "acme-1"]}
    assert desk.published() == {"hg1:prices": {"*": "2", "acme": "acme-1"}, "hg1:pricetable:2": CHEAP, "hg1:pricetable:acme-1": DEAR}
    assert [price_table_in_force(desk.engine, tenant).version for tenant in ("acme", "birch", None)] == ["acme-1", "2", "2"]
    assert [(view.table.version, view.platform, view.tenants) for view in price_tables(desk.engine)] == [
        ("1", False, ()),
        ("2", True, ()),
        ("acme-1", False, ("acme",)),
    ]


def test_a_version_with_another_content_is_a_conflict_whoever_asks(desk: Desk) -> None:
    desk.ask("2", CHEAP)
    assert desk.ask("2", DEAR)["status"] == "conflict"
    assert desk.ask("2", DEAR, "acme")["status"] == "conflict"
    assert desk.ask("1", CHEAP)["status"] == "conflict"
    assert desk.ask("2", {"llm/token": "0.500", "compute/second": "1"})["status"] == "same"
    assert desk.published()["hg1:prices"] == {"*": "2"}


def test_an_earlier_version_can_be_put_in_force_again_and_a_tenant_s_own_taken_away(desk: Desk) -> None:
    desk.ask("2", CHEAP)
    desk.ask("2", None, "acme")
    assert desk.ask("1")["changed"] == {"version": ["2", "1"]}
    assert desk.published()["hg1:prices"] == {"*": "1", "acme": "2"}
    assert desk.ask("", None, "acme")["changed"] == {"version": ["2", None]}
    assert desk.ask("", None, "acme")["status"] == "same"
    assert desk.published()["hg1:prices"] == {"*": "1"}


@pytest.mark.parametrize(
    ("version", "prices", "says"),
    [
        ("2", {"llm/token": "1"}, "needs compute/second"),
        ("2", {"compute/second": "0x10"}, "such as"),
        ("2", {"compute/second": 1.5}, "such as"),
        ("2", {"compute/second": "9" * 5000}, "such as"),
        ("2", [1], "category/unit"),
        ("9" * 5000, {"compute/second": "1"}, "version"),
        ("", {"compute/second": "1"}, "version"),
        ("7", None, "there is no price table '7'"),
        ("", None, "cannot be without"),
    ],
)
def test_what_does_not_read_is_invalid_and_changes_nothing(desk: Desk, version: str, prices: Any, says: str) -> None:
    answer = desk.ask(version, prices)
    assert (answer["status"], says in answer["reason"], len(answer["reason"]) < 200) == ("invalid", True, True)
    assert desk.published()["hg1:prices"] == {"*": "1"}
    with pytest.raises(Unknown):
        price_table(desk.engine, "2")


def test_a_tenant_that_there_is_not_is_unknown(desk: Desk) -> None:
    for stranger in ("nobody", "Not An Id", "*"):
        assert desk.ask("2", CHEAP, stranger)["status"] == "unknown_tenant"
    assert len(price_tables(desk.engine)) == 1


def test_every_change_is_audited_and_a_request_that_comes_again_is_done_once(desk: Desk) -> None:
    first = desk.ask("2", CHEAP, "acme", request="x")
    desk.ask("", None, "acme")
    assert desk.ask("2", CHEAP, "acme", request="x") == first
    assert price_table_in_force(desk.engine, "acme") == DEFAULT_PRICES
    lines = [line for line in audit(desk.engine, "acme") if line.action == "prices.changed"]
    assert [(line.actor, line.old, line.new, line.reason) for line in lines] == [
        ("ann", None, "2", "because"),
        ("ann", "2", None, "because"),
    ]
