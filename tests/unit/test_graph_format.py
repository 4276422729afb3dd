"""docs/graph-format.md says what the code does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from orchestrator.graph import Graph
from orchestrator.registry import Registry, TaskDefinition
from tenancy.errors import GraphInvalid

PAGE = (Path(__file__).parents[2] / "docs" / "graph-format.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)\n```(?:\n> ([^\n]*))?", PAGE, re.DOTALL)


def draft(angle: str, candidates: int = 3) -> str:
    return angle * candidates


def merge(drafts: list[str]) -> str:
    return "".join(drafts)


@pytest.fixture
def known() -> Registry:
    registry = Registry()
    for function in (draft, merge):
        registry.register(TaskDefinition(f"pipeline.{function.__name__}", function, inspect.signature(function)))
    return registry


def test_the_page_has_examples_of_both_sorts() -> None:
    assert sum(not message for _, message in EXAMPLES) >= 2
    assert sum(bool(message) for _, message in EXAMPLES) >= 20


@pytest.mark.parametrize("text", [text for text, message in EXAMPLES if not message])
def test_examples_without_a_message_are_graphs(text: str) -> None:
    graph = Graph.parse(text)
    assert Graph.parse(graph.canonical()) == graph


@pytest.mark.parametrize(("text", "message"), [example for example in EXAMPLES if example[1]])
def test_refused_examples_give_exactly_the_message_shown(text: str, message: str, known: Registry) -> None:
    with pytest.raises(GraphInvalid) as refused:
        Graph.parse(text, registry=known)
    assert refused.value.problems == (message,)
