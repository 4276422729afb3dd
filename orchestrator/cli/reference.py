"""A run as a person names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenancy.errors import HeadgateError, Unknown

if TYPE_CHECKING:
    from sqlalchemy import Engine

ID_LENGTH = 26


def find_run(engine: Engine, name: str) -> str:
    """Return the id of the run that `name`, an id, the beginning of one, or `latest`, stands for.

    Beginnings are looked up among the newest 10,000 runs. Raises Unknown where there is none, HeadgateError where there are several.
    """
    from orchestrator.store import read

    if name == "latest":
        newest = read.list_runs(engine, limit=1)
        if not newest:
            raise Unknown("there is no run yet")
        return newest[0].run_id
    if len(name) == ID_LENGTH:
        return read.get_run(engine, name).run_id
    found = list(dict.fromkeys(run.run_id for run in read.list_runs(engine, limit=read.LIMIT_MAX) if run.run_id.startswith(name)))
    if not found:
        raise Unknown(f"there is no run whose id begins with {name!r}; `headgate runs` lists them")
    if len(found) > 1:
        some = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise HeadgateError(f"{len(found)} runs begin with {name!r} ({some}); give more of the id")
    return found[0]
