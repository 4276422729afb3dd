"""Sizes of rows and Splits, from the inside out; what is too deep or too wide to be carried is taken apart on the way.

Taking apart from the inside keeps what is left as large as it may be: a comb of 100,000 teeth becomes pieces of full depth, not
100,000 single nodes and one piece of full depth at its end. Nothing that fits into one message is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def total(sizes: Iterable[Size]) -> Size:
    """Return the sum of `sizes`."""
    nodes = size = 0
    for one in sizes:
        nodes += one.nodes
        size += one.bytes
    return Size(nodes, size)


def largest(sizes: Iterable[Size]) -> Size:
    """Return the largest number of nodes and the largest number of bytes among `sizes`."""
    nodes = size = 0
    for one in sizes:
        nodes = max(nodes, one.nodes)
        size = max(size, one.bytes)
    return Size(nodes, size)


class Measure(NamedTuple):
    """What a node before a row or Split carries of it; the largest message inside, without what follows; Pars inside each other."""

    load: Size
    need: Size
    height: int


class _Place(NamedTuple):
    """A row, the Split with a join in which it ends (None: it ends in no join), and the least that follows its end."""

    row: list[Draft]
    closed: Split | None
    after: Size


class Measures:
    """The measures of every Split and row; `rows` grows by what was taken apart."""

    def __init__(self, rows: list[list[Draft]], sizes: Sequence[Size], bound: Size) -> None:
        self.sizes = sizes
        self.bound = bound
        self.rows = rows
        self._of: dict[int, Measure] = {}
        self._moved: set[int] = set()  # rows that are no longer where they were when their Split was made
        places = [_Place(row, None, NOTHING) for row in rows]
        for place in places:  # grows while it is walked: any depth, no recursion
            for position, item in enumerate(place.row):
                if isinstance(item, Split):
                    places.extend(self._inside(place, position, item))
        for place in reversed(places):
            self._settle(place)

    def __getitem__(self, part: Split | list[Draft]) -> Measure:
        return self._of[id(part)]

    def _inside(self, place: _Place, position: int, split: Split) -> list[_Place]:
        if position + 1 == len(place.row):  # its branches end where the row does
            return [place._replace(row=branch) for branch in split.branches]
        join = place.row[position + 1]
        assert isinstance(join, int)
        return [_Place(branch, split, self.sizes[join]) for branch in split.branches]

    def _settle(self, place: _Place) -> None:
        """Measure a row of which all that is inside has been settled, and take it apart if it cannot stay as it is."""
        for item in place.row:
            if isinstance(item, Split):
                self._measure_split(item)
        if place.closed is not None:
            self._cut_beginning(place.row, place.closed)
        final = place.row[-1]
        if isinstance(final, Split):
            self._settle_fan(place, final)
        self._measure_row(place.row)

    def _measure_split(self, split: Split) -> None:
        split.branches[:] = [branch for branch in split.branches if id(branch) not in self._moved]
        on_time = [self[branch] for branch in split.branches]
        every = [self[branch] for branch in split.all]
        self._of[id(split)] = Measure(
            total(branch.load for branch in on_time),
            largest(branch.need for branch in every),
            max((branch.height for branch in every), default=0) + 1,
        )

    def _measure_row(self, row: list[Draft]) -> None:
        """The message of a node carries the rest of the row, that of a head inside a Split what is behind the Split."""
        load = need = NOTHING
        height = 0
        for item in reversed(row):
            if isinstance(item, Split):
                inner = self[item]
                need = largest((need, load.plus(inner.need)))
                load = load.plus(inner.load)
                height = max(height, inner.height)
            else:
                load = load.plus(self.sizes[item])
                need = largest((need, load))
        self._of[id(row)] = Measure(load, need, height)

    def _cut_beginning(self, row: list[Draft], closed: Split) -> None:
        """Let a branch of a chord begin later where it is as deep as can be, or where nothing starts with what is before."""
        for position in range(len(row) - 2, -1, -1):
            item = row[position]
            if not isinstance(item, Split):
                continue
            if not item.branches:
                self._make_late(row, position, closed)
            elif self[item].height >= DEPTH_MAX:
                self._make_late(row, position + 1, closed)
            else:
                continue
            return

    def _make_late(self, row: list[Draft], position: int, closed: Split) -> None:
        beginning = row[:position]
        del row[:position]
        self._moved.add(id(row))
        closed.late.append(row)
        if beginning:
            final = beginning[-1]
            if isinstance(final, Split):  # it joins nowhere now
                self.rows.extend(final.late)
                final.late.clear()
                self._settle_fan(_Place(beginning, None, NOTHING), final)
        if beginning:
            self._measure_row(beginning)
            self.rows.append(beginning)

    def _settle_fan(self, place: _Place, fan: Split) -> None:
        """Let a node carry its fan whole, or those branches that are small enough, or none of them."""
        if len(place.row) == 1:
            self._spread(place, fan, [])
            return
        before = place.row[-2]
        assert isinstance(before, int)
        room = self.bound.minus(place.after).minus(self.sizes[before])
        if len(fan.branches) > 1 and self[fan].load.within(room) and self[fan].height <= DEPTH_MAX:
            return
        small = [branch for branch in fan.branches if self._is_small(branch, room)]
        self._spread(place, fan, small if total(self[branch].load for branch in small).within(room) else [])

    def _is_small(self, branch: list[Draft], room: Size) -> bool:
        return self[branch].load.within(room) and self[branch].height < DEPTH_MAX

    def _spread(self, place: _Place, fan: Split, kept: list[list[Draft]]) -> None:
        """Leave of a fan what is `kept`; the other branches start by themselves, and end where they did."""
        place.row.pop()
        stay = {id(branch) for branch in kept}
        apart = self.rows if place.closed is None else place.closed.late
        apart.extend(branch for branch in fan.all if id(branch) not in stay)
        if len(kept) == 1:
            place.row.extend(kept[0])
        elif kept:
            split = Split(kept)
            self._measure_split(split)
            place.row.append(split)
        elif place.row and place.closed is not None:
            # What follows the row waits for its fan, no longer for the row.
            place.closed.late[:] = [branch for branch in place.closed.late if branch is not place.row]
            self._moved.add(id(place.row))
            self.rows.append(place.row)
