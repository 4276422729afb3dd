"""A fragment is a series-parallel piece of a graph that Celery itself can carry from node to node.

::

    Seq  = (Item, ...)         one after the other
    Item = node id | Par
    Par  = (Seq, Seq, ...)     side by side

A Par that is followed by a node joins there: that is a chord, and the node is its body. A Par that ends the Seq of a branch
joins where the branch does. A Par that ends a fragment joins nowhere inside it: that is a group. A fragment may begin with a
Par; its heads then start whenever their own parents have ended, which need not be the same for all of them.
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
    """Two or more branches, side by side."""

    branches: tuple[Seq, ...]


Item: TypeAlias = str | Par
Seq: TypeAlias = tuple[Item, ...]


def nodes(seq: Seq) -> Iterator[str]:
    """Yield every node of `seq`, from the left."""
    for item in seq:
        if isinstance(item, str):
            yield item
        else:
            for branch in item.branches:
                yield from nodes(branch)


def heads(seq: Seq) -> Iterator[str]:
    """Yield the nodes of `seq` that no other node of it precedes."""
    yield from _outer(seq, 0)


def ends(seq: Seq) -> Iterator[str]:
    """Yield the nodes of `seq` that no other node of it follows."""
    yield from _outer(seq, -1)


def _outer(seq: Seq, side: Literal[0, -1]) -> Iterator[str]:
    item = seq[side]
    if isinstance(item, str):
        yield item
    else:
        for branch in item.branches:
            yield from _outer(branch, side)


def edges(seq: Seq) -> Iterator[tuple[str, str]]:
    """Yield the pairs (parent, child) that `seq` orders directly.

    A Par beside a Par in one Seq cannot be written in Celery and never comes out of the compiler.
    """
    for item in seq:
        if isinstance(item, Par):
            for branch in item.branches:
                yield from edges(branch)
    for left, right in pairwise(seq):
        for parent in ends((left,)):
            for child in heads((right,)):
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
            count += sum(_pars(branch, closed=closed) for branch in item.branches)
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
    """What a message needs to know of a node; `timeout_s` is the soft limit in seconds."""

    task: str
    priority: int
    timeout_s: int


@dataclass(frozen=True, slots=True)
class FragmentSpec:
    """A fragment as it is kept beside a run: its order, and what the messages of its nodes need."""

    seq: Seq
    nodes: dict[str, NodeInfo]


def encode_fragment(fragment: Fragment, info: Mapping[str, tuple[str, int, int]]) -> str:
    """Return `fragment` as compact JSON, ``{"seq": [...], "nodes": {id: [task, priority, timeout_s]}}``; a Par is a list of lists."""
    document = {"seq": _listed(fragment.seq), "nodes": {node: list(info[node]) for node in fragment.nodes}}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _listed(seq: Seq) -> list[object]:
    return [item if isinstance(item, str) else [_listed(branch) for branch in item.branches] for item in seq]


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
        infos = {str(node): NodeInfo(str(task), int(priority), int(timeout_s)) for node, (task, priority, timeout_s) in entries}
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
            seq.append(Par(tuple(_tupled(branch) for branch in item)))
        else:
            raise ValueError(f"not a fragment: {item!r} is neither a node nor a list of branches")
    return tuple(seq)
