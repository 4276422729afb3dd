"""The scripts in Redis and the rules as a simulator, side by side: the same transitions, the same answers, the same counters."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from clock import NOW_KEY
from kernel import Kernel

from cost.period import month_of, name_of
from cost.simulator import Execution, Ledger, Policy, Request, RunKey, differences
from orchestrator.model import NodeRow
from tenancy.link import Link

TENANT = "acme"
START = 1_769_900_000_000  # 2026-01-31 22:53 UTC: the first midnight is also the end of a month
STEP_MS = 1_500  # longer than a node waits that is short of money
DAY_MS = 86_400_000
NAMES = ("settled", "reserved", "waste")


@dataclass
class Node:
    """A node as the driver knows it."""

    required: bool
    amount: int
    floor: int
    state: str = "waiting"
    attempt: int = 0
    inc: str = ""
    tag: str = ""
    delivery: int = 0
    lost: list[int] = field(default_factory=list)
    losses: int = 0


class Pair:
    """One tenant on both sides. Raises AssertionError as soon as they differ."""

    def __init__(self, link: Link, seed: int) -> None:
        self.link = link
        self.random = random.Random(seed)
        self.kernel = Kernel(link)
        self.ledger = Ledger()
        self.now_ms = START
        self.runs: dict[RunKey, dict[str, Node]] = {}
        self.incs = 0
        link.client.flushall()
        self._tell_time()
        self.kernel.open_epoch("server-1")
        self.set_policy()
        self._enroll()

    def drive(self, steps: int) -> None:
        """Take so many random steps, then bring every run to its end."""
        for _ in range(steps):
            self.now_ms += STEP_MS
            self._tell_time()
            self._step()
            self.compare()
        for key in self.runs:
            for name, node in self.runs[key].items():
                self.now_ms += STEP_MS
                self._tell_time()
                if node.state == "running":
                    self.end(key, name, self._usage(node), failed=False)
                if node.state == "waiting":
                    self.start(key, name)
                    if node.state == "running":
                        self.end(key, name, "llm=1", failed=False)
                self.compare()

    def _step(self) -> None:
        self.kernel.beat("i1")
        choice = self.random.random()
        waiting = [(key, name) for key, nodes in self.runs.items() for name, node in nodes.items() if node.state == "waiting"]
        running = [(key, name) for key, nodes in self.runs.items() for name, node in nodes.items() if node.state == "running"]
        late = [(key, name) for key, nodes in self.runs.items() for name, node in nodes.items() if node.lost]
        if choice < 0.12 or not self.runs:
            self.submit()
        elif choice < 0.16:
            self.set_policy()
        elif choice < 0.20:
            self.now_ms += DAY_MS // 2
            self._tell_time()
        elif choice < 0.26 and late:
            self.late(*self.random.choice(late))
        elif choice < 0.45 and running:
            self.extend(*self.random.choice(running))
        elif choice < 0.70 and running:
            key, name = self.random.choice(running)
            if self.random.random() < 0.2 and self.runs[key][name].losses < 2:  # with three it is poison
                self.lose(key, name)
            else:
                self.end(key, name, self._usage(self.runs[key][name]), failed=self.random.random() < 0.3)
        elif waiting:
            self.start(*self.random.choice(waiting))

    # Transitions

    def set_policy(self) -> None:
        day, month = self.random.choice([0, 60, 100, 100, 200, 200]), self.random.choice([None, None, 90, 150, 400])
        if not self.ledger.accounts:
            day, month = 200, None
        self.ledger.set_policy(TENANT, Policy(day, month, max_runs=1_000), self.now_ms)
        self.kernel.account(TENANT, day, 1_000, limit_month=month)

    def submit(self) -> None:
        run = f"r{len(self.runs) + 1}"
        key, nodes = RunKey(run), {}
        for index in range(self.random.randint(1, 4)):
            amount = self.random.choice([0, 5, 10, 30, 60])
            required = self.random.random() < 0.7
            nodes[f"n{index}"] = Node(required, amount, self.random.choice([amount, amount // 2]) if required else 0)
        estimate, floor = sum(node.amount for node in nodes.values()), sum(node.floor for node in nodes.values())
        budget = self.random.choice([None, None, None, estimate, floor + 10])
        want = {"graph": "g", "total": len(nodes), "estimate": str(estimate), "floor": str(floor), "priority": 5, "tasks": []}
        want |= {"budget": "" if budget is None else str(budget), "pools": [], "roots": {}}
        told = self.ledger.admit(TENANT, Request(key, floor, estimate, budget), self.now_ms)
        reply = self.kernel.admit(run, 1, TENANT, json.dumps(want))
        assert reply[0] == told.status, f"admit: the scripts say {reply}, the rules {told}"
        if reply[0] != "admitted":
            assert reply[1] == {"exceeded": "budget"}.get(told.reason, told.reason), f"{reply}, {told}"
            return
        assert int(reply[1]) == told.micros, f"{run} holds {reply[1]}, and should {told.micros}"
        assert self.kernel.admit(run, 1, TENANT, json.dumps(want)) == reply
        self.runs[key] = nodes
        self.kernel.load(run, 1, [self._row(name, node) for name, node in nodes.items()], {})
        self.kernel.launch(run, 1, 0, 1, list(nodes))

    def start(self, key: RunKey, name: str) -> None:
        node = self.runs[key][name]
        inc = self._enroll()
        self.kernel.put(json.dumps([key.run, name]), TENANT, 5, "default", 10, f"{key.run}.1.{name}", 1, 0)
        tag, _, delivery = self.kernel.pop_row(inc, "default", 1)
        reply = self.kernel.begin(key.run, 1, name, inc, tag, delivery, "w")
        needed = self._needed(key) - node.floor
        told = self.ledger.reserve(self._execution(key, name, node.attempt + 1), node.amount, needed, self.now_ms)
        if told.status == "refused":
            assert reply[0] in ("refused", "later"), f"{key} {name} of {node.amount}: the scripts say {reply}, the rules {told}"
            self._forget(key, name)
            if reply[0] == "refused":
                node.state = "over"
                self.ledger.purses[key].needed = needed
                self._maybe_end(key)
        else:
            assert reply[0] == "run", f"{key} {name} of {node.amount}: the scripts say {reply}, the rules {told}"
            assert self.kernel.begin(key.run, 1, name, inc, tag, delivery, "w") == reply
            node.state, node.inc, node.tag, node.delivery, node.attempt = "running", inc, tag, delivery, node.attempt + 1

    def extend(self, key: RunKey, name: str) -> None:
        node = self.runs[key][name]
        to = self.random.choice([1, 5, 12, 40, 90])
        reply = self.kernel.extend(key.run, 1, name, node.attempt, node.inc, f"llm={to}")
        told = self.ledger.extend(self._execution(key, name), to, self.now_ms)
        said = {"extended": "ok", "same": "ok"}.get(told.status, told.status)
        assert reply[0] == said, f"extend {name} to {to}: the scripts say {reply}, the rules {told}"
        if told.status == "refused":
            assert reply[1:] == [told.reason, str(told.limit), str(told.current)]

    def end(self, key: RunKey, name: str, cats: str, *, failed: bool) -> None:
        node = self.runs[key][name]
        again = failed and node.attempt < 3
        outcome, delay = ("failed", 0 if again else -1) if failed else ("succeeded", -1)
        self.kernel.finish(key.run, 1, name, node.attempt, node.inc, outcome, "1", "{}", cats, delay)
        if again:
            self._forget(key, name)
        self.kernel.ack(node.inc, node.tag, node.delivery)
        node.state = "waiting" if again else "over"
        self._settle(key, name, node.attempt, cats)
        self._settle(key, name, node.attempt, cats)
        self._settle(key, name, node.attempt, cats + ",storage=1")
        void = self.kernel.void(key.run, 1, name, node.attempt, "signal")
        assert void == self.ledger.void(self._execution(key, name), unfinished=self._unfinished(key), now_ms=self.now_ms).status
        self._maybe_end(key)

    def lose(self, key: RunKey, name: str) -> None:
        node = self.runs[key][name]
        self.kernel.retire(node.inc)
        self._forget(key, name)
        assert self.kernel.stale(key.run, 1, 0, [name]) == [name]
        node.state = "waiting"
        node.lost.append(node.attempt)
        node.losses += 1
        told = self.ledger.expire(self._execution(key, name), needed=self._needed(key), unfinished=True, now_ms=self.now_ms)
        assert told.status == "void"

    def late(self, key: RunKey, name: str) -> None:
        self._settle(key, name, self.runs[key][name].lost.pop(), self.random.choice(["llm=7", "compute=20,llm=20"]))

    def _settle(self, key: RunKey, name: str, attempt: int, cats: str) -> None:
        amounts = {item.split("=")[0]: int(item.split("=")[1]) for item in cats.split(",") if item}
        needed = self._needed(key) if not self.ledger.purses[key].ended else None
        execution = self._execution(key, name, attempt)
        was_open = self.ledger.reservations[execution].state == "open"
        told = self.ledger.settle(
            execution, amounts, needed=needed if was_open else None, unfinished=self._unfinished(key), now_ms=self.now_ms
        )
        reply = self.kernel.settle(key.run, 1, name, attempt, cats, "signal")
        assert reply[0] == told.status, f"settle {name} {cats}: the scripts say {reply}, the rules {told.status}"

    # What must be the same

    def compare(self) -> None:
        """Hold every counter of the one side against the other."""
        wrong = differences(self.ledger)
        assert not wrong, wrong
        account, client = self.ledger.accounts[TENANT], self.link.client
        row = client.hgetall(f"hg1:tenant:{TENANT}")
        seen = {name: int(row.get(name, 0)) for name in ("held", "reserved", "running")}
        assert seen == {"held": account.held, "reserved": account.reserved, "running": account.running}
        day = START // DAY_MS
        for period, name in [(name_of(d), str(d)) for d in range(day, self.now_ms // DAY_MS + 1)] + [
            (f"{m // 100}-{m % 100:02d}", f"m{m}") for m in {month_of(day), month_of(self.now_ms // DAY_MS)}
        ]:
            book, counted = account.book(period), client.hgetall(f"hg1:spent:{TENANT}:{name}")
            told = {"settled": book.settled, "reserved": book.reserved, "waste": book.waste}
            told |= {f"c:{category}": micros for category, micros in book.categories.items()}
            found = {field: int(micros) for field, micros in counted.items() if int(micros)}
            assert found == {field: micros for field, micros in told.items() if micros}, f"{period}: {found}, the rules say {told}"
        for key, purse in self.ledger.purses.items():
            of_run = client.hgetall(f"hg1:purse:{key.run}.1")
            names = ("hold", "needed", "reserved", "spent", "open")
            assert {name: int(of_run[name]) for name in names} == {name: getattr(purse, name) for name in names}, key
        for execution, reservation in self.ledger.reservations.items():
            row_of = client.hget(f"hg1:res:{execution.run}.1", f"{execution.node}:{execution.attempt}")
            assert str(row_of).split("|")[0] == reservation.state, execution

    # The driver's own

    def _usage(self, node: Node) -> str:
        cost = node.amount * self.random.choice([0, 50, 100, 100, 300]) // 100
        if cost == 0:
            return ""
        return f"llm={cost}" if cost < 3 else f"compute={cost // 3},llm={cost - cost // 3}"

    def _needed(self, key: RunKey) -> int:
        return sum(node.floor for node in self.runs[key].values() if node.state == "waiting")

    def _unfinished(self, key: RunKey) -> bool:
        return any(node.state != "over" for node in self.runs[key].values())

    def _maybe_end(self, key: RunKey) -> None:
        if not self._unfinished(key) and not self.ledger.purses[key].open:
            self.ledger.end_run(key, self.now_ms)

    def _execution(self, key: RunKey, name: str, attempt: int | None = None) -> Execution:
        return Execution(*key, name, self.runs[key][name].attempt if attempt is None else attempt)

    def _row(self, name: str, node: Node) -> NodeRow:
        ctl: dict[str, Any] = {"amounts": {"": str(node.amount)}, "floor": str(node.floor), "required": node.required}
        return name, 0, json.dumps(ctl | {"attempts": 3, "next": []}), "{}", "", "0"

    def _forget(self, key: RunKey, name: str) -> None:
        self.link.call("tenancy/transport/remove", "once", f"{key.run}.1.{name}")

    def _enroll(self) -> str:
        self.incs += 1
        inc = f"i{self.incs}"
        self.kernel.enroll(inc, 10**12, {"name": "w", "host": "h", "pid": 1, "pools": ["default"], "slots": 1_000, "tasks": []})
        return inc

    def _tell_time(self) -> None:
        self.link.client.set(NOW_KEY, self.now_ms)
