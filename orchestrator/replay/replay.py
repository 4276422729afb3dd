"""Replaying a run: its chain, its record made anew, its decisions decided again, and the rules that hold of any run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.objects import Objects
from orchestrator.recorder.projection import parse_event
from orchestrator.recorder.requests import run_row
from tenancy.errors import HeadgateError

from .decisions import Read, decided_otherwise, inline
from .recompute import FROM_EVENTS, differing, recompute
from .record import generations, read_log
from .rules import broken, judged
from .run_log import RunLog
from .tampering import out_of_order, tampering


@dataclass(frozen=True)
class Replay:
    """What a replay found: `differences` is empty where the log is whole and agrees with what is stored.

    chained: whether the chain was checked, which needs the key. status, outcome and cost_micros are those that the events make.
    """

    run_id: str
    generation: int
    events: int
    nodes: int
    entries: int
    status: str
    outcome: str | None
    cost_micros: int
    chained: bool
    differences: tuple[str, ...]


def replay_run(engine: Engine, run_id: str, generation: int, key: bytes | None, objects: Objects | None = None) -> Replay:
    """Replay a run's generation from its log in SQL and compare it with its rows. Raises Unknown, Unavailable.

    key: None leaves the chain unchecked. objects: where large inputs of decisions are; without it such decisions are not made again.
    """
    from orchestrator.artifacts.cost_decision import reader

    stored = reader(objects)
    log = read_log(engine, run_id, generation)
    earlier = [read_log(engine, run_id, number) for number in generations(engine, run_id) if number < generation] if _adopts(log) else []
    made = recompute(log, earlier)
    return _replay(log, earlier, made, key, differing(log, made), lambda _, said: stored(said))


def replay_file(path: Path, key: bytes | None) -> Replay:
    """Replay a run from its log in a file alone, and compare it with what the file says that the record said.

    Raises HeadgateError where the file is no log of a run.
    """
    from orchestrator.artifacts.cost_decision import kept_inputs
    from orchestrator.artifacts.event_log import earlier_files, read_file, summary

    log, record = read_file(path, key)
    earlier = [read_file(each, key)[0] for each in earlier_files(path, log.generation)] if _adopts(log) else []
    try:
        made = recompute(log, earlier)
    except SQLAlchemyError as error:
        raise HeadgateError(f"{path} cannot be replayed: what its lines say of a run is no run's ({error.args[0]})") from None
    found = _through_json(summary(made))
    differences = [
        f"{name} is {record.get(name)!r} on record, and {found[name]!r} by the log"
        for name in found
        if name != "nodes" and record and record.get(name) != found[name]
    ]
    nodes = dict(record.get("nodes") or {})
    differences += [
        f"node {node}: is {nodes.get(node)!r} on record, and {found['nodes'].get(node)!r} by the log"
        for node in sorted({*nodes, *found["nodes"]})
        if record and nodes.get(node) != found["nodes"].get(node)
    ]
    kept = kept_inputs(path.parent)
    return _replay(log, earlier, made, key, differences, lambda name, said: inline(name, said) or kept.get(name))


def _replay(
    log: RunLog, earlier: Sequence[RunLog], made: dict[str, list[dict[str, Any]]], key: bytes | None, differences: list[str], read: Read
) -> Replay:
    run = made["run"][0]
    known = {each.generation for each in earlier} >= {row["adopted"] for row in made["node"] if row["adopted"] is not None}
    lowered = any(row["verdict"] for row in made["node"] if row["adopted"] is not None) if known else None
    found = [
        *log.problems,
        *out_of_order(log),
        *(tampering(log, key) if key is not None else ()),
        *(f"event {row['id'].partition('.')[2]}: does not read as its type says" for row in made["incident"]),
        *judged(_submitted_otherwise(log)),
        *broken(log, _required(log.spec), lowered),
        *judged(_adopted_otherwise(log, earlier)),
        *judged(decided_otherwise(log, run, read)),
        *differences,
    ]
    status, outcome, cost = str(run["status"]), run["outcome"], int(run["cost_micros"])
    sizes = (len(log.steps), len(made["node"]), len(made["ledger"]))
    return Replay(log.run_id, log.generation, *sizes, status, outcome, cost, key is not None, tuple(dict.fromkeys(found)))


_MAY_CHANGE = ("priority", "budget", "labels")
"""What was submitted and an event may change: not compared where the log has such an event."""


def _submitted_otherwise(log: RunLog) -> Iterator[str]:
    """Yield what the run's row says of its submission and no submission in the log said."""
    events = [parse_event(step.text) for step in log.steps]
    rows = []
    for event in events:
        if event.get("t") == "request.submit":
            try:
                rows.append(run_row(event))
            except (KeyError, ValueError, TypeError, AttributeError):
                continue  # answered as invalid
    later = {name for event in events if event.get("t") not in ("request.submit", "run.admitted") for name in event}
    exempt = {name for name in _MAY_CHANGE if name in later}
    if any(event.get("t") == "run.refused" for event in events):
        exempt.add("key")  # a run that was refused gives its key up
    if rows:
        differ = [
            [name for name, value in row.items() if name not in (*FROM_EVENTS, *exempt) and log.submitted.get(name) != value]
            for row in rows
        ]
        nearest = min(range(len(rows)), key=lambda at: len(differ[at]))
        for name in differ[nearest]:
            yield f"run: {name} is {log.submitted[name]!r} on record, and {rows[nearest][name]!r} was submitted"
    digest = log.submitted.get("digest")
    if log.spec is not None and digest and hashlib.sha256(log.spec).hexdigest() != digest:
        yield f"the graph is not the one that was submitted: its SHA-256 is not {digest}"


def _adopts(log: RunLog) -> bool:
    return any('"node.adopted"' in step.text for step in log.steps)


def _adopted_otherwise(log: RunLog, earlier: Sequence[RunLog]) -> Iterator[str]:
    """Yield each node that is adopted from a generation that it did not succeed in, or that was not to be adopted."""
    succeeded = {
        each.generation: {
            str(event.get("node"))
            for step in each.steps
            if '"node.ended"' in step.text and (event := parse_event(step.text)).get("outcome") == "succeeded"
        }
        for each in earlier
    }
    wanted = json.loads(log.submitted.get("adopts") or "{}")
    for step in log.steps:
        event = parse_event(step.text) if '"node.adopted"' in step.text else {}
        for node, generation in dict(event.get("nodes") or {}).items():
            if wanted.get(node) != generation:
                yield f"event {step.position}: adopts node {node} of generation {generation}, and {wanted.get(node)} was to be adopted"
            elif node not in succeeded.get(generation, {node}):
                yield f"event {step.position}: adopts node {node} of generation {generation}, where it did not succeed"


def _required(spec: bytes | None) -> dict[str, bool] | None:
    if spec is None:
        return None
    try:
        return {str(node["id"]): bool(node.get("required", True)) for node in json.loads(spec)["nodes"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
