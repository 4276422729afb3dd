"""The decisions of the cost agent about a run: `cost_decision.json`, the latest, and `cost_decisions.jsonl`, all of them, beside its log.

A line has the inputs of its decision as well, also where the log names an object, so that each can be decided again from the folder alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from orchestrator.artifacts import place
from orchestrator.artifacts.file import write_json, write_text
from orchestrator.objects import Objects
from orchestrator.results import OBJECT_MARK
from orchestrator.store import tables as t
from orchestrator.store.engine import reading
from tenancy.errors import Unavailable

SCHEMA_VERSION = 1

LATEST, ALL = "cost_decision.json", "cost_decisions.jsonl"

LOOKED_BACK = 10_000
"""Newest decisions among which those without a line in their file are looked for."""

Read = Callable[[str], str | None]
"""Gives the inputs that a decision's row stands for; None where they are gone."""


def write_decisions(engine: Engine, root: Path, run_id: str, read: Read) -> Path | None:
    """Write what was decided about a run, of all its generations, whole or not at all; None where nothing was. Raises OSError."""
    with reading(engine).connect() as connection:
        of_run = select(t.decision).where(t.decision.c.run_id == run_id).order_by(t.decision.c.generation, t.decision.c.number)
        rows = [dict(row) for row in connection.execute(of_run).mappings()]
        name = connection.execute(select(t.run.c.graph_name).where(t.run.c.run_id == run_id).limit(1)).scalar()
        charged = (t.ledger.c.run_id == run_id) & t.ledger.c.kind.in_(("settle", "waste")) & (t.ledger.c.category != "")
        columns = (t.ledger.c.generation, t.ledger.c.at, t.ledger.c.category, t.ledger.c.amount)
        entries = [dict(row) for row in connection.execute(select(*columns).where(charged)).mappings()]
    if not rows:
        return None
    found = [_described(row, entries, read(row["inputs"])) for row in rows]
    folder = place.run_folder(root, str(name or ""), run_id)
    text = "".join(f"{json.dumps(each, separators=(',', ':'), ensure_ascii=False)}\n" for each in found)
    write_text(folder / ALL, text)
    write_json(folder / LATEST, {key: value for key, value in found[-1].items() if key != "inputs"})
    return folder / LATEST


def missing_decisions(engine: Engine, root: Path, since_ms: int = 0) -> list[str]:
    """Return the runs, among those of the newest decisions, whose file does not have the last of them as it is on record.

    since_ms: of those whose last decision is older none is missing any more.
    """
    columns = (t.decision.c.run_id, t.decision.c.id, t.decision.c.applied_at, t.run.c.graph_name)
    of_run = (t.run.c.run_id == t.decision.c.run_id) & (t.run.c.generation == t.decision.c.generation)
    newest = (
        select(*columns)
        .join(t.run, of_run)
        .where(t.decision.c.at >= since_ms)
        .order_by(t.decision.c.at.desc(), t.decision.c.number.desc())
        .limit(LOOKED_BACK)
    )
    with reading(engine).connect() as connection:
        rows = connection.execute(newest).all()
    last: dict[str, Any] = {}
    for row in rows:
        last.setdefault(row.run_id, row)
    return [run_id for run_id, row in last.items() if not _has(place.run_folder(root, row.graph_name, run_id) / LATEST, row)]


def kept_inputs(folder: Path) -> dict[str, str]:
    """Return the inputs in the file of a folder by their decisions; what does not read is left out."""
    found: dict[str, str] = {}
    try:
        lines = (folder / ALL).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return found
    for line in lines:
        try:
            said = json.loads(line)
            if isinstance(said["inputs"], str):
                found[str(said["decision"])] = said["inputs"]
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _has(path: Path, row: Any) -> bool:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    applied_at = None if row.applied_at is None else row.applied_at / 1000
    return isinstance(said, dict) and (said.get("decision"), said.get("applied_at")) == (row.id, applied_at)


def _described(row: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], inputs: str | None) -> dict[str, Any]:
    seen = _seen(inputs)
    charged: Counter[str] = Counter()
    for entry in entries:
        if entry["generation"] == row["generation"] and entry["at"] <= row["at"]:
            charged[entry["category"]] += entry["amount"]
    percent = row["concurrency_percent"]
    return {
        "schema_version": SCHEMA_VERSION,
        "decision": row["id"],
        "tenant_id": row["tenant"],
        "run_id": row["run_id"],
        "generation": row["generation"],
        "trigger": row["trigger"],
        "cause": row["cause"] or None,
        "action": row["action"],
        "reason": row["reason"],
        "exposure": seen.get("exposure"),
        "remaining": seen.get("remaining"),
        "rate": seen.get("rate"),
        "projection": {
            "current": seen.get("committed"),
            "projected": row["projected"],
            "confidence": None if row["confidence_permille"] is None else row["confidence_permille"] / 1000,
        },
        "breakdown": dict(sorted(charged.items())),
        "flags": json.loads(row["flags"] or "[]"),
        "concurrency_factor": None if percent is None else percent / 100,
        "plan": json.loads(row["plan"] or "[]"),
        "applied": None if row["applied"] is None else json.loads(row["applied"]),
        "applied_at": None if row["applied_at"] is None else row["applied_at"] / 1000,
        "observed": bool(row["observed"]),
        "policy_version": row["policy_version"],
        "inputs_hash": row["inputs_hash"],
        "decided_at": row["at"] / 1000,
        "inputs": inputs,
    }


def _seen(inputs: str | None) -> dict[str, Any]:
    """What the inputs say of the tenant's money, in micros: committed; exposure, with what this run holds unspent; remaining; rate."""
    try:
        said = json.loads(inputs or "")
        committed, limit, hold = int(said["tenant"]["committed"]), int(said["tenant"]["limit"]), int(said["run"]["hold"])
    except (ValueError, KeyError, TypeError):
        return {}
    rate = round(committed / limit, 6) if limit else 1.0
    return {"committed": committed, "exposure": committed + hold, "remaining": max(0, limit - committed), "rate": rate}


def reader(objects: Objects | None) -> Read:
    """Return what reads the inputs of decisions, from their rows or the objects that these name."""

    def read(text: str) -> str | None:
        if not text.startswith(OBJECT_MARK):
            return text or None
        if objects is None:
            return None
        try:
            return objects.read(text[len(OBJECT_MARK) :]).decode()
        except (KeyError, Unavailable, UnicodeDecodeError):
            return None

    return read
