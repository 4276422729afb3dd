"""What a later generation of a run takes over: the results of nodes that an earlier one has run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import bindparam, select, update
from sqlalchemy.engine import Connection

from . import tables as t
from .changes import Row


class Adopted(NamedTuple):
    """A node's success: the generation that ran it, its result (JSON, or `@` and the path of an object), and as which variant it ran.

    Generation 0: no success; the result is a graph that the node becomes without running.
    """

    generation: int
    result: str
    verdict: str


def kept_text(generation: int, result: str, verdict: str) -> str:
    """Return what state keeps of a success that is adopted when a node becomes the one that had it."""
    return f"{generation}|{verdict}|{result}"


def becoming(source: str) -> Adopted:
    """Return what is adopted of a node that becomes a graph without running."""
    return Adopted(0, source, "")


def read_adopted(connection: Connection, run_id: str, adopts: Mapping[str, int]) -> dict[str, Adopted]:
    """Return the successes that `adopts` names, by node; one that the record has not is left out."""
    columns = select(t.node.c.node_id, t.node.c.generation, t.node.c.result, t.node.c.verdict)
    found: dict[str, Adopted] = {}
    for generation in sorted(set(adopts.values())):
        of_generation = (t.node.c.run_id == run_id) & (t.node.c.generation == generation) & (t.node.c.outcome == "succeeded")
        for row in connection.execute(columns.where(of_generation)):
            if adopts.get(row.node_id) == generation:
                found[row.node_id] = Adopted(generation, row.result or "", row.verdict or "")
    return found


def copy_adopted(connection: Connection, rows: list[Row]) -> None:
    """Give adopted nodes (run_id, generation, node_id, adopted) the result and the variant of the generation that ran them."""
    if rows:
        connection.execute(_COPY, [{f"to_{name}": value for name, value in row.items()} for row in rows])


_RAN = t.node.alias()
_OF_RAN = (
    (_RAN.c.run_id == bindparam("to_run_id")) & (_RAN.c.generation == bindparam("to_adopted")) & (_RAN.c.node_id == bindparam("to_node_id"))
)
_COPY = (
    update(t.node)
    .where(
        t.node.c.run_id == bindparam("to_run_id"),
        t.node.c.generation == bindparam("to_generation"),
        t.node.c.node_id == bindparam("to_node_id"),
    )
    .values(
        result=select(_RAN.c.result).where(_OF_RAN).scalar_subquery(),
        verdict=select(_RAN.c.verdict).where(_OF_RAN).scalar_subquery(),
    )
)
