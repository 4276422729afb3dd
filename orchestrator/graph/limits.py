"""How large a graph may be."""

from __future__ import annotations

from dataclasses import dataclass

NODES_CEILING = 200_000
EDGES_CEILING = 1_000_000
BYTES_CEILING = 2**31
PARAMS_BYTES_CEILING = 2**24

#: Lists and objects inside `params` may be nested this deep; deeper data belongs in a file or a result.
DEPTH_MAX = 64

#: A graph with more problems than this has one cause many times over; the rest are counted, not listed.
PROBLEMS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one graph, checked before anything is stored.

    nodes: 1 to 200,000. edges: 1 to 1,000,000, distinct (parent, child) pairs.
    bytes_max: of the whole JSON text, compared before it is parsed.
    params_bytes: of one node's `params` (and of each variant's) as compact JSON in UTF-8.
    Raises ValueError for a limit outside its range.
    """

    nodes: int = 10_000
    edges: int = 50_000
    bytes_max: int = 16 * 1024 * 1024
    params_bytes: int = 64 * 1024

    def __post_init__(self) -> None:
        ceilings = {"nodes": NODES_CEILING, "edges": EDGES_CEILING, "bytes_max": BYTES_CEILING, "params_bytes": PARAMS_BYTES_CEILING}
        for name, ceiling in ceilings.items():
            value = getattr(self, name)
            if not 1 <= value <= ceiling:
                raise ValueError(f"the limit {name} is {value}; it can be 1 to {ceiling}")


DEFAULT_LIMITS = Limits()
