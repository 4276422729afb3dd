"""Decisions of a log, decided again from the inputs that the log has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cost.agent import Inputs, decide_on, solver
from orchestrator.launched import recorded_submission
from orchestrator.recorder.projection import parse_event
from orchestrator.settings import Settings
from orchestrator.store.changes import Row
from tenancy.errors import HeadgateError

from .run_log import RunLog

Read = Callable[[str, str], str | None]
"""Gives the inputs of a decision, by its id and what its event says of them; None where they are gone."""


def inline(_decision: str, said: str) -> str | None:
    """Return inputs that the event has itself."""
    return None if not said or said.startswith("@") else said


def decided_otherwise(log: RunLog, run: Row, read: Read = inline) -> Iterator[str]:
    """Yield a sentence for each decision that its inputs do not lead to.

    run: the row of the run by the log. read: where the inputs of decisions are. A decision whose inputs are gone, or that another solver
    planned, is not judged. One at admission of an older version follows from the graph, what its tasks were expected to cost, and the hold.
    """
    events = [
        (step.position, event)
        for step in log.steps
        if '"decision.' in step.text and str((event := parse_event(step.text)).get("t")).startswith("decision.")
    ]
    made = {str(event.get("decision")): event for _, event in events if event["t"] == "decision.made"}
    older = []
    for position, event in events:
        if event["t"] == "decision.made":
            found = _made_otherwise(event, read)
        elif event["t"] == "decision.applied" and event.get("decision"):
            found = _applied_otherwise(event, made)
        else:
            older.append((position, event))
            continue
        if found:
            yield f"event {position}: {found}"
    yield from _older_otherwise(older, log, run)


def _made_otherwise(event: Mapping[str, Any], read: Read) -> str | None:
    text = read(str(event["decision"]), str(event.get("inputs") or ""))
    if text is None:
        return None
    inputs = Inputs.from_json(text)
    if inputs.digest() != event.get("inputs_hash") or inputs.to_json() != text:
        return f"was made from inputs of SHA-256 {event.get('inputs_hash')}, and these are {inputs.digest()}"
    if inputs.solver != solver():
        return None
    decision = decide_on(inputs)
    expected = {
        "action": decision.action,
        "reason": decision.reason,
        "flags": list(decision.flags),
        "projected": decision.projected,
        "confidence_permille": decision.confidence_permille,
        "concurrency_percent": decision.concurrency_percent,
        "plan": decision.modifications(),
    }
    said = {name: event.get(name) for name in expected}
    numbers = ("projected", "confidence_permille", "concurrency_percent")
    found = {**said, **{name: int(said[name] or 0) for name in numbers}, "flags": list(said["flags"] or ()), "plan": _plan(said["plan"])}
    return None if _text(found) == _text(expected) else f"decides {_text(found)}, and its inputs lead to {_text(expected)}"


def _applied_otherwise(event: Mapping[str, Any], made: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What is applied is of the plan: of a node that had begun meanwhile nothing is, but nothing else ever is."""
    decision = made.get(str(event["decision"]))
    if decision is None:
        return f"applies the decision {event['decision']}, which was not made before"
    if decision.get("observed") in (1, "1"):
        return f"applies the decision {event['decision']}, which was only observed"
    planned = {_text(each) for each in _plan(decision.get("plan"))}
    # What a run that ends still had to do is revoked, node by node, and no plan lists it.
    revokes = decision.get("action") == "terminate"
    done = [each for each in _plan(event.get("modifications")) if not (revokes and each.get("type") == "revoke")]
    other = [each for each in done if _text(each) not in planned]
    return f"applies {_text(other)}, which the decision {event['decision']} did not plan" if other else None


def _older_otherwise(told: Sequence[tuple[Any, Mapping[str, Any]]], log: RunLog, run: Row) -> Iterator[str]:
    admissions = [(position, event) for position, event in told if event.get("trigger") == "admission"]
    if not admissions or log.spec is None:
        return
    try:
        down = recorded_submission(run, Settings.load()).planned_down(int(run["hold"] or 0))
    except (ValueError, KeyError, HeadgateError) as error:
        yield f"what was decided at admission cannot be decided again: {error}"
        return
    expected: list[dict[str, Any]] = [
        {"type": each.type, "node": each.node, "change": each.change, "reason": each.reason, "saving": str(each.estimated_saving_micros)}
        for each in (down.modifications if down else ())
    ]
    for position, event in admissions:
        found = _plan(event.get("modifications"))
        if _text(found) != _text(expected):
            yield f"event {position}: decides {_text(found)}, and its inputs lead to {_text(expected)}"


def _plan(said: Any) -> list[dict[str, Any]]:
    told = json.loads(said) if isinstance(said, str) and said else said
    return [dict(each) for each in told or ()]


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
