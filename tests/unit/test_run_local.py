from __future__ import annotations

import pytest

from orchestrator import dag, meter, task
from orchestrator.graph import Graph
from orchestrator.local import LocalRun
from tenancy.errors import BudgetRefused, GraphInvalid, HeadgateError, RunFailed, Unknown

tries: dict[str, int] = {}


@task(
    name="local.draft",
    estimate={"llm": 30_000},
    value=10,
    variants=[{"name": "one", "kind": "generation", "params": {"candidates": 1}, "estimate": {"llm": 10_000}, "value": 7}],
)
def draft(angle: str, candidates: int = 3) -> str:
    meter.charge("llm", 500 * candidates, "token")
    return f"canals: {angle}"


@task(name="local.merge", estimate={"compute": 1_000})
def merge(drafts: list[str]) -> str:
    return " | ".join(drafts)


@task(name="local.flaky", estimate={"llm": 100})
def flaky(fails: int, name: str = "flaky") -> int:
    meter.charge("llm", 7, "micros")
    tries[name] = tries.get(name, 0) + 1
    if tries[name] <= fails:
        raise ValueError(f"try {tries[name]}")
    return tries[name]


@task(name="local.later", estimate={"llm": 100})
async def later(number: int) -> int:
    meter.charge("llm", 5, "micros")
    return number + 1


@task(name="local.odd", estimate={"llm": 0})
def odd() -> object:
    return object()


@task(name="local.join", estimate={"compute": 10})
def join(values: list[int], last: int | None = None) -> list[int]:
    return [*values, -1 if last is None else last]


@dag
def article() -> str:
    return merge([draft("history"), draft("law"), draft.options(required=False)("folklore")])


@pytest.fixture(autouse=True)
def fresh() -> None:
    tries.clear()


def parsed(*nodes: dict[str, object]) -> Graph:
    return Graph.parse({"name": "g", "nodes": list(nodes)})


def outcomes(run: LocalRun) -> dict[str, str]:
    return {node["id"]: node["outcome"] for node in run.nodes}


def llm(run: LocalRun) -> int:
    return run.cost_by_category.get("llm", 0)


def test_everything_runs_as_it_is_when_there_is_no_budget() -> None:
    run = article().run_local()
    assert run.outcome == "succeeded"
    assert run.result() == "canals: history | canals: law | canals: folklore"
    assert llm(run) == 90_000
    assert run.cost_micros == llm(run) + run.cost_by_category.get("compute", 0)


def test_a_tight_budget_plans_the_run_down_and_is_kept() -> None:
    run = article().run_local(budget="0.06")
    assert run.outcome == "degraded"
    assert llm(run) == 50_000
    assert run.cost_micros <= 60_000
    assert sorted(node["verdict"] or "" for node in run.nodes) == ["", "", "one", "one"]


def test_a_budget_that_only_fits_without_the_optional_draft_skips_it() -> None:
    run = article().run_local(budget="0.025")
    assert run.outcome == "degraded"
    assert sorted(outcomes(run).values()) == ["skipped", "succeeded", "succeeded", "succeeded"]
    assert run.result() == "canals: history | canals: law"


def test_a_budget_below_the_required_nodes_is_refused() -> None:
    with pytest.raises(BudgetRefused, match="20999 micros does not cover") as caught:
        article().run_local(budget="0.020999")
    assert caught.value.limit == 20_999
    assert caught.value.current == 21_000


def test_a_node_that_fails_is_tried_again_without_waiting_and_each_attempt_is_charged() -> None:
    run = parsed({"id": "a", "task": "local.flaky", "params": {"fails": 2}}).run_local()
    assert (run.outcome, run.result(), llm(run)) == ("succeeded", 3, 21)
    assert [(event["t"], event["delay_ms"]) for event in run.events if event["t"] == "node.retry"] == [
        ("node.retry", 2000),
        ("node.retry", 4000),
    ]
    began = [event["at"] for event in run.events if event["t"] == "node.began"]
    assert began[1] - began[0] >= 2000
    assert began[2] - began[1] >= 4000


def test_a_required_node_that_fails_for_good_fails_the_run_and_all_that_wait_for_it() -> None:
    run = parsed(
        {"id": "a", "task": "local.flaky", "params": {"fails": 9}, "attempts": 2},
        {"id": "b", "task": "local.later", "params": {"number": {"$ref": "a"}}},
        {"id": "c", "task": "local.later", "params": {"number": {"$ref": "b"}}},
        {"id": "d", "task": "local.later", "params": {"number": 1}},
    ).run_local()
    assert run.outcome == "failed"
    assert outcomes(run) == {"a": "failed", "b": "upstream_failed", "c": "upstream_failed", "d": "succeeded"}
    assert run.nodes[0]["attempt"] == 2
    assert run.result("d") == 2
    with pytest.raises(RunFailed, match="ValueError: try 2") as caught:
        run.result("a")
    assert caught.value.node == "a"
    with pytest.raises(RunFailed, match="a required node before it did not succeed"):
        run.result("c")


def test_an_optional_node_that_fails_gives_its_default_and_drops_out_of_lists() -> None:
    run = parsed(
        {"id": "a", "task": "local.flaky", "params": {"fails": 9, "name": "a"}, "required": False, "attempts": 1},
        {"id": "b", "task": "local.flaky", "params": {"fails": 0, "name": "b"}},
        {"id": "j", "task": "local.join", "params": {"values": [{"$ref": "a"}, {"$ref": "b"}], "last": {"$ref": "a", "default": 5}}},
    ).run_local()
    assert run.outcome == "degraded"
    assert run.result() == [1, 5]


def test_an_optional_node_whose_bare_reference_has_no_result_is_skipped_with_it() -> None:
    run = parsed(
        {"id": "a", "task": "local.flaky", "params": {"fails": 9}, "required": False, "attempts": 1},
        {"id": "b", "task": "local.later", "params": {"number": {"$ref": "a"}}, "required": False},
        {"id": "j", "task": "local.join", "params": {"values": [{"$ref": "b"}]}},
    ).run_local()
    assert outcomes(run) == {"a": "failed", "b": "skipped", "j": "succeeded"}
    assert run.nodes[1]["reason"] == "its parent 'a' has no result"
    assert run.result() == [-1]


def test_asynchronous_tasks_are_awaited_and_metered() -> None:
    run = parsed({"id": "a", "task": "local.later", "params": {"number": 1}}).run_local()
    assert (run.result(), llm(run)) == (2, 5)


def test_a_result_that_is_no_json_fails_without_another_attempt() -> None:
    run = parsed({"id": "a", "task": "local.odd"}).run_local()
    assert (run.outcome, run.nodes[0]["attempt"]) == ("failed", 1)
    assert run.nodes[0]["error"]["type"] == "NotStorable"


def test_a_node_that_its_run_can_no_longer_pay_for_is_refused_at_the_gate() -> None:
    run = parsed(
        {"id": "a", "task": "local.draft", "params": {"angle": "x", "candidates": 9}, "estimate": {"llm": 10}},
        {"id": "b", "task": "local.flaky", "params": {"fails": 0}, "after": ["a"], "estimate": {"llm": 100}, "required": False},
        {"id": "c", "task": "local.later", "params": {"number": 1}, "after": ["b"], "estimate": {"llm": 0}},
    ).run_local(budget=110)
    # The hold of 110 covers both as estimated; what a spent above its estimate is known only when it has run, and the hold pays for it.
    assert outcomes(run) == {"a": "succeeded", "b": "skipped", "c": "succeeded"}
    run = parsed(
        {"id": "a", "task": "local.flaky", "params": {"fails": 1, "name": "second"}, "estimate": {"llm": 7}},
        {"id": "b", "task": "local.later", "params": {"number": 1}, "after": ["a"], "estimate": {"llm": 7}},
    ).run_local(budget=14)
    # The second attempt must not take what b needs.
    assert outcomes(run) == {"a": "failed", "b": "upstream_failed"}
    assert run.outcome == "failed"
    with pytest.raises(RunFailed, match="the budget does not cover its 7 micros"):
        run.result("a")


def test_a_wide_graph_of_failures_ends() -> None:
    many = [{"id": f"n{i}", "task": "local.later", "params": {"number": {"$ref": "a"}}} for i in range(500)]
    run = parsed({"id": "a", "task": "local.flaky", "params": {"fails": 9}, "attempts": 1}, *many).run_local()
    assert run.outcome == "failed"
    assert set(outcomes(run).values()) == {"failed", "upstream_failed"}


def test_the_log_tells_the_run_from_admission_to_its_end() -> None:
    run = parsed({"id": "a", "task": "local.later", "params": {"number": 1}}).run_local(tenant="acme")
    assert [event["t"] for event in run.events] == [
        "run.admitted",
        "run.started",
        "node.due",
        "node.began",
        "node.ended",
        "money.settled",
        "run.ended",
    ]
    assert {event["tenant"] for event in run.events} == {"acme"}
    assert run.events[-1]["cost"] == str(run.cost_micros)
    node = run.nodes[0]
    assert node["queued_at"] <= node["started_at"] <= node["finished_at"]


def test_an_unknown_task_is_refused_before_anything_runs() -> None:
    with pytest.raises(GraphInvalid, match=r"local\.nothing"):
        parsed({"id": "a", "task": "local.nothing"}).run_local()


def test_asking_for_what_is_not_there_says_so() -> None:
    run = parsed(
        {"id": "a", "task": "local.later", "params": {"number": 1}}, {"id": "b", "task": "local.odd", "required": False}
    ).run_local()
    with pytest.raises(Unknown, match="no node 'x'"):
        run.result("x")
    with pytest.raises(HeadgateError, match="2 nodes"):
        run.result()


@pytest.mark.parametrize("budget", [0.06, "-1", "1e3", True])
def test_a_budget_that_is_no_amount_is_refused(budget: object) -> None:
    with pytest.raises(ValueError, match=r"amount|micros"):
        article().run_local(budget=budget)  # type: ignore[arg-type]


# -- nodes that become others -----------------------------------------------------------------------------------------------


@task(name="local.count", estimate={"compute": 5})
def count(number: int) -> list[int]:
    return list(range(number))


@task(name="local.twice", estimate={"compute": 5})
def twice(x: int, bad: int = -1) -> int:
    if x == bad:
        raise ValueError(x)
    return 2 * x


@task(name="local.unfold", estimate={"compute": 5})
def unfold(depth: int) -> object:
    """Return a graph that does the same once less, and counts."""
    if not depth:
        return "bottom"
    nodes = [
        {"id": "less", "task": "local.unfold", "params": {"depth": depth - 1}},
        {"id": "x", "task": "local.twice", "params": {"x": depth}},
    ]
    return Graph.parse({"name": "unfolded", "nodes": nodes})


@pytest.mark.parametrize(
    ("bad", "join", "required", "outcome", "result"),
    [
        (-1, "all_succeeded", True, "succeeded", [0, 2, 4, 6]),
        (2, "all_succeeded", True, "failed", None),
        (2, "all_succeeded", False, "degraded", [0, 2, 6]),
        (2, "all_done", True, "degraded", [0, 2, 6]),
        (2, "at_least(4)", True, "failed", None),
    ],
)
def test_a_map_runs_for_each_item_and_its_join_says_what_a_failed_one_means(
    bad: int, join: str, required: bool, outcome: str, result: list[int] | None
) -> None:
    @dag
    def mapped() -> None:
        twice.options(join=join, required=required, attempts=1).map(count(4), bad=bad)

    run = mapped().run_local()
    assert run.outcome == outcome
    found = {node["id"]: node["outcome"] for node in run.nodes}
    assert [found[f"twice.{i}"] for i in range(4)] == ["failed" if i == bad else "succeeded" for i in range(4)]
    if result is None:
        assert found["twice"] == "upstream_failed"
    else:
        assert run.result("twice") == result


def test_a_map_of_nothing_gives_an_empty_list_and_too_many_items_fail_it() -> None:
    @dag
    def mapped(number: int) -> None:
        twice.options(max_items=5).map(count(number))

    assert mapped(0).run_local().result("twice") == []
    assert "has 6 items, and its max_items is 5" in str(_failure(mapped(6).run_local(), "twice"))


def test_graphs_that_tasks_return_are_spliced_in() -> None:
    @dag
    def unfolding(depth: int) -> None:
        unfold.options(id="u")(depth)

    run = unfolding(2).run_local()
    assert run.result("u") == {"less": {"less": "bottom", "x": 2}, "x": 4}
    assert {node["id"]: node["task"] for node in run.nodes}["u.less.x"] == "local.twice"
    assert "at most 5 deep" in str(_failure(unfolding(6).run_local(), "u.less.less.less.less.less"))


def _failure(run: LocalRun, node: str) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        run.result(node)
    return failed.value
