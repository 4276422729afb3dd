"""Drawings of graphs: where boxes lie, and the same as text for Graphviz and Mermaid, and as SVG."""
