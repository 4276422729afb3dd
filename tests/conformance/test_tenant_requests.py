"""Requests about tenants, on a real database: each is decided once, leaves a trail, and changes nothing where nothing differs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select

from orchestrator.recorder.batch import apply
from orchestrator.recorder.projection import Entry
from orchestrator.recorder.requests import decide
from orchestrator.recorder.tenants import create_tenant, policy_fields
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import Position
from orchestrator.store.read import audit, get_tenant, pauses, policies
from tenancy.policy import Policy

pytestmark = pytest.mark.both_records

KEY = b"a key of the tests"
RUN = {"run_id": "r1", "generation": 1, "tenant": "acme", "graph_name": "g", "digest": "", "submitted_at": 1, "labels": "{}"}


class Desk:
    """Decides requests one at a time, as they come out of the log."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.asked = 0

    def ask(self, kind: str, tenant: str, request: str = "", **fields: Any) -> dict[str, Any]:
        self.asked += 1
        for name in ("policy", "changes"):
            if name in fields:
                fields[name] = json.dumps(fields[name])
        event = {"t": kind, "request": request or f"r{self.asked}", "at": self.asked, "tenant": tenant, "by": "ann", **fields}
        with self.engine.begin() as connection:
            (answer,) = decide(connection, [event], {}).values()
        return answer

    def create(self, tenant: str, **policy: Any) -> dict[str, Any]:
        return self.ask("request.tenant", tenant, policy=policy)

    def change(self, tenant: str, **changes: Any) -> dict[str, Any]:
        return self.ask("request.policy", tenant, changes=changes, reason="because")

    def status(self, tenant: str, status: str) -> dict[str, Any]:
        return self.ask("request.status", tenant, status=status, reason="because")


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=0, seq=0))
        create_tenant(connection, "default", "Default", Policy(), 0, actor="headgate")
    yield Desk(engine)
    engine.dispose()


def test_a_change_of_policy_is_the_next_version_with_one_line_of_trail_for_each_field(desk: Desk) -> None:
    desk.create("acme", weight=2)
    answer = desk.change("acme", weight=5, pool="gpu", max_concurrent_runs=10)
    assert answer == {"status": "accepted", "tenant": "acme", "version": 2, "changed": {"weight": [2, 5], "pool": [None, "gpu"]}}
    assert {version: policy.weight for version, policy in policies(desk.engine, "acme").items()} == {1: 2, 2: 5}
    created, *lines = audit(desk.engine, "acme")
    assert (created.action, created.actor, created.new["weight"], created.version) == ("tenant.created", "ann", 2, 1)
    assert sorted((line.action, line.field, line.old, line.new, line.actor, line.reason, line.version) for line in lines) == [
        ("policy.changed", "pool", None, "gpu", "ann", "because", 2),
        ("policy.changed", "weight", 2, 5, "ann", "because", 2),
    ]


def test_where_nothing_differs_nothing_changes(desk: Desk) -> None:
    desk.create("acme", weight=2)
    assert desk.change("acme", weight=2) == {"status": "same", "tenant": "acme", "version": 1}
    assert desk.status("acme", "active") == {"status": "same", "tenant": "acme", "live": 0}
    assert len(audit(desk.engine, "acme")) == 1
    assert get_tenant(desk.engine, "acme").version == 1


def test_a_request_that_comes_again_is_answered_the_same_and_done_once(desk: Desk) -> None:
    desk.create("acme")
    first = desk.ask("request.policy", "acme", request="x", changes={"weight": 2})
    desk.change("acme", weight=3)
    assert desk.ask("request.policy", "acme", request="x", changes={"weight": 2}) == first
    assert get_tenant(desk.engine, "acme").policy.weight == 3
    desk.ask("request.status", "acme", request="y", status="suspended")
    desk.status("acme", "active")
    assert desk.ask("request.status", "acme", request="y", status="suspended")["status"] == "accepted"
    assert get_tenant(desk.engine, "acme").status == "active"


def test_a_change_that_expects_another_version_is_a_conflict(desk: Desk) -> None:
    desk.create("acme")
    assert desk.ask("request.policy", "acme", changes={"weight": 2}, version=1)["version"] == 2
    assert desk.ask("request.policy", "acme", changes={"weight": 3}, version=1) == {"status": "conflict", "tenant": "acme", "version": 2}
    assert get_tenant(desk.engine, "acme").policy.weight == 2
    assert desk.ask("request.policy", "acme", changes={"weight": 3}, version="two")["status"] == "invalid"


@pytest.mark.parametrize("changes", [{"weight": 0}, {"colour": "red"}, {"strict": 1}, {"limit_per_day_micros": 1.5}, []])
def test_a_policy_that_does_not_fit_is_invalid_and_changes_nothing(desk: Desk, changes: Any) -> None:
    desk.create("acme")
    answer = desk.ask("request.policy", "acme", changes=changes)
    assert (answer["status"], get_tenant(desk.engine, "acme").version) == ("invalid", 1)
    assert answer["reason"]
    refused = desk.ask("request.tenant", "birch", policy=changes)
    assert (refused["status"], refused["reason"]) == ("invalid", answer["reason"])
    with desk.engine.connect() as connection:
        assert "birch" not in policy_fields(connection)


def test_an_amount_of_sixteen_digits_arrives_whole(desk: Desk) -> None:
    desk.create("acme")
    desk.change("acme", limit_per_day_micros=2**53 - 1)
    with desk.engine.connect() as connection:
        assert policy_fields(connection, ["acme"])["acme"]["limit_day"] == str(2**53 - 1)


@pytest.mark.parametrize("tenant", ["nobody", "Not An Id", "", "a" * 200, "../default", "default\n"])
def test_unknown_and_malformed_ids_are_answered_the_same(desk: Desk, tenant: str) -> None:
    for answer in (desk.change(tenant, weight=2), desk.status(tenant, "suspended")):
        assert answer == {"status": "unknown_tenant", "tenant": tenant}


def test_a_tenant_is_suspended_and_resumed_and_closed_for_good(desk: Desk) -> None:
    desk.create("acme")
    with desk.engine.begin() as connection:
        connection.execute(insert(t.run).values(**RUN, status="running", priority=5, cost_micros=0))
    assert desk.status("acme", "suspended") == {
        "status": "accepted",
        "tenant": "acme",
        "changed": {"status": ["active", "suspended"]},
        "live": 1,
    }
    assert desk.status("acme", "active")["changed"] == {"status": ["suspended", "active"]}
    assert desk.status("acme", "closed")["live"] == 1
    assert desk.status("acme", "active") == {"status": "closed", "tenant": "acme", "live": 1}
    assert desk.status("acme", "suspended")["status"] == "closed"
    assert desk.status("acme", "closed")["status"] == "same"
    lines = audit(desk.engine, "acme")
    assert [(line.action, line.old, line.new) for line in lines[1:]] == [
        ("tenant.suspended", "active", "suspended"),
        ("tenant.resumed", "suspended", "active"),
        ("tenant.closed", "active", "closed"),
    ]


def test_the_tenant_default_cannot_be_closed_and_there_is_no_other_status(desk: Desk) -> None:
    assert desk.status("default", "closed")["reason"] == "the tenant 'default' cannot be closed"
    assert desk.status("default", "asleep")["status"] == "invalid"
    assert get_tenant(desk.engine, "default").status == "active"


def test_a_policy_is_forked_only_where_its_tenant_lets_it_be(desk: Desk) -> None:
    desk.create("acme", weight=7, pool="gpu", can_fork=True)
    desk.create("birch", weight=8)
    assert desk.ask("request.tenant", "cedar", like="acme", policy={"pool": None})["status"] == "accepted"
    cedar = get_tenant(desk.engine, "cedar").policy
    assert (cedar.weight, cedar.pool, cedar.can_fork) == (7, None, False)
    refused = [desk.ask("request.tenant", "dogwood", like=like, policy={}) for like in ("birch", "nobody", "Not An Id")]
    assert [{**answer, "like": ""} for answer in refused] == [{"status": "unknown_tenant", "tenant": "dogwood", "like": ""}] * 3
    assert desk.ask("request.tenant", "acme", like="acme", policy={})["status"] == "duplicate"


def test_what_acts_is_written_where_the_scripts_read_it(desk: Desk) -> None:
    policy = {"weight": 3, "max_running_nodes": 7, "pool": "gpu", "submissions_per_minute": 30, "max_waiting_runs": 5}
    money = {"limit_per_month_micros": 9_000_000_000, "admit": "full", "enforcement": "observe", "strict": True, "on_critical": "hold"}
    agent = {"degrade_budget_percent": None, "on_floor": "hold"}
    desk.create("acme", **policy, **money, **agent, default_priority="HIGH", on_runs_limit="reject", on_budget_limit="hold")
    with desk.engine.connect() as connection:
        written = policy_fields(connection)
    assert written["acme"] == {
        "limit_day": "1000000000",
        "limit_month": "9000000000",
        "max_runs": "10",
        "max_waiting_runs": "5",
        "submissions_per_minute": "30",
        "max_running_nodes": "7",
        "weight": "3",
        "pool": "gpu",
        "default_priority": "HIGH",
        "on_runs_limit": "reject",
        "on_budget_limit": "hold",
        "admit": "full",
        "enforcement": "observe",
        "strict": "1",
        "currency": "EUR",
        "warn": "80",
        "critical": "90",
        "exceeded": "100",
        "on_warning": "notify",
        "on_critical": "hold",
        "on_exceeded": "notify",
        "degrade_budget": "",
        "degrade_concurrency": "80",
        "on_floor": "hold",
        "status": "active",
        "version": "1",
    }
    assert [written["default"][name] for name in ("pool", "submissions_per_minute", "max_running_nodes")] == ["", "", ""]


def test_pauses_are_on_record_while_they_last_and_in_the_trail_of_who_they_stop(desk: Desk) -> None:
    desk.create("acme")
    with desk.engine.begin() as connection:
        connection.execute(insert(t.run).values(**RUN, status="running", priority=5, cost_micros=0))
    events: list[dict[str, Any]] = [
        {"t": "scope.paused", "scope": "tenant:acme", "by": "ann", "reason": "too loud"},
        {"t": "scope.paused", "scope": "run:r1.1", "by": "bob", "reason": ""},
        {"t": "scope.paused", "scope": "platform", "by": "cleo", "reason": "night"},
        {"t": "scope.resumed", "scope": "platform", "by": "cleo", "reason": "day"},
        {"t": "scope.paused", "scope": "platform", "by": "dan", "reason": "fire"},
    ]
    entries = [Entry(Position(1, at), json.dumps({"at": 1000 * at, **event})) for at, event in enumerate(events, 1)]
    apply(desk.engine, entries[:3], {}, KEY)
    apply(desk.engine, entries[3:], {}, KEY)
    assert [(pause.scope, pause.by, pause.reason, pause.at) for pause in pauses(desk.engine)] == [
        ("tenant:acme", "ann", "too loud", 1.0),
        ("run:r1.1", "bob", "", 2.0),
        ("platform", "dan", "fire", 5.0),
    ]
    assert [(line.action, line.actor, line.target) for line in audit(desk.engine, "acme")[1:]] == [
        ("scope.paused", "ann", "tenant:acme"),
        ("scope.paused", "bob", "run:r1.1"),
    ]
    over = {"t": "run.ended", "tenant": "acme", "run": "r1", "gen": 1, "outcome": "cancelled", "counts": {}, "at": 9}
    apply(desk.engine, [Entry(Position(1, 6), json.dumps(over))], {}, KEY)
    assert "run:r1.1" not in [pause.scope for pause in pauses(desk.engine)]
    with desk.engine.connect() as connection:
        assert connection.execute(select(t.incident)).all() == []
