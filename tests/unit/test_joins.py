"""Joins, conditions and failure policies, run in this process; and what follows from recorded outcomes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator import Fatal, Retryable, dag, equals, not_equals, one_of, task
from orchestrator.frontier import frontier
from orchestrator.graph import Graph
from orchestrator.graph.branches import gates
from orchestrator.graph.condition import Condition, holds
from orchestrator.joins import Joins
from orchestrator.local import LocalRun
from orchestrator.settings import Settings
from orchestrator.submission import Submission


@task(name="joins.say")
def say(value: Any = None) -> Any:
    return value


@task(name="joins.fail")
def fail(kind: str = "") -> None:
    if kind == "fatal":
        raise Fatal("no such account")
    raise RuntimeError("no")


calls: list[float | None] = []


@task(name="joins.busy")
def busy(after_s: float | None, times: int) -> int:
    calls.append(after_s)
    if len(calls) <= times:
        raise Retryable("busy", after_s=after_s)
    return len(calls)


def node(id_: str, value: Any = None, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "task": "joins.say", "params": {"value": value}, **fields}


def bad(id_: str, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "task": "joins.fail", "attempts": 1, **fields}


def ref(id_: str, **default: Any) -> dict[str, Any]:
    return {"$ref": id_, **default}


def run(*nodes: dict[str, Any], **fields: Any) -> LocalRun:
    return Graph.parse({"name": "g", "nodes": list(nodes), **fields}).run_local()


def outcomes(found: LocalRun) -> dict[str, str]:
    return {each["id"]: each["outcome"] for each in found.nodes}


def reasons(found: LocalRun) -> dict[str, str]:
    return {each["id"]: each["reason"] for each in found.nodes if each["reason"]}


# -- joins -----------------------------------------------------------------------------------------------------------------


def test_all_done_runs_whatever_became_of_its_parents() -> None:
    found = run(
        bad("a"),
        node("b", 1, after=["a"]),
        node("c", 2),
        bad("d", required=False),
        node("end", [ref("a"), ref("b"), ref("c"), ref("d", default="none")], join="all_done"),
        node("after", ref("end")),
    )
    assert found.outcome == "failed"
    assert outcomes(found) | {"end": "succeeded"} == outcomes(found)
    assert outcomes(found)["b"] == "upstream_failed"
    assert found.result("after") == [2, "none"]


def test_at_least_is_due_at_the_nth_success() -> None:
    found = run(bad("a", required=False), node("b", 1), node("c", 2), node("end", [ref("a"), ref("b"), ref("c")], join="at_least(2)"))
    assert (found.outcome, found.result("end")) == ("degraded", [1, 2])


def test_at_least_does_not_wait_for_more_successes_than_it_asks_for() -> None:
    found = run(
        node("a", 1), *(node(f"b{i}", i) for i in range(9)), node("end", after=["a", *(f"b{i}" for i in range(9))], join="at_least(1)")
    )
    order = [event["node"] for event in found.events if event["t"] == "node.began"]
    assert found.outcome == "succeeded"
    assert [event["nodes"] for event in found.events if event["t"] == "node.due"][1] == ["end"]
    assert len(order) == 11


def test_at_least_is_upstream_failed_once_it_is_out_of_reach() -> None:
    found = run(bad("a"), bad("b"), node("c"), node("end", after=["a", "b", "c"], join="at_least(2)"), node("tail", after=["end"]))
    assert (outcomes(found)["end"], outcomes(found)["tail"]) == ("upstream_failed", "upstream_failed")
    assert reasons(found)["end"] == "fewer than 2 of the nodes before it can succeed"


def test_a_skipped_parent_is_no_success() -> None:
    found = run(
        node("x", 1),
        node("a", when={"$ref": "x", "equals": 2}),
        node("b"),
        node("end", after=["a", "b"], join="at_least(2)"),
    )
    assert outcomes(found) == {"x": "succeeded", "a": "skipped", "b": "succeeded", "end": "upstream_failed"}
    assert found.outcome == "failed"


# -- conditions ------------------------------------------------------------------------------------------------------------


def branches(kind: Any) -> LocalRun:
    @dag
    def mail() -> None:
        what = say.options(id="what")(kind)
        invoice = say.options(id="invoice", when=equals(what, "invoice"))(1)
        pay = say.options(id="pay")(invoice)
        letter = say.options(id="letter", when=one_of(what, "letter", "card"))(2)
        other = say.options(id="other", when=not_equals(what, "invoice"))(3)
        say.options(id="file")([pay, letter, other])

    return mail().run_local()


@pytest.mark.parametrize(
    ("kind", "taken", "filed"),
    [("invoice", {"invoice", "pay"}, [1]), ("card", {"letter", "other"}, [2, 3]), (None, {"other"}, [3]), (["invoice"], {"other"}, [3])],
)
def test_the_branch_whose_condition_holds_is_taken_and_the_join_passes_over_the_others(
    kind: Any, taken: set[str], filed: list[int]
) -> None:
    found = branches(kind)
    assert {id_ for id_, outcome in outcomes(found).items() if outcome == "succeeded"} == {"what", "file", *taken}
    assert {id_ for id_, outcome in outcomes(found).items() if outcome == "skipped"} == {"invoice", "pay", "letter", "other"} - taken
    assert found.result("file") == filed
    assert found.outcome == "succeeded", "a branch not taken degrades nothing"


def test_what_is_not_taken_says_why() -> None:
    found = reasons(branches("card"))
    assert found == {
        "invoice": 'not taken: what is not "invoice"',
        "pay": "not taken: none of the nodes before it was taken",
    }
    assert reasons(branches("invoice"))["letter"] == 'not taken: what is none of "letter", "card"'
    assert reasons(branches("invoice"))["other"] == 'not taken: what is "invoice"'


def test_a_join_of_branches_none_of_which_is_taken_is_not_taken_whatever_its_rule() -> None:
    for join in ("all_succeeded", "all_done", "at_least(1)", "at_least(2)"):
        found = run(
            node("x", 1),
            node("a", when={"$ref": "x", "equals": 2}),
            node("b", when={"$ref": "x", "equals": 3}),
            node("end", after=["a", "b"], join=join),
            node("tail", after=["end"]),
            node("beside", after=["end", "x"]),
        )
        assert outcomes(found) == dict.fromkeys(["x", "beside"], "succeeded") | dict.fromkeys(["a", "b", "end", "tail"], "skipped"), join
        assert found.outcome == "succeeded"


def test_a_condition_on_a_node_without_a_result_does_not_hold() -> None:
    for comparison in ({"equals": 1}, {"not_equals": 1}, {"in": [1]}):
        found = run(bad("x", required=False), node("b", when={"$ref": "x", **comparison}))
        assert (found.outcome, reasons(found)) == ("degraded", {"b": "not taken: x has no result"})


def test_a_required_node_whose_parent_failed_is_upstream_failed_even_if_it_would_not_be_taken() -> None:
    found = run(bad("a"), node("x", 1), node("b", after=["a"], when={"$ref": "x", "equals": 2}))
    assert outcomes(found)["b"] == "upstream_failed"


def test_a_condition_waits_for_its_node_also_where_enough_others_have_succeeded() -> None:
    for wanted, outcome in ((3, "succeeded"), (4, "skipped")):
        found = run(
            node("a"), node("b", 1, after=["a"]), node("x", 3, after=["b"]),
            node("end", after=["a"], join="at_least(1)", when={"$ref": "x", "equals": wanted}),
        )  # fmt: skip
        assert outcomes(found)["end"] == outcome


def test_an_edge_that_others_imply_still_says_that_a_parent_was_taken_or_failed() -> None:
    # first is above second; second is not taken, and first was.
    x, first = node("x", 1), node("first", when={"$ref": "x", "equals": 1})
    second = node("second", after=["first"], when={"$ref": "x", "equals": 2})
    assert outcomes(run(x, first, second, node("end", after=["first", "second"])))["end"] == "succeeded"
    # What tolerates the failure of a does not make its other children tolerate it.
    found = run(bad("a"), node("tolerant", after=["a"], join="all_done"), node("end", after=["a", "tolerant"]))
    assert outcomes(found)["end"] == "upstream_failed"


def test_a_node_behind_one_that_is_given_up_still_waits_for_its_own_parents() -> None:
    graph = Graph.parse(
        {
            "name": "g",
            "nodes": [node("a", 1), node("dear", ref("a"), required=False, estimate={"llm": 9000}), node("end", [ref("a"), ref("dear")])],
        }
    )
    found = graph.run_local(budget=2500)
    assert outcomes(found)["dear"] == "skipped"
    assert found.result("end") == [1]


def test_no_plan_gives_up_what_an_at_least_needs() -> None:
    parents = [node(f"a{i}", i, required=False) | {"value": 0} for i in range(3)]
    graph = Graph.parse({"name": "g", "nodes": [*parents, node("end", [ref(f"a{i}") for i in range(3)], join="at_least(2)")]})
    submission = Submission.of(graph, Settings())
    assert submission.floor_micros == 3000
    assert graph.run_local(budget=3000).result("end") == [0, 1]


@pytest.mark.parametrize(
    ("value", "results", "others"),
    [
        (1, [1, 1.0], [True, "1", 2, None]),
        (0, [0, 0.0, -0.0], [False, ""]),
        (2.5, [2.5], [2]),
        (True, [True], [1, "true"]),
        (None, [None], [0, "null", False]),
        ("é\n", ["é\n"], ["e"]),
        (10**17, [10**17, 1e17], [10**17 + 1]),
    ],
)
def test_a_condition_compares_as_people_do(value: Any, results: list[Any], others: list[Any]) -> None:
    document = Condition("x", "equals", (value,)).document()
    assert all(holds(document, json.dumps(each)) for each in results)
    assert not any(holds(document, json.dumps(each)) for each in others)
    assert not holds(document, "@object")
    assert holds(Condition("x", "not_equals", (value,)).document(), "@object")


# -- failure ---------------------------------------------------------------------------------------------------------------


def test_a_run_that_stops_cancels_what_has_not_begun_and_names_the_cause() -> None:
    nodes = [bad("a"), *(node(f"b{i}") for i in range(450)), node("end", after=["a", "b0"], join="all_done")]
    found = run(*nodes, on_failure="stop")
    assert found.outcome == "failed"
    assert outcomes(found)["a"] == "failed"
    assert set(outcomes(found).values()) == {"failed", "cancelled"}
    assert set(reasons(found).values()) == {"stopped: the node 'a' failed"}
    assert [event["node"] for event in found.events if event["t"] == "run.stopping"] == ["a"]


def test_an_optional_node_that_fails_stops_nothing() -> None:
    found = run(bad("a", required=False), node("b", after=["a"]), on_failure="stop")
    assert (found.outcome, outcomes(found)["b"]) == ("degraded", "succeeded")


def test_a_fatal_error_rules_out_another_attempt() -> None:
    found = run({"id": "a", "task": "joins.fail", "params": {"kind": "fatal"}, "attempts": 5})
    assert (found.nodes[0]["attempt"], found.nodes[0]["error"]["type"]) == (1, "Fatal")


def test_a_retryable_error_says_when_the_next_attempt_is() -> None:
    calls.clear()
    found = run({"id": "a", "task": "joins.busy", "params": {"after_s": 30, "times": 2}})
    assert found.result("a") == 3
    assert [event["delay_ms"] for event in found.events if event["t"] == "node.retry"] == [30_000, 30_000]
    calls.clear()
    assert run({"id": "a", "task": "joins.busy", "params": {"after_s": None, "times": 9}}).outcome == "failed"
    assert len(calls) == 3


@pytest.mark.parametrize("after_s", [-1, 10**9, float("nan")])
def test_a_delay_out_of_range_is_refused(after_s: float) -> None:
    with pytest.raises(ValueError, match="give seconds from 0"):
        Retryable("x", after_s=after_s)


# -- what follows from a graph and from a record -----------------------------------------------------------------------------


def test_gates_are_what_stands_above_all_parents() -> None:
    parents = {"x": [], "a": ["x"], "b": ["x"], "in": ["a"], "j": ["a", "b"], "k": ["a", "in"], "end": ["j", "x"], "loop": ["loop"]}
    found = gates(parents, ["a", "b", "in"])
    assert {id_: set(above) for id_, above in found.items()} == {
        "x": set(), "a": {"a"}, "b": {"b"}, "in": {"a", "in"}, "j": {"j"}, "k": {"a"}, "end": set(),
    }  # fmt: skip


def test_plain_graphs_have_no_joins_that_count() -> None:
    graph = Graph.parse({"name": "g", "nodes": [node("a"), node("b", after=["a"])]})
    assert Joins.of(graph).rules == {}
    assert Joins.of(graph).next_of(["b"]) == {"next": ["b"]}


@pytest.mark.parametrize("seed", range(60))
def test_a_record_says_what_state_says_at_every_moment(seed: int) -> None:
    """However far a run has come: what is due, sealed and counted follows from the outcomes of its nodes alone."""
    import random

    from orchestrator.model import Model

    dice = random.Random(seed)
    nodes: list[dict[str, Any]] = []
    for i in range(dice.randint(3, 9)):
        above = [f"n{j}" for j in range(i) if dice.random() < 0.5]
        fields: dict[str, Any] = {"after": above, "required": dice.random() < 0.6}
        if above:
            fields["join"] = dice.choice(["all_succeeded", "all_done", f"at_least({dice.randint(1, len(above))})"])
            if dice.random() < 0.4:
                fields["when"] = {"$ref": dice.choice(above), "equals": dice.choice([1, 2])}
        nodes.append(node(f"n{i}", **fields))
    submission = Submission.of(Graph.parse({"name": "g", "nodes": nodes}), Settings())
    model = Model()
    model.account("acme", 10**9, 9)
    model.enroll("i", 0, {"name": "w", "pools": ["default"]})
    model.admit("r", 1, "acme", json.dumps({**submission.want(None), "pools": [], "roots": {}, "tasks": []}))
    loaded = [(*row[:5], str(row[5])) for rows in submission.rows({}) for row in rows]
    model.load("r", 1, loaded, {})  # type: ignore[arg-type]
    due = model.launch("r", 1, 0, 1, submission.roots())
    state = model.runs["r", 1]
    controls = {row[0]: json.loads(str(row[2])) for row in loaded}
    while due:
        tag = model.put(due.pop(dice.randrange(len(due))), "acme", 5, "default", 1, "", 0, 0)
        taken = model.pop("i", "default", 0)
        assert tag
        assert taken is not None
        row = model.begin("r", 1, taken.payload, "i", taken.tag, taken.number, "w")
        outcome = dice.choice(["succeeded", "succeeded", "failed", "timed_out", "skipped"])
        reply = model.finish("r", 1, taken.payload, row[1], "i", outcome, str(dice.choice([1, 2])), "x", "", -1)
        due += reply[2:]
        ended = {event["node"]: event for event in model.events if event["t"] == "node.ended"}
        record = {
            id_: {"outcome": event["outcome"], "reason": event.get("reason"), "result": event.get("result")} for id_, event in ended.items()
        }
        found = frontier({row[0]: int(row[1]) for row in loaded}, controls, record)
        assert found.states == {id_: it.state for id_, it in state.nodes.items()}
        counted = {id_: it.wait for id_, it in state.nodes.items()}
        counted |= {f"{id_}:taken": 1 for id_, it in state.nodes.items() if it.taken}
        rules = submission.joins.rules
        counted |= {f"{id_}:ok": it.ok for id_, it in state.nodes.items() if isinstance(rules.get(id_), int) and f"{id_}:ok" in found.waits}
        assert found.waits == counted
        assert not found.sealed
    assert state.left == 0
