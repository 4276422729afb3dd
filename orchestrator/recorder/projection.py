"""From events to rows: the pure half of the recorder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from cost.money import CATEGORIES
from cost.period import day_of, month_of, name_of
from cost.task_ledger import GENERATION
from orchestrator.notify.notice import decision_notices, notice_rows
from orchestrator.rebuild import LAPSED
from orchestrator.store.changes import Changes, Row
from orchestrator.store.position import Position
from orchestrator.store.writer import RUN_UPDATE

from .decisions import applied_row, decision_row, older_row

Event = dict[str, Any]


NODES_NAMED = 20
"""Nodes that an entry of the audit names; it counts the others."""


class Entry(NamedTuple):
    """An entry of the stream: its position and the event as its script wrote it."""

    position: Position
    text: str


_NODE_UPDATE = (
    *("state", "outcome", "reason", "attempt", "worker", "verdict", "queued_at", "started_at", "finished_at", "result", "error"),
    *("adopted", "stop", "decision", "timeout_s"),
)
_NODE_SUMS = ("fails", "lost", "cost_micros", *(f"cost_{category}" for category in CATEGORIES))


def parts(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Split a batch where an event is decided by what those before it left in SQL.

    An `epoch.opened` says what became of everything recorded before it; a submission finds keys that refused runs gave up, a rerun the
    outcomes of the run.
    """
    part: list[Entry] = []
    refused = False
    for entry in entries:
        asks = '"request.rerun"' in entry.text or (refused and '"request.submit"' in entry.text)
        if part and (asks or '"epoch.opened"' in entry.text):
            yield part
            part, refused = [], False
        part.append(entry)
        refused = refused or '"run.refused"' in entry.text
    if part:
        yield part


def project(entries: Iterable[Entry]) -> Changes:
    """Return what the events, in their order, change in the record.

    Unknown types are kept as events and change nothing else, so an older recorder can read a newer log.
    """
    changes = Changes()
    for position, text in entries:
        event = parse_event(text)
        changes.events.append(_event_row(position, event, text))
        apply = _PROJECTIONS.get(str(event.get("t")), _nothing)
        try:
            apply(changes, event, position)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            # One event that no script of ours wrote must not stop the record of everybody.
            detail = {"event": text[:2000], "error": repr(error)}
            changes.incidents.append(incident("malformed", position, int(event.get("at") or 0), detail))
    return changes


def incident(kind: str, position: Position, at: int, detail: dict[str, Any]) -> Row:
    """Return the row of an incident: its kind and position name it, so that finding it again adds nothing."""
    return {"id": f"{kind}.{position}", "at": at, "kind": kind, "detail": json.dumps(detail)}


def parse_event(text: str) -> Event:
    """Return the event in the text of an entry; one that is no JSON object has the type `malformed`."""
    try:
        event = json.loads(text)
    except ValueError:
        return {"t": "malformed", "text": text}
    return event if isinstance(event, dict) else {"t": "malformed"}


def _malformed(_changes: Changes, _event: Event, _position: Position) -> None:
    raise ValueError("not a JSON object")


def _nothing(_changes: Changes, _event: Event, _position: Position) -> None:
    pass


def _event_row(position: Position, event: Event, text: str) -> Row:
    return {
        "epoch": position.epoch,
        "seq": position.seq,
        "at": int(event.get("at") or 0),
        "type": str(event.get("t")),
        "tenant": event.get("tenant"),
        "run_id": event.get("run"),
        "generation": amount(event.get("gen")),
        "node_id": event.get("node"),
        "data": text,
        "link": None,
    }


def amount(value: object) -> int | None:
    """Return the whole number in a field of an event, where '' and a missing field say that there is none."""
    return None if value is None or value == "" else int(str(value))


def _run(changes: Changes, event: Event) -> Row:
    key = (str(event["run"]), int(event["gen"]))
    row = changes.runs.get(key)
    if row is None:
        row = changes.runs[key] = {"run_id": key[0], "generation": key[1], **dict.fromkeys(RUN_UPDATE), "cost_micros": 0, "grown": 0}
    return row


def _node(changes: Changes, event: Event, node: str) -> Row:
    key = (str(event["run"]), int(event["gen"]), node)
    row = changes.nodes.get(key)
    if row is None:
        row = dict.fromkeys(_NODE_UPDATE) | dict.fromkeys(_NODE_SUMS, 0)
        row |= {"run_id": key[0], "generation": key[1], "node_id": node}
        changes.nodes[key] = row
    return row


DIFFERENCE = "difference"
"""The kind of the incident that counters and ledger differ."""

WASTE = "waste.duplicate"
"""The cause of what an execution spent after its money had been given back."""


def _entry(
    event: Event,
    kind: str,
    micros: int,
    *,
    day: int,
    category: str = "",
    cause: str = "",
    released: int = 0,
    to_hold: int = 0,
    again: str = "",
) -> Row:
    """Return an entry of the ledger; `again` tells entries of one execution, kind and category apart."""
    rg = f"{event['run']}.{event['gen']}"
    node, attempt, by = str(event.get("node") or ""), int(event.get("attempt") or 0), str(event.get("by") or "gate")
    return {
        "id": ".".join(filter(None, [f"{rg}.{node}.{attempt}" if node else rg, kind, category, again])),
        "tenant": event["tenant"],
        "run_id": event["run"],
        "generation": int(event["gen"]),
        "node_id": node,
        "attempt": attempt,
        "kind": kind,
        "category": category,
        "amount": micros,
        "day": day,
        "by": by,
        "at": int(event["at"]),
        "price_version": str(event.get("price_version") or ""),
        "period": name_of(day),
        "cause": cause or by,
        "released": released,
        "to_hold": to_hold,
    }


def _micros(event: Event, name: str) -> int:
    return amount(event.get(name)) or 0


def _parts(event: Event) -> list[tuple[int, int, dict[str, int]]]:
    """Return the day, what was reserved and what is charged of each part of a reservation that ends."""
    told = event.get("parts") or [{"day": event["day"], "reserved": event.get("reserved"), "cats": event.get("cats")}]
    return [
        (int(part["day"]), _micros(part, "reserved"), {str(name): int(micros) for name, micros in dict(part.get("cats") or {}).items()})
        for part in told
    ]


def _audit(changes: Changes, event: Event, position: Position, actor: str) -> None:
    kind, _, name = str(event.get("scope") or "").partition(":")
    changes.audit.append(
        {
            "id": str(position),
            "at": int(event["at"]),
            "actor": actor,
            "action": event["t"],
            "tenant": name if kind == "tenant" else event.get("tenant"),
            "target": event.get("run") or event.get("scope"),
            "data": json.dumps({k: v for k, v in event.items() if k in ("reason", "why", "limit", "current", "hold", "floor")}),
        }
    )


def _opened(changes: Changes, event: Event, _position: Position) -> None:
    if int(event.get("rebuilt") or 0):
        changes.rebuilt = int(event["at"])


def _requested(changes: Changes, event: Event, _position: Position) -> None:
    changes.requests.append(event)


def _first_seen(changes: Changes, event: Event) -> None:
    # The run's row comes with its submission; a run that was admitted without one is kept all the same.
    changes.new_runs.append(
        {
            "run_id": event["run"],
            "generation": int(event["gen"]),
            "tenant": event["tenant"],
            "graph_name": str(event.get("graph") or ""),
            "digest": "",
            "status": "submitted",
            "submitted_at": int(event["at"]),
            "priority": 5,
            "labels": "{}",
            "cost_micros": 0,
        }
    )


def _held(changes: Changes, event: Event, position: Position) -> None:
    _first_seen(changes, event)
    row = _run(changes, event)
    row.update(status="held", reason=str(event.get("why") or ""))
    for name in ("total", "estimate", "floor"):
        row[name] = amount(event.get(name))
    _audit(changes, event, position, event["tenant"])


def _admitted(changes: Changes, event: Event, position: Position) -> None:
    _first_seen(changes, event)
    row = _run(changes, event)
    row.update(status="submitted", reason="")  # it may have been held
    for name in ("total", "estimate", "floor", "hold", "budget"):
        row[name] = amount(event.get(name))
    hold = _micros(event, "hold")
    changes.ledger.append(_entry(event, "hold", hold, day=day_of(int(event["at"])), cause="admitted", to_hold=hold))
    _audit(changes, event, position, event["tenant"])


def _refused(changes: Changes, event: Event, position: Position) -> None:
    _first_seen(changes, event)
    _run(changes, event).update(status="refused", reason=str(event.get("reason") or ""), finished_at=int(event["at"]))
    _audit(changes, event, position, event["tenant"])


def _started(changes: Changes, event: Event, _position: Position) -> None:
    _run(changes, event).update(status="running", started_at=int(event["at"]))


def _cancelling(changes: Changes, event: Event, position: Position) -> None:
    _run(changes, event).update(status="cancelling", reason=str(event.get("reason") or ""))
    _audit(changes, event, position, str(event.get("by") or ""))


def _stopping(changes: Changes, event: Event, _position: Position) -> None:
    _run(changes, event).update(reason=str(event["reason"]))


def _node_cancelling(changes: Changes, event: Event, position: Position) -> None:
    nodes, reason = [str(node) for node in event["nodes"]], str(event.get("reason") or "")
    for node in nodes:
        _node(changes, event, node)["stop"] = reason
    row = {"id": str(position), "at": int(event["at"]), "actor": str(event.get("by") or ""), "action": event["t"]}
    said = {"nodes": nodes[:NODES_NAMED], "count": len(nodes), "generation": int(event["gen"]), "reason": reason}
    changes.audit.append(row | {"tenant": event["tenant"], "target": event["run"], "data": json.dumps(said)})


def _scope_cancelled(changes: Changes, event: Event, position: Position) -> None:
    scope, by = str(event["scope"]), str(event.get("by") or "")
    changes.fences[scope] = {"scope": scope, "by": by, "reason": str(event.get("reason") or ""), "at": int(event["at"])}
    _audit(changes, event, position, by)


def _called(changes: Changes, event: Event, position: Position) -> None:
    row = {"id": str(position), "at": int(event["at"]), "actor": str(event.get("by") or ""), "action": str(event["action"])}
    said = {**json.loads(str(event.get("said") or "{}")), "reason": str(event.get("reason") or "")}
    changes.audit.append(row | {"tenant": event.get("tenant"), "target": event["target"], "data": json.dumps(said)})


def _reprioritised(changes: Changes, event: Event, position: Position) -> None:
    _run(changes, event)["ranked"] = int(event["priority"])
    said = {name: event.get(name) for name in ("priority", "former", "reason")}
    row = {"id": str(position), "at": int(event["at"]), "actor": str(event.get("by") or ""), "action": event["t"]}
    changes.audit.append(row | {"tenant": event["tenant"], "target": event["run"], "data": json.dumps(said)})


def _approved(changes: Changes, event: Event, position: Position) -> None:
    _run(changes, event)["budget"] = amount(event.get("budget"))
    said = {name: event.get(name) for name in ("gen", "budget", "reason") if event.get(name) not in (None, "")}
    row = {"id": str(position), "at": int(event["at"]), "actor": str(event.get("by") or ""), "action": event["t"]}
    changes.audit.append(row | {"tenant": event["tenant"], "target": event["run"], "data": json.dumps(said)})


def _deadline(changes: Changes, event: Event, position: Position) -> None:
    raised = _node(changes, event, str(event["node"])) if event.get("node") else _run(changes, event)
    raised["timeout_s"] = int(event["timeout_s"])
    said = {name: event.get(name) for name in ("timeout_s", "former", "node", "reason") if event.get(name) is not None}
    row = {"id": str(position), "at": int(event["at"]), "actor": str(event.get("by") or ""), "action": event["t"]}
    changes.audit.append(row | {"tenant": event["tenant"], "target": event["run"], "data": json.dumps(said)})


def _paused(changes: Changes, event: Event, position: Position) -> None:
    scope, by = str(event["scope"]), str(event.get("by") or "")
    changes.pauses[scope] = {"scope": scope, "by": by, "reason": str(event.get("reason") or ""), "at": int(event["at"])}
    _audit(changes, event, position, by)


def _resumed(changes: Changes, event: Event, position: Position) -> None:
    changes.pauses[str(event["scope"])] = None
    _audit(changes, event, position, str(event.get("by") or ""))


def _over(changes: Changes, event: Event, _position: Position) -> None:
    counts = {name: int(count) for name, count in dict(event.get("counts") or {}).items()}
    _run(changes, event).update(
        status="ended", outcome=event["outcome"], finished_at=int(event["at"]), counts=json.dumps(counts, sort_keys=True)
    )
    if released := _micros(event, "released"):
        changes.ledger.append(_entry(event, "release", released, day=day_of(int(event["at"])), cause="ended", to_hold=-released))
    changes.pauses[f"run:{event['run']}.{event['gen']}"] = None
    changes.ended.append(f"{event['run']}.{event['gen']}")


def _due(changes: Changes, event: Event, _position: Position) -> None:
    for node in event.get("nodes") or ():
        row = _node(changes, event, node)
        row["state"] = "due"
        row["queued_at"] = row["queued_at"] or int(event["at"])


def _began(changes: Changes, event: Event, _position: Position) -> None:
    row = _node(changes, event, event["node"])
    row.update(state="running", attempt=int(event["attempt"]), worker=event.get("worker"), started_at=int(event["at"]))
    row["verdict"] = event.get("verdict") or row["verdict"]
    _reserved(changes, event, _position)


def _retried(changes: Changes, event: Event, _position: Position) -> None:
    _used(changes, event, _position)
    row = _node(changes, event, event["node"])
    row.update(state="due", error=str(event.get("error") or ""))
    row["fails"] += 1


def _lost(changes: Changes, event: Event, _position: Position) -> None:
    _node(changes, event, event["node"])["lost"] += 1


def _ended(changes: Changes, event: Event, _position: Position) -> None:
    _used(changes, event, _position)
    row = _node(changes, event, event["node"])
    row.update(state="ended", outcome=event["outcome"], finished_at=int(event["at"]))
    # Texts are written even when empty: an error of an earlier attempt is not this outcome's.
    row.update(reason=str(event.get("reason") or ""), error=str(event.get("error") or ""), result=str(event.get("result") or ""))
    if event.get("attempt"):
        row["attempt"] = int(event["attempt"])
    if event.get("decision"):
        row["decision"] = str(event["decision"])


def _judged(changes: Changes, event: Event, _position: Position) -> None:
    # An empty choice is written too: the node runs as it is again.
    for node, choice in dict(event["nodes"]).items():
        _node(changes, event, str(node)).update(verdict=str(choice or ""), decision=str(event["decision"]))


def _decided(changes: Changes, event: Event, _position: Position) -> None:
    row = decision_row(event)
    changes.decisions.append(row)
    changes.notices += decision_notices(row)


def _applied(changes: Changes, event: Event, _position: Position) -> None:
    if event.get("decision"):
        changes.applied.append(applied_row(event))
        if moved := _micros(event, "to_hold"):
            kind, day = ("hold" if moved > 0 else "release"), day_of(int(event["at"]))
            number = str(event["decision"]).rpartition(".")[2]
            changes.ledger.append(_entry(event, kind, abs(moved), day=day, cause="verdict", to_hold=moved, again=number))
    else:
        changes.decisions.append(older_row(event))
    name = str(event.get("decision") or changes.decisions[-1]["id"])
    for each in event.get("modifications") or ():
        _node(changes, event, str(each["node"]))["decision"] = name


def _lapsed(changes: Changes, event: Event, position: Position) -> None:
    """A run that was paused for long holds nothing any more, or has something again."""
    if moved := _micros(event, "to_hold"):
        kind, day = ("hold" if moved > 0 else "release"), day_of(int(event["at"]))
        changes.ledger.append(_entry(event, kind, abs(moved), day=day, cause=LAPSED, to_hold=moved, again=str(position)))


def _expanded(changes: Changes, event: Event, position: Position) -> None:
    _used(changes, event, position)
    _run(changes, event)["grown"] += int(event["count"])
    if int(event["first"]) + int(event["count"]) >= int(event["of"]):
        _node(changes, event, event["node"])["state"] = "pending"  # it waits for what it became


def _adopted(changes: Changes, event: Event, _position: Position) -> None:
    for node, generation in dict(event["nodes"]).items():
        row = _node(changes, event, node)
        row.update(state="ended", outcome="succeeded", finished_at=int(event["at"]), adopted=int(generation))
        changes.adopted.append({name: row[name] for name in ("run_id", "generation", "node_id", "adopted")})


def _settled(changes: Changes, event: Event, _position: Position) -> None:
    _used(changes, event, _position)
    kind = str(event.get("kind") or "settle")
    cause, moved = WASTE if kind == "waste" else "", _micros(event, "to_hold")
    cats: dict[str, int] = {}
    for index, (day, reserved, charged) in enumerate(_parts(event)):
        # What a part gives back, and what moves to the hold, is said once, by the first entry of each.
        released, again = reserved if kind == "settle" else 0, name_of(day) if index else ""
        if index and not charged:
            changes.ledger.append(_entry(event, "void", released, day=day, cause="unspent", released=released, again=again))
        for category, micros in sorted(charged.items()) or [("", 0)] * (not index):
            changes.ledger.append(
                _entry(event, kind, micros, day=day, category=category, cause=cause, released=released, to_hold=moved, again=again)
            )
            cats[category] = cats.get(category, 0) + micros
            released = moved = 0
    if int(event["gen"]) == GENERATION:
        return  # of an ordinary Celery task: no run, no node
    node = _node(changes, event, event["node"])
    for category, micros in cats.items():
        node[f"cost_{category if category in CATEGORIES else 'other'}"] += micros
    total = sum(cats.values())
    node["cost_micros"] += total
    _run(changes, event)["cost_micros"] += total


def _reserved(changes: Changes, event: Event, _position: Position) -> None:
    changes.ledger.append(_entry(event, "reserve", _micros(event, "amount"), day=int(event["day"]), to_hold=_micros(event, "to_hold")))


def _extended(changes: Changes, event: Event, position: Position) -> None:
    day, moved = int(event["day"]), _micros(event, "to_hold")
    changes.ledger.append(_entry(event, "extend", _micros(event, "amount"), day=day, to_hold=moved, again=str(position)))


def _adjusted(changes: Changes, event: Event, position: Position) -> None:
    day, cause = int(event["day"]), str(event.get("cause") or "")
    row = _entry(
        event | {"run": "", "gen": GENERATION}, "adjust", _micros(event, "amount"), day=day, category=str(event["cat"]), cause=cause
    )
    # An id counts once in the books of a month.
    changes.ledger.append(row | {"id": f"adjust.{event['tenant']}.{month_of(day)}.{event['id']}"})
    if event.get("price_version"):
        return  # one of many of a `ledger.repriced`
    said = {"id": event["id"], "amount": row["amount"], "category": row["category"], "day": row["period"], "reason": cause}
    _note(changes, event, position, said)


def _repriced(changes: Changes, event: Event, position: Position) -> None:
    _note(changes, event, position, {name: event.get(name) for name in ("version", "from", "to", "booked", "micros", "reason")})


def _note(changes: Changes, event: Event, position: Position, said: dict[str, Any]) -> None:
    row = {"id": str(position), "at": int(event["at"]), "actor": str(event.get("by") or ""), "action": event["t"]}
    changes.audit.append(row | {"tenant": event["tenant"], "target": f"tenant:{event['tenant']}", "data": json.dumps(said)})


def _differed(changes: Changes, event: Event, _position: Position) -> None:
    row = {"id": str(event["incident"]), "at": int(event["at"]), "kind": DIFFERENCE, "detail": str(event["detail"])}
    changes.incidents.append(row)


def _used(changes: Changes, event: Event, _position: Position) -> None:
    """Keep what an execution used, wherever it was said first: by its end, or with its settlement."""
    if event.get("lines"):
        execution = {"run_id": event["run"], "generation": int(event["gen"]), "node_id": event["node"], "attempt": int(event["attempt"])}
        changes.usage.append(execution | {"price_version": str(event.get("price_version") or ""), "lines": str(event["lines"])})


def _money_refused(changes: Changes, event: Event, position: Position) -> None:
    _audit(changes, event, position, event["tenant"])


def _voided(changes: Changes, event: Event, _position: Position) -> None:
    kind, moved = str(event.get("kind") or "void"), _micros(event, "to_hold")
    for index, (day, reserved, _) in enumerate(_parts(event)):
        again = name_of(day) if index else ""
        changes.ledger.append(_entry(event, kind, reserved, day=day, released=reserved, to_hold=0 if index else moved, again=again))


def _level_entered(changes: Changes, event: Event, _position: Position) -> None:
    changes.notices += notice_rows(event)
    changes.entered[str(event["tenant"])] = str(event["cause"])


def _tried(changes: Changes, event: Event, _position: Position) -> None:
    state = {"notice.sent": "sent", "notice.dropped": "dropped", "notice.failed": "pending"}[str(event["t"])]
    said = {"to_tries": int(event["tries"]), "to_due": amount(event.get("due")) or 0, "to_error": str(event.get("error") or "")}
    changes.tries.append({"tried": str(event["notice"]), "to_state": state, **said})


_PROJECTIONS: dict[str, Callable[[Changes, Event, Position], None]] = {
    "malformed": _malformed,
    "epoch.opened": _opened,
    "request.submit": _requested,
    "request.tenant": _requested,
    "request.policy": _requested,
    "request.status": _requested,
    "request.prices": _requested,
    "request.rerun": _requested,
    "request.schedule": _requested,
    "request.report": _requested,
    "request.prune": _requested,
    "run.held": _held,
    "run.admitted": _admitted,
    "run.refused": _refused,
    "run.started": _started,
    "run.cancelling": _cancelling,
    "run.stopping": _stopping,
    "run.ended": _over,
    "node.cancelling": _node_cancelling,
    "scope.cancelled": _scope_cancelled,
    "control.called": _called,
    "run.reprioritised": _reprioritised,
    "run.approved": _approved,
    "deadline.raised": _deadline,
    "scope.paused": _paused,
    "scope.resumed": _resumed,
    "node.due": _due,
    "node.began": _began,
    "node.retry": _retried,
    "node.lost": _lost,
    "node.ended": _ended,
    "node.adopted": _adopted,
    "node.expanded": _expanded,
    "node.judged": _judged,
    "run.lapsed": _lapsed,
    "run.back": _lapsed,
    "decision.made": _decided,
    "decision.applied": _applied,
    "money.reserved": _reserved,
    "money.extended": _extended,
    "money.refused": _money_refused,
    "money.would_refuse": _money_refused,
    "money.settled": _settled,
    "money.voided": _voided,
    "money.adjusted": _adjusted,
    "ledger.repriced": _repriced,
    "ledger.differs": _differed,
    "level.entered": _level_entered,
    "notice.sent": _tried,
    "notice.failed": _tried,
    "notice.dropped": _tried,
}
