"""The load of `./dev bench agent` in simulated time: with the agent every required node finishes, and without it not."""

from __future__ import annotations

import random

import pytest

from benchmarks.agent.load import Load, loads
from cost.plan import AS_IS
from cost.simulator import Policy, RunKey, Simulator
from orchestrator.settings import Settings
from orchestrator.submission import Submission

pytestmark = pytest.mark.unit

NOON = 1_769_947_200_000  # 2026-02-01 12:00 UTC
STEP_MS, TICK_MS, MOST_MS = 100, 5_000, 600_000
PIECES = 4


class Fleet:
    """A tenant's share of the workers: so many slots, and nodes that charge in four pieces while they run."""

    def __init__(self, load: Load, seed: int, slots: int, *, agent: bool) -> None:
        self.load, self.slots, self.dice = load, slots, random.Random(seed)
        self.simulator = Simulator(NOON, agent=agent, audited=False, attempts=1)
        self.simulator.policy(load.tenant, Policy(load.limit, max_runs=10))
        self.running: dict[tuple[RunKey, str], tuple[int, int]] = {}
        self.costs: dict[tuple[str, str], dict[str, int]] = {}
        self.took_ms: dict[tuple[str, str], float] = {}
        self.due: dict[tuple[RunKey, str], float] = {}
        for at, graph in enumerate(load.graphs):
            for node in graph.nodes:
                told = {AS_IS: node.params["micros"], **{each.name: each.params["micros"] for each in node.variants}}
                self.costs[f"r{at}", node.id] = told
                self.took_ms[f"r{at}", node.id] = 1_000 * node.params["seconds"] * self.dice.uniform(0.95, 1.3)
            self.simulator.submit(load.tenant, f"r{at}", Submission.of(graph, Settings()).costs)

    def play(self) -> None:
        """Go on until nothing runs, and nothing starts over four beats."""
        beat, busy = self.dice.randrange(TICK_MS), 0
        for passed in range(0, MOST_MS, STEP_MS):
            self.simulator.now_ms = NOON + passed
            self.start(passed)
            for running in list(self.running):
                self.go_on(*running, passed)
            busy = passed if self.running else busy
            if passed > busy + 4 * TICK_MS:
                return
            if passed >= beat:
                beat += TICK_MS
                self.simulator.beat()
        raise AssertionError(f"{self.load.tenant} still runs after {MOST_MS} ms")

    def start(self, passed: int) -> None:
        runs = list(self.simulator.runs.items())
        self.dice.shuffle(runs)
        for key, run in runs:
            for node in run.ready[:1] if run.status == "running" and len(self.running) < self.slots else ():
                due = self.due.setdefault((key, node), passed + self.dice.uniform(0, 1_500))
                if due > passed:
                    continue
                if self.simulator.start(key, node) == "refused":
                    self.due[key, node] = passed + 1_000
                else:
                    self.running[key, node] = passed, 0

    def go_on(self, key: RunKey, node: str, passed: int) -> None:
        began, done = self.running[key, node]
        named = self.simulator.runs[key].nodes[node]
        costs = self.costs[key.run, node][named.choice]
        took_ms = self.took_ms[key.run, node]
        while done < PIECES and passed >= began + took_ms * done / PIECES:
            done += 1
            if self.simulator.charge(key, node, costs * done // PIECES) == "refused":
                paid = self.simulator.ledger.reservations[self.simulator.runs[key].execution(node)].amount
                del self.running[key, node]
                self.simulator.finish(key, node, {"llm": paid}, succeeded=False)
                return
        self.running[key, node] = began, done
        if passed >= began + took_ms:
            del self.running[key, node]
            self.simulator.finish(key, node, {"llm": costs})

    def lacking(self) -> list[str]:
        """The required nodes that did not succeed."""
        runs = zip(self.simulator.runs.items(), self.load.graphs, strict=True)
        return [
            f"{key.run}/{n.id}" for (key, run), graph in runs for n in graph.nodes if n.required and run.nodes[n.id].state != "succeeded"
        ]


@pytest.mark.parametrize("slots", [1, 2])
def test_with_the_agent_all_required_nodes_of_thirty_tenants_finish_and_without_it_they_do_not(slots: int) -> None:
    lacking: dict[bool, list[str]] = {True: [], False: []}
    for load in loads():
        for agent in lacking:
            fleet = Fleet(load, 7 * slots, slots, agent=agent)
            fleet.play()
            lacking[agent] += [f"{load.tenant}/{name}" for name in fleet.lacking()]
            account = fleet.simulator.ledger.accounts[load.tenant]
            assert account.exposure(account.tightest) <= load.limit
    assert not lacking[True]
    assert len(lacking[False]) > 30
