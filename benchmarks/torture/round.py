"""One round: a stack of its own under a steady load, so many kills, and the verdict. Runs as a process of its own.

`python -m benchmarks.torture.round NUMBER HOME KILLS TTL_S GAP_S` prints the result as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import redis
from sqlalchemy import select

from benchmarks.chaos.evidence import leftovers
from benchmarks.torture.load import LOG
from benchmarks.torture.verdict import Evidence, Kill, read, times, violations
from orchestrator.client import Client
from orchestrator.embedded import Stack, commands
from orchestrator.embedded.commands import Commands
from orchestrator.graph import Graph
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from tenancy.errors import HeadgateError, Unavailable

WORKERS, SLOTS = 4, 2
THREADS = 4
"""The number of the worker whose pool is of threads; the others are prefork."""
TENANTS = ("acme", "birch", "cedar", "doris", "elm")
BACKLOG = 24
"""Ordinary messages are published whenever fewer than this wait or are held."""
RUNS = 2
DRAINS_WITHIN_S = 60.0
UP_WITHIN_S = 40.0

_TWICE = """
local seen, found = {}, {}
for _, key in ipairs(redis.call('KEYS', 'hg1:unacked:*')) do
  for _, tag in ipairs(redis.call('HKEYS', key)) do
    if seen[tag] then found[#found + 1] = tag end
    seen[tag] = true
  end
end
return found
"""
_SIZES = ("held:", "parked:", "unacked:")
_COUNTS = ("load", "running", "parked:by", "delayed:by")


def worker(index: int, concurrency: int) -> tuple[str, ...]:
    """The stack's own command, for one of them with a pool of threads."""
    pool = ("-P", "threads") if index == THREADS else ()
    return (*commands.worker(index, concurrency), *pool)


class Round:
    """Plays round `number` in `home`: `kills` kills, at most `gap_s` seconds from one to the next."""

    def __init__(self, number: int, home: Path, kills: int, ttl_s: float, gap_s: float) -> None:
        self.number, self.wanted, self.gap_s = number, kills, gap_s
        self.rng = random.Random(number)
        self.settings = Settings(
            home=home,
            tasks=("benchmarks.torture.load",),
            incarnation_ttl_s=ttl_s,
            sweep_interval_s=1.0,
            stale_after_s=1.0,
            worker_wait_s=20.0,
        )
        self.log = home / "executions.jsonl"
        self.kills: list[Kill] = []
        self.published: list[str] = []
        self.runs: list[Any] = []
        self.two_owners: set[str] = set()
        self.troubles: list[str] = []
        self._over = threading.Event()

    def play(self) -> dict[str, Any]:
        """Return the result, as JSON values."""
        started = time.monotonic()
        os.environ[LOG] = str(self.log)
        with Stack(self.settings, WORKERS, SLOTS, console=False, commands=Commands(worker=worker)) as stack:
            for name in [name for name in os.environ if name.startswith(("HEADGATE_", "CELERY_"))]:
                del os.environ[name]
            os.environ.update(self.settings.environment(redis_url=stack.redis_url))
            Settings.forget()
            client = Client()
            for tenant in TENANTS:
                client.tenants.create(tenant)
            direct = redis.Redis.from_url(stack.client_url, decode_responses=True)
            threads = [
                threading.Thread(target=self._during, args=(act, client, direct), daemon=True)
                for act in (self._publish, self._submit, self._look)
            ]
            for thread in threads:
                thread.start()
            began = time.monotonic()
            self._sabotage(stack, direct)
            killing_s = time.monotonic() - began
            self._over.set()
            for thread in threads:
                thread.join()
            drained = self._until(lambda: self._drained(client, direct), DRAINS_WITHIN_S)
            seen = self._gather(client, direct)
            broken = [*self.troubles, *violations(seen)]
            if drained is None and not broken:
                broken.append(f"left over: the work that was left took more than {DRAINS_WITHIN_S:g} s")
        measured = times(seen)
        return {
            "round": self.number,
            "kills": len(self.kills),
            "kinds": dict(Counter(kill.kind for kill in self.kills)),
            "by_worker": dict(Counter(kill.worker for kill in self.kills)),
            "killing_s": round(killing_s, 1),
            "duration_s": round(time.monotonic() - started, 1),
            "drained_s": drained,
            "ordinary": len(seen.published),
            "nodes": len(seen.nodes),
            "executions": len(seen.executions),
            "killed_executions": len(measured["group"]) + len(measured["child"]),
            "incarnations_dead": len(seen.deaths),
            "dead_letters": len(seen.letters),
            "failed_nodes": sum(outcome == "failed" for outcome in seen.nodes.values()),
            "ms": measured,
            "load": round(os.getloadavg()[0], 1),
            "violations": broken,
        }

    # -- the load ---------------------------------------------------------------------------------------------------------

    def _during(self, act: Callable[[Client, redis.Redis], None], client: Client, direct: redis.Redis) -> None:
        while not self._over.is_set():
            try:
                act(client, direct)
            except HeadgateError as error:
                self.troubles.append(f"refused: {error!r}")
            except Exception as error:  # noqa: BLE001 (no exception but those of our tree is promised)
                self.troubles.append(f"error tree: {type(error).__name__}: {error}")
            time.sleep(0.02)

    def _publish(self, client: Client, direct: redis.Redis) -> None:
        for _ in range(BACKLOG - int(direct.hlen("hg1:msg"))):  # type: ignore[arg-type]
            name = f"m{self.number}-{len(self.published)}"
            headers = {"tenant": self.rng.choice(TENANTS)}
            client.kernel.app.send_task(
                "torture.work",
                args=[name, round(self.rng.choice((0.01, 0.05, 0.1, 0.4)), 2)],
                headers=headers,
                priority=self.rng.choice((1, 3, 5, 7, 9)),
                ignore_result=True,
            )
            self.published.append(name)

    def _submit(self, client: Client, direct: redis.Redis) -> None:
        if len(direct.zrange("hg1:runs", 0, -1)) >= RUNS:
            return
        fan = [f"n{at}" for at in range(self.rng.randint(3, 8))]
        nodes: list[dict[str, Any]] = [{"id": each, "task": "torture.work", "params": {"seconds": 0.05}} for each in fan]
        nodes.append({"id": "join", "task": "torture.work", "params": {"inputs": [{"$ref": each} for each in fan]}})
        self.runs.append(client.submit(Graph.parse({"name": f"torture-{len(self.runs)}", "nodes": nodes})))

    def _look(self, _client: Client, direct: redis.Redis) -> None:
        self.two_owners.update(direct.eval(_TWICE, 0))  # type: ignore[arg-type]

    # -- the kills --------------------------------------------------------------------------------------------------------

    def _sabotage(self, stack: Stack, direct: redis.Redis) -> None:
        """Kill until there were as many kills as wanted; one more worker is up at any time than those just killed."""
        idle_since = time.monotonic()
        while len(self.kills) < self.wanted:
            time.sleep(self.rng.uniform(0.05, self.gap_s))
            up = self._up(stack, direct)
            kind = "group" if self.rng.random() < 0.4 and len(up) >= 2 else "child"
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, IndexError, Unavailable):  # it is down already
                name = self.rng.choice(sorted(up))
                self._kill(stack, name, up[name], kind)
                idle_since = time.monotonic()
            if time.monotonic() - idle_since > UP_WITHIN_S:
                self.troubles.append(f"workers: none came back within {UP_WITHIN_S:g} s")
                return

    def _kill(self, stack: Stack, name: str, pid: int, kind: str) -> None:
        children = psutil.Process(pid).children()
        if kind == "child":
            if name == f"w{THREADS}" or not children:
                return
            victim = self.rng.choice(children)
            self.kills.append(Kill("child", time.time_ns() // 1_000_000, victim.pid, name))
            victim.kill()
            return
        stack.child(name).deaths = 0  # it is started again at once
        at = time.time_ns() // 1_000_000
        if stack.kill_worker(int(name[1:])) == pid:
            self.kills.append(Kill("group", at, pid, name))

    @staticmethod
    def _up(stack: Stack, direct: redis.Redis) -> dict[str, int]:
        """Workers that are live by their heartbeat, with their main processes."""
        live = {str(inc).split(".")[-2] for inc in direct.zrange("hg1:incarnations", 0, -1)}
        return {name: pid for name, pid in stack.pids().items() if name.startswith("w") and str(pid) in live}

    # -- the evidence -----------------------------------------------------------------------------------------------------

    def _drained(self, client: Client, direct: redis.Redis) -> bool:
        return not self._left(direct) and not any(run.status for run in self._unfinished(client))

    def _unfinished(self, client: Client) -> list[Any]:
        with client.engine.connect() as connection:
            return list(connection.execute(select(t.run.c.run_id, t.run.c.status).where(t.run.c.status.in_(t.LIVE))))

    @staticmethod
    def _left(direct: redis.Redis) -> dict[str, int]:
        """What must be empty when no work is left, dead letters aside."""
        tags: Any = direct.hkeys("hg1:letters")
        nodes = sum(bool(_once(direct, tag)) for tag in tags)
        kept = {"hg1:msg": len(tags), "hg1:meta": len(tags), "hg1:once": nodes}
        found = {key: size - kept.get(key, 0) for key, size in leftovers(direct).items()}
        for start in _SIZES:
            for key in direct.scan_iter(f"hg1:{start}*", count=1000):
                if key not in ("hg1:parked:by",):
                    found[str(key)] = 1
        for name in _COUNTS:
            counts: Any = direct.hgetall(f"hg1:{name}")
            found |= {f"hg1:{name} {field}": int(float(value)) for field, value in counts.items()}
        return {key: size for key, size in found.items() if size}

    def _gather(self, client: Client, direct: redis.Redis) -> Evidence:
        ours = {run.run_id for run in self.runs}
        with client.engine.connect() as connection:
            rows = connection.execute(select(t.node.c.run_id, t.node.c.node_id, t.node.c.outcome)).all()
        stream: Any = direct.xrange("hg1:events")
        events = [json.loads(fields["e"]) for _, fields in stream]
        payloads: Any = direct.hgetall("hg1:msg")
        letters: Any = direct.hgetall("hg1:letters")
        lines = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return Evidence(
            published=frozenset(self.published),
            nodes={f"{row.run_id}.{row.node_id}": str(row.outcome or "") for row in rows if row.run_id in ours},
            executions=read(lines),
            kills=self.kills,
            deaths={event["inc"]: int(event["at"]) for event in events if event["t"] == "worker.dead"},
            retired={event["inc"]: int(event["at"]) for event in events if event["t"] == "worker.retired"},
            letters={_name(direct, tag, payloads.get(tag, "")): json.loads(letter) for tag, letter in letters.items()},
            leftovers=self._left(direct),
            two_owners=sorted(self.two_owners),
        )

    @staticmethod
    def _until(holds: Callable[[], bool], within_s: float) -> float | None:
        started = time.monotonic()
        while not holds():
            if time.monotonic() - started > within_s:
                return None
            time.sleep(0.05)
        return round(time.monotonic() - started, 2)


def _once(direct: redis.Redis, tag: str) -> str:
    """Return the node's task id, run.generation.node, of a message; '' for an ordinary one."""
    return str(json.loads(str(direct.hget("hg1:meta", tag) or "{}")).get("o", ""))


def _name(direct: redis.Redis, tag: str, message: str) -> str:
    """Return what the executions of a message are called: run and node, or its payload; the tag where there is neither."""
    run, _, rest = _once(direct, tag).partition(".")
    return f"{run}.{rest.partition('.')[2]}" if run else _payload(message) or tag


def _payload(message: str) -> str:
    """Return the id of an ordinary message: the first argument in its body."""
    import base64

    try:
        envelope = json.loads(message)
        body = base64.b64decode(envelope["body"]) if envelope["properties"].get("body_encoding") == "base64" else envelope["body"]
        return str(json.loads(body)[0][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def main() -> None:
    number, home, kills, ttl_s, gap_s = sys.argv[1:6]
    print(json.dumps(Round(int(number), Path(home), int(kills), float(ttl_s), float(gap_s)).play()), flush=True)


if __name__ == "__main__":
    main()
