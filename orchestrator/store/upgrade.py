"""A record that an older version made gets the columns and indexes that have come since."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Column, Table, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateColumn

REPLACED = frozenset({"ledger_day"})
"""Indexes of older versions that a newer one does the work of."""


def missing_columns(connection: Connection, tables: Iterable[Table]) -> list[Column[Any]]:
    """Return the columns that existing tables of the database do not have yet."""
    existing = {name: {found["name"] for found in columns} for (_, name), columns in inspect(connection).get_multi_columns().items()}
    return [column for table in tables if table.name in existing for column in table.columns if column.name not in existing[table.name]]


def add_columns(connection: Connection, columns: Iterable[Column[Any]]) -> None:
    """Add columns, which are null in the rows there are, or have the default that new rows get."""
    quote = connection.dialect.identifier_preparer.format_table
    for column in columns:
        connection.exec_driver_sql(f"ALTER TABLE {quote(column.table)} ADD COLUMN {_described(connection, column)}")


def bring_indexes(connection: Connection, tables: Iterable[Table]) -> None:
    """Make the indexes that existing tables do not have yet, and drop those that newer ones replaced; after `add_columns`."""
    existing = {name: {str(found["name"]) for found in indexes} for (_, name), indexes in inspect(connection).get_multi_indexes().items()}
    for table in tables:
        if table.name not in existing:
            continue
        there = existing[table.name]
        for index in table.indexes:
            if index.name not in there:
                index.create(connection)
        for name in there & REPLACED:
            connection.exec_driver_sql(f"DROP INDEX {name}")


def _described(connection: Connection, column: Column[Any]) -> str:
    described = str(CreateColumn(column).compile(dialect=connection.dialect)).strip()
    if column.nullable or column.server_default is not None:
        return described
    scalar = getattr(column.default, "arg", None)
    if not isinstance(scalar, (int, str)):
        raise ValueError(f"column {column.table.name}.{column.name} is new, and says nothing for the rows that are there already")
    default = str(int(scalar)) if isinstance(scalar, int) else "'" + scalar.replace("'", "''") + "'"
    return f"{described} DEFAULT {default}"
