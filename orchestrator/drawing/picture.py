"""A graph as it is to be drawn: its nodes with their tasks and, of a run, what became of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.graph import Graph


@dataclass(frozen=True, slots=True)
class Shape:
    """A node. `state` is pending, due, running or an outcome; None: of a graph that is not run."""

    id: str
    task: str
    required: bool = True
    state: str | None = None


@dataclass(frozen=True)
class Picture:
    """Nodes in the graph's order, and the parents of each by id."""

    name: str
    shapes: tuple[Shape, ...]
    parents: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, graph: Graph, states: Mapping[str, str] | None = None) -> Picture:
        """Return the picture of a graph. states: of a run, by node; one that is missing is pending."""
        shapes = tuple(
            Shape(node.id, node.task or "", node.required is not False, None if states is None else states.get(node.id, "pending"))
            for node in graph.nodes
        )
        return cls(graph.name, shapes, graph.parents())

    def edges(self) -> Iterator[tuple[str, str]]:
        """Yield (parent, child)."""
        for shape in self.shapes:
            for parent in self.parents[shape.id]:
                yield parent, shape.id


COLOURS: Mapping[str, str] = {
    "pending": "#e9ecef",
    "due": "#cfe2ff",
    "running": "#9ec5fe",
    "succeeded": "#a3cfbb",
    "failed": "#f1aeb5",
    "timed_out": "#f1aeb5",
    "skipped": "#ffe69c",
    "cancelled": "#ced4da",
    "upstream_failed": "#e2b5ba",
}
"""The colour of a state, dark enough for no text but black."""
GLYPHS: Mapping[str, str] = {
    "due": "…",
    "running": "▶",
    "succeeded": "✓",
    "failed": "✗",
    "timed_out": "⌛",
    "skipped": "-",
    "cancelled": "⊘",
    "upstream_failed": "↯",
}
"""What says the same without colour."""


def label(shape: Shape) -> tuple[str, str]:
    """Return the two lines of a box: the id with its state's glyph, and the task."""
    glyph = GLYPHS.get(shape.state or "", "")
    return f"{glyph} {shape.id}".strip(), shape.task
