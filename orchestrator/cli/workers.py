"""Verbs about workers: list, scale, drain, wanted."""

from __future__ import annotations

import difflib
import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.exits import Exit
from orchestrator.cli.output import as_json, at, print_json, print_table, say, seconds
from orchestrator.cli.tenant import audited

if TYPE_CHECKING:
    from orchestrator.client import Client
    from tenancy.transport.fleet import WorkerView

LOOK_EVERY_S = 0.1
SETTLE_S = 5.0
"""How long the record may be behind: slots after scaling, the summary of a worker that ended."""


@click.group()
def workers() -> None:
    """Look at the workers, and have more or fewer of them."""


@workers.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the live workers."""
    from tenancy.transport.fleet import workers as read

    link = _client().kernel.link
    found, now = read(link), _now(link)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    rows = [
        (
            *(each.name, each.host, str(each.pid), ",".join(each.pools), str(each.slots), str(each.running), at(each.since)),
            *(f"{seconds(max(0.0, now - each.beat))} ago", str(len(each.tasks))),
        )
        for each in found
    ]
    print_table(("worker", "host", "pid", "pools", "slots", "running", "since", "heartbeat", "tasks"), rows)


@workers.command()
@click.argument("slots", type=click.IntRange(1, 10_000))
@audited
@as_json
def scale(slots: int, reason: str, by: str | None, as_json: bool) -> None:
    """Have SLOTS slots altogether, spread evenly over the live workers.

    Holds until a worker is started anew. Slots that go finish what they run; nothing more is given to them meanwhile.
    """
    from orchestrator.control import scale as tell
    from orchestrator.control import spread
    from orchestrator.note import note
    from tenancy.errors import Unavailable
    from tenancy.transport.fleet import workers as read

    client = _client()
    link = client.kernel.link
    wanted = spread(slots, {each.name for each in _some(read(link))})
    note(link, "workers.scaled", "platform", by, reason, slots=slots, workers=wanted)
    tell(client.kernel.app, wanted)
    until = time.monotonic() + SETTLE_S
    while {each.name: each.slots for each in read(link)} != wanted:
        if time.monotonic() > until:
            raise Unavailable("the workers were told and do not offer that many slots yet; `headgate workers list` says how many")
        time.sleep(LOOK_EVERY_S)
    if as_json:
        print_json({"slots": slots, "workers": wanted})
    else:
        click.echo(f"{slots} slots: {', '.join(f'{name} {count}' for name, count in wanted.items())}")


@workers.command()
@click.argument("worker")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer; the worker drains on.")
@audited
@as_json
def drain(worker: str, timeout_s: float | None, reason: str, by: str | None, as_json: bool) -> None:
    """Have WORKER take nothing new, finish what it runs, and end.

    WORKER is a name of `workers list`, or its part before the @. The stack of `headgate up` leaves it stopped; scale the others, or start
    the stack anew, to have its slots again.
    """
    from orchestrator.control import drain as tell
    from orchestrator.note import note
    from tenancy.transport.fleet import workers as read

    client = _client()
    link = client.kernel.link
    chosen = find(worker, _some(read(link)))
    note(link, "worker.drained", chosen.name, by, reason)
    tell(client.kernel.app, chosen.name)
    say(f"{chosen.name} takes nothing new; {chosen.running} of its messages are still to be finished")
    until = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        while chosen.id in {each.id for each in read(link)}:
            if until is not None and time.monotonic() >= until:
                say(f"{chosen.name} is still at work after {timeout_s:g} s; it ends when that is finished")
                sys.exit(Exit.TIMEOUT)
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        say(f"\nno longer watching; {chosen.name} drains on")
        sys.exit(Exit.DETACHED)
    summary = _summary(client, chosen.id)
    if as_json:
        print_json({"worker": chosen.name, "id": chosen.id, "drained": True, "summary": summary})
        return
    did = f", after {summary['executed']} executions in {seconds(summary['ended'] - summary['started'])}" if summary else ""
    click.echo(f"{chosen.name} has ended{did}")


@workers.command()
@as_json
def wanted(as_json: bool) -> None:
    """Say how many slots the backlog asks for, for an autoscaler.

    By pool: running + expected work in line / HEADGATE_BACKLOG_TARGET_S (60 s), rounded up; at least 1 if anything waits, at most
    running + in line. Altogether: the sum, and at least 1 while a run waits to be admitted. What is paused, suspended or at its cap asks
    for nothing.
    """
    from tenancy.demand import demand

    client = _client()
    found, target_s = demand(client.kernel.link), client.settings.backlog_target_s
    total = found.wanted(target_s)
    if as_json:
        pools = {pool.pool: {**asdict(pool), "wanted": pool.wanted(target_s)} for pool in found.pools}
        print_json({"wanted": total, "slots": sum(pool.slots for pool in found.pools), "target_s": target_s, "pools": pools})
        return
    rows = [
        (pool.pool, str(pool.wanted(target_s)), str(pool.slots), str(pool.running), str(pool.queued), seconds(pool.queued_ms / 1000))
        for pool in found.pools
    ]
    print_table(("pool", "wanted", "slots", "running", "in line", "work in line"), rows)
    click.echo(f"{total} slots are wanted to begin what is in line within {target_s:g} s")


def find(name: str, live: list[WorkerView]) -> WorkerView:
    """Return the live worker of this name, or of this name before its @. Raises Unknown with the nearest name."""
    from tenancy.errors import Unknown

    found = [each for each in live if name in (each.name, each.id)] or [each for each in live if each.name.partition("@")[0] == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise Unknown(f"{name!r} is several workers: {', '.join(sorted(each.id for each in found))}; name one of these")
    nearest = max((each.name for each in live), key=lambda known: _likeness(name, known))
    raise Unknown(f"there is no live worker {name!r}; the nearest is {nearest!r}")


def _likeness(name: str, known: str) -> float:
    return max(difflib.SequenceMatcher(None, name, part).ratio() for part in (known, known.partition("@")[0]))


def _some(live: list[WorkerView]) -> list[WorkerView]:
    from tenancy.errors import Unavailable

    if not live:
        raise Unavailable("no worker is alive; `headgate up` starts some")
    return live


def _summary(client: Client, worker_id: str) -> dict[str, Any] | None:
    """Return the worker's summary once the recorder has written it; None where it is not in this home soon."""
    from orchestrator.artifacts import place

    path, until = place.worker_summary(client.settings.resolved_artifacts_dir(), worker_id), time.monotonic() + SETTLE_S
    while not path.exists() and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
    return dict(json.loads(path.read_text())) if path.exists() else None


def _client() -> Client:
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    return running(Settings.load())


def _now(link: Any) -> float:
    return float(link.read("TIME")[0])
