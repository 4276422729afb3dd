"""A process of claimants on one budget, started by tests as a program: each is a thread with a connection of its own.

Arguments: URL of Redis, tenant, threads, number of the process. Waits for the key `go`, then every thread claims once: an even one a run
of one node, an odd one an ordinary Celery task. Costs pass reservations only where `extend` or `note` covers it. Prints answers with
their numbers as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from orchestrator.state import State
from tenancy.link import Link
from tenancy.transport.queue import Queue

POOL, TASK = "default", "synthetic.spend"
AMOUNTS = (400, 1_000, 1_700)
SPENT = (0, 0.5, 1, 1, 1.4)
"""Of what was reserved."""


class Process:
    """What the threads of a process share."""

    def __init__(self, url: str, tenant: str, number: int) -> None:
        self.link, self.tenant, self.number = Link(url), tenant, number
        self.state, self.queue = State(self.link), Queue(self.link)
        self.inc = f"inc-{number}"
        self.answers: Counter[str] = Counter()
        self.lock = threading.Lock()

    def note(self, answer: str) -> None:
        with self.lock:
            self.answers[answer] += 1

    def claim(self, index: int) -> None:
        while not self.link.read("EXISTS", "go"):
            time.sleep(0.005)
        dice = random.Random(self.number * 1_000 + index)
        (self.task if index % 2 else self.run)(dice, f"{self.number}-{index}")

    def run(self, dice: random.Random, name: str) -> None:
        """Admission, gate, extension, end, settlement: each once, some of them twice."""
        amount = dice.choice(AMOUNTS)
        ctl = {"amounts": {"": str(amount)}, "floor": str(amount), "required": True, "attempts": 1, "next": []}
        want = {
            "graph": "claim",
            "total": 1,
            "estimate": str(amount),
            "floor": str(amount),
            "budget": "",
            "priority": 5,
            "max_parallel": "",
        }
        want |= {"priority": 5, "max_parallel": "", "pools": [POOL], "roots": {POOL: 1}, "tasks": [TASK]}
        reply = self.state.admit(name, 1, self.tenant, want)
        self.note(f"run {reply[0]}")
        if reply[0] != "admitted":
            return
        self.state.load(name, 1, [("n", 0, json.dumps(ctl), "{}", "", 0)], {0: "{}"})
        self.state.launch(name, 1, 0, 1, ["n"])
        self.queue.put(name, self.tenant, 5, POOL, 100, once=f"{name}.1.n", run=f"{name}.1")
        delivery = self.queue.pop(self.inc, POOL, 1)
        while delivery is None:  # another thread was faster with this message, and leaves its own
            delivery = self.queue.pop(self.inc, POOL, 1)
        name, about = delivery.payload, (self.inc, delivery.tag, delivery.number)
        reply = self.state.begin(name, 1, "n", *about, "w")
        assert reply[0] == "run", reply
        used = int(int(reply[5]) * dice.choice(SPENT))
        if self.state.extend(name, 1, "n", 1, self.inc, f"llm={used}")[0] == "refused":
            self.note("extend refused")
            used = int(reply[5])
        self.state.finish(name, 1, "n", 1, self.inc, "succeeded", "1", "", f"llm={used}", -1)
        for _ in range(dice.choice((1, 2))):
            self.note(f"run {self.state.settle(name, 1, 'n', 1, f'llm={used}', 'signal')}")
        self.queue.ack(*about)

    def task(self, dice: random.Random, name: str) -> None:
        """Claim, note, report: of an ordinary task, which nothing is held for."""
        amount = dice.choice(AMOUNTS)
        reply = self.link.call("cost/task_begin", name, TASK, self.tenant, amount, "c", "", "", "", "w", 60_000)
        self.note(f"task {reply[0]}")
        if reply[0] != "run":
            return
        used = int(amount * dice.choice(SPENT))
        if self.link.call("cost/task_note", name, TASK, reply[1], f"compute={used}", 0)[0] == "refused":
            self.note("note refused")
            used = amount
        for _ in range(dice.choice((1, 2))):
            told = self.link.call("cost/task_report", name, TASK, reply[1], f"compute={used}", "signal", self.tenant, "", "")
            self.note(f"task {told}")


def main(url: str, tenant: str, threads: int, number: int) -> None:
    process = Process(url, tenant, number)
    process.queue.enroll(process.inc, 60_000, {"name": "w", "host": "h", "pid": 1, "pools": [POOL], "slots": 500, "tasks": [TASK]})
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(process.claim, range(threads)))
    sys.stdout.write(json.dumps(process.answers) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
