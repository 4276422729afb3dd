"""A platform's whole traffic by one hand: seeded random operations on the scripts, in any order, doubled, delayed, with replies lost.

What real workers would do at once happens one after the other here, so a seed plays the same again. What the sweeper does is done here,
by the same scripts: its own clock is the server's, and this one is moved.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ulid import ULID

from benchmarks.money.shapes import TASK
from cost.period import MS_PER_DAY, month_ends_ms
from cost.plan import SKIP
from orchestrator.backpressure import Backpressure
from orchestrator.recorder import append_request
from orchestrator.submission import Submission
from tenancy import link as link_module
from tenancy.errors import Fenced, Unavailable
from tenancy.link import Link
from tests.integration.cutting import CuttingProxy
from tests.property.clock import NOW_KEY

POOL = "default"
RULES = Backpressure(1_000, 100, 90)
TTL_MS = 4_000
AGE_MS = 2_000
SWEEP_MS = 2_000
LOST, DOUBLED, SHUFFLED = 0.02, 0.08, 0.08
Cats = dict[str, int]
STATE = "orchestrator/state/"


@dataclass(eq=False)
class Run:
    """A run of this block."""

    id: str
    tenant: str
    submission: Submission
    budget: int | None

    @property
    def rg(self) -> str:
        return f"{self.id}.1"

    @property
    def nodes(self) -> list[str]:
        return [node.id for node in self.submission.graph.nodes]


@dataclass(eq=False)
class Claim:
    """An execution in a worker's hands, and what the worker has still to say of it, in this order."""

    run: Run
    node: str
    attempt: int
    inc: str
    tag: str
    delivery: int
    reserved: int
    days: set[int]
    to_say: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, int, str, int]:
        return (self.run.id, 1, self.node, self.attempt)


@dataclass(eq=False)
class Worker:
    """An incarnation; `state` is live, stopped (it will come back as a zombie) or dead."""

    inc: str
    state: str = "live"


class Driver:
    """One block's traffic over the Redis of `link`; `lossy` leads there through `proxy`."""

    def __init__(self, dice: random.Random, link: Link, lossy: Link, proxy: CuttingProxy, shapes: list[Submission], now_ms: int) -> None:
        self.dice, self.link, self.lossy, self.proxy, self.shapes = dice, link, lossy, proxy, shapes
        self.now_ms = now_ms
        self.operations = 0
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.limits: dict[str, tuple[int, int | None]] = {}
        self.runs: dict[str, Run] = {}
        """Those that go on, as far as is known."""
        self.submitted: dict[str, Run] = {}
        self.workers: list[Worker] = []
        self.claims: list[Claim] = []
        self.echoes: list[Callable[[], object]] = []
        self.told: dict[tuple[str, int, str, int], list[Cats]] = {}
        self.accepted: dict[tuple[str, int, str, int], Cats] = {}
        self.allowed: Counter[tuple[str, int]] = Counter()
        self.swept_ms = 0
        self.loaded: set[str] = set()

    # Calls

    def call(self, script: str, *arguments: Any, counted: bool = True) -> Any:
        """Run a script. Now and then its reply is lost, and it is called again, as by clients that know that they may."""
        if self.operations % 4 == 0:
            self.let_pass(self.dice.randint(1, 60))
        self.operations += counted
        if counted and self.dice.random() < LOST:
            if script not in self.loaded:  # so that what is asked is short, and known by its first bytes
                self.link.client.script_load(link_module.load(script).text)
                self.loaded.add(script)
            cuts = self.proxy.cuts
            self.proxy.cut(lambda asked, _: b"EVALSHA" in asked)
            try:
                self.lossy.call(script, *arguments)
            except Unavailable:
                self.counts["replies lost"] += 1
            assert self.proxy.cuts == cuts + 1, "the reply was not lost"
            self.operations += 1
        return self.link.call(script, *arguments)

    def let_pass(self, ms: int) -> None:
        self.now_ms += ms
        self.link.client.set(NOW_KEY, self.now_ms)

    def keep(self, echo: Callable[[], object]) -> None:
        """Remember a call that may come a second time, however late."""
        if self.dice.random() < DOUBLED:
            self.echoes.append(echo)

    # What producers do

    def submit(self) -> None:
        tenant = self.dice.choice(list(self.limits))
        submission = self.dice.choice(self.shapes)
        spread = (submission.floor_micros, submission.estimate_micros)
        budget = self.dice.choice((None, None, self.dice.randint(*spread), spread[1] // 2))
        run = Run(str(ULID.from_bytes(self.dice.randbytes(16))).lower(), tenant, submission, budget)
        self.runs[run.id] = self.submitted[run.id] = run
        wanted = {"request": run.id, "run": run.id, "gen": 1, "tenant": tenant, "digest": submission.graph.digest}
        wanted |= {"graph": submission.graph.name, "priority": 5, "budget": budget}
        append_request(self.link, "request.submit", wanted, payload=submission.graph.canonical())
        self.start(run)

    def start(self, run: Run) -> None:
        """Admit, load and launch; where it was done already nothing changes."""
        reply = self.call(STATE + "admit", run.id, 1, run.tenant, _json(run.submission.want(run.budget)), *RULES)
        self.counts[f"admit: {reply[0]}"] += 1
        if reply[0] == "refused":
            self.runs.pop(run.id, None)
        if reply[0] != "admitted":
            return
        status = self.link.read("HGET", f"hg1:run:{run.rg}", "status")
        down = run.submission.planned_down(int(reply[1]))
        choices = down.choices if down else {}
        for rows in run.submission.rows(choices):
            self.call(STATE + "load", run.id, 1, len(rows), *(value for row in rows for value in row), counted=False)
        for fragments in run.submission.fragments():
            self.call(STATE + "load", run.id, 1, 0, *(value for pair in fragments.items() for value in pair), counted=False)
        skipped = [node for node, choice in choices.items() if choice == SKIP]
        if skipped and status == "loading":
            self.call(STATE + "skip", run.id, 1, "given up at admission", "", *skipped)
        self.call(STATE + "launch", run.id, 1, 1 if down else 0, 1, *run.submission.roots())
        self.publish(run, self.link.read("ZRANGE", f"hg1:due:{run.rg}", 0, -1))

    def publish(self, run: Run, nodes: list[str]) -> None:
        for node in nodes:
            about = (run.tenant, 5, POOL, 100, f"{run.rg}.{node}", 0, 0, run.rg, TASK, "[]")
            self.call("tenancy/transport/put", f"{run.id} {node}", *about, counted=False)

    def cancel(self) -> None:
        if not self.runs:
            return
        run = self.dice.choice(list(self.runs.values()))
        self.call(STATE + "cancel", run.id, 1, "not wanted any more", "driver")
        self.keep(lambda: self.call(STATE + "cancel", run.id, 1, "again", "driver"))
        self.revoke_rest(run)

    def revoke_rest(self, run: Run) -> None:
        self.call(STATE + "revoke", run.id, 1, "cancelled", "not wanted any more", "", *run.nodes)

    def give_up(self) -> None:
        """As an agent does: optional nodes of a run that goes on."""
        if self.runs:
            run = self.dice.choice(list(self.runs.values()))
            reply = self.call(STATE + "skip", run.id, 1, "too dear", "", *self.dice.sample(run.nodes, min(2, len(run.nodes))))
            self.publish(run, reply[1:])

    def let_in(self) -> None:
        reply = self.call(STATE + "let_in", 5, *RULES)
        for rg in reply[1:]:
            if (run := self.runs.get(rg.split(".")[0])) and self.dice.random() < 0.9:  # else its reply went to somebody who died
                self.start(run)

    # What workers do

    def enroll(self) -> Worker:
        worker = Worker(str(ULID.from_bytes(self.dice.randbytes(16))).lower())
        info = {"name": "w", "host": "h", "pid": 1, "pools": [POOL], "slots": 8, "tasks": [TASK]}
        self.call("tenancy/transport/enroll", worker.inc, TTL_MS, _json(info), counted=False)
        self.workers.append(worker)
        return worker

    def live(self) -> Worker:
        live = [worker for worker in self.workers if worker.state == "live"]
        return self.dice.choice(live) if live else self.enroll()

    def work(self, worker: Worker | None = None) -> bool:
        """Take a message and claim its node; False when there is none."""
        worker = worker or self.live()
        reply = self.call("tenancy/transport/pop", worker.inc, POOL, 1, counted=False)
        if reply[0] == "DEAD":
            worker.state = "dead"
        if len(reply) != 3:
            return reply[0] in ("MORE", "DEAD")
        tag, payload, delivery = reply[0], str(reply[1]), int(reply[2])
        name, node = payload.split()
        arguments = (name, 1, node, worker.inc, tag, delivery, "w")
        reply = self.call(STATE + "begin", *arguments)
        self.counts[f"begin: {reply[0]}"] += 1
        if self.dice.random() < DOUBLED:
            self.echoes.append(lambda: self.call(STATE + "begin", *arguments))
        run = self.runs.get(name)
        if reply[0] == "run" and run is not None:
            self.claims.append(self.claimed(Claim(run, node, int(reply[1]), worker.inc, tag, delivery, int(reply[5]), {self.day})))
        elif reply[0] not in ("later", "early", "poison"):
            self.call("tenancy/transport/ack", worker.inc, tag, delivery, counted=False)
        if run is not None and reply[0] in ("refused", "poison"):
            self.publish(run, reply[3])
        return True

    @property
    def day(self) -> int:
        return self.now_ms // MS_PER_DAY

    def claimed(self, claim: Claim) -> Claim:
        """Decide what the execution will cost and say."""
        dice = self.dice
        dear = dice.choice((0, 0.5, 0.9, 1, 1, 1, 1.3, 3))
        llm, compute = int(claim.reserved * dear), dice.randint(0, 30)
        steps = dice.choice((0, 0, 1, 2))
        for step in range(1, steps + 1):
            claim.to_say.append(("extend", {"llm": llm * step // steps, "compute": compute}))
        cats = {"llm": llm, "compute": compute}
        outcome = dice.choice(("succeeded",) * 6 + ("failed", "timed_out"))
        claim.to_say.append(("finish", cats, outcome, dice.choice((0, 0, 300, -1))))
        if dice.random() < 0.9:  # else no signal comes, and the sweeper settles
            claim.to_say.append(("settle", cats))
        if dice.random() < SHUFFLED:
            dice.shuffle(claim.to_say)
        return claim

    def say(self, claim: Claim | None = None) -> None:
        """Let a worker that is not stopped say the next thing of an execution."""
        stopped = {worker.inc for worker in self.workers if worker.state == "stopped"}
        speaking = [each for each in self.claims if each.inc not in stopped]
        if not speaking:
            return
        claim = claim or self.dice.choice(speaking)
        kind, cats, *more = claim.to_say.pop(0)
        said = getattr(self, kind)
        said(claim, cats, *more)
        self.keep(lambda: said(claim, cats, *more))
        if not claim.to_say and claim in self.claims:
            self.claims.remove(claim)

    def extend(self, claim: Claim, cats: Cats) -> None:
        self.told.setdefault(claim.key, []).append(_plain(cats))
        reply = self.call(STATE + "extend", claim.run.id, 1, claim.node, claim.attempt, claim.inc, _written(cats))
        self.counts[f"extend: {reply[0]}"] += 1
        if reply[0] == "ok" and sum(cats.values()) > claim.reserved:
            claim.reserved = sum(cats.values())
            claim.days.add(self.day)
        elif reply[0] == "refused":
            # The meter raises: the execution fails with what it had used until then.
            claim.to_say = [("finish", {}, "failed", -1), ("settle", {})]

    def finish(self, claim: Claim, cats: Cats, outcome: str, delay_ms: int) -> None:
        self.told.setdefault(claim.key, []).append(_plain(cats))
        fault = "" if outcome == "succeeded" else '{"type": "Boom"}'
        arguments = (claim.run.id, 1, claim.node, claim.attempt, claim.inc, outcome, "1", fault, _written(cats), delay_ms)
        reply = self.call(STATE + "finish", *arguments)
        self.counts[f"finish: {reply[0]}"] += 1
        if reply[0] == "done":
            self.publish(claim.run, reply[2:])
            while reply[1] and self.call(STATE + "cascade", claim.run.id, 1, 200, counted=False)[0]:
                pass
        if reply[0] != "retry":
            self.call("tenancy/transport/ack", claim.inc, claim.tag, claim.delivery, counted=False)

    def settle(self, claim: Claim, cats: Cats, by: str = "signal") -> None:
        told = {name: amount + (7 if self.dice.random() < 0.01 else 0) for name, amount in cats.items()}
        self.told.setdefault(claim.key, []).append(_plain(told))
        lost = self.counts["replies lost"]
        reply, nudge, _ = self.call(STATE + "settle", claim.run.id, 1, claim.node, claim.attempt, _written(told), by, "", *RULES)
        self.counts[f"settle: {reply}"] += 1
        # Whose reply was lost has changed what the second call answers: the first was accepted.
        if claim.key not in self.accepted and (reply in ("settled", "waste") or (reply == "same" and self.counts["replies lost"] > lost)):
            self.accepted[claim.key] = _plain(told)
            row = str(self.link.read("HGET", f"hg1:res:{claim.run.rg}", f"{claim.node}:{claim.attempt}")).split("|")
            aside = int(row[1]) if row[0] == "settled" else 0
            for part in row[2].split(","):
                self.allowed[claim.run.tenant, int(part.split("=")[0])] += max(0, sum(told.values()) - aside)
        if nudge:
            self.let_in()

    def void(self) -> None:
        """As a worker's parent does when its child was killed on purpose: the money goes back, and so does the message."""
        live = {worker.inc for worker in self.workers if worker.state == "live"}
        mine = [claim for claim in self.claims if claim.inc in live]
        if mine:
            claim = self.dice.choice(mine)
            self.counts[f"void: {self.call(STATE + 'void', claim.run.id, 1, claim.node, claim.attempt, 'signal')}"] += 1
            self.keep(lambda: self.call(STATE + "void", claim.run.id, 1, claim.node, claim.attempt, "again"))
            self.call("tenancy/transport/requeue", claim.inc, claim.tag, claim.delivery, 0, counted=False)
            if self.dice.random() < 0.7:
                self.claims.remove(claim)  # else what it used is told after all, and is waste

    def adjust(self) -> None:
        """As an operator does: a correction of today or of the days before, which no limit holds back; the same id counts once."""
        tenant, day = self.dice.choice(list(self.limits)), self.day - self.dice.choice((0, 0, 1, 20))
        amount, category = self.dice.choice((1, 50, -1, -50, -3_000)), self.dice.choice(("llm", "compute"))
        name = f"a{self.dice.randrange(1_000_000)}"

        def book() -> None:
            lost = self.counts["replies lost"]
            reply = self.call("cost/adjust", tenant, name, amount, category, day, "driver", "a correction", "")
            self.counts[f"adjust: {reply[0]}"] += 1
            if reply[0] == "done" or (reply[0] == "same" and self.counts["replies lost"] > lost):
                self.allowed[tenant, day] += max(0, amount)

        book()
        self.keep(book)

    def echo(self) -> None:
        if self.echoes:
            self.counts["said again"] += 1
            self.echoes.pop(self.dice.randrange(len(self.echoes)))()

    # What goes wrong

    def silence(self) -> None:
        """SIGKILL or SIGSTOP: no heartbeat comes any more; who was stopped goes on later, with an incarnation that is dead by then."""
        live = [worker for worker in self.workers if worker.state == "live"]
        if len(live) < 2:
            return
        worker = self.dice.choice(live)
        self.link.client.zadd("hg1:incarnations", {worker.inc: 0}, xx=True)
        worker.state = self.dice.choice(("dead", "stopped"))
        self.counts["workers killed" if worker.state == "dead" else "workers stopped"] += 1
        if worker.state == "dead":
            self.claims = [claim for claim in self.claims if claim.inc != worker.inc]
        self.enroll()

    def wake(self) -> None:
        stopped = [worker for worker in self.workers if worker.state == "stopped"]
        if stopped:
            self.dice.choice(stopped).state = "dead"  # its incarnation; its executions go on as if nothing had been
            self.counts["zombies"] += 1

    def midnight(self) -> None:
        """Move the clock to just before midnight UTC, at times of the last day of the month; operations pass it."""
        end = month_ends_ms(self.day) if self.dice.random() < 0.15 else (self.day + 1) * MS_PER_DAY
        self.let_pass(max(0, end - self.now_ms - self.dice.randint(0, 400)))
        self.beat()
        self.counts["midnights"] += 1

    def beat(self) -> None:
        for worker in self.workers:
            if worker.state == "live" and not self.call("tenancy/transport/beat", worker.inc, counted=False):
                worker.state = "dead"  # a rebuild: it takes a new incarnation, and its executions are zombies
        self.workers = [worker for worker in self.workers if worker.state != "dead"]
        while sum(worker.state == "live" for worker in self.workers) < 3:
            self.enroll()

    def reconnect(self) -> None:
        """Whose connection broke takes a new incarnation and gives back what the old one held; what it executes goes on, a zombie."""
        for worker in self.workers:
            if worker.state == "live":
                self.call("tenancy/transport/retire", worker.inc, counted=False)
                worker.state = "dead"
        self.beat()

    def is_fenced(self) -> None:
        """Until the next epoch is open every script refuses."""
        self.loaded.clear()
        try:
            self.call(STATE + "let_in", 1, *RULES)
        except Fenced:
            self.counts["fenced"] += 1
        else:
            self.violations.append("a script passed the fence of a server that was restarted")

    # What the sweeper does

    def sweep(self) -> None:
        self.swept_ms = self.now_ms
        self.beat()
        while self.call("tenancy/transport/reclaim", TTL_MS, 200, counted=False)[1]:
            pass
        for run in list(self.runs.values()):
            self.repair(run)
        self.let_in()
        self.check_leases()

    def repair(self, run: Run) -> None:
        status = self.link.read("HGET", f"hg1:run:{run.rg}", "status")
        if status in (None, "ended"):
            self.runs.pop(run.id)  # over, or refused when its turn came
            return
        if status == "held":
            return
        if status == "loading":
            self.start(run)
            return
        while self.call(STATE + "cascade", run.id, 1, 200, counted=False)[0]:
            pass
        if status == "cancelling":
            if self.link.read("HLEN", f"hg1:state:{run.rg}") < len(run.nodes):
                self.start(run)  # cancelled while it was loaded: every node gets an outcome
            self.revoke_rest(run)
        else:
            self.publish(run, self.call(STATE + "stale", run.id, 1, AGE_MS, *run.nodes, counted=False))
        for name in sorted(self.link.read("SMEMBERS", f"hg1:open:{run.rg}")):
            node, attempt = name.rsplit(":", 1)
            row = str(self.link.read("HGET", f"hg1:res:{run.rg}", name)).split("|")
            done = self.link.read("HGET", f"hg1:attempt:{run.rg}", f"{node}:done")
            if done is not None and int(done) >= int(attempt) and int(row[5]) <= self.now_ms - AGE_MS:
                cats = {item.split("=")[0]: int(item.split("=")[1]) for item in row[4].split(",") if item}
                self.counts["settled by the sweeper"] += 1
                self.settle(Claim(run, node, int(attempt), "", "", 0, int(row[1]), set()), cats, "sweeper")

    def check_leases(self) -> None:
        """After a sweep no reservation is open whose execution ended longer ago than the sweeper waits, or whose worker is dead."""
        for run in self.runs.values():
            for name in self.link.read("SMEMBERS", f"hg1:open:{run.rg}"):
                node, attempt = name.rsplit(":", 1)
                lease = str(self.link.read("HGET", f"hg1:lease:{run.rg}", node) or "").split("|")
                if lease[0] == attempt and self.link.read("HGET", f"hg1:unacked:{lease[1]}", lease[2]) is not None:
                    continue
                since = int(str(self.link.read("HGET", f"hg1:res:{run.rg}", name)).split("|")[5])
                if since <= self.swept_ms - AGE_MS:
                    self.violations.append(f"the reservation of {run.rg} {name} outlived its node: since {since}, swept {self.swept_ms}")

    # What is looked at all the time

    def observe(self) -> None:
        """Committed of the day is never above the limit by more than executions cost beyond their reservations."""
        for tenant, (limit, _) in self.limits.items():
            row = self.link.read("HMGET", f"hg1:spent:{tenant}:{self.day}", "settled", "reserved")
            committed = sum(int(value or 0) for value in row)
            if committed > limit + self.allowed[tenant, self.day]:
                self.violations.append(f"{tenant}: committed {committed}, limit {limit}, beyond {self.allowed[tenant, self.day]}")


def _json(value: Any) -> str:
    return json.dumps(value)


def _plain(cats: Cats) -> Cats:
    return {name: amount for name, amount in cats.items() if amount}


def _written(cats: Cats) -> str:
    return ",".join(f"{name}={amount}" for name, amount in sorted(cats.items()))
