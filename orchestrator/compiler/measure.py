"""Sizes of rows and Splits, from the inside out; what is too deep or too wide to be carried is taken apart on the way.

Taking apart from the inside keeps what is left as large as it may be: a comb of 100,000 teeth becomes pieces of full depth, not
100,000 single nodes and one piece of full depth at its end. Nothing that fits into one message is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.compiler.series_parallel import Draft, Split

DEPTH_MAX = 32
"""Pars inside Pars in one fragment; Celery copies and encodes a nested chord recursively."""


class Size(NamedTuple):
    """Signatures, and the bytes that they take in a message."""

    nodes: int
    bytes: int

    def plus(self, other: Size) -> Size:
        return Size(self.nodes + other.nodes, self.bytes + other.bytes)

    def minus(self, other: Size) -> Size:
        return Size(self.nodes - other.nodes, self.bytes - other.bytes)

    def within(self, bound: Size) -> bool:
        return self.nodes <= bound.nodes and self.bytes <= bound.bytes


NOTHING = Size(0, 0)


class Measure(NamedTuple):
    """All of a row or Split; the largest message of its heads, without what follows it; the Pars inside each other."""

    total: Size
    need: Size
    height: int


class _Place(NamedTuple):
    """A row and the list of rows that its parts go to when it is taken apart; `after` is the least that follows its end."""

    row: list[Draft]
    beside: list[list[Draft]]
    after: Size


class Measures:
    """The measure of every Split of `rows`; `rows` grows by what was taken apart."""

    def __init__(self, rows: list[list[Draft]], sizes: Sequence[Size], bound: Size) -> None:
        self.sizes = sizes
        self.bound = bound
        self.rows = rows
        self.of_row: dict[int, Measure] = {}
        self.of_split: dict[int, Measure] = {}
        self.moved: set[int] = set()  # branches that lost their end and became rows of their own
        places = [_Place(row, rows, NOTHING) for row in rows]
        for place in places:  # grows while it is walked: any depth, no recursion
            for position, item in enumerate(place.row):
                if isinstance(item, Split):
                    places.extend(self._inside(place, position, item))
        for place in reversed(places):
            self._measure(place)

    def __getitem__(self, split: Split) -> Measure:
        return self.of_split[id(split)]

    def _inside(self, place: _Place, position: int, split: Split) -> list[_Place]:
        if position + 1 == len(place.row):  # its branches end where the row does
            return [_Place(branch, place.beside, place.after) for branch in split.branches]
        join = place.row[position + 1]
        assert isinstance(join, int)
        return [_Place(branch, split.branches, self.sizes[join]) for branch in split.branches]

    def _measure(self, place: _Place) -> None:
        for item in place.row:
            if isinstance(item, Split):
                self._measure_split(item)
        if place.beside is not self.rows:
            self._cut_deep(place.row)
        last = place.row[-1]
        if isinstance(last, Split):
            self._prune_fan(place, last)
        self._measure_row(place.row)

    def _measure_split(self, split: Split) -> None:
        if self.moved:
            split.branches[:] = [branch for branch in split.branches if id(branch) not in self.moved]
        branches = [self.of_row[id(branch)] for branch in split.branches]
        self.of_split[id(split)] = Measure(
            Size(sum(branch.total.nodes for branch in branches), sum(branch.total.bytes for branch in branches)),
            Size(max((branch.need.nodes for branch in branches), default=0), max((branch.need.bytes for branch in branches), default=0)),
            max((branch.height for branch in branches), default=0) + 1,
        )

    def _measure_row(self, row: list[Draft]) -> None:
        total_nodes = total_bytes = height = 0
        for item in row:
            if isinstance(item, Split):
                measure = self[item]
                height = max(height, measure.height)
                size = measure.total
            else:
                size = self.sizes[item]
            total_nodes += size.nodes
            total_bytes += size.bytes
        total = need = Size(total_nodes, total_bytes)
        head = row[0]
        if isinstance(head, Split):
            need = total.minus(self[head].total).plus(self[head].need)
        self.of_row[id(row)] = Measure(total, need, height)

    def _cut_deep(self, row: list[Draft]) -> None:
        """Where a Par inside a chord is as deep as can be, let its join be counted and the chord hold what follows."""
        for position in range(len(row) - 2, -1, -1):
            item = row[position]
            if isinstance(item, Split) and self[item].height >= DEPTH_MAX:
                self._take_apart([*row[: position + 1]])
                del row[: position + 1]
                return

    def _take_apart(self, row: list[Draft]) -> None:
        last = row[-1]
        if isinstance(last, Split):
            self._prune_fan(_Place(row, self.rows, NOTHING), last)
        if row:
            self._measure_row(row)
            self.rows.append(row)

    def _prune_fan(self, place: _Place, fan: Split) -> None:
        """Let a node carry its fan whole, or those branches that are small enough, or none of them."""
        if len(place.row) == 1:
            self._replace(place, [])
            return
        before = place.row[-2]
        assert isinstance(before, int)
        room = self.bound.minus(place.after).minus(self.sizes[before])
        if len(fan.branches) > 1 and self[fan].total.within(room) and self[fan].height <= DEPTH_MAX:
            return
        small = [branch for branch in fan.branches if self._is_small(branch, room)]
        nodes = sum(self.of_row[id(branch)].total.nodes for branch in small)
        size = sum(self.of_row[id(branch)].total.bytes for branch in small)
        self._replace(place, small if Size(nodes, size).within(room) else [])

    def _is_small(self, branch: list[Draft], room: Size) -> bool:
        measure = self.of_row[id(branch)]
        return measure.total.within(room) and measure.height < DEPTH_MAX

    def _replace(self, place: _Place, kept: list[list[Draft]]) -> None:
        fan = place.row.pop()
        assert isinstance(fan, Split)
        stay = {id(branch) for branch in kept}
        place.beside.extend(branch for branch in fan.branches if id(branch) not in stay)
        if len(kept) == 1:
            place.row.extend(kept[0])
        elif kept:
            split = Split(kept)
            self._measure_split(split)
            place.row.append(split)
        elif place.row and place.beside is not self.rows:
            self.moved.add(id(place.row))  # what follows the row waits for its fan, no longer for the row
            self.rows.append(place.row)
