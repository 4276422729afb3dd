"""Cutting: rows become fragments whose every message stays under the bound.

A message carries all that comes after its node in the row, and in a branch also the join and all that comes after that. So
rows are walked from the right, and cut where the next node on the left would carry too much. Why it is done this way, and why
the bytes of all messages together stay linear in the number of nodes: docs/decisions/fragments.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from orchestrator.compiler.fragments import Item, Par, Seq
from orchestrator.compiler.measure import DEPTH_MAX, NOTHING, Measure, Measures, Size, total
from orchestrator.compiler.series_parallel import Draft, Split


@dataclass(slots=True)
class _Join:
    """A Par some of whose branches were cut: what is left of those only ends in it."""

    branches: list[Row]
    late: list[Row]


Kept: TypeAlias = "int | Split | _Join"
Row: TypeAlias = "list[Kept]"


class _Work(NamedTuple):
    """A row to cut; `after` follows its end in `depth` enclosing Pars, `into` takes the part that stays with them."""

    row: Sequence[Draft]
    after: Size
    depth: int
    into: list[Row] | None


def cut(rows: list[list[Draft]], weights: Sequence[int], bound: Size, name: Callable[[int], str]) -> list[Seq]:
    """Return the fragments of `rows`, no message of which carries more than `bound`, its own node counted.

    A node that is larger than the bound by itself becomes a fragment by itself. `rows` is used up.
    """
    cutter = _Cutter(rows, weights, bound)
    cutter.run()
    return [_frozen(row, name) for row in cutter.pieces]


class _Cutter:
    def __init__(self, rows: list[list[Draft]], weights: Sequence[int], bound: Size) -> None:
        self.sizes = [Size(1, weight) for weight in weights]
        self.bound = bound
        # A branch of which nothing can stay would leave its Par without it: so much must always be free.
        self.widest = Size(1, max(weights, default=0))
        self.measures = Measures(rows, self.sizes, bound)
        self.pieces: list[Row] = []
        self.work = deque(_Work(row, NOTHING, 0, None) for row in rows)

    def run(self) -> None:
        while self.work:
            _Walk(self, self.work.popleft()).run()

    def keep(self, row: Row, into: list[Row] | None) -> None:
        """Give `row` to the Par that waits for it, or make it a fragment."""
        (self.pieces if into is None else into).append(row)


class _Walk:
    """One row, from the right: `right` is the piece under way, leftmost first; `load` what a node before it would carry."""

    def __init__(self, cutter: _Cutter, work: _Work) -> None:
        self.cutter = cutter
        self.row, self.load, self.depth, self.into = work
        self.right: deque[Kept] = deque()

    def run(self) -> None:
        for item in reversed(self.row):
            if isinstance(item, Split):
                self.place_split(item)
            else:
                self.place_node(item)
        if self.right:
            self.close()

    def place_node(self, node: int) -> None:
        load = self.load.plus(self.cutter.sizes[node])
        if self.right and not load.within(self.cutter.bound):
            self.close()
            load = self.cutter.sizes[node]
        self.right.appendleft(node)
        self.load = load

    def place_split(self, split: Split) -> None:
        measure = self.cutter.measures[split]
        if len(self.right) > 1 and not (self.fits(measure) and self.is_cheap(measure)):
            join = self.right.popleft()
            assert isinstance(join, int)
            self.close()
            self.right.append(join)
            self.load = self.cutter.sizes[join]
        if self.fits(measure):
            self.right.appendleft(split)
            self.load = self.load.plus(measure.load)
            if not split.branches:
                self.close()
        elif self.right:
            self.cut_chord(split)
        else:
            self.cut_fan(split)

    def fits(self, measure: Measure) -> bool:
        return self.depth + measure.height <= DEPTH_MAX and measure.need.plus(self.load).within(self.cutter.bound)

    def is_cheap(self, measure: Measure) -> bool:
        """Every node of a Par carries what follows it: allow as many copies as a fragment that fits into one message can have."""
        return measure.load.nodes * self.load.nodes <= self.cutter.bound.nodes**2 // 4

    def cut_chord(self, split: Split) -> None:
        """Keep the branches that fit; of the others keep the end, which starts later than they do."""
        if not self.has_room():
            self.cutter.work.extend(_Work(branch, NOTHING, 0, None) for branch in split.all)
            self.close()
            return
        measures, load = self.cutter.measures, self.load
        self.depth += 1
        on_time = [branch for branch in split.branches if self.fits(measures[branch])]
        stay = {id(branch) for branch in on_time}
        join = _Join([list(branch) for branch in on_time], [])
        self.cutter.work.extend(_Work(branch, load, self.depth, join.late) for branch in split.all if id(branch) not in stay)
        self.depth -= 1
        self.right.appendleft(join)
        self.load = self.load.plus(total(measures[branch].load for branch in on_time))
        if not on_time:
            self.close()

    def cut_fan(self, fan: Split) -> None:
        """Let the branches start by themselves; they end where this row would have ended."""
        self.cutter.work.extend(_Work(branch, self.load, self.depth, self.into) for branch in fan.all)
        self.load, self.depth, self.into = NOTHING, 0, None

    def has_room(self) -> bool:
        bound = self.cutter.bound
        half = Size(bound.nodes // 2, bound.bytes // 2)
        return self.depth < DEPTH_MAX and self.load.within(half) and self.load.plus(self.cutter.widest).within(bound)

    def close(self) -> None:
        """End the piece under way; what is on its left starts another, which nothing follows."""
        first = self.right[0]
        if len(self.right) == 1 and isinstance(first, Split):
            # Nothing before it and no join behind it: its branches have nothing to do with each other.
            for branch in first.branches:
                self.cutter.keep(list(branch), self.into)
        else:
            self.cutter.keep(list(self.right), self.into)
        self.right = deque()
        self.load, self.depth, self.into = NOTHING, 0, None


def _frozen(row: Sequence[Kept], name: Callable[[int], str], *, led: bool = False) -> Seq:
    """Return the row as a fragment's Seq, no deeper than DEPTH_MAX; unless something has `led` to it, its first Par has no late ones."""
    items: list[Item] = []
    for position, item in enumerate(row):
        if isinstance(item, int):
            items.append(name(item))
            continue
        leads = not position and not led
        branches = tuple(_frozen(branch, name, led=not leads) for branch in item.branches)
        late = tuple(_frozen(branch, name) for branch in item.late)
        items.append(Par(branches + late) if leads else Par(branches, late))
    return tuple(items)
