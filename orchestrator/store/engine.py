"""The connection to the SQL database, with the settings that make SQLite durable and one writer fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy import event as hooks
from sqlalchemy.engine import Connection, make_url
from sqlmodel import SQLModel

from .tables import TABLES
from .upgrade import add_columns, bring_indexes, missing_columns

BUSY_TIMEOUT_MS = 5_000


def open_engine(url: str, *, writer: bool = False) -> Engine:
    """Return an engine on the database at `url`, a SQLAlchemy URL of SQLite or PostgreSQL.

    On SQLite a `writer` takes the write lock when its transaction begins, so that it waits at a place where waiting
    is harmless; any other engine is refused writes, because the recorder is the only writer.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True)
    if writer and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed)

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
        only_reads = not writer or connection.get_execution_options().get("only_reads", False)
        connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")

    return engine


def reading(engine: Engine) -> Engine:
    """Return the same database for transactions that only read, and so hold up no writer."""
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
