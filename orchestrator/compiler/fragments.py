"""A fragment is a series-parallel piece of a graph that Celery itself can carry from node to node.

::

    Seq  = (Item, ...)         one after the other
    Item = node id | Par
    Par  = Seqs side by side   some of them late

A Par that is followed by a node joins there: that is a chord, and the node is its body. A Par that ends the Seq of a branch
joins where the branch does. A Par that ends a fragment joins nowhere inside it: that is a group. A fragment may begin with a
Par; its heads then start whenever their own parents have ended, which need not be the same for all of them. A late branch is
one whose beginning was cut off: it joins with the others, but does not start with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["single", "chain", "chord"]


@dataclass(frozen=True, slots=True)
class Par:
    """Branches side by side: `branches` start with what precedes the Par, `late` ones when their own parents have ended."""

    branches: tuple[Seq, ...]
    late: tuple[Seq, ...] = ()

    @property
    def all(self) -> tuple[Seq, ...]:
        return self.branches + self.late


Item: TypeAlias = str | Par
Seq: TypeAlias = tuple[Item, ...]


def nodes(seq: Seq) -> Iterator[str]:
    """Yield every node of `seq`, from the left."""
    for item in seq:
        if isinstance(item, str):
            yield item
        else:
            for branch in item.all:
                yield from nodes(branch)


def carried(item: Item) -> Iterator[str]:
    """Yield the nodes of `item` that the message of a node before it carries: all but late branches."""
    if isinstance(item, str):
        yield item
    else:
        for branch in item.branches:
            for inner in branch:
                yield from carried(inner)


def heads(seq: Seq) -> Iterator[str]:
    """Yield the nodes of `seq` that no other node of it precedes."""
    yield from first(seq[0])
    for item in seq:
        if isinstance(item, Par):
            yield from _late(item)


def _late(par: Par) -> Iterator[str]:
    for branch in par.branches:
        for item in branch:
            if isinstance(item, Par):
                yield from _late(item)
    for branch in par.late:
        yield from heads(branch)


def first(item: Item) -> Iterator[str]:
    """Yield the nodes that start with `item`."""
    if isinstance(item, str):
        yield item
    else:
        for branch in item.branches:
            yield from first(branch[0])


def last(item: Item) -> Iterator[str]:
    """Yield the nodes that `item` ends with."""
    if isinstance(item, str):
        yield item
    else:
        for branch in item.all:
            yield from last(branch[-1])


def edges(seq: Seq) -> Iterator[tuple[str, str]]:
    """Yield the pairs (parent, child) that `seq` orders directly.

    A Par beside a Par in one Seq cannot be written in Celery and never comes out of the compiler.
    """
    for item in seq:
        if isinstance(item, Par):
            for branch in item.all:
                yield from edges(branch)
    for left, right in pairwise(seq):
        for parent in last(left):
            for child in first(right):
                yield parent, child


def chords(seq: Seq) -> int:
    """Return how many Pars of `seq` are followed by the node where they join."""
    return _pars(seq, closed=True)


def groups(seq: Seq) -> int:
    """Return how many Pars of `seq` end their Seq."""
    return _pars(seq, closed=False)


def _pars(seq: Seq, *, closed: bool) -> int:
    count = 0
    for position, item in enumerate(seq):
        if isinstance(item, Par):
            count += (position + 1 < len(seq)) is closed
            count += sum(_pars(branch, closed=closed) for branch in item.all)
    return count


@dataclass(frozen=True, slots=True)
class Fragment:
    """One piece of a plan; `index` is its place in `Plan.fragments`."""

    index: int
    seq: Seq

    @property
    def kind(self) -> Kind:
        """Return "chord" where a Par joins, "chain" where one node only follows another, else "single"."""
        if chords(self.seq):
            return "chord"
        return "chain" if len(self.seq) > 1 else "single"

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(nodes(self.seq))

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(heads(self.seq))


class NodeInfo(NamedTuple):
    """What a message needs to know of a node; `timeout_s` is the soft limit in seconds, `pool` None where the node is not pinned."""

    task: str
    priority: int
    timeout_s: int
    pool: str | None = None


@dataclass(frozen=True, slots=True)
class FragmentSpec:
    """A fragment as it is kept beside a run: its order, and what the messages of its nodes need."""

    seq: Seq
    nodes: dict[str, NodeInfo]


def encode_fragment(fragment: Fragment, info: Mapping[str, NodeInfo | tuple[str, int, int]]) -> str:
    """Return `fragment` as compact JSON, ``{"seq": [...], "nodes": {id: [task, priority, timeout_s]}}``.

    A pinned node has its pool as a fourth element. A Par is a list of lists; a late branch begins with null.
    """
    document = {"seq": _listed(fragment.seq), "nodes": {node: _info(NodeInfo(*info[node])) for node in fragment.nodes}}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _info(info: NodeInfo) -> list[object]:
    return list(info if info.pool else info[:3])


def _listed(seq: Seq) -> list[object]:
    return [item if isinstance(item, str) else [*map(_listed, item.branches), *([None, *_listed(b)] for b in item.late)] for item in seq]


def decode_fragment(text: str | bytes) -> FragmentSpec:
    """Return what `encode_fragment` wrote.

    Raises
    ------
    ValueError
        `text` is not such a document.
    """
    document = json.loads(text)
    try:
        entries = document["nodes"].items()
        infos = {
            str(node): NodeInfo(str(task), int(priority), int(timeout_s), *map(str, pool))
            for node, (task, priority, timeout_s, *pool) in entries
        }
        seq = _tupled(document["seq"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a fragment: {error!r}") from error
    if set(nodes(seq)) != set(infos):
        raise ValueError("not a fragment: its order and its nodes disagree")
    return FragmentSpec(seq, infos)


def _tupled(items: list[object]) -> Seq:
    seq: list[Item] = []
    for item in items:
        if isinstance(item, str):
            seq.append(item)
        elif isinstance(item, list) and all(isinstance(branch, list) and branch for branch in item):
            late = tuple(_tupled(branch[1:]) for branch in item if branch[0] is None)
            seq.append(Par(tuple(_tupled(branch) for branch in item if branch[0] is not None), late))
        else:
            raise ValueError(f"not a fragment: {item!r} is neither a node nor a list of branches")
    return tuple(seq)
