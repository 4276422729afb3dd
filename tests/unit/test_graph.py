"""The model: what is said, what is left to defaults, and how results take the place of references."""

from __future__ import annotations

import hashlib
import inspect
import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from cost.money import CATEGORIES
from orchestrator.graph import MISSING, Graph, Limits, Node, Variant, references, substitute
from orchestrator.graph.fields import Category
from orchestrator.registry import Registry, TaskDefinition
from tenancy.errors import Conflict, HeadgateError
from tenancy.priorities import Priority


def node(id_: str, /, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "task": "t", **fields}


def graph(*nodes: dict[str, Any]) -> Graph:
    return Graph.parse({"name": "g", "nodes": list(nodes)})


def define(name: str, function: Any, **declared: Any) -> TaskDefinition:
    return TaskDefinition(name, function, inspect.signature(function), **declared)


def test_defaults_are_the_documented_ones() -> None:
    it = graph(node("a")).nodes[0]
    assert (it.estimate, it.value, it.required, it.priority) == ({"compute": 1000}, 1, True, None)
    assert (it.timeout_s, it.attempts, it.join, it.max_cost, it.variants) == (300, 3, "all_succeeded", None, ())


def test_a_graph_is_frozen() -> None:
    it = graph(node("a"))
    with pytest.raises(ValidationError):
        it.name = "other"
    with pytest.raises(ValidationError):
        it.nodes[0].value = 3


def test_text_bytes_and_plain_values_give_the_same_graph() -> None:
    raw = {"name": "g", "nodes": [node("a", priority="HIGH"), node("b", params={"x": {"$ref": "a"}})]}
    text = json.dumps(raw)
    assert Graph.parse(raw) == Graph.parse(text) == Graph.parse(text.encode())
    assert Graph.parse(raw).nodes[0].priority is Priority.HIGH


def test_the_digest_ignores_key_order_and_spelt_out_defaults() -> None:
    one = graph(node("a", params={"x": 1, "y": 2}))
    two = graph({"params": {"y": 2, "x": 1}, "attempts": 3, "required": True, "task": "t", "id": "a"})
    assert one.digest == two.digest == hashlib.sha256(one.canonical()).hexdigest()
    assert one.digest != graph(node("a", params={"x": 1, "y": 3})).digest


def test_a_spelt_out_value_overrules_the_task_and_survives_canonical_form() -> None:
    registry = Registry()
    registry.register(define("t", lambda: None, value=9))
    said, unsaid = graph(node("a", value=1)), graph(node("a"))
    assert said.digest != unsaid.digest
    assert Graph.parse(said.canonical()).resolved(registry).nodes[0].value == 1
    assert Graph.parse(unsaid.canonical()).resolved(registry).nodes[0].value == 9


def test_resolving_fills_in_what_the_task_declares_and_nothing_changes_it_afterwards() -> None:
    variant = Variant(name="v", kind="generation", params={"n": 1}, estimate={"llm": 5}, value=2)
    registry = Registry()
    registry.register(define("t", lambda n=3: n, estimate={"llm": 50}, value=4, variants=(variant,), max_cost=60))
    resolved = graph(node("a"), node("b", estimate={"llm": 7}), node("c", variants=[])).resolved(registry)
    a, b, c = resolved.nodes
    assert (a.estimate, a.value, a.variants, a.max_cost) == ({"llm": 50}, 4, (variant,), 60)
    assert b.estimate == {"llm": 7}
    assert c.variants == ()
    stored = Graph.parse(resolved.canonical())
    assert stored == resolved
    assert stored.resolved(Registry()).digest == resolved.digest == resolved.resolved(Registry()).digest


def test_parents_are_references_by_path_then_after_each_once() -> None:
    it = graph(
        node("a"),
        node("b"),
        node("c"),
        node("d", params={"z": {"$ref": "a"}, "y": [{"k": {"$ref": "b"}}, {"$ref": "a"}]}, after=["c", "a"]),
    )
    assert it.parents() == {"a": (), "b": (), "c": (), "d": ("b", "a", "c")}
    assert Graph.parse(it.canonical()).parents() == it.parents()


def test_references_are_found_with_their_paths() -> None:
    found = list(references({"x": [{"$ref": "a"}, {"deep": {"$ref": "b", "default": None}}], "y": {"$ref": "c"}, "z": {"$defs": 1}}))
    assert [(r.node, r.path, r.in_list, r.bare) for r in found] == [
        ("a", ("x", 0), True, False),
        ("b", ("x", 1, "deep"), False, False),
        ("c", ("y",), False, True),
    ]
    assert found[1].default is None
    assert found[2].default is MISSING


def test_results_take_the_place_of_references() -> None:
    params = {"x": {"$ref": "a"}, "l": [1, {"$ref": "a"}, {"$ref": "gone"}, {"$ref": "gone", "default": 0}], "n": {"$ref": "none"}}
    before = json.dumps(params)
    assert substitute(params, {"a": "A", "none": None, "gone": MISSING}) == {"x": "A", "l": [1, "A", 0], "n": None}
    assert json.dumps(params) == before


def test_what_looks_like_a_reference_in_a_result_is_data() -> None:
    assert substitute({"x": {"$ref": "a"}}, {"a": {"$ref": "b"}}) == {"x": {"$ref": "b"}}


def test_a_bare_reference_without_a_result_says_where_and_what_to_do() -> None:
    with pytest.raises(HeadgateError, match=r"params\.x\[0\]\.k refers to node 'a', which has no result; give the reference a default"):
        substitute({"x": [{"k": {"$ref": "a"}}]}, {})


def test_the_only_sink_is_the_graphs_result() -> None:
    assert graph(node("a"), node("b", after=["a"])).sink == "b"
    with pytest.raises(HeadgateError, match=r"ends in 2 nodes \(a, b\)"):
        _ = graph(node("a"), node("b")).sink


def test_categories_are_those_of_the_ledger() -> None:
    assert get_args(Category) == CATEGORIES


def test_limits_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="the limit nodes is 200001; it can be 1 to 200000"):
        Limits(nodes=200_001)


def test_the_schema_names_every_field_and_forbids_others() -> None:
    schema = Graph.json_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(schema["$defs"]["Node"]["properties"]) == set(Node.model_fields)
    for model in (schema, schema["$defs"]["Node"], schema["$defs"]["Variant"], schema["$defs"]["Reference"]):
        assert model["additionalProperties"] is False
    assert schema["$defs"]["Node"]["required"] == ["id", "task"]
    assert json.loads(json.dumps(schema)) == schema


def test_subscribers_hear_of_present_and_future_definitions() -> None:
    registry, heard = Registry(), []
    registry.register(define("one", lambda: None))
    registry.subscribe(lambda definition: heard.append(definition.name))
    registry.register(define("two", lambda: None))
    assert heard == ["one", "two"]
    assert registry.names() == ("one", "two")
    assert registry.get("three") is None


def test_a_name_cannot_be_given_to_another_function_but_the_same_may_come_again() -> None:
    def first() -> None: ...
    def second() -> None: ...

    registry = Registry()
    registry.register(define("t", first))
    registry.register(define("t", first, value=2))
    reloaded = registry.get("t")
    assert reloaded is not None
    assert reloaded.value == 2
    with pytest.raises(Conflict, match=r"the task name 't' is taken by .*first and cannot be given to .*second; pass name="):
        registry.register(define("t", second))
