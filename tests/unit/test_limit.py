"""Limits by key, pools and expected durations, as tasks declare them and as workers say them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from orchestrator import Limit, assembly
from orchestrator.building import dag, task
from orchestrator.graph import Graph, Variant
from orchestrator.registry import Registry, TaskDefinition
from tenancy.errors import Conflict, GraphInvalid
from tenancy.transport import channel


def define(name: str, *limits: Limit, pool: str | None = None, variants: tuple[Variant, ...] = ()) -> TaskDefinition:
    def function() -> None: ...

    function.__qualname__ = name
    return TaskDefinition(name, function, inspect.signature(function), limits=limits, pool=pool, variants=variants)


def known(*definitions: TaskDefinition) -> Registry:
    registry = Registry()
    for definition in definitions:
        registry.register(definition)
    return registry


def switch_to(name: str) -> Variant:
    return Variant(name="other", kind="variant", task=name, estimate={}, value=1)


@pytest.mark.parametrize(
    ("fields", "sentences"),
    [
        ({"key": "api", "at_once": 0}, ["limit 'api': `at_once` is 0; give a whole number from 1 to 1000000"]),
        ({"key": "api", "at_once": True}, ["limit 'api': `at_once` is true; give a whole number from 1 to 1000000"]),
        ({"key": "api", "per_minute": 1.5}, ["limit 'api': `per_minute` is 1.5; give a whole number from 1 to 1000000"]),
        ({"key": "api", "per_minute": 1_000_001}, ["limit 'api': `per_minute` is 1000001; give a whole number from 1 to 1000000"]),
        ({"key": "api"}, ["limit 'api': it limits nothing; give at_once, per_minute or both"]),
        ({"key": "api", "at_once": 1, "per": "user"}, ["limit 'api': `per` is 'user'; use fleet or tenant"]),
        (
            {"key": "a@b", "at_once": 1},
            ["limit 'a@b': `key` is 'a@b'; use 1 to 100 letters, digits, '_', '.' or '-', not starting with '.' or '-'"],
        ),
        ({"key": 3, "at_once": -1, "per": None}, ["`key` is 3", "`at_once` is -1", "`per` is null"]),
    ],
)
def test_a_malformed_limit_is_answered_with_a_sentence_for_each_field(fields: dict[str, Any], sentences: list[str]) -> None:
    with pytest.raises(GraphInvalid) as refused:
        Limit(**fields)
    assert len(refused.value.problems) == len(sentences)
    assert all(sentence in problem for sentence, problem in zip(sentences, refused.value.problems, strict=True))


def test_a_limit_is_written_as_the_queue_reads_it() -> None:
    assert Limit("api", at_once=8).document() == {"key": "api", "at_once": 8}
    assert Limit("api", per_minute=600, per="tenant").document() == {"key": "api", "rate": 600, "per": "tenant"}


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        ({"limits": {"openai": 8}}, "task 'bad': `limits` takes a tuple of Limit, such as (Limit('openai', at_once=8),)"),
        ({"limits": Limit("x", at_once=1)}, "task 'bad': `limits` takes a tuple of Limit, such as (Limit('openai', at_once=8),)"),
        ({"limits": (Limit("x", at_once=1), Limit("x", per_minute=1))}, "task 'bad': the limit 'x' is given 2 times; keep one"),
        ({"pool": "GPU"}, "task 'bad': `pool` is 'GPU'; use 1 to 63 lower-case letters, digits or '-', not starting with '-'"),
        ({"expected_s": 0}, "task 'bad': `expected_s` is 0; give seconds above 0, to 604800"),
        ({"expected_s": True}, "task 'bad': `expected_s` is true; give seconds above 0, to 604800"),
        ({"expected_s": float("nan")}, "task 'bad': `expected_s` is nan; give seconds above 0, to 604800"),
    ],
)
def test_what_a_task_declares_wrongly_is_answered_with_one_sentence(declared: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GraphInvalid) as refused:
        task(name="bad", **declared)(lambda: None)
    assert refused.value.problems == (sentence,)


def test_one_key_with_two_limits_is_refused_at_registration_with_both_tasks_named() -> None:
    registry = known(define("one", Limit("api", at_once=8)))
    registry.register(define("two", Limit("api", at_once=8)))
    said = r"limit 'api' is \(at_once=8, per fleet\) for the task 'one' and \(at_once=4, per fleet\) for 'three'"
    with pytest.raises(Conflict, match=said):
        registry.register(define("three", Limit("api", at_once=4)))
    assert registry.names() == ("one", "two")


def test_a_task_may_be_registered_again_with_another_limit() -> None:
    registry = known(define("one", Limit("api", at_once=8)))
    registry.register(define("one", Limit("api", at_once=4)))
    assert registry.limits_of("one") == (Limit("api", at_once=4),)


def test_the_tasks_of_declared_variants_bring_their_limits_along() -> None:
    registry = known(
        define("cheap", Limit("local", at_once=1), Limit("api", at_once=8)),
        define("dear", Limit("api", at_once=8), variants=(switch_to("cheap"), switch_to("nobody"))),
    )
    assert {limit.key for limit in registry.limits_of("dear")} == {"api", "local"}
    assert registry.limits_of("nobody") == ()


@pytest.fixture
def worker_info(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    info: dict[str, Any] = {}
    monkeypatch.setattr(channel, "WORKER_INFO", info)
    return info


def test_a_worker_says_the_limits_and_expected_durations_of_its_tasks(worker_info: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    monkeypatch.setattr("orchestrator.building.registry", registry)
    monkeypatch.setattr("orchestrator.assembly.registry", registry)

    @task(name="t.embed", limits=(Limit("api", at_once=8, per_minute=600), Limit("key", at_once=1, per="tenant")), expected_s=2.5)
    def embed() -> None: ...

    task(name="t.plain")(lambda: None)
    task(name="t.quick", expected_s=0.0001)(lambda: None)
    assembly._introduce("w1@here")
    assert worker_info["tasks"] == ["t.embed", "t.plain", "t.quick"]
    assert worker_info["limits"] == {"t.embed": [{"key": "api", "at_once": 8, "rate": 600}, {"key": "key", "at_once": 1, "per": "tenant"}]}
    assert worker_info["expected_ms"] == {"t.embed": 2500, "t.quick": 1}


# ---- in graphs ----------------------------------------------------------------------------------------------------------


def graph(**fields: Any) -> Graph:
    return Graph.parse({"name": "g", "nodes": [{"id": "a", "task": "t", **fields}]})


def test_a_node_runs_in_its_own_pool_else_in_its_tasks_else_in_its_tenants() -> None:
    pinned, free = known(define("t", pool="gpu")), known(define("t"))
    assert graph().resolved(pinned).nodes[0].pool == "gpu"
    assert graph(pool=None).resolved(pinned).nodes[0].pool == "gpu"
    assert graph(pool="cpu").resolved(pinned).nodes[0].pool == "cpu"
    assert graph().resolved(free).nodes[0].pool is None


def test_a_graph_without_pools_and_caps_has_the_digest_that_it_always_had() -> None:
    assert graph().canonical() == b'{"name":"g","nodes":[{"id":"a","task":"t"}]}'
    assert graph(pool=None).digest == graph().digest == graph().evolve(max_parallel=None).digest
    assert b'"pool"' not in graph().resolved(known(define("t"))).canonical()


def test_a_graph_evolves_with_a_digest_of_its_own() -> None:
    first = graph()
    before = first.digest
    second = first.evolve(max_parallel=3)
    assert (second.max_parallel, first.max_parallel) == (3, None)
    assert second.digest != before == first.digest
    assert Graph.parse(second.canonical()) == second
    assert first.resolved(known(define("t"))).digest != before
    with pytest.raises(GraphInvalid, match="`max_parallel` is 0; give a whole number from 1 to 200000, or null"):
        first.evolve(max_parallel=0)


def test_a_dag_says_how_many_of_its_nodes_may_run_at_once() -> None:
    work = task(name="test_limit.work")(lambda: None)

    @dag(max_parallel=3)
    def narrow() -> None:
        work.options(pool="gpu")()

    @dag(max_parallel=0)
    def wrong() -> None:
        work()

    built = narrow()
    assert (built.max_parallel, built.nodes[0].pool) == (3, "gpu")
    with pytest.raises(GraphInvalid, match="graph: `max_parallel` is 0"):
        wrong()


def test_a_variant_cannot_lead_out_of_the_pool_that_its_task_is_pinned_to() -> None:
    registry = known(define("t"), define("big", pool="gpu"))
    variant = {"name": "v", "kind": "variant", "task": "big", "estimate": {}, "value": 1}
    with pytest.raises(GraphInvalid) as refused:
        graph(variants=[variant]).check(registry=registry)
    (problem,) = refused.value.problems
    assert "variant 'v': task 'big' is pinned to pool 'gpu', and the node runs wherever its tenant's nodes do" in problem
    assert problem.endswith("; give the node pool 'gpu'")
    graph(variants=[variant], pool="gpu").check(registry=registry)


def test_a_variant_of_a_node_cannot_lead_past_the_limits_of_its_task() -> None:
    registry = known(define("t"), define("asks", Limit("api", at_once=8)), define("also", Limit("api", at_once=8)))
    variant = {"name": "v", "kind": "variant", "task": "asks", "estimate": {}, "value": 1}
    with pytest.raises(GraphInvalid) as refused:
        graph(variants=[variant]).check(registry=registry)
    (problem,) = refused.value.problems
    assert "variant 'v': task 'asks' has the limit 'api', which would not hold here, because 't' has not" in problem
    assert problem.endswith("; declare the variant with the task 't', or give that task the limit too")
    graph(task="also", variants=[variant]).check(registry=registry)
    declared = known(define("asks", Limit("api", at_once=8)), define("t", variants=(switch_to("asks"),)))
    graph().resolved(declared).check(registry=declared)
