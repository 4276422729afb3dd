"""One graph: planned within its budget, held against the optimum, and played to its end."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from benchmarks.plans.graphs import Case
from benchmarks.plans.oracle import faults, optimum
from cost.plan import plan_down
from cost.simulator import Policy, Simulator, play

KEPT, KEPT_ABOVE, NODES_MAX = 0.99, 0.95, 2_000
"""The share of the optimum that is kept up to so many nodes, and of the stated bound above."""

PLAYED_MAX = 150
"""Larger graphs are not played: the simulator looks at every node at each step."""


@dataclass(frozen=True)
class Trial:
    """What became of a graph. `kept` is the share of the optimum, or above 2,000 nodes of the stated bound; `ms` is CPU time."""

    name: str
    nodes: int
    value: int
    kept: float
    kept_of_bound: float
    exact: bool
    ms: float
    played: str
    problems: list[str]

    def row(self) -> dict[str, object]:
        return asdict(self)


def trial(case: Case) -> Trial:
    """Plan a case, and say what is wrong with it."""
    began = time.process_time()
    plan = plan_down(case.nodes, case.available)
    ms = (time.process_time() - began) * 1000
    problems = faults(case.nodes, plan, case.available)
    of_bound = plan.value / plan.bound if plan.bound else 1.0
    kept = of_bound
    if len(case.nodes) <= NODES_MAX:
        most = optimum(case.nodes, case.available)
        kept = plan.value / most if most else 1.0
        # The oracle's own proof ends 1e-5 short, so a bound is wrong only if it is below what is kept or clearly below the oracle's.
        if plan.bound < most * (1 - 1e-4) - 1:
            problems.append(f"its bound is {plan.bound}, and the optimum up to {most:.0f}")
    promised = KEPT if len(case.nodes) <= NODES_MAX else KEPT_ABOVE
    if kept < promised:
        problems.append(f"it keeps {kept:.4f}, and {promised} is promised")
    played, wrong = _played(case) if len(case.nodes) <= PLAYED_MAX else ("", [])
    return Trial(
        case.name, len(case.nodes), plan.value, round(kept, 5), round(of_bound, 5), plan.exact, round(ms, 1), played, problems + wrong
    )


def _played(case: Case) -> tuple[str, list[str]]:
    """Run a case with the rules of money and the agent, each execution at what was reserved for it."""
    simulator = Simulator(1_769_900_000_000, audited=False)
    simulator.policy("acme", Policy(limit_day=10 * case.available + 1))
    simulator.submit("acme", "r", case.nodes, case.available)
    key = next(iter(simulator.runs))
    run = simulator.runs[key]
    play(simulator, lambda _, node: {"llm": simulator.ledger.reservations[run.execution(node)].amount})
    spent = simulator.ledger.purses[key].spent
    wrong = [
        f"{node.id} is required, and ended {run.nodes[node.id].state}"
        for node in case.nodes
        if node.required and run.nodes[node.id].state != "succeeded"
    ]
    if spent > case.available:
        wrong.append(f"its run spent {spent} of {case.available} micros")
    if run.status not in ("succeeded", "degraded"):
        wrong.append(f"its run is {run.status}")
    return run.status, wrong
