"""Pauses of the platform, a tenant or a run: they hold at once, and are on record before they are acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Engine

from orchestrator import keys
from orchestrator.recorder.ask import ANSWER_S
from orchestrator.state import State
from orchestrator.store import read
from orchestrator.store.position import START, Position
from tenancy import keys as names
from tenancy.errors import Refused, Unavailable, Unknown
from tenancy.link import Link
from tenancy.transport.queue import Queue

POLL_S = 0.005

AGENT = "agent"
"""The scope whose pause switches the cost agent off."""


def pause(link: Link, engine: Engine, scope: str, reason: str, by: str) -> bool:
    """Begin nothing of `scope` from here on, and return once that is on record; False when it was paused before.

    scope: `platform`, `tenant:{id}`, `run:{run}` (its newest generation) or `run:{run}.{generation}`; what runs goes on. `agent`: the cost
    agent decides nothing.
    Raises Unknown where there is no such tenant or run, Refused for a run that is over, and Unavailable: where that says so, the pause
    holds and will be on record.
    """
    scope = _named(engine, scope, live=True)

    def begin() -> bool:
        changed = bool(Queue(link).pause(scope, by, reason))
        _stand_by(link, scope)
        return changed

    return on_record(link, f"{scope} is paused", begin)


def resume(link: Link, engine: Engine, scope: str, reason: str, by: str) -> bool:
    """End the pause of `scope`, and return once that is on record; False when it was not paused.

    Raises as `pause`, and Refused for a run that the cost agent holds until somebody approves it.
    """
    scope = _named(engine, scope, live=False)
    kind, _, rg = scope.partition(":")
    if kind == "run" and link.read("HGET", keys.of_run("run", rg), "waits") == "hold" and link.read("SISMEMBER", names.PAUSED, scope):
        run_id = rg.rpartition(".")[0]
        say = f"headgate approve {run_id} --by NAME --reason TEXT"
        raise Refused(f"run {run_id} is held for what it costs, and goes on by an approval alone: `{say}`")

    def end() -> bool:
        was = bool(link.read("SISMEMBER", names.PAUSED, scope))
        while Queue(link).resume(scope, by, reason):
            pass  # what was parked returns 200 messages at a time
        _stand_by(link, scope)
        return was

    return on_record(link, f"{scope} is resumed", end)


def _stand_by(link: Link, scope: str) -> None:
    """A run that is paused gives its place up, and has it again when it goes on; where this dies before it, the next sweep does that."""
    kind, _, name = scope.partition(":")
    if kind == "run":
        run_id, _, generation = name.rpartition(".")
        State(link).stand_by(run_id, int(generation))


def _named(engine: Engine, scope: str, *, live: bool) -> str:
    """Return the scope as the scripts name it."""
    kind, _, name = scope.partition(":")
    if scope in ("platform", AGENT):
        return scope
    if kind == "tenant":
        return f"tenant:{read.get_tenant(engine, name).id}"
    if kind == "run":
        run_id, dot, generation = name.partition(".")
        if dot and not (generation.isascii() and generation.isdigit() and len(generation) < 10):
            raise Unknown(f"there is no run {name!r}")
        run = read.get_run(engine, run_id, int(generation) if dot else None)
        if live and run.status in ("ended", "refused"):
            raise Refused(f"run {run_id} is over; there is nothing to pause")
        return f"run:{run.run_id}.{run.generation}"
    raise Unknown(f"there is no scope {scope!r}; name platform, tenant:ID, run:ID or agent")


def on_record(link: Link, fact: str, change: Callable[[], bool]) -> bool:
    """Make a change, wait until the log is on record up to it, and return whether it changed anything.

    A recovery may lose what was not on record yet; then the next epoch is told again.
    """
    until, changed = time.monotonic() + ANSWER_S, False
    while True:
        changed = change() or changed
        link.read("LPUSH", keys.HURRY, "1")
        epoch, seq = link.read("HMGET", names.EPOCH, "epoch", "seq")
        position = Position(int(epoch), int(seq))
        while (recorded := _recorded(link)) < position:
            if time.monotonic() > until:
                raise Unavailable(f"{fact}, but not on record: the recorder did not say so within {ANSWER_S:g} s; is it running?")
            time.sleep(POLL_S)
        if recorded.epoch == position.epoch:
            return changed


def _recorded(link: Link) -> Position:
    text = link.read("GET", keys.RECORDED)
    return Position.parse(text) if text else START
