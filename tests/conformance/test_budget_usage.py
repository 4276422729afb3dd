"""The file of a tenant's money: later where the disk takes nothing, anew when the day changes, not at all when switched off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select, text

from orchestrator.artifacts import budget_usage as module
from orchestrator.artifacts import place
from orchestrator.artifacts.budget_usage import BudgetWriter
from orchestrator.artifacts.writer import ArtifactWriter
from orchestrator.store import tables as t
from orchestrator.store.budgets import read_budget
from orchestrator.store.engine import create_tables, open_engine
from tenancy.policy import Policy
from tests.query_plans import plan_of

pytestmark = pytest.mark.both_records


DAY = 20_779  # 2026-11-22
MS = 86_400_000


def entry(kind: str, amount: int, category: str = "", day: int = DAY, released: int = 0) -> dict[str, object]:
    of = {
        "tenant": "acme",
        "run_id": "r",
        "generation": 1,
        "node_id": "n",
        "attempt": 1,
        "by": "",
        "at": 0,
        "period": "",
        "cause": "",
        "to_hold": 0,
    }
    return {
        **of,
        "id": f"{kind}{amount}{category}{day}",
        "kind": kind,
        "amount": amount,
        "category": category,
        "day": day,
        "released": released,
    }


@pytest.fixture
def engine(database_url: str) -> Engine:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    policy = Policy(limit_per_day_micros=1_000, limit_per_month_micros=10_000)
    levels = [("entered", "2026-11-22", "WARNING", 1), ("entered", "2026-11-22", "CRITICAL", 1), ("left", "2026-11-22", "CRITICAL", 1)]
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=1, seq=9))
        connection.execute(insert(t.tenant), {"id": "acme", "name": "acme", "status": "active", "currency": "EUR", "created_at": 0})
        connection.execute(insert(t.policy), {"tenant": "acme", "version": 1, "fields": policy.model_dump_json(), "at": 0})
        entries = [entry("reserve", 500), entry("settle", 300, "llm", released=500), entry("waste", 20, "compute"), entry("reserve", 530)]
        connection.execute(insert(t.ledger), [*entries, entry("settle", 700, "llm", DAY - 1, 0), entry("settle", 9, "llm", DAY - 30)])
        for seq, (kind, period, level, number) in enumerate(levels, 1):
            told = {"t": f"level.{kind}", "tenant": "acme", "period": period, "level": level, "entry": number}
            row = {"epoch": 1, "seq": seq, "at": seq, "type": told["t"], "tenant": "acme", "data": json.dumps(told)}
            connection.execute(insert(t.event), row)
    return engine


def test_the_budget_is_the_sum_of_entries_and_the_level_what_was_entered_last(engine: Engine) -> None:
    found = read_budget(engine, "acme", DAY)
    assert found is not None
    assert (found.day.settled, found.day.reserved, found.day.limit, found.day.level.name) == (320, 530, 1_000, "WARNING")
    assert found.day.rate_ppm == 850_000
    assert found.by_category == {"llm": 300, "compute": 20}
    assert found.month is not None
    assert (found.month.period, found.month.settled, found.month.level.name) == ("2026-11", 1_020, "HEALTHY")
    tomorrow = read_budget(engine, "acme", DAY + 1)
    assert tomorrow is not None
    assert (tomorrow.day.settled, tomorrow.day.level.name) == (0, "HEALTHY")
    assert read_budget(engine, "nobody", DAY) is None
    levels = select(t.event.c.data).where(text(t.OF_LEVELS), t.event.c.tenant == "acme")
    assert "event_level" in plan_of(engine, levels)


def test_what_cannot_be_written_is_written_later_and_every_day_has_its_own(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.05)
    now = DAY * MS + 5
    root = tmp_path / "artifacts"
    root.write_text("not a folder")
    writer = BudgetWriter(engine, root, lambda: now)
    writer.changed(["acme", "../nobody"])
    root.unlink()
    writer.changed(["acme"])
    path = place.budget_usage(root, "acme")
    while not path.exists():  # bounded by the test's own time limit
        writer._thread.join(0.01)
    writer.close()
    assert json.loads(path.read_text())["period"] == "2026-11-22"
    assert [each.name for each in (root / "tenants").iterdir()] == ["acme"]

    now += MS
    writer = BudgetWriter(engine, root, lambda: now)
    writer.day(DAY + 1)
    writer.close()
    assert json.loads(path.read_text())["period"] == "2026-11-23"


def test_switched_off_nothing_is_written(engine: Engine, tmp_path: Path) -> None:
    writer = ArtifactWriter(engine, tmp_path / "artifacts", b"a key of the tests", on=False)
    writer.spent(["acme"])
    writer.day(DAY)
    writer.catch_up()
    writer.close()
    assert not (tmp_path / "artifacts").exists()
