"""Graphs: the model, its JSON form, and everything that can be wrong with one."""

from .limits import DEFAULT_LIMITS, Limits
from .model import Graph, Node, Variant
from .references import MISSING, Reference, references, substitute

__all__ = ["DEFAULT_LIMITS", "MISSING", "Graph", "Limits", "Node", "Reference", "Variant", "references", "substitute"]
