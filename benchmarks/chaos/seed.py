"""One seed: a stack of its own, a mix of runs, a schedule of faults, and the verdict. Runs as a process of its own.

`python -m benchmarks.chaos.seed SEED HOME [--small] [--power]` prints the result as one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import redis

from benchmarks.chaos import evidence as look
from benchmarks.chaos.checker import check
from benchmarks.chaos.control import Control
from benchmarks.chaos.faults import Done, Fault, Saboteur, schedule
from benchmarks.chaos.figures import ROOT
from benchmarks.chaos.graphs import TENANTS, mixed_graph, shape_of
from benchmarks.chaos.log import Evidence, NodeShape, RunKey, Violation
from benchmarks.chaos.points import DIRECTORY, Points, ProducerDied, die_as_producer, reached
from benchmarks.chaos.recovery_times import recoveries
from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.embedded.commands import Commands
from orchestrator.graph import Graph
from orchestrator.log_key import log_key
from orchestrator.settings import Settings
from tenancy.errors import Refused, Unavailable

ENDS_WITHIN_S = 60.0
"""After the last fault every run must have ended within this."""
QUIET_WITHIN_S = 20.0
STILL_S = 1.0
SUBMITS_WITHIN_S = 60.0
RERUNS = 2
"""So many runs that did not succeed run again when all is over."""
PRODUCER = "producer-"


def is_producer() -> bool:
    """Whether this thread plays a producer, which may die."""
    return threading.current_thread().name.startswith(PRODUCER)


@dataclass(frozen=True)
class Plan:
    """What a seed decides: graphs with the time of their submission, and faults."""

    graphs: list[tuple[float, str, dict[str, Any]]]
    """(seconds after the start, tenant, document)"""
    faults: list[Fault]

    @classmethod
    def of(cls, seed: int, *, small: bool = False, power: bool = False) -> Plan:
        """Return the plan of `seed`; a small one has fewer runs and faults, one with `power` loses it too."""
        rng = random.Random(seed)
        runs = rng.randint(3, 4) if small else rng.randint(6, 9)
        graphs = []
        for at in range(runs):
            when = 0.0 if at < 2 else round(rng.uniform(0.2, 3.0 if small else 10.0), 3)
            graphs.append((when, rng.choice(TENANTS), mixed_graph(rng, f"chaos-{seed}-{at}")))
        faults = schedule(rng, 4 if small else rng.randint(13, 16), power=power)
        return cls(sorted(graphs, key=lambda each: each[0]), faults)


class Seed:
    """Plays one seed in `home`."""

    def __init__(self, seed: int, home: Path, *, small: bool = False, power: bool = False) -> None:
        self.seed = seed
        self.plan = Plan.of(seed, small=small, power=power)
        self.settings = Settings(home=home, sweep_interval_s=1.0, stale_after_s=1.0, worker_wait_s=10.0, retry_delay_max_s=0.3)
        self.shapes: dict[RunKey, dict[str, NodeShape]] = {}
        self.submitted: dict[str, str] = {}
        self.broken: list[Violation] = []
        self.done: list[Done] = []
        self.takeovers: dict[int, int] = {}
        self.documents: dict[str, dict[str, Any]] = {}
        self.points = home / "points"
        self._over = False
        self._saboteur: Saboteur | None = None
        self._mutex = threading.Lock()

    def play(self) -> dict[str, Any]:
        """Return the result of the seed, as JSON values."""
        started = time.monotonic()
        self.points.mkdir(parents=True)
        os.environ |= {DIRECTORY: str(self.points), "PYTHONPATH": str(ROOT)}
        commands = Commands(recorder=lambda: (sys.executable, "-P", "-m", "benchmarks.chaos.recorder_points"))
        tasks = ("benchmarks.chaos.worker_points",)
        with Stack(self.settings, 2, 2, tasks, console=False, report=self._tell, commands=commands) as stack:
            for name in [name for name in os.environ if name.startswith(("HEADGATE_", "CELERY_"))]:
                del os.environ[name]
            os.environ.update(self.settings.environment(redis_url=stack.redis_url))
            Settings.forget()
            client = Client()
            direct = redis.Redis.from_url(stack.client_url, decode_responses=True)
            for tenant in TENANTS:
                client.tenants.create(tenant, limit_per_day_micros=10**12, max_concurrent_runs=50)
            Points("producer", self.points, die_as_producer, is_producer).install()
            control = Control(client, self.points, self._break)
            submitting = [
                threading.Thread(target=self._submit, args=(client, at), name=f"{PRODUCER}{at}") for at in range(len(self.plan.graphs))
            ]
            for thread in submitting:
                thread.start()
            saboteur = self._saboteur = Saboteur(stack, control.act, lambda pid: look.executes(direct, pid))
            self._sabotage(saboteur, stack)
            for thread in submitting:
                thread.join()
            saboteur.thaw()
            control.let_go()
            ended_s = self._until(lambda: not look.unfinished(client.engine), ENDS_WITHIN_S)
            self._rerun(control, saboteur, stack)
            self._until(lambda: not look.unfinished(client.engine), ENDS_WITHIN_S)
            self.done += [Done("died at a point", at, name, pid) for name, pid, at in reached(self.points)]
            self.done.sort(key=lambda fault: fault.at)
            quiet_s = self._until(lambda: self._quiet(client, direct), QUIET_WITHIN_S)
            evidence = self._gather(client, direct)
            evidence = replace(evidence, replays=look.replays(client.engine, log_key(self.settings)))
            self._over = True
            violations = [*self.broken, *check(evidence)]
            if violations:
                told = look.dump(direct, look.unfinished(client.engine) or list(self.submitted.values()))
                (self.settings.home / "dump.json").write_text(json.dumps(told, indent=1))
                (self.settings.home / "faults.json").write_text(json.dumps([fault.row() for fault in self.done], indent=1))
        return {
            **self._figures(evidence),
            "duration_s": round(time.monotonic() - started, 1),
            "ended_after_faults_s": ended_s,
            "quiet_after_end_s": quiet_s,
            "violations": [str(violation) for violation in violations],
        }

    # -- what is done ---------------------------------------------------------------------------

    def _submit(self, client: Client, at: int) -> None:
        """Submit one graph as a producer does that does not give up: the same key until there is an answer."""
        when, tenant, document = self.plan.graphs[at]
        time.sleep(when)
        key, until = str(document["name"]), time.monotonic() + SUBMITS_WITHIN_S
        graph = Graph.parse(document)
        while True:
            try:
                run = client.submit(graph, tenant=tenant, key=key)
            except ProducerDied:
                time.sleep(0.1)  # another one comes with the same key
            except (Unavailable, Refused) as error:
                if time.monotonic() > until:
                    self._break("submission", key, f"was not taken within {SUBMITS_WITHIN_S:g} s: {error!r}")
                    return
                time.sleep(0.1)
            except Exception as error:  # noqa: BLE001 (the rule is that there is no such exception)
                # What a producer has to catch is one tree; anything else is a fault of ours, whatever was killed.
                self._break("error tree", key, f"{type(error).__module__}.{type(error).__name__}: {error}")
                if time.monotonic() > until:
                    return
                time.sleep(0.1)
            else:
                with self._mutex:
                    self.submitted[key] = run.run_id
                    self.shapes[run.run_id, run.generation] = shape_of(document)
                    self.documents[run.run_id] = document
                return

    def _sabotage(self, saboteur: Saboteur, stack: Stack) -> None:
        until = time.monotonic() + SUBMITS_WITHIN_S
        while not self.submitted and time.monotonic() < until:
            time.sleep(0.02)
        for fault in self.plan.faults:
            time.sleep(fault.after_s)
            self._do(saboteur, stack, fault)

    def _do(self, saboteur: Saboteur, stack: Stack, fault: Fault) -> None:
        owner = self._owner(stack) if fault.kind == "recorder" else None
        done = saboteur.do(fault)
        if done is None:
            return
        self.done.append(done)
        if done.kind == "recorder":
            threading.Thread(target=self._time_takeover, args=(stack, owner, done.at), daemon=True).start()

    def _rerun(self, control: Control, saboteur: Saboteur, stack: Stack) -> None:
        """Have what failed or was cancelled run again, and kill a worker meanwhile."""
        at = time.time_ns() // 1_000_000
        for run_id, generation in control.rerun(RERUNS):
            self.shapes[run_id, generation] = shape_of(self.documents[run_id])
            self.done.append(Done("rerun", at, run_id, 0))
        if any(fault.kind == "rerun" for fault in self.done):
            self._do(saboteur, stack, Fault("worker", 0.0, self.seed))

    # -- what is seen ---------------------------------------------------------------------------

    def _gather(self, client: Client, direct: redis.Redis) -> Evidence:
        """Read everything between two looks at a log that did not grow: a worker that has just woken up may still book its waste."""
        until = time.monotonic() + QUIET_WITHIN_S
        while True:
            before = look.last_event(direct)
            time.sleep(STILL_S)
            evidence = look.gather(client.engine, direct, self.shapes, self.submitted)
            still = before == look.last_event(direct) == look.cursor(client.engine)
            if still or time.monotonic() > until:
                return evidence

    def _quiet(self, client: Client, direct: redis.Redis) -> bool:
        try:
            return look.cursor(client.engine) == look.last_event(direct) and not look.leftovers(direct)
        except redis.RedisError:
            return False

    @staticmethod
    def _until(holds: Callable[[], bool], within_s: float) -> float | None:
        """Wait until `holds`; return after how many seconds, or None if it did not within `within_s`."""
        started = time.monotonic()
        while not holds():
            if time.monotonic() - started > within_s:
                return None
            time.sleep(0.1)
        return round(time.monotonic() - started, 2)

    @staticmethod
    def _owner(stack: Stack) -> str | None:
        try:
            with redis.Redis.from_url(stack.client_url, decode_responses=True) as client:
                found = client.get("hg1:recorder")
                return None if found is None else str(found)
        except redis.RedisError:
            return None

    def _time_takeover(self, stack: Stack, before: str | None, at: int) -> None:
        """Note how long it took until another recorder held the lease."""
        until = time.monotonic() + 30.0
        while time.monotonic() < until:
            owner = self._owner(stack)
            if owner is not None and owner != before:
                self.takeovers[at] = time.time_ns() // 1_000_000 - at
                return
            time.sleep(0.02)

    def _figures(self, evidence: Evidence) -> dict[str, Any]:
        kinds = Counter(event.kind for event in evidence.events)
        duplicates = Counter(event.data.get("kind") for event in evidence.events if event.kind == "money.settled")
        return {
            "seed": self.seed,
            "runs": len(evidence.runs),
            "nodes": sum(len(shape) for shape in evidence.shapes.values()),
            "outcomes": dict(Counter(str(row.outcome or row.status) for row in evidence.runs)),
            "events": len(evidence.events),
            "executions": kinds["node.began"],
            "retries": kinds["node.retry"],
            "lost": kinds["node.lost"],
            "duplicates": kinds["node.duplicate"],
            "wasted": duplicates["waste"],
            "epochs": kinds["epoch.opened"],
            "rebuilt": sum(1 for e in evidence.events if e.kind == "epoch.opened" and int(e.data.get("rebuilt") or 0)),
            "faults": dict(Counter(fault.kind for fault in self.done)),
            "recovery_ms": recoveries(evidence.events, self.done, self.takeovers),
            "settled_by_sweeper": sum(1 for e in evidence.events if e.kind == "money.settled" and e.data.get("by") == "sweeper"),
        }

    def _break(self, rule: str, subject: str, detail: str) -> None:
        with self._mutex:
            self.broken.append(Violation(rule, subject, detail))

    def _tell(self, sentence: str) -> None:
        name, _, rest = sentence.partition(" ")
        if rest.startswith("ended with code 0") and self._saboteur is not None and name in self._saboteur.restarted:
            self._saboteur.restarted.remove(name)
        elif " ended with code " in sentence and not self._over:
            self._break("process", sentence.split()[0], f"{sentence}; only we end processes here")
        with (self.settings.home / "supervisor.log").open("a") as log:
            log.write(f"{time.time():.3f} {sentence}\n")


def main(arguments: list[str]) -> int:
    number, home = [each for each in arguments if not each.startswith("--")]
    Path(home).mkdir(parents=True, exist_ok=True)
    result = Seed(int(number), Path(home), small="--small" in arguments, power="--power" in arguments).play()
    print(json.dumps(result), flush=True)
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
