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
from tenancy.transport.memory import MemoryQueue, Rule

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
)
INFO = {worker: json.dumps({"name": worker, "tasks": ["t"], "pools": list(POOLS), "slots": 2}) for worker in WORKERS}


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
            self.both("enroll", worker, 4_000, INFO[worker])

    def both(self, name: str, *arguments: Any, script: str | None = None, wire: list[Any] | None = None) -> Any:
        expected = getattr(self.model, name)(*arguments)
        found = self.link.call(f"tenancy/transport/{script or name}", *(arguments if wire is None else wire))
        if name == "pop" and found == ["MORE"]:
            return self.both(name, *arguments, script=script, wire=wire)
        if name == "pop" and len(found) == 3:
            found = [found[0], found[1], int(found[2])]
        assert found == expected, (name, arguments)
        return found

    # -- what producers and workers do ----------------------------------------------------------

    @rule(
        tenant=st.sampled_from(TENANTS),
        priority=st.sampled_from((1, 3, 5, 7, 9)),
        pool=st.sampled_from((*POOLS[:1], *POOLS[:1], *POOLS)),
        cost=st.sampled_from((0, 10, 1_000, 60_000)),
        once=st.sampled_from(("", "", "n1", "n2", "n3")),
        replace=st.sampled_from((0, 0, 0, 1)),
        delay=st.sampled_from((0, 0, 0, 500)),
        run=st.sampled_from(RUNS),
        task=st.sampled_from(("", "t")),
        limits=st.sampled_from(LIMITS),
    )
    def put(
        self, tenant: str, priority: int, pool: str, cost: int, once: str, replace: int, delay: int, run: str, task: str, limits: Any
    ) -> None:
        self.calls += 1
        arguments = (f"p{self.calls}", tenant, priority, pool, cost, once, replace, delay, run, task)
        self.both("put", *arguments, limits, wire=[*arguments, json.dumps(limits)])

    @rule(worker=st.sampled_from(WORKERS), pool=st.sampled_from((*POOLS[:1], *POOLS)))
    def pop(self, worker: str, pool: str) -> None:
        self.both("pop", worker, pool, 1_000)

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

    @rule(worker=st.sampled_from(WORKERS))
    def enroll(self, worker: str) -> None:
        self.both("enroll", worker, 4_000, INFO[worker])

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

    # -- control --------------------------------------------------------------------------------

    @rule(scope=st.sampled_from(("platform", "tenant:acme", "run:r1.1", "run:r2.1")))
    def pause(self, scope: str) -> None:
        self.both("pause", scope, "me", "because")

    @rule(scope=st.sampled_from(("platform", "tenant:acme", "run:r1.1", "run:r2.1")))
    def resume(self, scope: str) -> None:
        self.both("resume", scope, "me", "because")

    @rule(tenant=st.sampled_from(TENANTS), weight=st.sampled_from((1, 2, 8)), cap=st.sampled_from((None, 1, 2)))
    def set_policy(self, tenant: str, weight: int, cap: int | None) -> None:
        self.model.rules[tenant] = Rule(weight, cap)
        self.link.client.hset(f"hg1:tenant:{tenant}", mapping={"weight": weight, "max_running_nodes": "" if cap is None else cap})
        self.both("refresh", tenant)

    @rule(run=st.sampled_from(RUNS[1:]), cap=st.sampled_from((None, 1, 2)))
    def cap(self, run: str, cap: int | None) -> None:
        self.both("cap", run, cap, wire=[run, "" if cap is None else cap])

    @precondition(lambda self: bool(self.model.messages))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(sorted(self.model.messages)))
        self.both("remove", "tag", [tag], wire=["tag", tag])

    @rule(once=st.sampled_from(("n1", "n2", "n3")))
    def remove_once(self, once: str) -> None:
        self.both("remove", "once", [once], wire=["once", once])

    @rule(scope=st.sampled_from(("tenant:birch", "run:r2.1")))
    def remove_scope(self, scope: str) -> None:
        self.both("remove_scope", scope)

    @rule()
    def janitor(self) -> None:
        self.both("janitor", "0", 200)

    @precondition(lambda self: bool(self.model.messages))
    @rule(data=st.data(), priority=st.sampled_from((1, 5, 9)))
    def reprioritise(self, data: st.DataObject, priority: int) -> None:
        tag = data.draw(st.sampled_from(sorted(self.model.messages)))
        self.both("reprioritise", priority, "tag", [tag], wire=[priority, "tag", tag])

    @precondition(lambda self: bool(self.model.letters))
    @rule(data=st.data(), act=st.sampled_from(("requeue", "discard")))
    def handle_letter(self, data: st.DataObject, act: str) -> None:
        tag = data.draw(st.sampled_from(sorted(self.model.letters)))
        self.both("letters_", act, [tag], script="letters", wire=[act, tag])

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
            "letters": set(model.letters),
            "paused": model.paused,
            "pools": {name: (pool.ready, pool.clock, pool.blocked) for name, pool in model.pools.items()},
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
                    set(family("blocked").get(pool, [])),
                )
                for pool in self.model.pools
            },
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
        for worker in WORKERS:
            self.retire(worker)
        self.enroll("w3")
        for _ in range(200):
            self.let_time_pass(4_500)
            self.both("beat", "w3")
            self.both("reclaim", 4_000, 200)
            for pool in POOLS:
                reply = self.both("pop", "w3", pool, 1_000)
                if reply[0] != "SLEEP":
                    self.both("ack", "w3", reply[0], reply[2])
            if all(message.place == "x" or self.model._is_removed(tag, message) for tag, message in self.model.messages.items()):
                break
        else:
            raise AssertionError(f"left in line: {self.model.messages}")


def test_redis_and_memory_agree_and_lose_nothing(link: Link) -> None:
    Twins.link = link
    run_state_machine_as_test(Twins, settings=settings(max_examples=150, stateful_step_count=50, deadline=None, print_blob=True))
