"""How a database would read what a statement asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event


def plan_of(engine: Engine, statement: Any) -> str:
    """The plan for a statement, a step a line."""
    return _explained(engine, str(statement.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True})).replace("%", "%%"), ())


def plans_of(engine: Engine, call: Callable[[], Any]) -> dict[str, str]:
    """The plans for all that `call` asks the database for, by statement."""
    asked: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            asked.setdefault(statement, parameters)

    event.listen(engine, "before_cursor_execute", note)
    try:
        call()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return {statement: _explained(engine, statement, parameters) for statement, parameters in asked.items()}


def _explained(engine: Engine, sql: str, parameters: Any) -> str:
    """PostgreSQL, which reads small tables whole, is told that this is dear."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters))
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        return "\n".join(str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN {sql}", parameters))
