"""Playing a simulator to its end: what is ready starts, what runs ends, in an order that the caller picks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from .entries import RunKey
from .simulator import Simulator


class Step(NamedTuple):
    """One thing that can happen next."""

    kind: Literal["start", "finish"]
    run: RunKey
    node: str


def steps(simulator: Simulator) -> list[Step]:
    """Return what can happen next, starts first; a node that was refused is asked again like any other."""
    runs = [(key, run) for key, run in simulator.runs.items() if run.status in ("running", "terminated_by_cost")]
    starts = [Step("start", key, node) for key, run in runs if run.status == "running" for node in run.ready]
    ends = [Step("finish", key, id_) for key, run in runs for id_, node in run.nodes.items() if node.state == "running"]
    return starts + ends


def play(
    simulator: Simulator,
    actual: Callable[[RunKey, str], Mapping[str, int]],
    pick: Callable[[Sequence[Step]], Step] = lambda steps: steps[0],
    *,
    step_ms: int = 0,
    beat_every: int = 1,
    steps_max: int = 100_000,
) -> int:
    """Play until nothing more can happen, and return the number of steps.

    `actual` says what an execution turns out to have cost by category. A node that the gate refuses is asked again after
    something else has happened. Each step takes `step_ms`; the agent's beat comes after every `beat_every` steps, 0 for
    never. Raises AssertionError where it takes more than `steps_max`.
    """
    refused: set[tuple[RunKey, str]] = set()
    for done in range(steps_max):
        possible = [step for step in steps(simulator) if step[1:] not in refused]
        if not possible:
            return done
        step = pick(possible)
        simulator.now_ms += step_ms
        if step.kind == "start":
            before = len(simulator.decisions)
            if simulator.start(step.run, step.node) == "refused" and all(
                decision.action == "continue" for _, _, decision in simulator.decisions[before:]
            ):
                refused.add((step.run, step.node))
        else:
            simulator.finish(step.run, step.node, actual(step.run, step.node))
            refused.clear()
        if beat_every and done % beat_every == 0:
            simulator.beat()
    raise AssertionError(f"not at its end after {steps_max} steps")
