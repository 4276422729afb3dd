"""Chaos: seeds of real processes that are killed under a mix of graphs, and a checker of the log that they leave."""
