"""Mistakes that could be made in joins and conditions are noticed: each mutant of their script is caught."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest
import redis
from clock import moved_clock
from kernel_graphs import Graph
from kernel_machine import KernelMachine
from test_mutants import mutated

from orchestrator.embedded import RedisServer
from orchestrator.graph.branches import gated, gates
from orchestrator.model import NodeRow

pytestmark = pytest.mark.property

SEEDS = 40
NODES = 7

MUTANTS = {
    "a join of successes does not care for a failure": ("if how == 'bad' and rule == 'all_succeeded' then", "if false then"),
    "what stands behind branches not taken waits for ever": ("if wait == 0 and not taken then", "if false then"),
    "at_least begins with the first end": ("elseif least and ok < least then", "elseif false then"),
    "at_least waits for ever for what cannot come": ("if ok + wait < least and taken then", "if false then"),
    "at_least waits for all": ("elseif least or wait == 0 then", "elseif wait == 0 then"),
    "a skipped parent is a success": ("how == 'succeeded' and 1 or 0", "1"),
    "a condition is not looked at": ("local met = not when or condition(when)", "local met = true"),
    "not_equals is equals": ("if found == (when.unless or false)", "if found == false"),
    "a parent that was not taken was taken": ("local taken = how ~= 'untaken'", "local taken = true"),
    "what follows from a branch not taken is that it was passed over": (
        "propagate(run, node, 'untaken', ctl)",
        "propagate(run, node, 'passed', ctl)",
    ),
    "a branch not taken degrades its run": ("if outcome ~= 'succeeded' and not not_taken then", "if outcome ~= 'succeeded' then"),
    "a join becomes due once more with each parent": (
        "if state_of(node) == 'pending' then decide(",
        "if true then decide(",
    ),
    "a required failure is passed over": ("return passes and 'passed' or 'bad'", "return 'passed'"),
    "an optional failure stands in the way": ("return passes and 'passed' or 'bad'", "return 'bad'"),
    "a tolerant join does not wait for what failed": (
        "local wait, ok = redis.call('HINCRBY', waits, node, -1), 0",
        "local wait, ok = redis.call('HINCRBY', waits, node, how == 'bad' and -2 or -1), 0",
    ),
}
"""What is wrong, the text of the scripts and what stands there instead."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("joins"))
    made.start()
    with moved_clock():
        yield made
    made.stop()


def graph_of(rng: random.Random) -> Graph:
    """A small graph with joins of each rule, and conditions that hold and that do not; every result is "result"."""
    parents = {at: [before for before in range(at) if rng.random() < 0.5] for at in range(NODES)}
    rules: dict[int, str | int] = {}
    whens: dict[int, dict[str, object]] = {}
    for node, above in parents.items():
        if above and rng.random() < 0.7:
            rules[node] = rng.choice(["all_succeeded", "all_done", "all_done", rng.randint(1, len(above)), rng.randint(1, len(above))])
        if above and rng.random() < 0.3:
            whens[node] = {"ref": f"n{rng.choice(above)}", "texts": [rng.choice(['"result"', '"other"'])], "why": "so it is"}
            whens[node] |= {"unless": True} if rng.random() < 0.5 else {}
            rules.setdefault(node, "all_succeeded")
    named = {str(node): [str(parent) for parent in above] for node, above in parents.items()}
    for name in gated(named, gates(named, [str(node) for node in whens])):
        rules.setdefault(int(name), "all_succeeded")
    rows = [_row(node, parents, rules, whens, required=rng.random() < 0.6) for node in parents]
    want = {"graph": "g", "total": NODES, "estimate": "0", "floor": "0", "budget": "", "priority": 5}
    return Graph("r1", "acme", tuple(rows), 0, json.dumps(want))


def _row(
    node: int, parents: dict[int, list[int]], rules: dict[int, str | int], whens: dict[int, dict[str, object]], *, required: bool
) -> NodeRow:
    children = [child for child, above in parents.items() if node in above]
    ctl: dict[str, object] = {"amounts": {"": "0"}, "required": required, "attempts": 1}
    ctl["next"] = [f"n{child}" for child in children if child not in rules]
    ctl["joins"] = [[f"n{child}", rules[child]] for child in children if child in rules]
    if isinstance(rules.get(node), int):
        ctl["least"] = rules[node]
    if node in whens:
        ctl["when"] = whens[node]
    return f"n{node}", len(parents[node]), json.dumps(ctl), "{}", "", "0"


def play(server: RedisServer, seed: int) -> None:
    """Run a graph on both sides, its nodes ending well or badly in a random order; raises AssertionError where they differ."""
    rng = random.Random(seed)
    KernelMachine.url = server.client_url
    world = KernelMachine()
    try:
        world.open_epoch()
        world.model.account("acme", 100, 3)
        world.kernel.account("acme", 100, 3)
        world.enroll()
        world.graphs["r1"] = graph_of(rng)
        world.complete(world.graphs["r1"], 9)
        while world.model.messages:
            world.take("i1", rng.choice(["succeeded", "succeeded", "failed"]), "", -1)
            world.same_state()
        world.same_events()
        world.drive_to_the_end()
        world.same_state()
        assert world.model.runs["r1", 1].status == "ended"
    finally:
        world.link.close()


def caught(server: RedisServer, seed: int) -> bool:
    try:
        play(server, seed)
    except (AssertionError, redis.ResponseError):
        return True
    return False


@pytest.mark.parametrize("wrong", MUTANTS)
def test_a_mutant_of_the_joins_is_caught(server: RedisServer, wrong: str) -> None:
    with mutated(*MUTANTS[wrong]) as hit:
        found = any(caught(server, seed) for seed in range(SEEDS))
    assert hit, "no script has the text that this mutant changes"
    assert found, f"nobody noticed that {wrong}"


def test_joins_that_are_not_mutated_are_not_caught(server: RedisServer) -> None:
    for seed in range(SEEDS // 4):
        play(server, seed)
