"""Which revision a record is at, and bringing it to another one, all or nothing."""

from __future__ import annotations

import json
import logging
import time
from typing import Final

from sqlalchemy import Column, Engine, MetaData, String, Table, insert, inspect, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from orchestrator.store import tables as t
from orchestrator.store.engine import complete_tables
from tenancy.errors import HeadgateError, Refused, Unavailable

REVISIONS: Final = ("0001", "0002", "0003")
"""All that there are, oldest first."""

HEAD: Final = REVISIONS[-1]
"""What this version of Headgate reads and writes."""

log = logging.getLogger("headgate.recorder")

# Alembic's own table, read without Alembic: every start asks, and importing it takes longer than that.
_version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def revision_of(connection: Connection) -> str | None:
    """Return the revision that a record says it is at; None where it says nothing, because it is empty or older than revisions."""
    if not inspect(connection).has_table(_version.name):
        return None
    return connection.execute(select(_version.c.version_num)).scalar()


def bring_up(connection: Connection) -> list[str]:
    """Make the record, or bring one to what this version needs; return the columns that it got by being older than revisions.

    A file is in nobody else's way. On a server, whose tables may be large and in use, only a record that is empty, or has no revision, is
    made whole; else Refused says what to do.
    """
    revision = revision_of(connection)
    if revision is None:
        _check(connection)
        added = complete_tables(connection)
        _version.create(connection, checkfirst=True)
        connection.execute(insert(_version).values(version_num=HEAD))
        return added
    if revision == HEAD:
        return []
    if revision in REVISIONS and connection.dialect.name != "sqlite":
        raise Refused(f"the record is at revision {revision}, and this version needs {HEAD}: run `headgate migrate`")
    move(connection, HEAD)
    return []


def move(connection: Connection, to: str) -> tuple[str, str]:
    """Bring a record to a revision, up or down, with what is in it; return where it was and where it is.

    Raises Refused where there is none, or it is at a revision that this version does not know; nothing is changed then.
    """
    if to not in REVISIONS:
        raise Refused(f"there is no revision {to!r}; this version knows {', '.join(REVISIONS)}")
    revision = revision_of(connection)
    if revision is None:
        if inspect(connection).has_table(t.cursor.name):
            raise Refused("the record is older than revisions: start its recorder with this version once")
        raise Refused("there is no record yet; the recorder makes it when it first starts")
    if revision not in REVISIONS:
        raise Refused(
            f"the record is at revision {revision}, and this version knows up to {HEAD}: use the version of Headgate that made it"
        )
    if revision != to:
        _alembic(connection, to, up=REVISIONS.index(to) > REVISIONS.index(revision))
        log.warning("the record was at revision %s and is at %s", revision, to)
    return revision, to


def migrate_record(engine: Engine, to: str, reason: str, by: str) -> tuple[str | None, str]:
    """Bring a record to a revision, making it where the database is empty; return where it was and is. It is in the audit.

    Raises as `move`, and Unavailable where the database cannot be used.
    """
    try:
        with engine.begin() as connection:
            if revision_of(connection) is None and to == HEAD:
                bring_up(connection)
                return None, HEAD
            was, now = move(connection, to)
            if was != now:
                at = time.time_ns() // 1_000_000
                row = {"id": f"record.{at}", "at": at, "actor": by, "action": "record.migrated", "tenant": None, "target": "record"}
                data = {"field": "revision", "old": was, "new": now, "reason": reason or None}
                connection.execute(insert(t.audit), {**row, "data": json.dumps(data)})
            return was, now
    except OperationalError as error:
        why = str(error.orig).partition("\n")[0]
        raise Unavailable(f"the database cannot be used ({why}); nothing was changed") from error


def _alembic(connection: Connection, to: str, *, up: bool) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "orchestrator:migrations")
    config.attributes["connection"] = connection
    (command.upgrade if up else command.downgrade)(config, to)


def _check(connection: Connection) -> None:
    """Refuse a database that could not keep every text."""
    if connection.dialect.name == "postgresql":
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise HeadgateError(f"the database is in {encoding}, which cannot keep every text: make one with ENCODING 'UTF8'")
