"""What a node becomes while its run goes on, such as one node for each item of a list. Pure: the same list gives the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestrator.compiler import NodeInfo, encode_fragment
from orchestrator.compiler.fragments import Fragment
from orchestrator.graph.references import substitute
from orchestrator.graph.wording import counted, shown
from tenancy.errors import HeadgateError

Rule = str | int
"""all_succeeded, all_done, or the n of at_least(n)."""


class NotMappable(HeadgateError):
    """What a map was given is no list, or a longer one than it takes."""


class NothingGathered(HeadgateError):
    """What a node became ended without a result for it."""


class GrownRow(NamedTuple):
    """A node that comes to a run while it goes on, in the order of the script `expand`; `fragment` is the text of its own."""

    node: str
    wait: int
    ctl: str
    spec: str
    verdict: str
    fragment: str


@dataclass(frozen=True)
class Expansion:
    """The nodes that a node became, children before their parents.

    parents: how many of them lead to it: those whose ends its rule counts. rule: of the node that gathers their results. source: what says
    what they are where nothing else on record does, as a result is kept; ''. optional: those that the run does not need. tasks: by the end
    of their ids, where they are no items. fragments: by name, those that rows name.
    """

    node: str
    rows: Sequence[GrownRow]
    parents: int
    rule: Rule
    source: str = ""
    optional: Collection[str] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)
    fragments: Mapping[str, str] = field(default_factory=dict)

    def carried(self, piece: Sequence[GrownRow]) -> dict[str, str]:
        """Return the fragments that a piece names."""
        return {row.fragment: self.fragments[row.fragment] for row in piece if row.fragment in self.fragments}

    def told(self, piece: Sequence[GrownRow]) -> dict[str, Any]:
        """Return what the script `expand` is told beside the rows of a piece."""
        optional = [row.node for row in piece if row.node in self.optional]
        said: dict[str, Any] = {"rule": self.rule, "gathers": self.parents, "of": len(self.rows)}
        if self.source:
            names = [row.node.removeprefix(f"{self.node}.") for row in piece]
            said |= {"source": self.source, "nodes": {name: self.tasks[name] for name in names}}
        return said | ({"optional": 1 if len(optional) == len(piece) else optional} if optional else {})


def item_id(node: str, index: int) -> str:
    """Return the id of a map's item."""
    return f"{node}.{index}"


def above(node: str) -> list[str]:
    """Return the ids that a node's id begins with, the shortest first: those of what became it, and became that."""
    parts = node.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def whose(node: str, known: Collection[str]) -> str:
    """Return the node among `known` that `node` is, or that became it; raises KeyError where there is none."""
    while node not in known:
        node, dot, _ = node.rpartition(".")
        if not dot:
            raise KeyError(node)
    return node


def listed(node: str, mapped: Any, most: int, results: Mapping[str, Any]) -> list[Any]:
    """Return the items of a map. results: by node, of those that have one.

    Raises NotMappable in a sentence where that is no list, or one of more than `most` items.
    """
    items = substitute({"map": mapped}, results)["map"]
    whose = f"what {mapped['$ref']!r} returned" if isinstance(mapped, dict) else "its map"
    if not isinstance(items, list):
        raise NotMappable(f"{node!r} is mapped over {whose}, which is {shown(items)}; return a list there")
    if len(items) > most:
        raise NotMappable(
            f"{node!r} is mapped over {whose}, which has {counted(len(items), 'item')}, and its max_items is {most:,}; raise it"
        )
    return items


def items_of(node: str, spec: Mapping[str, Any], items: Sequence[Any], keep: Callable[[str, str], str], verdict: str = "") -> Expansion:
    """Return the nodes of a map's items.

    spec: the node's, as the script `load` was given it. keep: gives what stands in a row for the JSON of an item, given a name too.
    verdict: the variant that was chosen for the node.
    """
    plan = spec["map"]
    ctl = _json(plan["item"])
    info = NodeInfo(*plan["info"])
    strict = '"strict":true,' if spec.get("strict") else ""
    rows: list[GrownRow] = []
    for index, item in enumerate(items):
        id_ = item_id(node, index)
        text = keep(f"{id_}.item", _json(item))
        value = f'"at":{_json(text[1:])}' if text.startswith("@") else f'"item":{text}'
        rows.append(GrownRow(id_, 0, ctl, f'{{{strict}"of":{_json(node)},{value}}}', verdict, alone(id_, info)))
    return Expansion(node, rows, len(rows), plan["rule"], optional=() if plan["item"]["required"] else {row.node for row in rows})


def alone(node: str, info: NodeInfo) -> str:
    """Return the text of a fragment that holds one node."""
    return encode_fragment(Fragment(0, (node,)), {node: info})


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
