"""How a database would read what a statement asks for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine


def plan_of(engine: Engine, statement: Any) -> str:
    """The plan for a statement, a step a line. PostgreSQL, which reads small tables whole, is told that this is dear."""
    sql = str(statement.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True})).replace("%", "%%")
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}"))
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        return "\n".join(str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN {sql}"))
