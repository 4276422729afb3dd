"""The notices that are due: rows of the record, and what Redis knows of tries that are not on record yet."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Engine, select
from sqlalchemy.engine import Row

from orchestrator import keys
from orchestrator.store import tables as t
from orchestrator.store.read import open_record
from tenancy.link import Link

from .notice import ERROR_CHARS_MAX, Notice

DUE_MAX = 1_000
"""Notices that are looked at in one pass."""


class Mark(NamedTuple):
    """The last try of a notice: begun, sent, failed or dropped; the how many-th; when it is due again, ms."""

    outcome: str
    tries: int
    due_ms: int


class Outbox:
    """What is to be delivered. Reads SQL and writes marks; the recorder alone writes rows."""

    def __init__(self, link: Link, engine: Engine) -> None:
        self.link = link
        self.engine = engine

    def due(self, now_ms: int) -> list[Notice]:
        """Return what is due, the least tried first; marks that the record has caught up with are forgotten."""
        stored: dict[str, str] = self.link.read("HGETALL", keys.NOTICES)
        marks = {name: _mark(text) for name, text in stored.items()}
        wanted = t.notice.c.state == "pending"
        columns = t.notice.c
        with open_record(self.engine) as connection:
            known = connection.execute(select(columns.id, columns.state, columns.tries).where(columns.id.in_(list(marks)))).all()
            found = select(t.notice).where(wanted, columns.due_at <= now_ms).order_by(columns.tries, columns.due_at, columns.id)
            rows = connection.execute(found.limit(DUE_MAX + len(marks))).all()
        if recorded := [row.id for row in known if row.state != "pending" or row.tries >= marks[row.id].tries]:
            self.link.client.hdel(keys.NOTICES, *recorded)
        notices = [_notice(row, marks.get(row.id)) for row in rows if _is_open(row, marks.get(row.id))]
        return sorted((each for each in notices if each.due_ms <= now_ms), key=lambda each: (each.tries, each.due_ms, each.id))

    def mark(self, notice: Notice, outcome: str, due_ms: int, error: str = "") -> None:
        """Write down the try after those that `notice` counts. Raises Unavailable, Fenced."""
        said = error.encode(errors="replace").decode()[:ERROR_CHARS_MAX]
        self.link.call("orchestrator/notify/mark", notice.tenant, notice.id, outcome, notice.tries + 1, due_ms, said)


def _mark(text: str) -> Mark:
    outcome, tries, due = text.split("|")
    return Mark(outcome, int(tries), int(due))


def _is_open(row: Row[tuple[object, ...]], mark: Mark | None) -> bool:
    return mark is None or mark.tries <= row.tries or mark.outcome in ("begun", "failed")


def _notice(row: Row[tuple[object, ...]], mark: Mark | None) -> Notice:
    newer = mark if mark is not None and mark.tries > row.tries else None
    tries, due = (newer.tries, newer.due_ms) if newer else (row.tries, row.due_at)
    return Notice(row.id, row.key, row.channel, row.tenant, row.body, tries, row.at, due)
