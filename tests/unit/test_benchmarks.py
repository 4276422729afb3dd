"""The arithmetic of the benchmarks."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.fan import WORKLOADS, graph_of
from benchmarks.harness import Counters, Round, Spread, command_costs, ratios
from benchmarks.money.cost import shares
from orchestrator.graph import Graph


def test_a_spread_is_the_median_with_both_ends() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)
    assert f"{Spread(2.5, 1.0, 10.0):.1f}" == "2.5 (1.0-10.0)"


def test_no_measurement_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(ValueError, match="no measurement"):
        Spread.of([])


def test_ratios_are_taken_round_by_round_and_above_one_is_won() -> None:
    assert ratios([1.0, 2.0, 4.0], [2.0, 2.0, 2.0]) == Spread(1.0, 0.5, 2.0)
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_a_share_is_what_would_be_saved_pair_by_pair() -> None:
    assert shares([2.0, 4.0, 1.0], [1.0, 3.0, 1.0]) == Spread(0.25, 0.0, 0.5)


def test_a_round_is_what_was_used_for_each_node_without_the_looks_of_the_harness() -> None:
    before = Counters(trips=100, bytes_in=0, bytes_out=0, commands=1000, redis_us=0, cpu_s={"redis": 1.0})
    after = Counters(trips=180, bytes_in=5000, bytes_out=2500, commands=1110, redis_us=700, cpu_s={"redis": 1.5})
    told = {"submitted_s": 0.1, "ended_s": 0.4, "done_s": 0.5, "cpu_s": 0.01, "polls": 30, "looks": 60}
    found = Round.between(before, after, told, nodes=10)
    assert (found.trips, found.commands, found.bytes_in, found.bytes_out, found.redis_us) == (5.0, 5.0, 500.0, 250.0, 70.0)
    assert found.cpu_us == {"producer": 1000.0, "redis": 50_000.0}
    assert (found.submitted_s, found.ended_s, found.done_s) == (0.1, 0.4, 0.5)


def test_commands_inside_a_script_are_counted_with_it_and_not_as_sent() -> None:
    client = "/tmp/r.sock:0"
    log = [
        (1, 0, 2, ["GET", "a"], client, ""),
        (2, 0, 1, ["HGET", "b"], "?:0", ""),
        (3, 0, 1, ["HSET", "b"], "?:0", ""),
        (4, 0, 30, ["EVALSHA", "abc", "0"], client, ""),
        (5, 0, 10, ["EVALSHA", "abc", "0"], client, ""),
        (6, 0, 1, ["SLOWLOG", "GET"], client, ""),
    ]
    costs = command_costs(log, {"abc": "begin"}, nodes=2)
    assert list(costs) == ["begin", "GET"]
    assert (costs["begin"].per_node, costs["begin"].us_each, costs["begin"].inside) == (1.0, 20.0, 1.0)
    assert (costs["GET"].per_node, costs["GET"].us_each, costs["GET"].inside) == (0.5, 2.0, 0.0)


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_a_workload_is_a_valid_graph_of_its_shape(name: str) -> None:
    workload = WORKLOADS[name]
    parents = Graph.parse(graph_of(workload.shape, workload.nodes)).parents()
    shapes = {
        "group": {0: workload.nodes},
        "chord": {0: workload.nodes - 1, workload.nodes - 1: 1},
        "chain": {0: 1, 1: workload.nodes - 1},
    }
    assert Counter(map(len, parents.values())) == shapes[workload.shape]


def test_the_stock_peer_imports_nothing_of_ours() -> None:
    tree = ast.parse((Path(harness.__file__).parent / "stock_peer.py").read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not {name.split(".")[0] for name in names} & {"orchestrator", "tasks", "tenancy", "cost", "benchmarks"}
