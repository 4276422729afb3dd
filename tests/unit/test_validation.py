"""Every problem is reported at once, with its node, its value and what to do; nothing a producer sends breaks the reader."""

from __future__ import annotations

import inspect
import json
import time
import tracemalloc
from typing import Any

import pytest

from orchestrator.graph import Graph, Limits
from orchestrator.graph.parse import parse
from orchestrator.registry import Registry, TaskDefinition
from tenancy.errors import GraphInvalid

WIDE = Limits(nodes=200_000, edges=1_000_000)
HUGE = 10**5000


def shape(value: Any) -> str:
    """pytest's own ids print the value, which 5,000 digits refuse."""
    return value if isinstance(value, str) and value.isidentifier() else type(value).__name__


def node(id_: str, /, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "task": "t", **fields}


def problems(*nodes: Any, **options: Any) -> tuple[str, ...]:
    return parse({"name": "g", "nodes": list(nodes)}, **options)[1]


def test_everything_wrong_is_said_at_once() -> None:
    found = problems(
        node("a", after=["b"], wen=1),
        node("b", after=["a"], estimate={"llm": -1}),
        node("b", params={"x": {"$ref": "nobody"}}),
        node("c", params={"x": {"$ref": "c"}}, join="any"),
        7,
        {"id": "d", "params": {"x": {"$ref": "o"}}},
        node("o", required=False),
    )
    text = "\n".join(found)
    for part in (
        "node 'a': unknown key 'wen'",
        "node 'b': `estimate.llm` is -1",
        "node 'b': duplicate id",
        "refers to 'nobody'",
        "self-loop: c -> c",
        "`join` is 'any'",
        "nodes[4]: the node is 7",
        "node 'd': `task` is missing",
        "refers to the optional node 'o'",
        "cycle: a -> b -> a",
    ):
        assert part in text
    assert len(found) == 10


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field in ("value", "max_cost", "timeout_s", "attempts") for value in (1.5, 1.0, True, -1, "3", 2**53, HUGE, [])]
    + [("estimate", {"llm": value}) for value in (1.5, 1.0, True, -1, None, "3", 2**53, HUGE, float("nan"))]
    + [("estimate", {"llm": 2**53 - 1, "compute": 1}), ("estimate", {"lmm": 1}), ("estimate", []), ("required", 1), ("required", "yes")]
    + [("id", value) for value in ("", "-a", ".a", "a b", "a\n", "\x00", "é", "a" * 101, 7, None)]
    + [("task", value) for value in ("", "a\nb", "\x7f", "\ud800", "t" * 201, 7)]
    + [("labels", {"a\nb": "x"}), ("labels", {"a": "\x1b[31m"}), ("labels", {"a": 1}), ("labels", {"": "x"}), ("labels", [])]
    + [
        ("labels", {str(i): "x" for i in range(65)}),
        ("priority", "URGENT"),
        ("priority", 3),
        ("after", "a"),
        ("after", [1]),
        ("params", []),
    ]
    + [("join", "any"), ("variants", {}), ("variants", [1])],
    ids=shape,
)
def test_a_field_takes_only_what_it_says(field: str, value: Any) -> None:
    found = problems({**node("a"), field: value})
    assert len(found) == 1, found
    assert f"`{field}" in found[0] or f"in `{field}`" in found[0]
    assert all(ord(character) >= 32 for character in found[0])
    assert len(found[0]) < 400


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"map": "x"}, "`map` is 'x'; give a list, or a reference"),
        ({"map": {"a": 1}}, "`map` is an object; give a list"),
        ({"map": [1], "max_items": 0}, "`max_items` is 0"),
        ({"map": [1], "expected_items": 10_001}, "`expected_items` is 10001"),
        ({"max_items": 5}, "`max_items` is for a node with a map"),
        ({"map": [1, 2, 3], "max_items": 2}, "its map has 3 items, and its max_items is 2"),
        ({"map": [1, 2], "join": "at_least(3)"}, "asks for more successes than the 2 items that there can be"),
        ({"map": {"$ref": "p"}, "max_items": 5, "join": "at_least(6)"}, "asks for more successes than the 5 items"),
        ({"map": {"$ref": "nobody"}}, "`map` refers to 'nobody', which is not a node"),
        ({"map": {"$ref": "o"}}, "`map` refers to the optional node 'o'"),
        ({"map": [{"$item": True}]}, "$item stands for the item of a map; this node has no map"),
        ({"map": [1], "params": {"x": {"$item": 1}}}, 'write {"$item": true}, alone'),
        ({"params": {"x": {"$item": True}}}, "this node has no map"),
        ({"map": [float("nan")]}, "`map[0]` is nan"),
        ({"map": ["x" * 70_000]}, "are larger than the limit"),
    ],
)
def test_what_is_wrong_with_a_map_is_one_sentence(fields: dict[str, Any], said: str) -> None:
    found = problems(node("p"), node("o", required=False), node("a", **fields))
    assert len(found) == 1, found
    assert said in found[0]


def test_a_map_waits_for_its_parents_whatever_its_join_says_of_its_items() -> None:
    nodes = [
        node("p"),
        node("a", map={"$ref": "p"}, params={"x": {"$item": True}, "y": {"$ref": "p"}}, join="at_least(7)"),
        node("b", map=[{"$ref": "p"}, 1], params={"x": [{"$item": True}]}, join="all_done"),
        node("a.x"),
    ]
    assert problems(*nodes) == ()
    assert "node 'a.0': an item of the map 'a' has this id" in problems(*nodes, node("a.0"))[0]


@pytest.mark.parametrize("join", ["at_least", "at_least(0)", "at_least(01)", "at_least(-1)", "at_least( 1)", "all", {"at_least": 2}, 3])
def test_a_join_is_one_of_three(join: Any) -> None:
    (found,) = problems(node("a"), node("b", after=["a"], join=join))
    assert "use all_succeeded, all_done or at_least(n)" in found


@pytest.mark.parametrize("join", ["all_succeeded", "all_done", "at_least(1)"])
def test_each_join_is_taken(join: str) -> None:
    assert problems(node("a"), node("b", after=["a"], join=join)) == ()


def test_a_join_cannot_ask_for_more_successes_than_there_are_parents() -> None:
    assert problems(node("a"), node("b", after=["a"], join="at_least(2)")) == (
        "node 'b': its join 'at_least(2)' asks for more successes than the 1 node that it waits for can have; ask for fewer",
    )


@pytest.mark.parametrize(
    "when",
    [
        "a.ok", None, {}, {"$ref": "a"}, {"equals": 1}, {"$ref": 1, "equals": 1}, {"$ref": "a", "is": 1}, {"$ref": "a", "equals": [1]},
        {"$ref": "a", "equals": {}}, {"$ref": "a", "in": "xy"}, {"$ref": "a", "in": []}, {"$ref": "a", "in": [1] * 101},
        {"$ref": "a", "equals": 1, "in": [1]}, {"$ref": "a", "equals": 1, "default": 2}, {"$ref": "a", "equals": "x" * 1001},
        {"$ref": "a", "equals": float("nan")}, {"$ref": "a", "equals": float("inf")}, {"$ref": "a", "equals": 2**63},
        {"$ref": "a", "equals": HUGE}, {"$ref": "a", "equals": "\ud800"}, {"$ref": "a", "equals": b"x"},
    ],
    ids=shape,
)  # fmt: skip
def test_a_condition_compares_one_result_with_plain_values(when: Any) -> None:
    found = problems(node("a"), node("b", when=when))
    if when is None:
        assert found == ()
        return
    assert len(found) == 1
    assert "node 'b': `when` is" in found[0]
    assert "give a $ref and one of equals, not_equals" in found[0]


def test_a_condition_names_a_node_of_the_graph() -> None:
    assert problems(node("first"), node("b", when={"$ref": "frist", "equals": 1})) == (
        "node 'b': `when` refers to 'frist', which is not a node; did you mean 'first'?",
    )
    assert "self-loop: b -> b" in problems(node("b", when={"$ref": "b", "equals": 1}))[0]


def test_a_join_that_tolerates_failures_needs_defaults() -> None:
    for join in ("all_done", "at_least(1)"):
        (found,) = problems(node("a"), node("b", params={"x": {"$ref": "a"}}, join=join))
        assert found == (
            f"node 'b': its join '{join}' does not wait for a result of 'a', to which `x` refers; give the reference a default"
        )
        assert problems(node("a"), node("b", params={"x": [{"$ref": "a"}], "y": {"$ref": "a", "default": 1}}, join=join)) == ()


def when(ref: str, value: Any = "x") -> dict[str, Any]:
    return {"$ref": ref, "equals": value}


def ref(to: str) -> dict[str, Any]:
    return {"x": {"$ref": to}}


def test_a_node_may_count_on_what_is_taken_whenever_it_is() -> None:
    root, branch = node("root"), node("branch", when=when("root"))
    assert problems(root, branch, node("tail", params=ref("branch"))) == ()
    assert (
        problems(root, branch, node("tail", params=ref("branch")), node("end", params={"x": {"$ref": "tail"}, "y": {"$ref": "branch"}}))
        == ()
    )
    assert problems(root, branch, node("inner", params=ref("branch"), when=when("branch"))) == ()
    assert problems(root, branch, node("inner", params=ref("root"), when=when("branch"))) == ()


def test_a_node_cannot_count_on_a_branch_that_may_not_be_taken_where_it_is() -> None:
    root, left, right = node("root"), node("left", when=when("root")), node("right", when=when("root", "y"))
    both = node("both", params={"x": [{"$ref": "left"}, {"$ref": "right"}]})
    sentence = "node 'end': `x` refers to node '{}', which may not be taken where this node is; give the reference a default"
    assert problems(root, left, node("end", params=ref("left"), after=["root"])) == (sentence.format("left"),)
    assert problems(root, left, right, node("end", params=ref("left"), after=["right"])) == (sentence.format("left"),)
    # Perhaps neither of the two is taken: what joins them is a condition of its own.
    assert problems(root, left, right, both, node("end", params=ref("both"), after=["root"])) == (sentence.format("both"),)
    assert problems(root, left, right, both, node("end", params=ref("both"))) == ()
    assert problems(root, left, right, both, node("end", params={"x": {"$ref": "both", "default": 0}}, after=["root"])) == ()


def test_conditions_one_behind_the_other_are_limited() -> None:
    chain = [node("n0"), *(node(f"n{i}", when=when(f"n{i - 1}")) for i in range(1, 80))]
    assert problems(*chain[:65]) == ()
    (found,) = problems(*chain)
    assert "stands under 65 conditions, one behind the other; 64 are the most" in found


@pytest.mark.parametrize(
    "value",
    [
        {"$ref": 1}, {"$ref": "a", "x": 1}, {"$ref": "a", "default": {"$ref": "a"}}, {"$ref": "a", "default": [{"$secret": "a"}]},
        {"$secret": "s"}, {"$Ref": "a"}, {"$refs": "a"}, float("inf"), float("nan"), 2**63, -(2**63) - 1, HUGE, "\ud800", {"\x00": 1},
        {1: 2}, object(), b"x", {1, 2},
    ],
    ids=shape,
)  # fmt: skip
def test_params_hold_json_and_well_formed_references_only(value: Any) -> None:
    found = problems(node("a"), node("b", params={"x": [value]}))
    assert len(found) == 1, found
    assert found[0].startswith("node 'b': ")


def test_names_with_a_dollar_that_are_no_references_are_data() -> None:
    assert problems(node("a", params={"schema": {"$defs": {}, "$schema": "x", "type": {"$gt": 3}}})) == ()


def test_params_larger_than_the_limit_are_refused_however_they_are_made() -> None:
    shared: Any = "x"
    for _ in range(60):
        shared = [shared, shared]  # 2**60 values by sharing
    endless: list[Any] = []
    endless.append(endless)
    for value in ("x" * 70_000, ["x"] * 70_000, shared):
        (found,) = problems(node("a", params={"x": value}))
        assert "larger than the limit of 65,536 bytes" in found
    assert "nested deeper than 64" in problems(node("a", params={"x": endless}))[0]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", "3", '"g"', "{}", '{"name": "g"}', '{"name": "g", "nodes": []}', '{"name": "g", "nodes": {}}', "[" * 200_000,
        '{"a":' * 200_000, b"\xff\xfe", "\ud800", '{"name": "g", "nodes": [{"id": "a", "task": "t", "value": %s}]}' % ("9" * 5000),
        '{"name": "g", "nodes": [{"id": "a", "task": "t", "params": {"x": %s}}]}' % ("9" * 5000), "9" * 5000, "NaN", "-Infinity", "1e999",
        '{"name": "g", "nodes": [{"id": "a", "task": "t", "params": {"x": %s}}]}' % ("[" * 900 + "]" * 900),
    ],
    ids=shape,
)  # fmt: skip
def test_text_that_is_no_graph_is_refused_in_words(text: str | bytes) -> None:
    with pytest.raises(GraphInvalid) as refused:
        Graph.parse(text)
    assert all(len(problem) < 300 for problem in refused.value.problems)


def test_bytes_are_counted_before_they_are_parsed() -> None:
    text = json.dumps({"name": "g", "nodes": [node("a", params={"x": "é" * 100})]}, ensure_ascii=False)
    assert parse(text, Limits(bytes_max=len(text.encode())))[1] == ()
    for source in (text, text.encode()):
        assert "larger than the limit" in parse(source, Limits(bytes_max=len(text.encode()) - 1))[1][0]
    assert "larger than the limit" in parse("{" * 2000, Limits(bytes_max=1000))[1][0]


def test_keys_given_twice_are_refused_and_named_with_their_node() -> None:
    found = parse(
        '{"name": "g", "nodes": [{"id": "a", "task": "t", "params": {"x": {"y": 1, "y": 2}}}, {"id": "b", "id": "b", "task": "t"}]}'
    )[1]
    assert found == ("node 'a': the key 'y' is given twice; keep one", "node 'b': the key 'id' is given twice; keep one")


def test_nodes_and_edges_beyond_the_limits_are_refused() -> None:
    nodes = [node(f"n{i}", after=[f"n{j}" for j in range(i)]) for i in range(5)]
    assert problems(*nodes, limits=Limits(nodes=5, edges=10)) == ()
    assert "5 nodes are more than the limit of 4" in problems(*nodes, limits=Limits(nodes=4))[0]
    assert "10 edges are more than the limit of 9" in problems(*nodes, limits=Limits(edges=9))[0]


def test_a_required_node_with_a_bare_reference_to_an_optional_one_names_both() -> None:
    optional = node("o", required=False)
    (found,) = problems(optional, node("r", params={"x": {"k": {"$ref": "o"}}}))
    assert "node 'r'" in found
    assert "optional node 'o'" in found
    assert "default" in found
    for fine in (
        node("r", params={"x": {"$ref": "o", "default": None}}),
        node("r", params={"x": [{"$ref": "o"}]}),
        node("r", params={"x": {"$ref": "o"}}, required=False),
        node("r", after=["o"]),
    ):
        assert problems(optional, fine) == ()


def test_each_knot_of_cycles_is_one_short_path() -> None:
    ring = [node(f"n{i}", after=[f"n{(i - 1) % 10_000}"]) for i in range(10_000)]
    (found,) = problems(*ring)
    assert found == "cycle: n0 -> n1 -> n2 -> n3 -> (9,994 more) -> n9998 -> n9999 -> n0; remove one of these edges"
    two = problems(
        node("a", after=["b"]), node("b", after=["a"]), node("c", after=["b", "d"]), node("d", after=["c"]), node("e", after=["c"])
    )
    assert two == ("cycle: a -> b -> a; remove one of these edges", "cycle: c -> d -> c; remove one of these edges")


def test_a_graph_full_of_typos_is_refused_in_bounded_words_and_time() -> None:
    started = time.perf_counter()
    found = problems(*(node(f"n{i}", after=[f"m{i}"]) for i in range(10_000)))
    assert time.perf_counter() - started < 20
    assert len(found) == 1001
    assert found[-1] == "and 9,000 more problems"


def test_a_hundred_thousand_nodes_are_read_in_seconds_and_bounded_memory() -> None:
    text = json.dumps({"name": "big", "nodes": [node(f"n{i}", params={"x": {"$ref": f"n{i - 1}"}} if i else {}) for i in range(100_000)]})
    started = time.perf_counter()
    graph = Graph.parse(text, WIDE)
    elapsed = time.perf_counter() - started
    assert len(graph.nodes) == 100_000
    assert elapsed < 30, f"{elapsed:.1f} s"
    small = json.dumps({"name": "g", "nodes": json.loads(text)["nodes"][:5_000]})
    tracemalloc.start()
    Graph.parse(small, WIDE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000 * 8_000, f"{peak / 5_000:.0f} bytes a node"


# ---- against the tasks that are known ---------------------------------------------------------------------------------


def draft(angle: str, candidates: int = 3, tags: list[str] | None = None) -> str:
    return angle


def anything(**params: Any) -> None: ...


@pytest.fixture
def known() -> Registry:
    registry = Registry()
    for function in (draft, anything):
        registry.register(TaskDefinition(f"p.{function.__name__}", function, inspect.signature(function)))
    return registry


def run(task: str, params: dict[str, Any], /, **fields: Any) -> dict[str, Any]:
    return {"id": "a", "task": task, "params": params, **fields}


def test_tasks_are_looked_up_where_somebody_says_what_there_is(known: Registry) -> None:
    there = run("q.remote", {})
    assert problems(there) == ()
    assert "unknown task 'q.remote'" in problems(there, registry=known)[0]
    assert problems(there, registry=known, served={"q.remote"}) == ()
    assert "did you mean 'p.draft'?" in problems(run("p.drafft", {"angle": "x"}), registry=known)[0]
    assert "unknown task 'q.remote'" in problems(there, served=())[0]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "missing parameter 'angle'"),
        ({"angle": "x", "candidate": 1}, "unknown parameter 'candidate' of task 'p.draft'; did you mean 'candidates'?"),
        ({"angle": 3}, "`angle` is 3; the task takes str"),
        ({"angle": "x", "candidates": "x"}, "`candidates` is 'x'; the task takes int"),
        ({"angle": "x", "candidates": True}, "`candidates` is true; the task takes int"),
        ({"angle": "x", "tags": [1]}, "`tags` is a list; the task takes list[str] | None"),
    ],
)
def test_params_are_compared_with_the_signature(known: Registry, params: dict[str, Any], says: str) -> None:
    (found,) = problems(run("p.draft", params), registry=known)
    assert says in found


def test_a_task_that_takes_anything_gets_anything(known: Registry) -> None:
    assert problems(run("p.anything", {"x": 1, "y": [None]}), registry=known) == ()


def test_variants_are_checked_as_the_node_would_run_with_them(known: Registry) -> None:
    def variant(**fields: Any) -> dict[str, Any]:
        return {"name": "v", "kind": "generation", "estimate": {"llm": 1}, "value": 1, **fields}

    def found(*variants: dict[str, Any]) -> str:
        return "\n".join(problems(run("p.draft", {"angle": "x"}, variants=list(variants)), registry=known))

    assert found(variant(params={"candidates": 1})) == ""
    assert found(variant(kind="variant", task="p.anything")) == ""
    assert "variant 'v': unknown parameter 'candidate'" in found(variant(params={"candidate": 1}))
    assert "variant 'v': unknown task 'p.nothing'" in found(variant(kind="variant", task="p.nothing"))
    assert "cannot name a task" in found(variant(params={"candidates": 1}, task="p.anything"))
    assert "changes nothing" in found(variant())
    assert "duplicate name" in found(variant(params={"candidates": 1}), variant(params={"candidates": 2}))
    assert "which the node does not wait for" in found(variant(params={"angle": {"$ref": "b"}}))
    assert "not yet" in found(variant(params={"angle": {"$secret": "b"}}))
