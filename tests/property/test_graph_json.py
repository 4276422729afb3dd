"""Whatever graph can be made goes through its canonical form unchanged; whatever is sent is answered in words."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.graph import MISSING, Graph, Limits, references, substitute
from orchestrator.graph.parse import parse
from orchestrator.registry import Registry
from tenancy.errors import GraphInvalid

SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

text = st.text(st.characters(codec="utf-8"), max_size=8)
names = text.filter(lambda t: t.isprintable() and not t.startswith("$"))
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | text
literals = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6)


def micros() -> st.SearchStrategy[int]:
    return st.integers(0, 10**12)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 8))
    ids = draw(st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,6}", fullmatch=True), min_size=count, max_size=count, unique=True))
    nodes: list[dict[str, Any]] = []
    for index, id_ in enumerate(ids):
        params = draw(st.dictionaries(names, literals, max_size=3))
        for parent in draw(st.lists(st.sampled_from(ids[:index]), max_size=3)) if index else []:
            reference = {"$ref": parent, "default": draw(literals)} if draw(st.booleans()) else {"$ref": parent}
            params[draw(names)] = [reference] if "default" not in reference or draw(st.booleans()) else {"in": reference}
        node = {"id": id_, "task": "t", "params": params}
        node |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "after": st.lists(st.sampled_from(ids[:index]), max_size=2) if index else st.just([]),
                    "required": st.booleans(),
                    "value": st.integers(0, 10**9),
                    "estimate": st.dictionaries(st.sampled_from(["llm", "retrieval", "storage", "compute", "other"]), micros()),
                    "priority": st.none() | st.sampled_from(["CRITICAL", "HIGH", "NORMAL", "LOW", "BATCH"]),
                    "pool": st.none() | st.sampled_from(["gpu", "a-1"]),
                    "timeout_s": st.integers(1, 604_800),
                    "attempts": st.integers(1, 20),
                    "labels": st.dictionaries(st.sampled_from("abc"), st.just("x")),
                    "variants": st.just([{"name": "v", "kind": "generation", "params": {"n": 1}, "estimate": {"llm": 1}, "value": 0}]),
                },
            )
        )
        nodes.append(node)
    head = draw(st.fixed_dictionaries({"name": st.just("g")}, optional={"max_parallel": st.none() | st.integers(1, 200_000)}))
    return {**head, "nodes": draw(st.permutations(nodes))}


@SETTINGS
@given(graphs())
def test_a_graph_survives_its_canonical_form(raw: dict[str, Any]) -> None:
    graph = Graph.parse(raw)
    again = Graph.parse(graph.canonical())
    assert again == graph == Graph.parse(json.dumps(raw))
    assert again.canonical() == graph.canonical()
    assert list(again.parents().items()) == list(graph.parents().items())
    resolved = graph.resolved(Registry())
    assert Graph.parse(resolved.canonical()).resolved(Registry()).digest == resolved.digest
    assert graph.problems() == ()


@SETTINGS
@given(graphs(), st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_the_order_of_keys(raw: dict[str, Any], random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, shuffled(item)) for key, item in value.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert Graph.parse(shuffled(raw)).digest == Graph.parse(raw).digest


@SETTINGS
@given(graphs())
def test_no_reference_is_left_after_substitution_and_list_items_drop_out(raw: dict[str, Any]) -> None:
    for node in Graph.parse(raw).nodes:
        refs = list(references(node.params))
        full = substitute(node.params, {reference.node: "result" for reference in refs})
        assert not [r for r in references(full) if r.default is MISSING]
        empty = substitute(node.params, {})
        for reference in refs:
            if reference.bare:
                raise AssertionError("a generated graph has no bare references outside lists")
        assert set(empty) == set(node.params)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "nodes",
                    "id",
                    "task",
                    "params",
                    "after",
                    "$ref",
                    "default",
                    "variants",
                    "estimate",
                    "join",
                    "labels",
                    "pool",
                    "max_parallel",
                    "x",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@SETTINGS
@given(anything)
def test_any_json_is_answered_with_a_graph_or_with_sentences(value: Any) -> None:
    for source in (value if isinstance(value, dict) else {"name": "g", "nodes": value}, json.dumps(value)):
        graph, problems = parse(source, Limits())
        assert (graph is None) == bool(problems)
        assert all(len(problem) < 600 and problem.isprintable() for problem in problems)


@SETTINGS
@given(graphs(), st.data())
def test_one_damaged_place_never_breaks_the_reader(raw: dict[str, Any], data: st.DataObject) -> None:
    node = data.draw(st.sampled_from(raw["nodes"]))
    node[data.draw(st.sampled_from([*node, "when", "unknown"]))] = data.draw(anything)
    try:
        graph = Graph.parse(raw)
    except GraphInvalid:
        return
    assert Graph.parse(graph.canonical()) == graph


@SETTINGS
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_are_answered_in_words(source: bytes | str) -> None:
    graph, problems = parse(source)
    assert graph is None
    assert problems
