"""The connection to the SQL database, with the settings that make SQLite durable and one writer safe."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, Pool, create_engine
from sqlalchemy import event as hooks
from sqlalchemy.engine import Connection, make_url
from sqlmodel import SQLModel

from tenancy.errors import HeadgateError

from .tables import TABLES
from .upgrade import add_columns, bring_indexes, missing_columns

BUSY_TIMEOUT_MS = 5_000
"""How long a writer waits for another one; then it begins anew, as after any loss of the database."""

WRITERS_LOCK = 0x6865616467617465
"""The advisory lock, of its database, that PostgreSQL's writers take one after the other."""

_ONE_MOMENT = "REPEATABLE READ"

_SETTINGS = {
    "connect_timeout": 10,
    # A host that is gone says nothing: it is noticed after 10 + 3 x 5 s, or when what was sent is not acknowledged for 25 s.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""What a connection to PostgreSQL has unless its URL says otherwise; psycopg's names."""


def open_engine(url: str, *, writer: bool = False) -> Engine:
    """Return an engine on the database at `url`, a SQLAlchemy URL of SQLite or PostgreSQL.

    A `writer` takes the writers' lock when its transaction begins (SQLite's own; on PostgreSQL an advisory one), so that it waits at a
    place where waiting is harmless, for 5 s at most. Any other engine is refused writes, because the recorder is the only writer, and each
    of its transactions sees the record at one moment.

    Raises HeadgateError where PostgreSQL's driver is not installed.
    """
    parsed = make_url(url)
    return _sqlite(parsed, writer) if parsed.get_backend_name() == "sqlite" else _postgresql(parsed, writer)


def _sqlite(url: URL, writer: bool) -> Engine:
    if writer and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)

    @hooks.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # else the driver decides when a transaction begins
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        if writer:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
        else:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @hooks.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if _may_write(connection, writer) else "BEGIN")

    return engine


def _postgresql(url: URL, writer: bool) -> Engine:
    given = {name: value for name, value in _SETTINGS.items() if name not in url.query}
    try:
        # Between a writer's statements others commit nothing of ours, so it may see each as the database is then: waiting for the lock
        # must not leave it with a picture from before. Readers want one picture for all of a transaction.
        isolation = "READ COMMITTED" if writer else _ONE_MOMENT
        engine = create_engine(url, pool_pre_ping=True, isolation_level=isolation, connect_args=given)
    except ModuleNotFoundError as error:
        raise HeadgateError(f"{error.name} is not installed, which speaks to PostgreSQL: install headgate[postgresql]") from error

    @hooks.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.autocommit = True  # what is set here is for the session, not for a transaction
        with connection.cursor() as cursor:
            if writer:
                cursor.execute(f"SET lock_timeout = {BUSY_TIMEOUT_MS}")
                # A writer that is suspended in a transaction must not keep the one that took its place waiting for ever.
                cursor.execute("SET idle_in_transaction_session_timeout = 60000")
            else:
                cursor.execute("SET default_transaction_read_only = on")
        connection.autocommit = False

    @hooks.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if _may_write(connection, writer):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})")

    _open.add(engine)
    return engine


def _may_write(connection: Connection, writer: bool) -> bool:
    return writer and not connection.get_execution_options().get("only_reads", False)


def _forget_inherited() -> None:
    for engine in _open:
        _inherited.append(engine.pool)
        engine.dispose(close=False)


_inherited: list[Pool] = []
"""Kept, and never used: what is collected complains that it was not closed."""

_open: weakref.WeakSet[Engine] = weakref.WeakSet()
# A forked child opens connections of its own: two processes on one socket would read each other's answers.
os.register_at_fork(after_in_child=_forget_inherited)


def open_engines() -> list[Engine]:
    """Return the engines of this process on PostgreSQL; each may hold connections."""
    return list(_open)


def reading(engine: Engine) -> Engine:
    """Return the same database for transactions that only read, at one moment, and so hold up no writer."""
    if engine.dialect.name == "postgresql":  # SQLite's transactions are like that anyway
        return engine.execution_options(only_reads=True, isolation_level=_ONE_MOMENT)
    return engine.execution_options(only_reads=True)


def create_tables(engine: Engine) -> None:
    """Create what is missing of the record's tables and of their columns, all or nothing."""
    with engine.begin() as connection:
        complete_tables(connection)


def complete_tables(connection: Connection) -> list[str]:
    """Create what is missing of the record's tables, columns and indexes; return the columns that existing tables got, `table.column`."""
    missing = missing_columns(connection, TABLES)
    add_columns(connection, missing)
    bring_indexes(connection, TABLES)
    SQLModel.metadata.create_all(connection, tables=list(TABLES))
    return [f"{column.table.name}.{column.name}" for column in missing]
