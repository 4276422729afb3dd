"""The kernel in Redis as the model's twin: the same calls, and all of its keys in the model's shape."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.backpressure import Backpressure
from orchestrator.model import AdoptRow, Model, NodeRow
from tenancy.link import Link

FAR_MS = 500_000_000
"""Half of the only delay that the machine uses: whatever is further away than this is delayed, the rest is not."""

View = dict[str, Any]

TRANSPORTS_OWN = (
    "ready", "clock", "vft", "sleepers", "bell", "depth", "age", "blocked", "held", "parked", "pools", "slots",
    "letters", "expected", "bucket", "recheck", "out", "paused", "dead", "work", "load", "running", "served", "delayed",
    "limits", "declared", "recorded", "hurry",
)  # fmt: skip
"""Keys that test_transport.py compares, and what the recorder says."""


RULES = Backpressure(4, 80, 70)
"""So little that the machine comes to it."""

TERMS = (
    "on_runs_limit", "on_budget_limit", "max_waiting_runs", "submissions_per_minute", "pool",
    "limit_month", "warn", "critical", "exceeded", "on_warning", "on_critical", "on_exceeded", "enforcement", "admit",
)  # fmt: skip


class Kernel:
    """Every script by the name and the arguments that the model has."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def enroll(self, inc: str, ttl_ms: int, info: Mapping[str, Any]) -> Any:
        return self.link.call("tenancy/transport/enroll", inc, ttl_ms, json.dumps(info))

    def beat(self, inc: str) -> Any:
        return self.link.call("tenancy/transport/beat", inc)

    def put(self, payload: str, tenant: str, priority: int, pool: str, cost_ms: int, once: str, replace: int, delay_ms: int) -> Any:
        return self.link.call("tenancy/transport/put", payload, tenant, priority, pool, cost_ms, once, replace, delay_ms, "", "", "[]")

    def pop_row(self, inc: str, pool: str, sleep_ms: int, acks: Sequence[tuple[str, str, int]] = ()) -> Any:
        reply = self.link.call("tenancy/transport/pop", inc, pool, sleep_ms, *(part for each in acks for part in each))
        return [reply[0], reply[1], int(reply[2])] if len(reply) == 3 else reply

    def ack(self, inc: str, tag: str, delivery: int) -> Any:
        return self.link.call("tenancy/transport/ack", inc, tag, delivery)

    def requeue(self, inc: str, tag: str, delivery: int, delay_ms: int) -> Any:
        return self.link.call("tenancy/transport/requeue", inc, tag, delivery, delay_ms)

    def reclaim(self, ttl_ms: int, limit: int) -> Any:
        return self.link.call("tenancy/transport/reclaim", ttl_ms, limit)

    def pause(self, scope: str, by: str, reason: str) -> Any:
        return self.link.call("tenancy/transport/pause", scope, by, reason)

    def resume(self, scope: str, by: str, reason: str) -> Any:
        return self.link.call("tenancy/transport/resume", scope, by, reason)

    def retire(self, inc: str) -> Any:
        return self.link.call("tenancy/transport/retire", inc)

    def admit(self, run: str, gen: int, tenant: str, want: str, until_ms: int = 0) -> Any:
        return self.link.call("orchestrator/state/admit", run, gen, tenant, want, *RULES, until_ms)

    def forget(self, kept_ms: int, *names: str) -> Any:
        return self.link.call("orchestrator/state/forget", kept_ms, *names)

    def let_in(self, most: int) -> Any:
        return self.link.call("orchestrator/state/let_in", most, *RULES)

    def knock(self, tenant: str) -> Any:
        return self.link.call("orchestrator/state/knock", tenant)

    def refresh(self, tenant: str) -> Any:
        return self.link.call("tenancy/transport/refresh", tenant)

    def level(self, tenant: str) -> Any:
        return self.link.call("cost/level", tenant)

    def load(self, run: str, gen: int, nodes: Sequence[NodeRow], fragments: Mapping[str, str]) -> Any:
        rows = [field for row in nodes for field in row]
        pairs = [field for pair in fragments.items() for field in pair]
        return self.link.call("orchestrator/state/load", run, gen, len(nodes), *rows, *pairs)

    def adopt(self, run: str, gen: int, rows: Sequence[AdoptRow]) -> Any:
        return self.link.call("orchestrator/state/adopt", run, gen, *(field for row in rows for field in row))

    def launch(self, run: str, gen: int, degraded: int, last: int, roots: Sequence[str]) -> Any:
        return self.link.call("orchestrator/state/launch", run, gen, degraded, last, *roots)

    def cancel(self, run: str, gen: int, reason: str, by: str, tenant: str = "", want: str = "") -> Any:
        return self.link.call("orchestrator/state/cancel", run, gen, reason, by, *([tenant, want] if want else []))

    def stop(self, run: str, gen: int, reason: str, by: str, nodes: Sequence[str]) -> Any:
        return self.link.call("orchestrator/state/stop", run, gen, reason, by, *nodes)

    def rank(self, run: str, gen: int, priority: int, reason: str, by: str) -> Any:
        return self.link.call("orchestrator/state/rank", run, gen, priority, reason, by)

    def deadline(self, run: str, gen: int, timeout_s: int, node: str, reason: str, by: str) -> Any:
        return self.link.call("orchestrator/state/deadline", run, gen, timeout_s, node, reason, by)

    def told(self, run: str, gen: int, node: str, attempt: int, inc: str) -> Any:
        return self.link.call("orchestrator/state/told", run, gen, node, attempt, inc)

    def fence(self, scope: str, reason: str, by: str) -> Any:
        return int(self.link.call("orchestrator/state/fence", scope, reason, by))

    def begin(
        self, run: str, gen: int, node: str, inc: str, tag: str, delivery: int, worker: str, lag_ms: int = 0, refusal_ms: int = 0
    ) -> Any:
        return self.link.call("orchestrator/state/begin", run, gen, node, inc, tag, delivery, worker, lag_ms, refusal_ms)

    def charge_and_begin(
        self,
        charges: Sequence[tuple[str, int, str, str, str]],
        run: str,
        gen: int,
        node: str,
        inc: str,
        tag: str,
        delivery: int,
        worker: str,
        lag_ms: int,
        refusal_ms: int,
    ) -> Any:
        riding = [*RULES, *(part for charge in charges for part in (*charge, ""))]
        return self.link.call("orchestrator/state/begin", run, gen, node, inc, tag, delivery, worker, lag_ms, refusal_ms, *riding)

    def expand(
        self,
        run: str,
        gen: int,
        node: str,
        attempt: int,
        inc: str,
        told: Mapping[str, Any],
        first: int,
        rows: Sequence[NodeRow],
        fragments: Mapping[str, str],
        cats: str = "",
    ) -> Any:
        pairs = [field for pair in fragments.items() for field in pair]
        flat = [field for row in rows for field in row]
        usage = cats, "", ""
        said = ["", *pairs] if pairs else []
        return self.link.call("orchestrator/state/expand", run, gen, node, attempt, inc, *usage, json.dumps(told), first, *flat, *said)

    def lack(self, run: str, gen: int, node: str, inc: str, tag: str, delivery: int, task: str, patience_ms: int) -> Any:
        return self.link.call("orchestrator/state/lack", run, gen, node, inc, tag, delivery, task, patience_ms)

    def finish(
        self, run: str, gen: int, node: str, attempt: int, inc: str, outcome: str, result: str, error: str, cats: str, delay_ms: int
    ) -> Any:
        return self.link.call("orchestrator/state/finish", run, gen, node, attempt, inc, outcome, result, error, cats, delay_ms)

    def skip(self, run: str, gen: int, reason: str, nodes: Sequence[str], decision: str = "") -> Any:
        return self.link.call("orchestrator/state/skip", run, gen, reason, decision, *nodes)

    def revoke(self, run: str, gen: int, outcome: str, reason: str, nodes: Sequence[str], decision: str = "") -> Any:
        return self.link.call("orchestrator/state/revoke", run, gen, outcome, reason, decision, *nodes)

    def decide(self, run: str, gen: int, n: int, mark: str, fence: str, plan: str, event: str, kept: Sequence[str] = ()) -> Any:
        return self.link.call("orchestrator/state/decide", run, gen, n, mark, fence, plan, event, *kept)

    def approve(self, run: str, gen: int, budget: str, reason: str, by: str) -> Any:
        return self.link.call("orchestrator/state/approve", run, gen, budget, reason, by)

    def stand_by(self, run: str, gen: int, kept_ms: int | None) -> Any:
        return self.link.call("orchestrator/state/stand_by", run, gen, "" if kept_ms is None else kept_ms)

    def judge(self, run: str, gen: int, decision: str, choices: Mapping[str, str]) -> Any:
        return self.link.call("orchestrator/state/judge", run, gen, decision, *(text for pair in choices.items() for text in pair))

    def conclude(self, run: str, gen: int, decision: str, left: str, raised: int, event: str) -> Any:
        return self.link.call("orchestrator/state/conclude", run, gen, decision, left, raised, event)

    def cascade(self, run: str, gen: int, limit: int) -> Any:
        return self.link.call("orchestrator/state/cascade", run, gen, limit)

    def stale(self, run: str, gen: int, age_ms: int, nodes: Sequence[str]) -> Any:
        return self.link.call("orchestrator/state/stale", run, gen, age_ms, *nodes)

    def extend(self, run: str, gen: int, node: str, attempt: int, inc: str, cats: str) -> Any:
        return self.link.call("orchestrator/state/extend", run, gen, node, attempt, inc, cats)

    def settle(self, run: str, gen: int, node: str, attempt: int, cats: str, by: str, price_version: str = "") -> Any:
        return self.link.call("orchestrator/state/settle", run, gen, node, attempt, cats, by, price_version, *RULES)

    def void(self, run: str, gen: int, node: str, attempt: int, by: str) -> Any:
        return self.link.call("orchestrator/state/void", run, gen, node, attempt, by)

    def give_up(self, run: str, gen: int, node: str, attempt: int, inc: str, by: str) -> Any:
        return self.link.call("orchestrator/state/give_up", run, gen, node, attempt, inc, by)

    # What is no script: policy, epochs, the clock

    def account(self, tenant: str, limit_day: int, max_runs: int, status: str = "active", version: int = 1, **terms: Any) -> None:
        row = {"limit_day": limit_day, "max_runs": max_runs, "status": status, "version": version}
        row |= {name: "" if value is None else value for name, value in terms.items()}
        self.link.client.hset(f"hg1:tenant:{tenant}", mapping=row)

    def open_epoch(self, server: str) -> None:
        epoch = int(self.link.client.hget("hg1:epoch", "epoch") or 0) + 1
        self.link.client.hset("hg1:epoch", mapping={"epoch": epoch, "server": server, "seq": 0})
        self.link.server = server
        self.link.call("tenancy/log", json.dumps({"t": "epoch.opened", "epoch": epoch, "server": server, "rebuilt": 0}))

    def record(self, now_ms: int) -> None:
        """Say what the recorder says after a commit."""
        epoch = self.link.client.hmget("hg1:epoch", "epoch", "seq")
        self.link.client.mset({"hg1:recorded": "-".join(map(str, epoch)), "hg1:recorded:at": now_ms})

    def record_end(self, name: str, at: int) -> None:
        """Say that the end of a run is on record, as the recorder does after its commit."""
        self.link.client.zadd("hg1:over", {name: at}, nx=True)

    def silence(self, inc: str) -> None:
        """Make the last heartbeat of a live incarnation very old."""
        self.link.client.zadd("hg1:incarnations", {inc: 0}, xx=True)

    def let_time_pass(self) -> None:
        """Make everything that is delayed due."""
        client = self.link.client
        for tag in client.zrange("hg1:delayed", 0, -1):
            client.zadd("hg1:delayed", {tag: 0})
        for key in client.keys("hg1:notbefore:*"):
            client.hset(key, mapping=dict.fromkeys(client.hkeys(key), 0))
        for key in client.keys("hg1:due:*"):
            client.zadd(key, dict.fromkeys(client.zrange(key, 0, -1), 0))

    def snapshot(self) -> dict[bytes, bytes]:
        raw = self._raw()
        keys = raw.keys("*")
        pipe = raw.pipeline(transaction=False)
        for key in keys:
            pipe.dump(key)
        return dict(zip(keys, pipe.execute(), strict=True))

    def restore(self, snapshot: Mapping[bytes, bytes]) -> None:
        pipe = self._raw().pipeline(transaction=False)
        pipe.flushdb()
        for key, value in snapshot.items():
            pipe.restore(key, 0, value)
        pipe.execute()

    def _raw(self) -> Any:
        import redis

        return redis.Redis.from_url(self.link.url)

    def events_after(self, last: str) -> list[tuple[str, dict[str, Any]]]:
        return [(id_, json.loads(entry["e"])) for id_, entry in self.link.client.xrange("hg1:events", min=f"({last}")]

    def everything(self) -> dict[str, Any]:
        return _read_all(self.link.client)

    def view(self, now_ms: int) -> View:
        return _View(_read_all(self.link.client), now_ms).shape()


def _read_all(client: Any) -> dict[str, Any]:
    """Every key but the log and what follows from others, by its name without the prefix."""
    keys = sorted(key for key in client.keys("hg1:*") if key not in ("hg1:events", "hg1:calm"))
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.type(key)
    kinds = pipe.execute()
    for key, kind in zip(keys, kinds, strict=True):
        match kind:
            case "hash":
                pipe.hgetall(key)
            case "list":
                pipe.lrange(key, 0, -1)
            case "zset":
                pipe.zrange(key, 0, -1, withscores=True)
            case "set":
                pipe.smembers(key)
            case "string":
                pipe.get(key)
    return {key.removeprefix("hg1:"): value for key, value in zip(keys, pipe.execute(), strict=True)}


class _View:
    """All keys in the shape of `model_view`; a key that it does not know fails."""

    def __init__(self, keys: dict[str, Any], now_ms: int) -> None:
        self.keys = keys
        self.now_ms = now_ms

    def shape(self) -> View:
        epoch = self.keys.pop("epoch")
        view: View = {
            "epoch": {name: epoch.get(name, "0") for name in ("epoch", "server", "seq", "tags")},
            "live": sorted(name for name, _ in self.keys.pop("incarnations", [])),
            "dying": [name.rsplit("|", 1)[0] for name in self.keys.pop("dying", [])],
            "serves": {name: int(n) for name, n in self.keys.pop("serves", {}).items()},
            "workers": {name: json.loads(row["info"]) for name, row in self.family("worker")},
            "once": self.keys.pop("once", {}),
            "delayed": {tag: when > self.now_ms + FAR_MS for tag, when in self.keys.pop("delayed", [])},
            "unacked": {inc: {tag: int(n.split("|")[0]) for tag, n in row.items()} for inc, row in self.family("unacked")},
        }
        payloads, rows = self.keys.pop("msg", {}), self.keys.pop("meta", {})
        metas = {tag: json.loads(row) for tag, row in rows.items()}
        assert {tag for tag, m in metas.items() if "gone" not in m} == set(payloads)
        view["messages"] = {
            tag: [payload, *(metas[tag][name] for name in ("t", "p", "q", "c", "n", "o", "w"))] for tag, payload in payloads.items()
        }
        pairs = {name: [entry.rsplit(":", 1) for entry in entries] for name, entries in self.family("queue")}
        view["queues"] = {
            name: tags
            for name, entries in pairs.items()
            if (tags := [tag for tag, k in entries if tag in payloads and metas[tag]["w"] == "q" and metas[tag]["k"] == int(k)])
        }
        for name in TRANSPORTS_OWN:
            self.family(name)
            self.keys.pop(name, None)
        view["accounts"] = {name: self.account(row) for name, row in self.family("tenant")}
        books = {name: {k: int(v) for k, v in row.items() if int(v)} for name, row in self.family("spent")}
        view["spent"] = {name: row for name, row in books.items() if row}
        view["stopped"] = {tenant: int(until) for tenant, until in self.keys.pop("stopped", [])}
        view["halted"] = {tenant: int(until) for tenant, until in self.keys.pop("halted", [])}
        view["levels"] = dict(self.family("level"))
        view["settled by"] = {by: int(n) for by, n in self.keys.pop("settled_by", {}).items()}
        view["purses"] = dict(self.family("purse"))
        view["reservations"] = {
            f"{rg}:{execution}": value.rsplit("|", 1)[0] for rg, row in self.family("res") for execution, value in row.items()
        }
        view["open"] = {rg: sorted(row) for rg, row in self.family("open")}
        view["lines"] = {tenant: [rg for rg, _ in line] for tenant, line in self.family("line")}
        view["unserved"] = {tenant: [rg for rg, _ in line] for tenant, line in self.family("unserved")}
        view["turns"] = [tenant for tenant, _ in self.keys.pop("waiting", [])]
        view["pressure"] = {pool: {name: int(v) if v.isdigit() else v for name, v in row.items()} for pool, row in self.family("pressure")}
        view["loading"] = {pool: int(n) for pool, n in self.keys.pop("loading", {}).items()}
        view["loading of"] = {pool: {tenant: int(n) for tenant, n in row.items()} for pool, row in self.family("loading")}
        view["rates"] = {tenant: _rate(row) for tenant, row in self.family("rate")}
        view["nudged"] = int(self.keys.pop("nudge", 0))
        view["timeouts"] = {rg: {name: int(s) for name, s in row.items()} for rg, row in self.family("timeout")}
        view["ranks"] = {run: int(n) for run, n in self.keys.pop("ranks", {}).items()}
        view["caps"] = {run: int(n) for run, n in self.keys.pop("caps", {}).items()}
        view["over"] = {name: int(at) for name, at in self.keys.pop("over", [])}
        view["away"] = {name: int(since) for name, since in self.keys.pop("away", [])}
        view["live runs"] = sorted(name for name, _ in self.keys.pop("runs", []))
        view["fences"] = {scope: int(at) for scope, at in self.keys.pop("fence", {}).items()}
        view["runs"] = {rg: self.run(row) for rg, row in self.family("run")}
        view["nodes"] = {f"{rg}.{node}": self.node(rg, node) for rg in view["runs"] for node in self.keys.get(f"state:{rg}", {})}
        view["fragments"] = {
            rg: {k: v for k, v in self.keys.get(f"fragment:{rg}", {}).items() if not k.startswith("of:")} for rg in view["runs"]
        }
        view["cascade"] = dict(self.family("cascade"))
        view["decisions"] = dict(self.family("decision"))
        view["adopts"] = dict(self.family("adopts"))
        known = ("stop", "state", "wait", "ctl", "spec", "verdict", "attempt", "lease", "notbefore", "due", "result", "fault", "fragment")
        unknown = [name for name in self.keys if name.split(":")[0] not in known]
        assert not unknown, f"keys that docs/protocol.md does not have: {unknown}"
        return {name: part for name, part in view.items() if part}

    def family(self, prefix: str) -> list[tuple[str, Any]]:
        names = [name for name in self.keys if name.startswith(f"{prefix}:")]
        return [(name.removeprefix(f"{prefix}:"), self.keys.pop(name)) for name in names]

    @staticmethod
    def account(row: dict[str, str]) -> dict[str, str]:
        return {"held": "0", "reserved": "0", "running": "0", **{name: value for name, value in row.items() if name not in TERMS}}

    @staticmethod
    def run(row: dict[str, str]) -> dict[str, Any]:
        row = {name: value for name, value in row.items() if name not in ("created", "held")}
        return {name: json.loads(value) if name in ("want", "roots") else value for name, value in row.items()}

    def node(self, rg: str, node: str) -> dict[str, Any]:
        def of(kind: str, name: str = node) -> str | None:
            value: str | None = self.keys.get(f"{kind}:{rg}", {}).get(name)
            return value

        lease, fault = of("lease"), of("fault")
        since = dict(self.keys.get(f"due:{rg}", [])).get(node)
        return {
            "state": of("state"),
            "wait": int(of("wait") or 0),
            "heard": [int(of("wait", f"{node}:{name}") or 0) for name in ("ok", "taken", "bad")],
            "made": of("wait", f"{node}:made"),
            "ctl": json.loads(of("ctl") or ""),
            "spec": of("spec"),
            "verdict": of("verdict") or "",
            "fragment": of("fragment", f"of:{node}"),
            "claims": [int(of("attempt", name) or 0) for name in (node, f"{node}:fails", f"{node}:lost", f"{node}:done")],
            "lease": lease and lease.rsplit("|", 1)[0],
            "later": int(of("notbefore") or 0) > self.now_ms + FAR_MS,
            "due": None if since is None else since > self.now_ms + FAR_MS,
            "result": of("result"),
            "stop": of("stop"),
            "refused": of("attempt", f"{node}:refused") is not None,
            "fault": fault and json.loads(fault),
        }


def model_view(model: Model) -> View:
    """The model in the shape of `Kernel.view`: times only as near or far."""
    far = model.now_ms + FAR_MS
    view: View = {
        "epoch": {"epoch": str(model.epoch), "server": model.epoch_server, "seq": str(model.sequence), "tags": str(model.tags)},
        "live": sorted(model.workers),
        "dying": [inc for inc, _ in model.dying],
        "serves": model.serves,
        "workers": {inc: worker.info for inc, worker in model.workers.items()},
        "once": dict(model.once),
        "delayed": {tag: when > far for tag, when in model.delayed.items()},
        "unacked": model.unacked,
        "messages": {
            tag: [m.payload, m.tenant, m.priority, m.pool, m.cost_ms, m.deliveries, m.once, m.place] for tag, m in model.messages.items()
        },
        "queues": {f"{pool}:{tenant}:{priority}": tags for (pool, tenant, priority), tags in model.queues.items()},
        "accounts": {
            name: {
                "limit_day": str(a.limit_day),
                "max_runs": str(a.max_runs),
                "status": a.status,
                "version": str(a.version),
                "held": str(a.held),
                "reserved": str(a.reserved),
                "running": str(a.running),
            }
            | ({} if a.run_ms is None else {"run_ms": str(a.run_ms)})
            for name, a in model.accounts.items()
        },
        "spent": {f"{tenant}:{day}": _spent(spent) for (tenant, day), spent in model.spent.items()}
        | {f"{tenant}:m{month}": _spent(spent) for (tenant, month), spent in model.months.items()},
        "settled by": model.settled_by,
        "levels": _levels(model),
        "stopped": dict(model.stopped),
        "halted": dict(model.halted),
        "purses": {
            f"{run}.{gen}": {
                "tenant": p.tenant,
                "hold": str(p.hold),
                "needed": str(p.needed),
                "budget": "" if p.budget is None else str(p.budget),
                "reserved": str(p.reserved),
                "spent": str(p.spent),
                "open": str(p.open),
                **({"lapsed": "1"} if p.lapsed else {}),
            }
            for (run, gen), p in model.purses.items()
        },
        "reservations": {
            f"{run}.{gen}:{node}:{attempt}": f"{r.state}|{r.amount}|{_parts(r)}|{r.actual}|{r.cats}"
            for (run, gen), rows in model.reservations.items()
            for (node, attempt), r in rows.items()
        },
        "open": {
            f"{run}.{gen}": opened
            for (run, gen), rows in model.reservations.items()
            if (opened := sorted(f"{node}:{attempt}" for (node, attempt), row in rows.items() if row.state == "open"))
        },
        "lines": {tenant: [f"{run}.{gen}" for run, gen in line] for tenant, line in model.lines.items()},
        "unserved": {tenant: [f"{run}.{gen}" for run, gen in line] for tenant, line in model.unserved.items()},
        "turns": list(model.turns),
        "pressure": {
            pool: {"state": "parked" if p.parked else "open", "since": p.since, "parked": p.times, "parked_ms": p.parked_ms}
            for pool, p in model.pressure.items()
        },
        "loading": _loading(model),
        "loading of": _loading_of(model),
        "rates": {
            tenant: f"{b.tokens:.3f}|{b.since}|{b.minute}|{b.count}|{b.before}" for tenant, b in model.rates.items() if b.count or b.before
        },
        "nudged": model.nudged_ms,
        "caps": dict(model.caps),
        "ranks": dict(model.ranks),
        "timeouts": {rg: dict(row) for rg, row in model.timeouts.items()},
        "over": dict(model.over),
        "away": {f"{run}.{gen}": since for (run, gen), since in model.away.items()},
        "live runs": sorted(f"{s.run}.{s.gen}" for s in model.runs.values() if s.status not in ("ended", "held")),
        "fences": dict(model.fences),
        "runs": {f"{s.run}.{s.gen}": _run(s) for s in model.runs.values()},
        "nodes": {s.task_id(node): _node(it, far) for s in model.runs.values() for node, it in s.nodes.items()},
        "fragments": {f"{s.run}.{s.gen}": s.fragments for s in model.runs.values()},
        "cascade": {f"{s.run}.{s.gen}": s.cascade for s in model.runs.values() if s.cascade},
        "decisions": {f"{s.run}.{s.gen}": _decisions(s) for s in model.runs.values() if s.decisions},
        "adopts": {
            f"{s.run}.{s.gen}": {node: f"{gen}|{verdict}|{result}" for node, (gen, result, verdict) in s.adopts.items()}
            for s in model.runs.values()
            if s.adopts
        },
    }
    view["spent"] = {name: row for name, row in view["spent"].items() if row}
    return {name: part for name, part in view.items() if part}


def _rate(row: str) -> str:
    tokens, rest = row.split("|", 1)
    return f"{float(tokens):.3f}|{rest}"


def _loading(model: Model) -> dict[str, int]:
    roots: Counter[str] = Counter()
    for state in model.runs.values():
        roots.update(state.roots)
    return dict(roots)


def _loading_of(model: Model) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for state in model.runs.values():
        for pool, count in state.roots.items():
            found.setdefault(pool, Counter())[state.tenant] += count
    return {pool: dict(tenants) for pool, tenants in found.items()}


def _parts(reservation: Any) -> str:
    return ",".join(f"{day}={part}" for day, part in reservation.parts.items())


def _spent(spent: Any) -> dict[str, int]:
    row = {"settled": spent.settled, "reserved": spent.reserved, "waste": spent.waste}
    row |= {f"c:{category}": micros for category, micros in spent.categories.items()}
    return {name: value for name, value in row.items() if value}


def _levels(model: Model) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for (tenant, name), standing in model.levels.items():
        found.setdefault(tenant, {})[name] = standing.row()
    return found


def _decisions(state: Any) -> dict[str, str]:
    row = {"n": str(state.decisions), "last": state.mark} | {f"kept:{node}": "1" for node in state.kept}
    return row | ({"open": state.open, "plan": state.plan} if state.open else {})


def _run(state: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: str(getattr(state, name)) for name in ("tenant", "graph", "status", "total", "left", "estimate", "floor", "hold", "priority")
    }
    row |= {
        name: getattr(state, name)
        for name in ("outcome", "reason", "why", "roots", "stopped", "terminated", "waits")
        if getattr(state, name)
    }
    row |= {"on_failure": "stop"} if state.stops else {}
    row |= {"want": json.loads(state.want)} if state.want else {}
    row |= {name: "1" for name in ("degraded", "required_failed", "grown") if getattr(state, name)}
    return row | {f"n:{outcome}": str(n) for outcome, n in state.counts.items()}


def _node(it: Any, far: int) -> dict[str, Any]:
    return {
        "state": it.state,
        "wait": it.wait,
        "heard": [it.ok, int(it.taken), int(it.bad)],
        "made": None if it.made is None else str(it.made),
        "ctl": it.ctl,
        "spec": it.spec,
        "verdict": it.verdict,
        "fragment": it.fragment,
        "claims": [it.claims, it.fails, it.lost, it.done],
        "lease": it.lease and f"{it.lease.attempt}|{it.lease.inc}|{it.lease.tag}|{it.lease.delivery}",
        "later": it.notbefore > far,
        "due": None if it.since is None else it.since > far,
        "result": it.result,
        "stop": it.stop,
        "refused": it.refused is not None,
        "fault": it.fault and json.loads(it.fault),
    }
