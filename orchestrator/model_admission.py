"""Admission on dictionaries: who may start, who waits and in which order, what the end of a run frees; and backpressure of pools."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

from cost.memory import Account, Key, MemoryLedger
from cost.period import month_ends_ms
from orchestrator.backpressure import DEFAULT, Backpressure
from orchestrator.model_run import RunState
from tenancy.queues import DEFAULT_POOL
from tenancy.transport.memory import Reply

LOOKS_MAX: Final = 200
"""Runs and tenants that one call of `let_in` looks at."""
BESIDE_MAX: Final = 50
"""Runs beside one line that are looked at."""
NUDGE_MS: Final = 200
RETRY_MS: Final = 1_000
"""When to try again, where nothing is known of how long a tenant's runs take."""
DAY_MS: Final = 86_400_000
MINUTE_MS: Final = 60_000


@dataclass(slots=True)
class Pressure:
    """A pool: parked or not, since when, how often and how long it was; times in ms."""

    parked: bool = False
    since: int = 0
    times: int = 0
    parked_ms: int = 0


@dataclass(slots=True)
class Bucket:
    """A tenant's submissions: tokens left at `since`, how many came in `minute` and how many in the one before."""

    tokens: float
    since: int
    minute: int
    count: int = 0
    before: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """What stands in a run's way; refuse: it does not wait. behind: only because somebody waits already. retry: ms, or ''."""

    why: str
    limit: str = ""
    current: str = ""
    refuse: bool = False
    retry: str = ""
    behind: bool = False


class AdmissionModel(MemoryLedger):
    """The scripts admit, let_in, knock and cancel, and the end of a run."""

    def __init__(self, *, server: str = "local", now_ms: int = 0, rules: Backpressure = DEFAULT) -> None:
        super().__init__(server=server, now_ms=now_ms)
        self.backpressure = rules
        self.runs: dict[Key, RunState] = {}
        self.lines: dict[str, list[Key]] = {}
        self.unserved: dict[str, list[Key]] = {}
        """runs that wait for a worker, beside the line of their tenant"""
        self.orders = 0
        self.turns: list[str] = []
        """tenants that wait, whose turn it is next first"""
        self.pressure: dict[str, Pressure] = {}
        self.rates: dict[str, Bucket] = {}
        self.nudged_ms = 0
        self.over: dict[str, int] = {}
        """when the end of a run, `run.gen`, was known to be on record"""
        self.fences: dict[str, int] = {}
        """scope -> when everything of it was cancelled last"""

    # Admission

    def knock(self, tenant: str) -> Reply:
        """May the tenant submit another run: ["ok"], or which limit says no: ["rate" or "queue", limit, current, ms to wait]."""
        self._fence()
        account = self.accounts.get(tenant)
        if account is None:
            return ["ok"]
        waiting = self._waiting(tenant)
        if waiting and waiting >= account.max_waiting_runs:
            return ["queue", str(account.max_waiting_runs), str(waiting), self._retry_after(account)]
        a_minute = account.submissions_per_minute
        return ["ok"] if a_minute is None else self._take_token(tenant, a_minute)

    def _take_token(self, tenant: str, a_minute: int) -> Reply:
        burst, minute = max(1, a_minute // 10), self.now_ms // MINUTE_MS
        bucket = self.rates.setdefault(tenant, Bucket(burst, self.now_ms, minute))
        tokens = min(float(burst), bucket.tokens + (self.now_ms - bucket.since) * a_minute / MINUTE_MS)
        count, before = {0: (bucket.count, bucket.before), 1: (0, bucket.count)}.get(minute - bucket.minute, (0, 0))
        if tokens < 1:
            lately = count + math.floor(before * (1 - self.now_ms % MINUTE_MS / MINUTE_MS))
            return ["rate", str(a_minute), str(lately), str(math.ceil((1 - tokens) * MINUTE_MS / a_minute))]
        self.rates[tenant] = Bucket(round(tokens - 1, 6), self.now_ms, minute, count + 1, before)
        return ["ok"]

    def admit(self, run: str, gen: int, tenant: str, want: str, until_ms: int = 0) -> Reply:
        """Hold money and a place for a run, once; else it waits in line, or is refused.

        want: JSON with graph, total, estimate, floor, budget ('' is none), priority, max_parallel ('' is no cap), pools, roots by pool,
        tasks; amounts as decimal strings. Returns ["admitted", hold], ["held", why, 0 or 1 (the line might go on)] or ["refused",
        reason, limit, current, ms to wait or '']; and ["stale"] for an unknown run after `until_ms` (0: no such time), when it may have
        been forgotten.
        """
        self._fence()
        key = run, gen
        known = self.runs.get(key)
        if known is not None:
            return ["held", known.why, 0] if known.status == "held" else ["admitted", str(known.hold)]
        if until_ms and self.now_ms > until_ms:
            return ["stale"]
        asked = json.loads(want)
        stop, short = self._hindrance(tenant, asked, in_line=False)
        if stop is None:
            return ["admitted", str(self._take_in(self._new_run(key, tenant, asked), asked, short))]
        if stop.refuse:
            self._append("run.refused", tenant=tenant, run=run, gen=gen, reason=stop.why, limit=stop.limit, current=stop.current)
            return ["refused", stop.why, stop.limit, stop.current, stop.retry]
        state = self._new_run(key, tenant, asked)
        state.status, state.want = "held", want
        if tenant not in self.turns:
            self.turns.append(tenant)
        self._say_held(state, asked, stop)
        nudge = stop.behind and stop.why not in ("runs", "budget") and self.now_ms - self.nudged_ms >= NUDGE_MS
        self.nudged_ms = self.now_ms if nudge else self.nudged_ms
        return ["held", stop.why, int(nudge)]

    def let_in(self, most: int) -> Reply:
        """Let waiting runs in, tenants in turns, each one's runs in their order: [0 or 1 (more), run.gen..]."""
        self._fence()
        for pool in sorted(self.pools):
            self._look_at(pool)
        admitted: list[str] = []
        idle = looks = 0
        while idle < len(self.turns):
            if len(admitted) >= most or looks >= LOOKS_MAX:
                return [1, *admitted]
            tenant = self.turns.pop(0)
            self.turns.append(tenant)
            looks += 1
            moved = False
            for key in self.unserved.get(tenant, [])[:BESIDE_MAX]:
                looks += 1
                moved = self._look_at_run(key, tenant, admitted)
                if moved:
                    break
            if not moved and self.lines.get(tenant):
                moved = self._look_at_run(self.lines[tenant][0], tenant, admitted)
            idle = 0 if moved else idle + 1
        return [0, *admitted]

    def _look_at_run(self, key: Key, tenant: str, admitted: list[str]) -> bool:
        """Whether a run does not stand in the way any more: let in, refused, or beside the line."""
        state = self.runs[key]
        asked = json.loads(state.want)
        stop, short = self._hindrance(tenant, asked, in_line=True)
        line = self.lines.get(tenant)
        if stop is None and line and self.runs[line[0]].order < state.order:
            stop = Stop("runs")
        if stop is None:
            self._step_out(state)
            self._take_in(state, asked, short)
            admitted.append(f"{state.run}.{state.gen}")
        elif stop.refuse:
            self._step_out(state)
            self._run_event(state, "run.refused", reason=stop.why, limit=stop.limit, current=stop.current)
            del self.runs[state.key]
            self.ranks.pop(f"{state.run}.{state.gen}", None)
            self.timeouts.pop(f"{state.run}.{state.gen}", None)
        else:
            if stop.why == state.why:
                return False
            self._say_held(state, asked, stop)
            return stop.why == "worker"
        return True

    def cancel(self, run: str, gen: int, reason: str, by: str, tenant: str = "", want: str = "") -> int:
        """Set the fence of a run: nothing of it begins from here on. Its nodes get their outcomes by `revoke`.

        A run that waits leaves the line. One that is on record only, of a tenant that wants it, is never admitted.
        """
        self._fence()
        state = self.runs.get((run, gen))
        if state is None and want:
            state = self._new_run((run, gen), tenant, json.loads(want))
            state.status = "known"
        if state is None or state.status == "ended":
            return 0
        if state.status != "cancelling":
            if state.status == "held":
                self._step_out(state)
            state.status, state.reason, state.roots = "cancelling", reason, {}
            self._run_event(state, "run.cancelling", reason=reason, by=by)
            self._maybe_end(state)
        return 1

    def _hindrance(self, tenant: str, asked: dict[str, Any], *, in_line: bool) -> tuple[Stop | None, Stop | None]:
        """What stands in a run's way, and what of its money would, if its tenant's limits were enforced.

        One in line goes on waiting for a place whatever the policy says of new ones, and passes nobody.
        """
        account = self.accounts.get(tenant)
        if account is None:
            return Stop("unknown", refuse=True), None
        if account.status != "active":
            return Stop(account.status, refuse=not (in_line and account.status == "suspended")), None
        short, final = self._short(account, tenant, asked)
        if short is not None and final and account.enforcement == "enforce":
            return short, None
        stop = self._in_the_way(account, tenant, asked, short, in_line=in_line)
        return stop, short if account.enforcement == "observe" else None

    def _short(self, account: Account, tenant: str, asked: dict[str, Any]) -> tuple[Stop | None, bool]:
        """Whether the money for a run is not there, and whether waiting does not help."""
        least, room = self._least(account, asked), self.room(tenant)
        lowest = min(account.limit_day, account.limit_day if account.limit_month is None else account.limit_month)
        if least > lowest:
            return Stop("budget", str(lowest), str(room.exposure), refuse=True), True
        if asked["budget"] and least > int(asked["budget"]):
            return Stop("run_budget", asked["budget"], str(least), refuse=True), True
        if least <= room.free:
            return None, False
        ends = month_ends_ms(self.today) if room.monthly else (self.today + 1) * DAY_MS
        retry = self._retry_after(account) if account.held >= least - room.free else str(ends - self.now_ms)
        return Stop("budget", str(room.limit), str(room.exposure), refuse=account.on_budget_limit != "hold", retry=retry), False

    @staticmethod
    def _least(account: Account, asked: dict[str, Any]) -> int:
        """What must be there for a run to start."""
        return int(asked["estimate" if account.admit == "full" or asked.get("full") else "floor"])

    def _in_the_way(self, account: Account, tenant: str, asked: dict[str, Any], short: Stop | None, *, in_line: bool) -> Stop | None:
        in_front = self.lines.get(tenant, [])
        taken = account.running + len(in_front)
        if not in_line and account.on_runs_limit == "reject" and taken >= account.max_runs:
            return Stop("runs", str(account.max_runs), str(taken), refuse=True, retry=self._retry_after(account))
        stop = self._without_workers(tenant, account, asked)
        if stop is None and not in_line and self._is_served_now(tenant, account):
            stop = Stop("worker", behind=True)
        if stop is None and not in_line and in_front:
            stop = Stop(self.runs[in_front[0]].why, behind=True)
        if stop is None and account.running >= account.max_runs:
            stop = Stop("runs", str(account.max_runs), str(account.running))
        full = self._spent_up(tenant) if stop is None else None
        if full is not None:
            limit, current, ends, waits = full
            refuse = not waits and account.on_budget_limit != "hold"
            stop = Stop("budget", limit, current, refuse=refuse, retry=str(ends - self.now_ms))
        if stop is None and account.enforcement == "enforce":
            stop = short
        waiting = self._waiting(tenant)
        if stop is not None and not stop.refuse and not in_line and waiting >= account.max_waiting_runs:
            return Stop("queue", str(account.max_waiting_runs), str(waiting), refuse=True, retry=self._retry_after(account))
        return stop

    def _without_workers(self, tenant: str, account: Account, asked: dict[str, Any]) -> Stop | None:
        found: list[Stop] = []
        for name in asked.get("pools", []):
            pool = name or account.pool or DEFAULT_POOL
            stop = self._look_at(pool)
            if stop is not None and (stop.why == "worker" or not self._is_below_share(tenant, pool)):
                found.append(stop)
        if found:
            return found[0]
        return None if all(name in self.serves for name in asked.get("tasks", [])) else Stop("worker")

    def _is_served_now(self, tenant: str, account: Account) -> bool:
        """Whether the first of those beside the line could go on by now: nobody passes it either."""
        beside = self.unserved.get(tenant)
        if not beside:
            return False
        want = json.loads(self.runs[beside[0]].want)
        pools = (name or account.pool or DEFAULT_POOL for name in want.get("pools", []))
        return all(self.capacity(pool) for pool in pools) and all(name in self.serves for name in want.get("tasks", []))

    def _waiting(self, tenant: str) -> int:
        return len(self.lines.get(tenant, [])) + len(self.unserved.get(tenant, []))

    @staticmethod
    def _retry_after(account: Account) -> str:
        """When a place is free, as far as one can tell: runs take `run_ms` and end one after the other."""
        ms = account.run_ms // account.running if account.run_ms is not None and account.running else RETRY_MS
        return str(max(100, min(60_000, ms)))

    def _new_run(self, key: Key, tenant: str, asked: dict[str, Any]) -> RunState:
        total, now = int(asked["total"]), self.now_ms
        estimate, floor, priority = (int(asked[name]) for name in ("estimate", "floor", "priority"))
        self.runs[key] = RunState(*key, tenant, asked["graph"], total, total, estimate, floor, 0, priority, now, now)
        self.runs[key].stops = asked.get("on_failure") == "stop"
        return self.runs[key]

    def _take_in(self, state: RunState, asked: dict[str, Any], short: Stop | None) -> int:
        """Take money and a place; what the run is about to put in line counts as load from here on. short: what would have refused it."""
        if short is not None:
            least = str(self._least(self.accounts[state.tenant], asked))
            self._run_event(state, "money.would_refuse", reason=short.why, limit=short.limit, current=short.current, amount=least)
        budget = int(asked["budget"]) if asked["budget"] else None
        state.hold = self._hold_run(state.key, state.tenant, int(asked["estimate"]), budget, int(asked["floor"]))
        state.status, state.created, state.progress = "loading", self.now_ms, self.now_ms
        if asked.get("max_parallel"):
            self.caps[f"{state.run}.{state.gen}"] = int(asked["max_parallel"])
        for name, count in asked.get("roots", {}).items():
            pool = name or self.accounts[state.tenant].pool or DEFAULT_POOL
            state.roots[pool] = state.roots.get(pool, 0) + count
        self._run_event(state, "run.admitted", **self._asked(asked), hold=str(state.hold), budget=asked["budget"])
        return state.hold

    def _say_held(self, state: RunState, asked: dict[str, Any], stop: Stop) -> None:
        """A run waits: in line, or beside it while nobody serves it. It keeps its order."""
        if not state.order:
            self.orders += 1
            state.order = self.orders
        self._leave(state)
        place = self.unserved if stop.why == "worker" else self.lines
        line = place.setdefault(state.tenant, [])
        line.append(state.key)
        line.sort(key=lambda key: self.runs[key].order)
        state.why = stop.why
        self._run_event(state, "run.held", **self._asked(asked), why=stop.why, limit=stop.limit, current=stop.current)

    @staticmethod
    def _asked(asked: dict[str, Any]) -> dict[str, Any]:
        return {"total": int(asked["total"]), **{name: asked[name] for name in ("graph", "estimate", "floor")}}

    def _step_out(self, state: RunState) -> None:
        self._leave(state)
        state.why = state.want = ""
        if not self._waiting(state.tenant):
            self.turns.remove(state.tenant)

    def _leave(self, state: RunState) -> None:
        for place in (self.lines, self.unserved):
            line = place.get(state.tenant, [])
            if state.key in line:
                line.remove(state.key)
                if not line:
                    del place[state.tenant]

    # Backpressure

    def capacity(self, pool: str) -> int:
        """What a pool's live slots are given to do at most before new runs wait."""
        return sum(self.slots_of(pool).values()) * self.backpressure.backlog_per_slot

    def load_of(self, pool: str) -> int:
        """Messages that could run now or are held, and roots of runs that are not launched yet."""
        return self.in_line(pool)[0] + self.held_in(pool) + sum(state.roots.get(pool, 0) for state in self.runs.values())

    def _look_at(self, pool: str) -> Stop | None:
        """Whether a pool takes no new runs, and why; a change of that is written down."""
        capacity, load = self.capacity(pool), self.load_of(pool)
        known = self.pressure.get(pool, Pressure())
        bound = self.backpressure.release_below_percent if known.parked else self.backpressure.park_at_percent
        parked = not capacity or load * 100 >= bound * capacity
        if parked != known.parked:
            self.pressure[pool] = known
            known.times += parked
            known.parked_ms += 0 if parked else self.now_ms - known.since
            known.parked, known.since = parked, self.now_ms
            counts = {"parked": known.times, "parked_ms": known.parked_ms}
            self._append("pressure.changed", pool=pool, state="parked" if parked else "open", load=load, capacity=capacity, **counts)
        return Stop("backpressure" if capacity else "worker", str(capacity), str(load)) if parked else None

    def _is_below_share(self, tenant: str, pool: str) -> bool:
        """Whether a tenant has less than its even share of what a parked pool is given: the flood is not its own."""
        own = self._held(tenant=tenant) + sum(s.roots.get(pool, 0) for s in self.runs.values() if s.tenant == tenant)
        own += sum(m.place == "q" and m.pool == pool and m.tenant == tenant for m in self.messages.values())
        tenants = len({tenant, *self.pools[pool].ready})
        return own * tenants * 100 < self.backpressure.release_below_percent * self.capacity(pool)

    def _somebody_may_start(self, *, ended: bool) -> int:
        """1 when a run that waits may have become able to start: a run ended, or a parked pool is open again."""
        if not self.turns:
            return 0
        opened = [
            pool for pool, known in sorted(self.pressure.items()) if known.parked and pool in self.pools and self._look_at(pool) is None
        ]
        return int(ended or bool(opened))

    # The end of a run

    def _maybe_end(self, state: RunState) -> None:
        """A run ends when no node is left and no execution is open. One that was cancelled while it waited has no purse."""
        purse = self.purses.get(state.key)
        if state.left or (purse is not None and purse.open) or state.status not in ("running", "cancelling"):
            return
        if state.terminated:
            state.outcome = "terminated_by_cost"
        elif state.status == "cancelling":
            state.outcome = "cancelled"
        elif state.required_failed:
            state.outcome = "failed"
        else:
            state.outcome = "degraded" if state.degraded else "succeeded"
        state.status = "ended"
        released = 0
        if purse is not None:
            released = self._release_hold(state.key)
            account, took = self.accounts[state.tenant], self.now_ms - state.created
            known = took if account.run_ms is None else account.run_ms
            account.run_ms = math.floor(known + (took - known) / 8)
        self.caps.pop(f"{state.run}.{state.gen}", None)
        self.ranks.pop(f"{state.run}.{state.gen}", None)
        spent = str(purse.spent if purse is not None else 0)
        self._run_event(state, "run.ended", outcome=state.outcome, cost=spent, released=str(released), counts=dict(state.counts))

    def _run_event(self, state: RunState, type_: str, **fields: object) -> None:
        self._append(type_, tenant=state.tenant, run=state.run, gen=state.gen, **fields)

    # Retention

    def forget(self, kept_ms: int, *names: str) -> Reply:
        """Forget those of the runs `run.gen` whose end has been on record for `kept_ms`: [how many, 0 or 1 (more)]."""
        self._fence()
        forgotten = 0
        for name in names:
            run, gen = name.rsplit(".", 1)
            state = self.runs.get((run, int(gen)))
            if state is not None and state.status != "ended":
                self.over.pop(name, None)
            elif self.over.get(name, self.now_ms + 1) <= self.now_ms - kept_ms:
                del self.over[name]
                self._forget_run(name, (run, int(gen)))
                forgotten += 1
        return [forgotten, 0]

    def _forget_run(self, name: str, key: Key) -> None:
        for place in (f"pause:{name}", f"place:{name}"):
            for tag in self.parked_in(place):
                self._drop(tag)
            self.parked.pop(place, None)
            self.recheck.pop(place, None)
        for pool in self.pools:
            self.out.pop((f"place:{name}", pool), None)
        self.paused.discard(f"run:{name}")
        self.removed.pop(f"run:{name}", None)
        self.caps.pop(name, None)
        self.ranks.pop(name, None)
        self.timeouts.pop(name, None)
        self.runs.pop(key, None)
        self._forget_money(key)

    # Promises

    def check(self) -> None:
        """Assert that places are counted, that lines and turns are those of the runs that wait, and that nobody overtook."""
        super().check()
        for tenant, account in self.accounts.items():
            live = sum(
                state.status != "ended" and state.key in self.purses and state.key not in self.away
                for state in self.runs.values()
                if state.tenant == tenant
            )
            assert account.running == live, f"{tenant} runs {live} and counts {account.running}"
        self._check_order()
        waiting = {key for place in (self.lines, self.unserved) for line in place.values() for key in line}
        assert waiting == {key for key, state in self.runs.items() if state.status == "held"}, waiting
        assert sorted(self.turns) == sorted({*self.lines, *self.unserved})
        for place, beside in ((self.lines, False), (self.unserved, True)):
            assert all((self.runs[key].why == "worker") is beside for line in place.values() for key in line)
        for state in self.runs.values():
            assert state.status == "held" or not (state.why or state.want), state.key
            assert state.status == "loading" or not state.roots, state.key
            cap = f"{state.run}.{state.gen}" in self.caps
            assert not cap or (state.status != "held" and state.status != "ended"), f"{state.key} is {state.status} and has a cap"

    def _check_order(self) -> None:
        """Assert that each line moved from its head, and that pools were parked and opened at their bounds, in turns."""
        lines: dict[str, list[Key]] = {}
        orders: dict[Key, int] = {}
        beside: set[Key] = set()
        parked: dict[str, bool] = {}
        for event in self.events:
            kind = event["t"]
            if kind in ("run.held", "run.admitted", "run.refused", "run.cancelling"):
                key, line = (event["run"], event["gen"]), lines.setdefault(event["tenant"], [])
                if kind == "run.held":
                    orders.setdefault(key, len(orders))
                    line[:], beside = [each for each in line if each != key], beside - {key}
                    if event["why"] == "worker":
                        beside = beside | {key}
                    else:
                        line[:] = sorted([*line, key], key=lambda each: orders[each])
                elif key in beside:
                    beside.discard(key)
                    assert kind != "run.admitted" or not line or orders[key] < orders[line[0]], f"{key} overtook {line[0]}"
                elif key in line:
                    assert kind == "run.cancelling" or line[0] == key, f"{key} overtook {line[0]}"
                    line.remove(key)
                else:
                    assert kind != "run.admitted" or not line, f"{key} overtook {line}"
            elif kind == "pressure.changed":
                full, much = event["state"] == "parked", event["load"] * 100
                assert full != parked.get(event["pool"], False), event
                parked[event["pool"]] = full
                bound = self.backpressure.park_at_percent if full else self.backpressure.release_below_percent
                assert (much >= bound * event["capacity"]) == full or not event["capacity"], event
