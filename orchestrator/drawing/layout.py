"""Where the nodes of a graph are drawn: boxes in layers from left to right, with lanes alike folded into one lane of boxes with counts.

Pure. Layers are longest paths; the order inside a layer is by the mean place of neighbours (Sugiyama, Tagawa and Toda 1981), with points
for edges that pass a layer where there are not too many.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

FOLD_FROM = 6
"""So many lanes alike are one."""
POINTS_MAX = 4_000
"""Points of long edges; with more, long edges are drawn straight."""
SWEEPS = 4
LARGE = 2_000
"""With more points than these, half as many sweeps order them: nobody sees so many at once."""

COLUMN, ROW = 230.0, 52.0
"""Distance of layers and of boxes in a layer."""
WIDTH, HEIGHT = 170.0, 36.0
"""Size of a box."""


@dataclass(frozen=True, slots=True)
class Box:
    """One node, or nodes alike; x and y are its upper left corner."""

    members: tuple[str, ...]
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Edge:
    """From the box of one index to that of another; `bends` are the heights at which it passes the layers between."""

    source: int
    target: int
    bends: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes and edges, and the size of the whole."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    width: float
    height: float


def lay_out(parents: Mapping[str, Sequence[str]], alike: Mapping[str, Hashable]) -> Layout:
    """Return where the nodes of an acyclic graph are drawn.

    parents: of each node, all of them nodes. alike: what nodes must have in common to be folded into one.
    """
    groups = fold(parents, alike)
    number = {node: at for at, members in enumerate(groups) for node in members}
    above: list[list[int]] = [[] for _ in groups]
    for at, members in enumerate(groups):
        above[at] = sorted({number[parent] for node in members for parent in parents[node]})
    layer = _layers(above)
    pairs = [(source, target) for target, sources in enumerate(above) for source in sources]
    with_points = sum(max(0, layer[target] - layer[source] - 1) for source, target in pairs) <= POINTS_MAX
    chains = _chains(pairs, layer, len(groups), with_points=with_points)
    places = _places(chains, layer)
    boxes = tuple(Box(tuple(members), layer[at] * COLUMN, places[at]) for at, members in enumerate(groups))
    edges = tuple(Edge(chain[0], chain[-1], tuple(round(places[point], 1) for point in chain[1:-1])) for chain in chains)
    width = max((box.x for box in boxes), default=0.0) + WIDTH
    return Layout(boxes, edges, width, max((box.y for box in boxes), default=0.0) + HEIGHT)


def fold(parents: Mapping[str, Sequence[str]], alike: Mapping[str, Hashable]) -> list[list[str]]:
    """Return the nodes of each box: of lanes that have the same parents, the same children and nodes alike, each step is one box."""
    children: dict[str, list[str]] = {node: [] for node in parents}
    for node, above in parents.items():
        for parent in above:
            children[parent].append(node)
    lanes = []
    for node, above in parents.items():
        if len(above) == 1 and len(children[above[0]]) == 1:
            continue  # it follows somebody
        lane = [node]
        while len(children[lane[-1]]) == 1 and len(parents[children[lane[-1]][0]]) == 1:
            lane.append(children[lane[-1]][0])
        lanes.append(lane)
    same: dict[Hashable, list[list[str]]] = {}
    for lane in lanes:
        key = (tuple(alike[node] for node in lane), frozenset(parents[lane[0]]), frozenset(children[lane[-1]]))
        same.setdefault(key, []).append(lane)
    found: list[list[str]] = []
    for group in same.values():
        if len(group) >= FOLD_FROM:
            found += [list(step) for step in zip(*group, strict=True)]
        else:
            found += [[node] for lane in group for node in lane]
    return found


def _layers(above: Sequence[Sequence[int]]) -> list[int]:
    layer = [0] * len(above)
    below: list[list[int]] = [[] for _ in above]
    left = [len(sources) for sources in above]
    for target, sources in enumerate(above):
        for source in sources:
            below[source].append(target)
    ready = [at for at, count in enumerate(left) if not count]
    while ready:
        at = ready.pop()
        for target in below[at]:
            layer[target] = max(layer[target], layer[at] + 1)
            left[target] -= 1
            if not left[target]:
                ready.append(target)
    return layer


def _chains(pairs: Iterable[tuple[int, int]], layer: list[int], first: int, *, with_points: bool) -> list[list[int]]:
    """Return each edge as the points that it leads through; `layer` gets those of new points, which are numbered from `first`."""
    chains = []
    for source, target in pairs:
        chain = [source]
        if with_points:
            for at in range(layer[source] + 1, layer[target]):
                chain.append(first)
                layer.append(at)
                first += 1
        chains.append([*chain, target])
    return chains


def _places(chains: Sequence[Sequence[int]], layer: Sequence[int]) -> list[float]:
    """Return the height of each point: order by neighbours' means, then distances by them."""
    columns: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for point, at in enumerate(layer):
        columns[at].append(point)
    before: list[list[int]] = [[] for _ in layer]
    after: list[list[int]] = [[] for _ in layer]
    for chain in chains:
        for source, target in pairwise(chain):
            before[target].append(source)
            after[source].append(target)
    places = [0.0] * len(layer)
    for column in columns:
        for at, point in enumerate(column):
            places[point] = at * ROW
    for sweep in range(SWEEPS if len(layer) <= LARGE else SWEEPS // 2):
        forward = sweep % 2 == 0
        neighbours = before if forward else after
        for column in columns if forward else reversed(columns):
            wanted = {point: _mean(places, neighbours[point], places[point]) for point in column}
            column.sort(key=wanted.__getitem__)
            _spread(column, wanted, places)
    lowest = min(places, default=0.0)
    return [round(place - lowest, 1) for place in places]


def _mean(places: Sequence[float], points: Sequence[int], otherwise: float) -> float:
    return sum(places[point] for point in points) / len(points) if points else otherwise


def _spread(column: Sequence[int], wanted: Mapping[int, float], places: list[float]) -> None:
    """Place points in their order, a row apart at least, as near to where they want to be as their mean can be."""
    last = float("-inf")
    for point in column:
        last = places[point] = max(wanted[point], last + ROW)
    shift = sum(places[point] - wanted[point] for point in column) / len(column)
    for point in column:
        places[point] -= shift
