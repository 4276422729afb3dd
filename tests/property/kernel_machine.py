"""A state machine that makes the same calls on the kernel in Redis and on the model, and compares answers, state and events."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from clock import NOW_KEY
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kernel import RULES, Kernel, model_view
from kernel_graphs import Graph, graphs

from orchestrator.model import Model, RunState
from tenancy.errors import Fenced
from tenancy.link import Link

FAR_MS = 1_000_000_000
TTL_MS = 100_000_000
TAKEN_MAX = 5_000
"""More messages than are ever there at once, with their attempts."""
LAG_MS = 60_000
REFUSAL_MS = 5
"""A few calls: some refusals wait for a decision, and others are the outcome."""
POOL = "default"
PRIORITIES = (1, 3, 5, 7, 9)
INFO = {"name": "w", "host": "h", "pid": 1, "pools": [POOL], "tasks": ["draft", "merge"]}
FENCED = "FENCED"


@dataclass(frozen=True)
class Claim:
    """A delivery, and the attempt that its `begin` opened (0: none)."""

    inc: str
    tag: str
    delivery: int
    run: str
    node: str
    attempt: int = 0
    grows: str = ""


usages = st.sampled_from(["", "llm=3", "llm=30,compute=12", "compute=130", "storage=1000"])
outcomes = st.sampled_from(["succeeded", "succeeded", "failed", "failed", "timed_out", "skipped"])
delays = st.sampled_from([0, 0, 0, FAR_MS])
CRASHES = (9, 9, 9, 1, 2, 3, 4, 4, 5, 5)
CALLS = (
    "expand",
    "extend",
    "extend",
    "begin",
    "begin",
    "finish",
    "finish",
    "finish whatever it holds",
    "settle",
    "void",
    "give up",
    "ack",
    "requeue",
    "beat",
)


class KernelMachine(RuleBasedStateMachine):
    """Submissions, workers, crashes, zombies and rollbacks, in any order."""

    url: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.link = Link(self.url)
        self.kernel = Kernel(self.link)
        self.link.client.flushall()
        self.model = Model(server="s0", rules=RULES)
        self.model.epoch = 0
        self.now_ms = 1_800_000_000_000
        self.servers = 0
        self.incs: list[str] = []
        self.graphs: dict[str, Graph] = {}
        self.claims: list[Claim] = []
        self.repeat: Callable[[], Any] | None = None
        self.seen, self.model_seen = "0-0", 0
        self.saved: tuple[Any, ...] | None = None
        self.broken = False
        self.forgotten: frozenset[str] = frozenset()

    # Both sides

    def both(self, method: str, *arguments: Any) -> Any:
        """Make the same call on both; they must answer the same."""
        self.tell_time()
        try:
            told = getattr(self.model, method)(*arguments)
        except Fenced:
            told = FENCED
        except Exception:
            self.broken = True
            raise
        try:
            answered = getattr(self.kernel, method)(*arguments)
        except Fenced:
            answered = FENCED
        self.agree(plain(answered), plain(told), f"{method}{arguments}: the kernel answers {answered}, the model {told}")
        self.repeat = lambda: self.both(method, *arguments)
        return told

    def tell_time(self) -> None:
        """Both sides have the same clock: what a message took corrects its tenant's virtual time."""
        self.now_ms += 1  # a clock of its own: what a message took must be the same when hypothesis plays an example again
        self.model.now_ms = self.now_ms
        self.link.client.set(NOW_KEY, self.model.now_ms)

    def agree(self, seen: Any, told: Any, message: str) -> None:
        if seen != told:
            # What comes after this says nothing more, so the teardown leaves it.
            self.broken = True
            raise AssertionError(message)

    def open_epoch(self) -> None:
        self.servers += 1
        server = f"server-{self.servers}"
        self.tell_time()
        self.kernel.open_epoch(server)
        self.model.open_epoch(server)
        self.model.server = server

    def pick(self, data: st.DataObject, among: list[Any]) -> Any:
        """One of the list, the later ones first, since most of what is old has been dealt with."""
        return data.draw(st.sampled_from(among[::-1][:12]))

    def is_loaded(self, run: str) -> bool:
        return len(self.model.runs[run, 1].nodes) >= len(self.graphs[run].rows)

    def ids(self, run: str) -> list[str]:
        """All nodes of a run, and those that they became."""
        state = self.model.runs.get((run, 1))
        return list(dict.fromkeys([*self.graphs[run].ids, *(state.nodes if state else ())]))

    @initialize(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.open_epoch()
        low = {
            "warn": 6,
            "critical": 15,
            "exceeded": 30,
            "on_exceeded": data.draw(st.sampled_from(["notify"] * 3 + ["suspend", "suspend_now"])),
        }
        self.account("acme", 1500, 3, **low)
        self.account("beta", 250, 1, on_budget_limit="hold", max_waiting_runs=2, on_warning=data.draw(st.sampled_from(["notify", "hold"])))
        self.account("gamma", 1000, 2, on_runs_limit="reject", submissions_per_minute=30, limit_month=1100, **low)
        self.account("closed", 100, 1, "suspended")
        self.enroll()
        self.enroll()
        self.submit(data, until=9)

    def account(self, tenant: str, limit: int, runs: int, status: str = "active", **terms: Any) -> None:
        """Set a tenant's policy, as the recorder does."""
        self.model.account(tenant, limit, runs, status, **terms)
        self.kernel.account(tenant, limit, runs, status, **terms)
        self.both("level", tenant)
        self.both("refresh", tenant)

    # Producers

    @rule(data=st.data(), until=st.sampled_from([9, 9, 9, 9, 0, 1, 2, 3, 4]))
    def submit(self, data: st.DataObject, until: int) -> None:
        """Admit, load in two pieces, launch, publish; the producer may die between any two of these."""
        run = f"r{len(self.graphs) + 1}"
        self.graphs[run] = data.draw(graphs(run))
        self.complete(self.graphs[run], until)

    @rule(data=st.data(), count=st.integers(2, 5), tenant=st.sampled_from(["acme", "beta", "gamma"]), odds=st.integers(0, 3))
    def flood(self, data: st.DataObject, count: int, tenant: str, odds: int) -> None:
        """One tenant submits more than may run."""
        for _ in range(0 if odds else count):
            run = f"r{len(self.graphs) + 1}"
            self.graphs[run] = replace(data.draw(graphs(run, most=3)), tenant=tenant)
            self.complete(self.graphs[run])

    def complete(self, graph: Graph, until: int = 9) -> None:
        if graph.run in self.forgotten:  # the record says that it is over, and nobody starts it
            return
        half = len(graph.rows) // 2
        steps: list[Callable[[], Any]] = [
            lambda: self.both("admit", graph.run, 1, graph.tenant, graph.want),
            lambda: self.both("load", graph.run, 1, graph.rows[:half], {"0": "{}"}),
            lambda: self.both("load", graph.run, 1, graph.rows[half:], {"1": "{}"}),
            lambda: self.both("adopt", graph.run, 1, graph.adopts) if graph.adopts else None,
            lambda: self.both("launch", graph.run, 1, graph.degraded, 0, graph.roots[:1]),
            lambda: self.publish(graph.run, self.both("launch", graph.run, 1, graph.degraded, 1, graph.roots)),
        ]
        for step in steps[: until + 1]:
            reply = step()
            if reply == FENCED or (step is steps[0] and reply[0] in ("refused", "held")):
                return

    @rule(most=st.sampled_from([1, 2, 20]), until=st.sampled_from([9, 9, 9, 2]))
    def let_in(self, most: int, until: int) -> None:
        """Whoever notices that there is room lets runs in, and starts them, or dies before."""
        more, *names = self.both("let_in", most)
        for name in names:
            state = self.model.runs[name.split(".")[0], 1]
            assert self.model.accounts[state.tenant].running <= self.model.accounts[state.tenant].max_runs, "one run too many"
        if not more:
            self.nobody_waits_for_nothing()
        for name in names:
            self.complete(self.graphs[name.split(".")[0]], until)

    def nobody_waits_for_nothing(self) -> None:
        model = self.model
        for tenant, line in model.lines.items():
            account, want = model.accounts[tenant], json.loads(model.runs[line[0]].want)
            pools = [model.pressure.get(name or POOL) for name in want["pools"]]
            assert (
                account.status == "suspended"
                or account.running >= account.max_runs
                or model._short(account, tenant, want)[0] is not None
                or model._spent_up(tenant) is not None
                or any(pool is not None and pool.parked for pool in pools)
                or not all(task in model.serves for task in want["tasks"])
            ), f"{line[0]} waits for nothing"
        for tenant, beside in model.unserved.items():
            assert not model._is_served_now(tenant, model.accounts[tenant]), f"{beside[0]} is served and stands beside the line"

    @rule(tenant=st.sampled_from(["acme", "beta", "gamma", "nobody"]), times=st.integers(1, 4), later_ms=st.sampled_from([0, 900, 70_000]))
    def knock(self, tenant: str, times: int, later_ms: int) -> None:
        self.now_ms += later_ms
        for _ in range(times):
            self.both("knock", tenant)

    @rule(
        tenant=st.sampled_from(["acme", "beta", "gamma"]),
        limit=st.sampled_from([300, 1500]),
        runs=st.integers(0, 4),
        status=st.sampled_from(["active", "active", "active", "suspended", "closed"]),
        terms=st.fixed_dictionaries(
            {
                "on_runs_limit": st.sampled_from(["hold", "reject"]),
                "on_budget_limit": st.sampled_from(["hold", "reject"]),
                "max_waiting_runs": st.sampled_from([0, 1, 5, 1000]),
                "limit_month": st.sampled_from([None, None, 2000]),
                "enforcement": st.sampled_from(["enforce"] * 6 + ["observe", "off"]),
                "admit": st.sampled_from(["floor", "floor", "full"]),
                "warn": st.sampled_from([6, 12]),
                "on_warning": st.sampled_from(["notify", "notify", "notify", "hold", "suspend", "suspend_now"]),
                "on_exceeded": st.sampled_from(["notify", "notify", "suspend"]),
            }
        ),
        odds=st.integers(0, 2),
    )
    def change_policy(self, tenant: str, limit: int, runs: int, status: str, terms: dict[str, Any], odds: int) -> None:
        if odds == 0:
            # A lower limit than what is spent is no promise that was broken.
            if terms["limit_month"] is not None:
                terms = {**terms, "limit_month": max(terms["limit_month"], self.model.exposure(tenant, monthly=True))}
            self.account(tenant, max(limit, self.model.exposure(tenant)), runs, status, **terms)

    def publish(self, run: str, nodes: Any, replaces: int = 0, delay_ms: int = 0, priority: int = 5) -> None:
        if nodes == FENCED or run not in self.graphs:
            return
        tenant = self.graphs[run].tenant
        for node in nodes:
            self.both("put", json.dumps([run, node]), tenant, priority, POOL, 1000 + 10 * len(node), f"{run}.1.{node}", replaces, delay_ms)

    @precondition(lambda self: self.model.runs)
    @rule(data=st.data(), replaces=st.integers(0, 1), delay_ms=delays, priority=st.sampled_from(PRIORITIES))
    def publish_any(self, data: st.DataObject, replaces: int, delay_ms: int, priority: int) -> None:
        """A chain's next step, a body too early, a duplicate of what runs: any node may have a message at any time."""
        state = self.pick(data, list(self.model.runs.values()))
        likely = [node for node, it in state.nodes.items() if it.state in ("due", "running")]
        nodes = likely if likely and data.draw(st.integers(0, 2)) else self.ids(state.run)
        self.publish(state.run, [data.draw(st.sampled_from(nodes))], replaces, delay_ms, priority)

    # Workers

    def enroll(self, info: dict[str, Any] = INFO) -> str:
        inc = f"i{len(self.incs) + 1}"
        self.incs.append(inc)
        self.both("enroll", inc, TTL_MS, info)
        return inc

    def some_worker(self, data: st.DataObject) -> str:
        """Mostly a live one; a new one where all are dead."""
        if data.draw(st.integers(0, 15)) == 7:
            inc: str = self.pick(data, self.incs)
            return inc
        return data.draw(st.sampled_from(sorted(self.model.workers))) if self.model.workers else self.enroll()

    def pop(self, inc: str) -> Claim | None:
        reply = self.both("pop_row", inc, POOL, FAR_MS)
        if len(reply) < 3:
            return None
        run, node = json.loads(reply[1])
        claim = Claim(inc, reply[0], reply[2], run, node)
        self.claims.append(claim)
        return claim

    def begin(self, claim: Claim, charges: Sequence[tuple[str, int, str, str, str]] = ()) -> Claim | None:
        told = (claim.run, 1, claim.node, claim.inc, claim.tag, claim.delivery, "w@h", LAG_MS, REFUSAL_MS)
        if charges:
            answer = self.both("charge_and_begin", charges, *told)
            reply = answer if answer == FENCED else answer[1]
        else:
            reply = self.both("begin", *told)
        if reply[0] != "run":
            self.publish(claim.run, reply[-1] if reply[0] in ("ended", "poison", "refused") or len(reply) == 4 else [])
            return None
        begun = replace(claim, attempt=reply[1], grows=reply[6] if len(reply) > 6 else "")
        self.claims.append(begun)
        return begun

    def finish(self, claim: Claim, outcome: str, cats: str, delay_ms: int) -> Any:
        error = json.dumps({"type": "E", "message": "no"})
        return self.both("finish", claim.run, 1, claim.node, claim.attempt, claim.inc, outcome, '"result"', error, cats, delay_ms)

    def die(self, *incs: str, limit: int = 200) -> None:
        for inc in incs:
            if inc in self.model.workers:
                self.model.workers[inc].beat_ms = 0
                self.kernel.silence(inc)
        self.both("reclaim", TTL_MS, limit)

    @rule(data=st.data(), outcome=outcomes, cats=usages, delay_ms=st.sampled_from([0, 0, FAR_MS, -1]), crash=st.sampled_from(CRASHES))
    def work(self, data: st.DataObject, outcome: str, cats: str, delay_ms: int, crash: int) -> None:
        """A worker takes a message through all steps, or dies before one of them, which nobody knows yet."""
        self.take(self.some_worker(data), outcome, cats, delay_ms, crash)

    @rule(data=st.data(), plan=st.lists(st.tuples(outcomes, usages, delays), min_size=2, max_size=6))
    def work_on(self, data: st.DataObject, plan: list[tuple[str, str, int]]) -> None:
        """Nothing goes wrong for a while but what tasks do themselves."""
        inc = self.some_worker(data)
        for outcome, cats, delay_ms in plan:
            self.take(inc, outcome, cats, delay_ms)

    @rule(data=st.data(), plan=st.lists(st.tuples(outcomes, usages, delays), min_size=2, max_size=6), twice=st.booleans())
    def ride_on(self, data: st.DataObject, plan: list[tuple[str, str, int]], twice: bool) -> None:
        """A process takes one message after the other, and what it settles rides with the next claim, also a claim that is repeated."""
        inc = self.some_worker(data)
        riding: list[tuple[Claim, str]] = []
        for outcome, cats, delay_ms in plan:
            claim = self.pop(inc)
            if claim is None or not claim.run:
                break
            own = [(begun.node, begun.attempt, used, "worker", "prices 3") for begun, used in riding if begun.run == claim.run]
            for begun, used in riding:
                if begun.run != claim.run:
                    self.both("settle", begun.run, 1, begun.node, begun.attempt, used, "worker", "prices 3")
            riding.clear()
            for _ in range(2 if twice else 1):
                begun = self.begin(claim, own)
            if begun is not None and begun.grows != "expand":
                self.publish(begun.run, self.finish(begun, outcome, cats, delay_ms)[2:])
                riding.append((begun, cats))
            self.both("ack", inc, claim.tag, claim.delivery)
        for begun, used in riding:
            self.both("settle", begun.run, 1, begun.node, begun.attempt, used, "worker", "prices 3")

    def take(self, inc: str, outcome: str = "succeeded", cats: str = "llm=1", delay_ms: int = 0, crash: int = 9) -> bool:
        claim = self.pop(inc)
        if claim is None or crash == 1:
            return False
        begun = self.begin(claim) if claim.run else None
        if begun is not None and begun.grows == "expand" and crash > 1:
            if not self.expand(begun, cats, crash):
                return False
        elif begun is not None and crash > 2:
            self.charge(begun, cats)
            reply = self.finish(begun, outcome, cats, delay_ms)
            if crash > 3:
                self.both("settle", begun.run, 1, begun.node, begun.attempt, cats, "worker", "prices 3")
            if crash > 4:
                self.publish(begun.run, reply[2:])
        if crash > 5:
            self.both("ack", inc, claim.tag, claim.delivery)
        return True

    def expand(self, begun: Claim, cats: str, crash: int = 9) -> bool:
        """Bring what a node becomes in pieces of two, or die after one of them; says whether it came to the end."""
        told, rows = self.graphs[begun.run].grown(begun.node)
        for first in range(0, len(rows), 2):
            fragments = {f"{begun.node}*": "{}"} if not first else {}
            piece = rows[first : first + 2]
            reply = self.both("expand", begun.run, 1, begun.node, begun.attempt, begun.inc, told, first, piece, fragments, cats)
            if crash < 4 or reply == FENCED or reply[0] in ("fenced", "clash"):
                return False
            self.publish(begun.run, reply[2:])
            if reply[0] == "stopped":
                break
        self.both("settle", begun.run, 1, begun.node, begun.attempt, cats, "worker")
        return True

    def charge(self, begun: Claim, cats: str) -> None:
        """Some tasks say what they use before they use it; what is refused is not used, and the rest stays in the hold."""
        if len(begun.node) % 2 or cats == "":
            return
        purse = self.model.purses[begun.run, 1]
        hold, needed = purse.hold, purse.needed
        self.both("extend", begun.run, 1, begun.node, begun.attempt, begun.inc, cats)
        assert purse.hold >= min(hold, needed), "an extension took what required nodes need"

    @rule(odds=st.integers(0, 4), days=st.sampled_from([1, 1, 30]))
    def midnight(self, odds: int, days: int) -> None:
        """Another day, or another month: what is reserved stays where it is, what is held goes along."""
        if odds == 0:
            before = {tenant: (account.held, account.reserved) for tenant, account in self.model.accounts.items()}
            self.now_ms += days * 86_400_000
            if self.model.recorded is not None:
                self.catch_up()
            for tenant in before:
                self.both("level", tenant)
            assert before == {tenant: (account.held, account.reserved) for tenant, account in self.model.accounts.items()}

    @precondition(lambda self: self.model.runs)
    @rule(data=st.data())
    def meet(self, data: st.DataObject) -> None:
        """A second message of a node reaches the gate while the node runs, waits for its next attempt, or is cancelled."""
        run, nodes = self.some_nodes(data)
        states = self.model.runs[run, 1].nodes
        nodes = [node for node in nodes if node in states and not states[node].ended] or nodes
        self.publish(run, nodes[-1:], replaces=1, priority=1)
        self.take(self.some_worker(data), crash=data.draw(st.sampled_from([2, 9])))

    @rule(data=st.data(), deaths=st.integers(1, 4))
    def work_to_death(self, data: st.DataObject, deaths: int) -> None:
        """Workers die under what they run; first in line again, it is the next one's."""
        for _ in range(deaths):
            inc = self.some_worker(data)
            claim = self.pop(inc)
            if claim and claim.run:
                self.begin(claim)
            self.die(inc)

    @rule(data=st.data(), victims=st.integers(1, 3), limit=st.sampled_from([1, 2, 200]), leaves=st.booleans())
    def workers_end(self, data: st.DataObject, victims: int, limit: int, leaves: bool) -> None:
        """Found dead, all at once, their messages given back piece by piece; or one says that it leaves."""
        incs = [self.some_worker(data) for _ in range(victims)]
        if leaves:
            self.both("retire", incs[0])
        else:
            self.die(*incs, limit=limit)

    # Any call by anyone who ever had a reason to make it: zombies, duplicates, signals that come twice

    @rule(
        data=st.data(), task=st.sampled_from(["draft", "nobody has it"]), patience_ms=st.sampled_from([0, 2, 3000]), odds=st.integers(0, 2)
    )
    def hand_back(self, data: st.DataObject, task: str, patience_ms: int, odds: int) -> None:
        """A worker is given a node whose task it does not have."""
        claim = self.pop(self.some_worker(data)) if odds == 0 else None
        if claim and claim.run:
            reply = self.both("lack", claim.run, 1, claim.node, claim.inc, claim.tag, claim.delivery, task, patience_ms)
            if reply[0] == "failed":
                self.publish(claim.run, reply[3:])

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), call=st.sampled_from(CALLS), outcome=outcomes, cats=usages, delay_ms=delays)
    def anyone(self, data: st.DataObject, call: str, outcome: str, cats: str, delay_ms: int) -> None:
        begun = [claim for claim in self.claims if claim.attempt]
        claim = self.pick(data, begun if begun and call in ("finish", "settle", "void", "give up") else self.claims)
        match call:
            case "begin":
                self.begin(claim)
            case "finish":
                self.publish(claim.run, self.finish(claim, outcome, cats, delay_ms)[2:])
            case "expand":
                if claim.grows:
                    self.expand(claim, cats)
            case "finish whatever it holds":
                self.finish(replace(claim, attempt=0), outcome, cats, delay_ms)
            case "extend":
                self.both("extend", claim.run, 1, claim.node, claim.attempt, claim.inc, cats)
            case "settle":
                self.both("settle", claim.run, 1, claim.node, claim.attempt, cats, "sweeper")
            case "void":
                self.both("void", claim.run, 1, claim.node, claim.attempt, "sweeper")
            case "give up":
                self.both("give_up", claim.run, 1, claim.node, claim.attempt, claim.inc, "signal")
            case "ack":
                self.both("ack", claim.inc, claim.tag, claim.delivery)
            case "requeue":
                self.both("requeue", claim.inc, claim.tag, claim.delivery, delay_ms)
            case "beat":
                self.both("beat", claim.inc)

    @precondition(lambda self: self.repeat is not None)
    @rule()
    def reply_was_lost(self) -> None:
        assert self.repeat is not None
        self.repeat()

    # Decisions and sweeps

    @precondition(lambda self: self.model.runs)
    @rule(
        data=st.data(),
        what=st.sampled_from(["skip", "skip", "revoke", "cancel", "stop", "told", "fence", "rank", "deadline"]),
        odds=st.integers(0, 3),
    )
    def decide(self, data: st.DataObject, what: str, odds: int) -> None:
        """Plans are made when a run is loaded, so nothing is skipped or revoked before, except by its cancelling."""
        run, nodes = self.some_nodes(data)
        state = self.model.runs[run, 1]
        if what == "skip" and self.is_loaded(run):
            self.publish(run, self.both("skip", run, 1, "too dear", [*nodes, *nodes[:1]])[1:])
        elif state.status == "cancelling" or (what == "revoke" and odds == 0 and state.status == "running"):
            self.publish(run, self.both("revoke", run, 1, "cancelled", "given up", [*nodes, *nodes[:1]])[2:])
        elif what == "cancel" and odds == 0:
            self.both("cancel", run, 1, "changed my mind", "alice")
        elif what == "stop" and odds < 2 and self.is_loaded(run):
            self.publish(run, self.both("stop", run, 1, "not this one", "alice", [*nodes[::-1], *nodes[:1]])[3:])
        elif what == "told" and self.claims:
            claim = self.pick(data, self.claims)
            self.both("told", claim.run, 1, claim.node, claim.attempt, claim.inc)
        elif what == "rank":
            self.both("rank", run, 1, data.draw(st.sampled_from(PRIORITIES)), "now", "alice")
        elif what == "deadline":
            node = data.draw(st.sampled_from(["", *nodes]))
            self.both("deadline", run, 1, data.draw(st.sampled_from([60, 600, 900])), node, "it takes longer", "alice")
        elif what == "fence" and odds == 0:
            scope = data.draw(st.sampled_from(["platform", "tenant:acme", "tenant:beta", "tenant:gamma"]))
            self.fence(scope, dies=data.draw(st.booleans()))

    @precondition(lambda self: self.model.runs)
    @rule(
        data=st.data(),
        what=st.sampled_from(["judge", "judge", "judge", "skip", "terminated", "hold", "none"]),
        until=st.sampled_from([9, 9, 9, 0, 1, 2]),
        late=st.integers(0, 5),
    )
    def govern(self, data: st.DataObject, what: str, until: int, late: int) -> None:
        """The agent decides and applies, or dies in between, and another one completes it; or one comes that slept meanwhile."""
        run, nodes = self.some_nodes(data)
        state = self.model.runs[run, 1]
        if not self.is_loaded(run) or (what == "terminated" and late % 3):
            return
        n = max(1, state.decisions + (0 if late == 5 else 1))
        decision = state.open or f"{run}.1.{n}"
        left, raised = data.draw(st.sampled_from(["", "0", "30", "200"])), data.draw(st.integers(0, 1))
        fence = what if what in ("terminated", "hold", "none") else ""
        kept = nodes[:1] if fence == "terminated" else []
        choices = {node: data.draw(st.sampled_from(["", "cheap"])) for node in nodes[:200]}
        made = json.dumps({"t": "decision.made", "tenant": state.tenant, "run": run, "gen": 1, "decision": f"{run}.1.{n}"})
        done = json.dumps({"t": "decision.applied", "tenant": state.tenant, "run": run, "gen": 1, "decision": decision})
        steps: list[Callable[[], Any]] = [
            lambda: self.both("decide", run, 1, n, what, fence, "" if late == 4 else '{"what": 1}', made, kept),
            lambda: self.publish(run, self.both("skip", run, 1, "too dear", nodes[:200], decision)[1:] if what == "skip" else []),
            lambda: self.both("judge", run, 1, decision, choices) if what == "judge" else None,
            lambda: (
                self.publish(run, self.both("revoke", run, 1, "cancelled", "cost", nodes[1:200], decision)[2:])
                if what == "terminated"
                else None
            ),
            lambda: self.both("conclude", run, 1, decision, left, raised, done),
            lambda: self.both("pause", f"run:{run}.1", "cost-agent", "cost") if what == "hold" and late % 2 else None,
            lambda: self.both("approve", run, 1, data.draw(st.sampled_from(["", "10", "5000"])), "it may", "alice"),
        ]
        for step in steps[: until + 1]:
            if step() == FENCED:
                return

    @precondition(lambda self: self.model.runs)
    @rule(data=st.data(), what=st.sampled_from(["pause", "resume", "", ""]), kept_ms=st.sampled_from([None, 0, 1_000]))
    def stand_by(self, data: st.DataObject, what: str, kept_ms: int | None) -> None:
        """A run is paused or goes on, and its place and its hold follow, or nobody comes to look after them."""
        run = self.pick(data, sorted(run for run, _ in self.model.runs))
        if what:
            self.both(what, f"run:{run}.1", "alice", "lunch")
        if data.draw(st.booleans()):
            self.both("stand_by", run, 1, kept_ms)

    def fence(self, scope: str, *, dies: bool) -> None:
        """Everything of a scope: the fence first, then each run that was submitted before, also where nobody has admitted it yet."""
        self.both("fence", scope, "all of it", "alice")
        if dies:
            return
        for graph in self.graphs.values():
            mine = scope in ("platform", f"tenant:{graph.tenant}") and graph.tenant != "nobody"
            if mine and graph.run not in self.forgotten:
                self.both("cancel", graph.run, 1, "all of it", "alice", graph.tenant, graph.want)

    @precondition(lambda self: self.graphs)
    @rule(data=st.data(), what=st.sampled_from(["stale", "stale", "due", "again", "cascade", "time", "whole"]), age_ms=delays)
    def sweep(self, data: st.DataObject, what: str, age_ms: int) -> None:
        """What repairs do, whether or not there is anything to repair."""
        if what == "again" or not self.model.runs:
            self.complete(self.pick(data, list(self.graphs.values())))
            return
        run, nodes = self.some_nodes(data)
        match what:
            case "stale":
                self.publish(run, self.both("stale", run, 1, age_ms, nodes))
            case "due":
                self.publish(run, [node for node, it in self.model.runs[run, 1].nodes.items() if it.state == "due"])
            case "cascade":
                self.publish(run, self.both("cascade", run, 1, 1)[1:])
            case "time":
                self.time_passes()
            case "whole":
                self.sweep_the_run(run)

    def sweep_the_run(self, run: str) -> None:
        """One sweep of a running run; after it no reservation is open but of what runs with a live lease, wherever its message is."""
        state = self.model.runs[run, 1]
        if state.status != "running":
            return
        self.publish(run, self.both("stale", run, 1, 0, self.ids(run)))
        for (node, attempt), row in list(self.model.reservations[run, 1].items()):
            if row.state == "open" and state.nodes[node].done >= attempt:
                self.both("settle", run, 1, node, attempt, row.cats, "sweeper")
        for (node, attempt), row in self.model.reservations[run, 1].items():
            lease = state.nodes[node].lease
            alive = lease is not None and lease.attempt == attempt and self.model._live(lease)
            assert row.state != "open" or alive, f"the reservation of {run}.{node} attempt {attempt} outlives it"

    def time_passes(self) -> None:
        """Everything that is delayed becomes due."""
        for state in self.model.runs.values():
            for it in state.nodes.values():
                it.notbefore, it.since = 0, None if it.since is None else 0
        self.model.delayed = dict.fromkeys(self.model.delayed, 0)
        self.kernel.let_time_pass()

    @rule(data=st.data(), replaces=st.integers(0, 1), priority=st.sampled_from(PRIORITIES))
    def publish_ordinary(self, data: st.DataObject, replaces: int, priority: int) -> None:
        """Messages of no node share the queues."""
        once = data.draw(st.sampled_from(["", "", "x", "y"]))
        self.both("put", json.dumps(["", ""]), data.draw(st.sampled_from(["acme", "beta", "other"])), priority, POOL, 5, once, replaces, 0)

    @rule(away_ms=st.sampled_from([0, 0, 0, 30_000, LAG_MS + 1]))
    def record(self, away_ms: int) -> None:
        """The recorder catches up, or is away, perhaps for longer than it may."""
        if away_ms:
            self.now_ms += away_ms
        else:
            self.catch_up()

    def catch_up(self) -> None:
        self.model.record()
        self.kernel.record(self.model.now_ms)

    @precondition(lambda self: self.model.runs)
    @rule(data=st.data(), recorded=st.integers(0, 2), kept_ms=st.sampled_from([0, 0, 50]))
    def forget(self, data: st.DataObject, recorded: int, kept_ms: int) -> None:
        """The record has the end of some runs, and the sweeper lets go of what was kept for long enough; whatever else it is told."""
        names = [f"{run}.{gen}" for run, gen in self.model.runs]
        for name in names:
            if recorded and self.model.runs[name.split(".")[0], 1].status == "ended":
                self.model.over.setdefault(name, self.now_ms)
                self.kernel.record_end(name, self.now_ms)
        self.both("forget", kept_ms, *data.draw(st.lists(st.sampled_from(names), unique=True)))
        self.forgotten |= {name.split(".")[0] for name in names if (name.split(".")[0], 1) not in self.model.runs}

    def some_nodes(self, data: st.DataObject) -> tuple[str, list[str]]:
        run = self.pick(data, sorted(run for run, _ in self.model.runs))
        ids = self.ids(run)
        return run, ids if data.draw(st.booleans()) else data.draw(st.lists(st.sampled_from(ids), unique=True, max_size=3))

    # Rollback

    @rule(odds=st.integers(0, 2))
    def save(self, odds: int) -> None:
        if odds == 0:
            self.saved = (self.kernel.snapshot(), self.model.snapshot(), self.seen, self.model_seen, self.forgotten)

    @precondition(lambda self: self.saved is not None)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        """Redis loses its tail: its old callers are refused, and so are those of the new server until the next epoch is open."""
        assert self.saved is not None
        keys, model, self.seen, self.model_seen, self.forgotten = self.saved
        self.kernel.restore(keys)
        self.model.restore(model)
        self.link.server = self.model.server = f"server-{self.servers + 1}"
        assert self.both("pop_row", self.incs[-1], POOL, FAR_MS) == FENCED
        former, self.saved = self.model.epoch_server, None
        self.open_epoch()
        self.link.server = self.model.server = former
        if self.claims:
            claim = self.pick(data, self.claims)
            assert self.finish(claim, "succeeded", "llm=9", 0) == FENCED
        self.link.server = self.model.server = self.model.epoch_server
        # Runs that were submitted after the snapshot are unknown again; the submission itself lies in SQL.

    # What must hold

    @invariant()
    def same_state(self) -> None:
        if self.servers:
            seen = self.kernel.view(self.model.now_ms)
            told = model_view(self.model)
            self.agree(seen, told, difference(seen, told))

    @invariant()
    def same_events(self) -> None:
        fresh = self.kernel.events_after(self.seen)
        seen = [(id_, plain(without(event, "at"))) for id_, event in fresh]
        told = [("{}-{}".format(*event["id"]), plain(without(event, "id", "at"))) for event in self.model.events[self.model_seen :]]
        self.agree(seen, told, f"the kernel logs {seen}, the model {told}")
        self.model_seen = len(self.model.events)
        self.seen = fresh[-1][0] if fresh else self.seen

    @invariant()
    def promises_hold(self) -> None:
        self.model.check()

    def teardown(self) -> None:
        """However it was left, sweeping brings every admitted run to its end."""
        if self.servers and not self.broken:
            self.drive_to_the_end()
            self.same_state()
            self.same_events()
            self.model.check()
            for state in self.model.runs.values():
                self.is_accounted_for(state)
        self.link.close()

    def drive_to_the_end(self) -> None:
        self.catch_up()
        for inc in list(self.model.workers):
            self.both("retire", inc)
        while self.both("reclaim", TTL_MS, 200)[1]:
            pass
        for tenant, account in self.model.accounts.items():
            self.account(
                tenant,
                min(2**53 - 1, account.limit_day + 2**40),
                account.max_runs + 2,
                max_waiting_runs=1000,
                limit_month=None,
                on_warning="notify",
                on_exceeded="notify",
            )
        for run, gen in list(self.model.runs):
            self.both("resume", f"run:{run}.{gen}", "alice", "")
            self.both("stand_by", run, gen, None)
        inc = self.enroll({**INFO, "slots": 50, "tasks": [*INFO["tasks"], "absent"]})
        for _ in range(60):
            self.let_in(20, 9)
            live = [state for state in self.model.runs.values() if state.status != "ended"]
            if not live and all(message.place == "x" for message in self.model.messages.values()):
                return
            self.time_passes()
            for state in live:
                self.sweep_run(state)
            assert any(not self.take(inc) for _ in range(TAKEN_MAX)), f"messages come back for ever: {self.model.messages}"
        raise AssertionError(f"sweeping does not end {[(s.run, s.status, s.left, s.nodes) for s in live]}, {self.model.messages}")

    def sweep_run(self, state: RunState) -> None:
        graph = self.graphs[state.run]
        if self.model._is_fenced(state):
            self.both("cancel", state.run, 1, "all of it", "alice")
        self.complete(graph)
        while self.both("cascade", state.run, 1, 200)[0] == 1:
            pass
        if state.status == "cancelling" or state.stopped:
            self.both("revoke", state.run, 1, "cancelled", state.reason, self.ids(state.run)[:200])
            self.both("revoke", state.run, 1, "cancelled", state.reason, self.ids(state.run)[200:])
        else:
            self.publish(state.run, self.both("stale", state.run, 1, 0, self.ids(state.run)))
        for (node, attempt), row in list(self.model.reservations.get(state.key, {}).items()):
            lease = state.nodes[node].lease
            if row.state == "open" and (lease is None or lease.attempt != attempt):
                if row.cats:
                    self.both("settle", state.run, 1, node, attempt, row.cats, "sweeper")
                else:
                    self.both("void", state.run, 1, node, attempt, "sweeper")

    def is_accounted_for(self, state: RunState) -> None:
        assert state.status == "ended"
        assert {node for node, it in state.nodes.items() if it.ended} == set(self.ids(state.run))
        closed: dict[tuple[str, int], int] = {}
        for event in self.model.events:
            if event.get("run") == state.run and (event["t"] == "money.voided" or event.get("kind") == "settle"):
                closed[event["node"], event["attempt"]] = closed.get((event["node"], event["attempt"]), 0) + 1
        executions = self.model.reservations.get(state.key, {})
        assert closed == dict.fromkeys(executions, 1)
        assert all(row.state != "open" for row in executions.values())


def plain(value: Any) -> Any:
    """JSON texts as what they say, so that two ways to print the same are the same; far and near instead of times."""
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, int) and value > FAR_MS // 2:
        return "far"
    return value


def without(event: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in names}


def difference(seen: dict[str, Any], told: dict[str, Any]) -> str:
    lines = []
    for part in sorted(seen.keys() | told.keys()):
        a, b = seen.get(part), told.get(part)
        if a != b:
            if isinstance(a, dict) and isinstance(b, dict):
                keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
                lines += [f"{part} {key}: the kernel has {a.get(key)}, the model {b.get(key)}" for key in keys]
            else:
                lines.append(f"{part}: the kernel has {a}, the model {b}")
    return "\n".join(lines)
