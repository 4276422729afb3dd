"""Choosing what to give up: exactly, by a price per micro, or by linear relaxation. Pure, and the same on every machine."""

from cost.optimiser.graph import Bounded, Chosen, Graph, cost_of, value_of
from cost.optimiser.multiplier import priced
from cost.optimiser.relaxation import relaxed
from cost.optimiser.search import search

__all__ = ["Bounded", "Chosen", "Graph", "cost_of", "priced", "relaxed", "search", "value_of"]
