"""The fair queue in Redis against the same queue on dictionaries: any sequence of calls, the same replies and the same state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from clock import NOW_KEY, moved_clock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from orchestrator.embedded.redis_server import RedisServer
from tenancy.link import Link
from tenancy.transport.interface import DeadIncarnation
from tenancy.transport.memory import MemoryQueue, Rule
from tenancy.transport.queue import Queue

SERVER = "server-1"
START_MS = 1_800_000_000_000
POOLS = ("default", "gpu")
TENANTS = ("acme", "birch", "cedar")
WORKERS = ("w1", "w2", "w3")
RUNS = ("", "r1.1", "r2.1")
LIMITS: tuple[list[dict[str, Any]], ...] = (
    [],
    [{"key": "openai", "at_once": 1}],
    [{"key": "openai", "at_once": 1}, {"key": "disk", "at_once": 2}],
    [{"key": "rate", "rate": 60}],
    [{"key": "both", "at_once": 2, "rate": 120}],
    [{"key": "openai", "at_once": 1, "per": "tenant"}, {"key": "rate", "rate": 60, "per": "fleet"}],
)
DECLARED: tuple[dict[str, Any], ...] = (
    {},
    {"limits": {"t": [{"key": "openai", "at_once": 2}]}, "expected_ms": {"t": 250}},
    {"limits": {"t": [{"key": "mine", "at_once": 1, "per": "tenant"}], "u": []}, "expected_ms": {"u": 40}},
)
"""What workers of different versions say of their tasks."""


def info_of(worker: str, declared: int) -> dict[str, Any]:
    return {"name": worker, "tasks": ["t", "u"], "pools": list(POOLS), "slots": 2, **DECLARED[declared]}


_READ = """
local all = {}
for _, key in ipairs(redis.call('KEYS', 'hg1:*')) do
  local kind, content = redis.call('TYPE', key).ok, nil
  if kind == 'hash' then content = {'h', redis.call('HGETALL', key)}
  elseif kind == 'zset' then content = {'h', redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')}
  elseif kind == 'list' then content = {'l', redis.call('LRANGE', key, 0, -1)}
  elseif kind == 'set' then content = {'l', redis.call('SMEMBERS', key)}
  elseif kind == 'string' then content = {'s', redis.call('GET', key)} end
  if content then all[key:sub(5)] = content end
end
return cjson.encode(all)
"""


def _read_all(link: Link) -> dict[str, Any]:
    """Every key without its prefix, in one round trip; hashes and sorted sets as dictionaries."""
    found = json.loads(str(link.client.eval(_READ, 0)))
    return {
        key: dict(zip(content[::2], content[1::2], strict=True)) if kind == "h" and content else content or ({} if kind == "h" else [])
        for key, (kind, content) in found.items()
    }


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    with moved_clock():
        yield Link(server.client_url, server=SERVER)
    server.stop()


class Twins(RuleBasedStateMachine):
    """Calls go to both; a tag is drawn from those that exist, or existed."""

    link: Link

    @initialize()
    def start(self) -> None:
        client = self.link.client
        client.flushall()
        client.hset("hg1:epoch", mapping={"epoch": 1, "server": SERVER, "seq": 0})
        client.set(NOW_KEY, START_MS)
        self.model = MemoryQueue(server=SERVER, now_ms=START_MS)
        self.calls = 0
        for worker in WORKERS[:2]:
            self.both("enroll", worker, 4_000, info_of(worker, 0))

    def both(self, name: str, *arguments: Any, **named: Any) -> Any:
        answers = []
        for queue in (self.model, Queue(self.link)):
            try:
                answers.append(getattr(queue, name)(*arguments, **named))
            except DeadIncarnation:
                answers.append("dead")
        assert answers[0] == answers[1], (name, arguments, named)
        return answers[0]

    # -- what producers and workers do ----------------------------------------------------------

    @rule(
        tenant=st.sampled_from(TENANTS),
        priority=st.sampled_from((1, 3, 5, 7, 9)),
        pool=st.sampled_from(("", *POOLS[:1], *POOLS)),
        cost=st.sampled_from((0, 10, 1_000, 60_000)),
        once=st.sampled_from(("", "", "n1", "n2", "n3")),
        replace=st.sampled_from((0, 0, 0, 1)),
        delay=st.sampled_from((0, 0, 0, 500)),
        run=st.sampled_from(RUNS),
        task=st.sampled_from(("", "t", "u")),
        limits=st.sampled_from(LIMITS),
    )
    def put(
        self, tenant: str, priority: int, pool: str, cost: int, once: str, replace: int, delay: int, run: str, task: str, limits: Any
    ) -> None:
        self.calls += 1
        self.both("put", f"p{self.calls}", tenant, priority, pool, cost, once, replace, delay, run, task, limits)

    @rule(worker=st.sampled_from(WORKERS), pool=st.sampled_from((*POOLS[:1], *POOLS)))
    def pop(self, worker: str, pool: str) -> None:
        self.both("pop_or_wait", worker, pool, 1_000)

    @precondition(lambda self: any(self.model.unacked.values()))
    @rule(data=st.data(), worker=st.sampled_from(WORKERS), pool=st.sampled_from((*POOLS[:1], *POOLS)), others=st.booleans())
    def ack_and_pop(self, data: st.DataObject, worker: str, pool: str, others: bool) -> None:
        inc, tag = self.held(data)
        number = data.draw(st.sampled_from((self.model.unacked[inc][tag],) * 4 + (99,)))
        twice = [(inc, tag, number)] * (2 if others else 1)
        self.both("pop_or_wait", worker, pool, 1_000, [*twice, (worker, "m0", 1)] if others else twice)

    @precondition(lambda self: any(self.model.unacked.values()))
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        inc, tag = self.held(data)
        self.both("ack", inc, tag, data.draw(st.sampled_from((self.model.unacked[inc][tag],) * 4 + (99,))))

    @precondition(lambda self: any(self.model.unacked.values()))
    @rule(data=st.data(), delay=st.sampled_from((0, 500)))
    def requeue(self, data: st.DataObject, delay: int) -> None:
        inc, tag = self.held(data)
        self.both("requeue", inc, tag, self.model.unacked[inc][tag], delay)

    @rule(worker=st.sampled_from(WORKERS), declared=st.sampled_from(range(len(DECLARED))))
    def enroll(self, worker: str, declared: int) -> None:
        self.both("enroll", worker, 4_000, info_of(worker, declared))

    @rule(worker=st.sampled_from(WORKERS), slots=st.integers(1, 4))
    def resize(self, worker: str, slots: int) -> None:
        self.both("slots", worker, slots)

    @rule(worker=st.sampled_from(WORKERS))
    def beat(self, worker: str) -> None:
        self.both("beat", worker)

    @rule(worker=st.sampled_from(WORKERS))
    def retire(self, worker: str) -> None:
        self.both("retire", worker)

    @rule(limit=st.sampled_from((1, 200)))
    def reclaim(self, limit: int) -> None:
        self.both("reclaim", 4_000, limit)

    @rule(ms=st.sampled_from((1, 40, 500, 1_100, 4_500)))
    def let_time_pass(self, ms: int) -> None:
        self.model.now_ms += ms
        self.link.client.set(NOW_KEY, self.model.now_ms)

    @rule(ms=st.sampled_from((50, 5_000, 3_600_000)))
    def set_the_clock_back(self, ms: int) -> None:
        self.let_time_pass(-ms)

    @precondition(lambda self: self.model.workers and "platform" not in self.model.paused)
    @rule()
    def use_all_room(self) -> None:
        """Free slots take whatever may go, within a second of its room."""
        worker = min(self.model.workers)
        self.let_time_pass(1_000)
        while any(self.both("pop", worker, pool, 1_000) for pool in POOLS):
            pass
        for tag, message in self.model.messages.items():
            waits = message.place == "q" or (message.is_parked and not self.model._is_removed(tag, message))
            if waits and message.tenant not in self.model.blocked:
                assert self.model._obstacle(message, self.model._limits_of(message)), f"{tag} in {message.place} might go and does not"

    # -- control --------------------------------------------------------------------------------

    @rule(scope=st.sampled_from(("platform", "tenant:acme", "run:r1.1", "run:r2.1")))
    def pause(self, scope: str) -> None:
        self.both("pause", scope, "me", "because")

    @rule(scope=st.sampled_from(("platform", "tenant:acme", "run:r1.1", "run:r2.1")))
    def resume(self, scope: str) -> None:
        self.both("resume", scope, "me", "because")

    @rule(
        tenant=st.sampled_from(TENANTS),
        weight=st.sampled_from((1, 2, 8)),
        cap=st.sampled_from((None, 1, 2)),
        status=st.sampled_from(("active", "active", "suspended", "closed")),
        pool=st.sampled_from(("", *POOLS)),
    )
    def set_policy(self, tenant: str, weight: int, cap: int | None, status: str, pool: str) -> None:
        self.model.rules[tenant] = Rule(weight, cap, status, pool)
        self.link.client.hset(
            f"hg1:tenant:{tenant}",
            mapping={"weight": weight, "max_running_nodes": "" if cap is None else cap, "status": status, "pool": pool},
        )
        self.both("refresh", tenant)

    @rule(run=st.sampled_from(RUNS[1:]), cap=st.sampled_from((None, 1, 2)))
    def cap(self, run: str, cap: int | None) -> None:
        self.both("cap", run, cap)

    @precondition(lambda self: bool(self.model.messages))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(sorted(self.model.messages)))
        self.both("remove", "tag", [tag])

    @rule(once=st.sampled_from(("n1", "n2", "n3")))
    def remove_once(self, once: str) -> None:
        self.both("remove", "once", [once])

    @rule(scope=st.sampled_from(("tenant:birch", "run:r2.1")))
    def remove_scope(self, scope: str) -> None:
        self.both("remove_scope", scope)

    @rule()
    def janitor(self) -> None:
        self.both("janitor", "0", 200)

    @rule(
        what=st.sampled_from([{"pool": "default"}, {"pool": "gpu"}, {"tenant": "acme", "priority": 5}, {"tenant": "birch", "priority": 1}])
    )
    def purge(self, what: dict[str, Any]) -> None:
        self.both("purge", "0", 200, **what)

    @precondition(lambda self: bool(self.model.messages))
    @rule(data=st.data(), priority=st.sampled_from((1, 5, 9)))
    def reprioritise(self, data: st.DataObject, priority: int) -> None:
        tag = data.draw(st.sampled_from(sorted(self.model.messages)))
        self.both("reprioritise", priority, "tag", [tag])

    @precondition(lambda self: bool(self.model.dead_letters))
    @rule(data=st.data(), act=st.sampled_from(("requeue", "discard")))
    def handle_letter(self, data: st.DataObject, act: str) -> None:
        tag = data.draw(st.sampled_from(sorted(self.model.dead_letters)))
        self.both("letters", act, [tag])

    def held(self, data: st.DataObject) -> tuple[str, str]:
        pairs = sorted((inc, tag) for inc, tags in self.model.unacked.items() for tag in tags)
        return data.draw(st.sampled_from(pairs))

    # -- promises -------------------------------------------------------------------------------

    @invariant()
    def same_state(self) -> None:
        if hasattr(self, "model"):
            self.model.check()
            assert self.redis_view() == self.model_view()

    def model_view(self) -> dict[str, Any]:
        model = self.model
        return {
            "messages": {tag: (m.tenant, m.priority, m.pool, m.cost_ms, m.deliveries, m.place) for tag, m in model.messages.items()},
            "lines": {line: tags for line, tags in model.queues.items() if tags},
            "parked": {name: model.parked_in(name) for name in model.parked if model.parked_in(name)},
            "delayed": {tag: when for tag, when in model.delayed.items() if tag in model.messages},
            "once": model.once,
            "unacked": {inc: tags for inc, tags in model.unacked.items() if tags},
            "letters": set(model.dead_letters),
            "paused": model.paused,
            "blocked": model.blocked,
            "pools": {name: (pool.ready, pool.clock) for name, pool in model.pools.items()},
            "load": {name: model.in_line(name) for name in model.pools},
            "running": {name: model.held_in(name) for name in model.pools},
            "slots": {name: model.slots_of(name) for name in model.pools},
            "parked by": dict(model.parked_by()),
            "delayed by": dict(model.delayed_by()),
            "served": {str(minute): dict(tenants) for minute, tenants in model.served.items()},
            "recheck": model.recheck,
            "out": {"|".join(key): tag for key, tag in model.out.items()},
            "limits": {task: limits for task, limits in model.limits.items() if limits},
            "declared": {task: ms for task, ms in model.declared.items() if ms},
            "bells": {name: pool.bell for name, pool in model.pools.items()},
            "ages": {(name, *key): count for name, pool in model.pools.items() for key, count in pool.ages.items()},
            "finished": {(name, tenant): when for name, pool in model.pools.items() for tenant, when in pool.finished.items()},
            "expected": {f"{tenant}|{task}": ms for (tenant, task), ms in model.expected.items()},
        }

    def redis_view(self) -> dict[str, Any]:
        keys = _read_all(self.link)
        metas = {tag: json.loads(meta) for tag, meta in keys.get("meta", {}).items()}
        gone = {tag for tag, meta in metas.items() if "gone" in meta}
        assert set(metas) - gone == set(keys.get("msg", {}))
        metas = {tag: meta for tag, meta in metas.items() if tag not in gone}
        by_prefix: dict[str, dict[str, Any]] = {}
        for key, content in keys.items():
            prefix, _, rest = key.partition(":")
            by_prefix.setdefault(prefix, {})[rest] = content

        def family(name: str) -> dict[str, Any]:
            return by_prefix.get(name, {})

        def counts(as_at: str, entries: list[str]) -> list[str]:
            pairs = [entry.rsplit(":", 1) for entry in entries]
            return [tag for tag, k in pairs if tag in metas and metas[tag]["w"] == as_at and metas[tag]["k"] == int(k)]

        lines = {}
        for pool, depths in family("depth").items():
            for field, depth in depths.items():
                tenant, priority = field.split("|")
                lines[pool, tenant, int(priority)] = counts("q", family("queue")[f"{pool}:{tenant}:{priority}"])
                assert len(lines[pool, tenant, int(priority)]) == int(depth)
        parked = {}
        for name, tags in family("parked").items():
            if name == "by":
                continue
            if there := [tag for tag in tags if tag in metas and metas[tag]["w"] == name]:
                parked[name] = there
        return {
            "messages": {tag: (m["t"], m["p"], m["q"], m["c"], m["n"], m["w"]) for tag, m in metas.items()},
            "lines": lines,
            "parked": parked,
            "delayed": {tag: int(when) for tag, when in keys.get("delayed", {}).items() if tag in metas},
            "once": keys.get("once", {}),
            "unacked": {inc: {tag: int(row.split("|")[0]) for tag, row in tags.items()} for inc, tags in family("unacked").items()},
            "letters": set(keys.get("letters", {})),
            "paused": set(keys.get("paused", [])),
            "pools": {
                pool: (
                    {tenant: int(start) for tenant, start in family("ready").get(pool, {}).items()},
                    int(family("clock").get(pool, 0)),
                )
                for pool in self.model.pools
            },
            "blocked": set(keys.get("blocked", [])),
            "load": {pool: tuple(int(keys.get("load", {}).get(name, 0)) for name in (pool, f"{pool}|ms")) for pool in self.model.pools},
            "running": {pool: int(keys.get("running", {}).get(pool, 0)) for pool in self.model.pools},
            "slots": {pool: {inc: int(n) for inc, n in family("slots").get(pool, {}).items()} for pool in self.model.pools},
            "parked by": {tenant: int(n) for tenant, n in keys.get("parked:by", {}).items()},
            "delayed by": {tenant: int(n) for tenant, n in keys.get("delayed:by", {}).items()},
            "served": {minute: {tenant: int(ms) for tenant, ms in row.items()} for minute, row in family("served").items()},
            "recheck": {name: int(when) for name, when in keys.get("recheck", {}).items()},
            "out": keys.get("out", {}),
            "limits": {task: json.loads(text) for task, text in keys.get("limits", {}).items()},
            "declared": {task: int(ms) for task, ms in keys.get("declared", {}).items()},
            "bells": {pool: len(family("bell").get(pool, [])) for pool in self.model.pools},
            "ages": {(*key.split(":"), int(level)): int(n) for key, levels in family("age").items() for level, n in levels.items()},
            "finished": {(pool, tenant): int(when) for pool, ends in family("vft").items() for tenant, when in ends.items()},
            "expected": {field: int(ms) for field, ms in keys.get("expected", {}).items()},
        }

    def teardown(self) -> None:
        """Whatever happened, everything that is left can be popped once the obstacles are gone: nothing was lost."""
        if not hasattr(self, "model"):
            return
        for scope in sorted(self.model.paused):
            self.resume(scope)
        for tenant in TENANTS:
            self.set_policy(tenant, 1, None, "active", "")
        for worker in WORKERS:
            self.retire(worker)
        self.enroll("w3", 0)
        self.let_time_pass(max([0, *(when - self.model.now_ms for when in self.model.delayed.values())]))  # a delay is kept by the clock
        for _ in range(200):
            self.let_time_pass(4_500)
            self.both("beat", "w3")
            self.both("reclaim", 4_000, 200)
            for pool in POOLS:
                found = self.both("pop", "w3", pool, 1_000)
                if found:
                    self.both("ack", "w3", found.tag, found.number)
            if all(message.place == "x" or self.model._is_removed(tag, message) for tag, message in self.model.messages.items()):
                break
        else:
            raise AssertionError(f"left in line: {self.model.messages}")


def test_redis_and_memory_agree_and_lose_nothing(link: Link) -> None:
    Twins.link = link
    run_state_machine_as_test(Twins, settings=settings(max_examples=150, stateful_step_count=50, deadline=None, print_blob=True))
