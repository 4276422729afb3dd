"""Recovery: after a restart, rollback or loss of Redis, make it agree with the record and open the next epoch.

While it goes on no script passes the fence, because the epoch is bound to no running server. Dying halfway and starting again
ends in the same state: every value that is written is absolute, and what was under way is seen from the mark in `hg1:epoch`.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

import redis
from sqlalchemy import Engine, select
from ulid import ULID

from cost import keys as money
from cost.period import MS_PER_DAY, day_of, first_of_month_before
from orchestrator.recorder.announce import announce, now_ms
from orchestrator.recorder.batch import apply, differing, payloads_of
from orchestrator.recorder.prices import price_hashes
from orchestrator.recorder.stream import read_after, read_until
from orchestrator.recorder.tenants import policy_fields
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.changes import Row
from orchestrator.store.engine import reading
from orchestrator.store.live import (
    adjustments,
    charged_since,
    held_runs,
    level_events,
    live_ids,
    live_runs,
    pressures,
    settled_by,
    task_ledger,
)
from orchestrator.store.position import START, Position
from orchestrator.store.writer import keep, read_cursor
from tenancy import keys as names
from tenancy.errors import GraphInvalid, HeadgateError
from tenancy.link import Link
from tenancy.queues import DEFAULT_POOL

from . import keys as names_of_runs
from .append_only import write_anew
from .launched import asked, load_rows
from .log_key import log_key
from .messages import count_anew, keep_ordinary
from .rebuild import Keys, Recorded, adjusted_keys, level_keys, line_keys, loading, pool_keys, run_keys, task_keys, tenant_keys
from .regrown import regrown
from .results import ResultStore, result_store

REPORTS_KEPT_MS = 60_000
"""Ordinary tasks that ended so long ago may report once more, because the first reply was lost."""

CHUNK = 1_000

_KEPT = (
    "epoch", "events", "recorded", "recorder", "reply:", "payload:",
    "msg", "meta", "delayed", "queue:", "depth:", "ready:", "pools", "letters", "expected", "dead",
    "log:", "logs",
)  # fmt: skip
"""What a rebuild does not delete, by the beginning of the key after `hg1:`: the log, requests, ordinary messages, what nodes said."""

log = logging.getLogger("headgate.recovery")


class Superseded(HeadgateError):
    """Another recorder took over; this one must not write any more."""


def is_bound(link: Link) -> bool:
    """Say whether the open epoch is bound to the server that answers now; if not, every script refuses."""
    return bool(link.client.hget(names.EPOCH, "server") == link.server_id())


def recover(link: Link, engine: Engine, settings: Settings, alive: Callable[[], None] = lambda: None) -> int:
    """Make Redis agree with the record where it does not, and open an epoch; return the number of the open epoch.

    Where the epoch is bound to this server and not behind the record there is nothing to do. `alive` is called while it works,
    and may raise to stop it. Raises Superseded when another recovery took over.
    """
    client = link.client
    server = link.server_id()
    bound, epoch, _, _ = _epoch(client)
    if epoch and bound != server:
        write_anew(client, alive)
    # Read only now: another recovery may have gone all the way meanwhile.
    cursor, agrees = _compared(client, engine)
    bound, epoch, seq, under_way = _epoch(client)
    if agrees and not under_way and Position(epoch, seq) >= cursor:
        if bound == server:
            return epoch
        cursor = _drain(client, engine, log_key(settings), alive)
        rebuilt, token = 0, ""
    else:
        log.warning("Redis stands at %s-%s, the record at %s: execution state is rebuilt from the record", epoch, seq, cursor)
        rebuilt, token = 1, _rebuild(client, engine, settings, max(epoch, cursor.epoch) + 1, cursor, alive)
    opened = max(epoch, cursor.epoch) + 1
    if not link.call("orchestrator/epoch", opened, rebuilt, token, str(cursor)):
        raise Superseded(f"epoch {opened} was opened by another recorder, or Redis restarted meanwhile")
    log.info("epoch %s is open on server %s, after %s, rebuilt %s", opened, server, cursor, rebuilt)
    return opened


def _epoch(client: redis.Redis) -> tuple[str, int, int, bool]:
    bound, epoch, seq, under_way = cast("list[str | None]", client.hmget(names.EPOCH, ["server", "epoch", "seq", "rebuild"]))
    return bound or "", int(epoch or 0), int(seq or 0), under_way is not None


def _compared(client: redis.Redis, engine: Engine) -> tuple[Position, bool]:
    """Return the cursor, and whether the end of the log up to it is in the stream as it is in SQL, where it is in both."""
    with engine.begin() as connection:
        cursor = read_cursor(connection)
        overlap = read_until(client, cursor) if cursor != START else []
        return cursor, differing(connection, overlap) == 0


def _drain(client: redis.Redis, engine: Engine, key: bytes, alive: Callable[[], None]) -> Position:
    """Record what the stream holds beyond the cursor; return the new cursor."""
    with reading(engine).connect() as connection:
        cursor = read_cursor(connection)
    while entries := read_after(client, cursor, None):
        alive()
        applied = apply(engine, entries, payloads_of(client, entries), key)
        announce(client, engine, applied)
        cursor = applied.cursor
    return cursor


def _rebuild(client: redis.Redis, engine: Engine, settings: Settings, epoch: int, cursor: Position, alive: Callable[[], None]) -> str:
    """Replace execution state by what the record says; return the token that opens the epoch."""
    token = str(ULID())
    client.hset(names.EPOCH, "rebuild", token)
    client.hdel(names.EPOCH, "server")
    writer = _Guarded(client, token, alive)
    while beyond := read_after(client, cursor, None):
        # They tell of a state that is not the recorded one: left there, they would be recorded as if they followed.
        positions = [str(entry.position) for entry in beyond]
        writer.run(lambda pipe, positions=positions: pipe.xdel(names.EVENTS, *positions))  # type: ignore[misc]
    writer.run(keep_ordinary(client))
    stale = [key for key in client.scan_iter(names.PREFIX + "*", count=CHUNK) if not key.removeprefix(names.PREFIX).startswith(_KEPT)]
    for first in range(0, len(stale), CHUNK):
        chunk = stale[first : first + CHUNK]
        writer.run(lambda pipe, chunk=chunk: pipe.unlink(*chunk))  # type: ignore[misc]
    writer.run(count_anew(client))
    now = now_ms(client)
    results = result_store(settings)
    runs: list[Recorded] = []
    lost: list[Row] = []
    roots: Counter[tuple[str, str]] = Counter()
    held: list[tuple[Row, Mapping[str, Any]]] = []
    with reading(engine).connect() as connection:
        writer.write(Keys(price_hashes(connection)))  # before the epoch opens: no execution is priced by what is not there
        policies = policy_fields(connection)
        for recorded in live_runs(connection):
            own_pool = policies.get(recorded.run["tenant"], {}).get("pool") or DEFAULT_POOL
            try:
                loaded = regrown(load_rows(recorded.run, settings), recorded, settings, results.decode, _keep(results, recorded.run))
            except (ValueError, GraphInvalid) as error:
                lost.append(_unbuildable(recorded.run, now, error))
                continue
            writer.write(run_keys(recorded, loaded, epoch, now, own_pool))
            if recorded.run["status"] == "submitted":
                for pool, count in loading(loaded, own_pool).items():
                    roots[pool, recorded.run["tenant"]] += count
            runs.append(Recorded(recorded.run, {}, recorded.ledger, paused_at=recorded.paused_at))
        charged = charged_since(connection, first_of_month_before(day_of(now)))
        writer.write(Keys({money.SETTLED_BY: {by: str(count) for by, count in settled_by(connection).items()}}))
        writer.write(tenant_keys(policies, runs, charged))
        writer.write(adjusted_keys(adjustments(connection, first_of_month_before(day_of(now)))))
        writer.write(level_keys(policies, level_events(connection, first_of_month_before(day_of(now)) * MS_PER_DAY), now))
        writer.write(task_keys(task_ledger(connection, now - REPORTS_KEPT_MS), epoch, now))
        for row in held_runs(connection):
            try:
                held.append((dict(row), asked(row, settings)))
            except (ValueError, GraphInvalid) as error:
                lost.append(_unbuildable(row, now, error))
        writer.write(line_keys(held))
        writer.write(pool_keys(pressures(connection), roots))
        fences = {row.scope: row.at for row in connection.execute(select(t.fence))}
        writer.write(Keys({names_of_runs.FENCE: {scope: str(at) for scope, at in fences.items()}}))
        paused = list(connection.execute(select(t.pause.c.scope)).scalars())
    writer.run(lambda pipe: (pipe.delete(names.PAUSED), paused and pipe.sadd(names.PAUSED, *paused)))
    if lost:
        log.error("%s live runs cannot be rebuilt: %s", len(lost), lost)
        with engine.begin() as connection:
            keep(connection, t.incident, lost)
    return token


def _keep(results: ResultStore, run: Mapping[str, Any]) -> Callable[[str, str], str]:
    return lambda name, text: results.keep(f"{run['run_id']}/{run['generation']}/{name}.json", text)


def _unbuildable(run: Mapping[str, Any], now: int, error: Exception) -> Row:
    name = f"unbuildable.{run['run_id']}.{run['generation']}"
    return {"id": name, "at": now, "kind": "unbuildable", "detail": json.dumps({"error": str(error)})}


class _Guarded:
    """Writes that stop when another rebuild took over: each is a transaction that holds only while the mark is ours."""

    def __init__(self, client: redis.Redis, token: str, alive: Callable[[], None]) -> None:
        self.client = client
        self.token = token
        self.alive = alive

    def run(self, commands: Callable[[Any], object]) -> None:
        """Run the commands that `commands` puts into the pipeline it is given, all or none."""
        self.alive()
        with self.client.pipeline(transaction=True) as pipe:
            pipe.watch(names.EPOCH)
            if pipe.hget(names.EPOCH, "rebuild") != self.token:
                raise Superseded("another recovery took over")
            pipe.multi()
            commands(pipe)
            try:
                pipe.execute()
            except redis.WatchError:
                raise Superseded("another recovery took over") from None

    def write(self, keys: Keys) -> None:
        """Write keys with their whole content; they do not exist before, or hold the same from a rebuild that died."""
        for key, values in keys.lists.items():
            self.run(lambda pipe, key=key, values=values: (pipe.delete(key), values and pipe.rpush(key, *values)))  # type: ignore[misc]
        for key, fields in keys.hashes.items():
            for chunk in _chunks(fields):
                self.run(lambda pipe, key=key, chunk=chunk: pipe.hset(key, mapping=chunk))  # type: ignore[misc]
        for key, scores in keys.sorted_sets.items():
            for chunk in _chunks(scores):
                self.run(lambda pipe, key=key, chunk=chunk: pipe.zadd(key, chunk))  # type: ignore[misc]


def _chunks(mapping: dict[str, Any]) -> list[dict[str, Any]]:
    items = list(mapping.items())
    return [dict(items[first : first + CHUNK]) for first in range(0, len(items), CHUNK)]


def go_on(link: Link, engine: Engine) -> None:
    """Finish what the record cut in two: fates that follow from a parent's, runs with no node left. Changes nothing elsewhere."""
    with reading(engine).connect() as connection:
        live = live_ids(connection)
    for run_id, generation in live:
        while link.call("orchestrator/state/cascade", run_id, generation, 200)[0] == 1:
            pass
