"""Two systems side by side: each with a Redis, a worker and a producer of its own, measured in alternating rounds."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import psutil
import redis

from benchmarks.fan import Workload
from orchestrator.embedded import RedisServer, Stack
from orchestrator.embedded.commands import Commands
from orchestrator.embedded.stack import child_environment
from orchestrator.embedded.tether import Tether
from orchestrator.settings import Settings
from tenancy.lua import LAYERS, load
from tenancy.lua import ROOT as LUA_ROOT

ROOT = Path(__file__).resolve().parent.parent
SLOTS = 2
WORKER_FLAGS = ("-c", str(SLOTS), "--prefetch-multiplier=1", "--without-gossip", "--without-mingle", "--loglevel=INFO")
"""The flags of the stack's own workers (orchestrator/embedded/commands.py), for stock Celery too."""

QUIET_S = 0.3
"""After a workload's end until the counters are read: the last acknowledgements are part of its cost."""


# -- arithmetic ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of a few measurements."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Raises ValueError when there are no values."""
        ordered = sorted(values)
        if not ordered:
            raise ValueError("no measurement was made")
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    def __format__(self, how: str) -> str:
        return f"{self.median:{how}} ({self.least:{how}}-{self.greatest:{how}})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return theirs / ours, round by round: above 1 ours needs less. Rounds of a pair ran one after the other, under the same load."""
    return Spread.of(b / a for a, b in zip(ours, theirs, strict=True))


# -- what is measured ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counters:
    """What a system has used so far: Redis's own counters, and CPU seconds by role."""

    trips: int
    bytes_in: int
    bytes_out: int
    commands: int
    redis_us: int
    cpu_s: Mapping[str, float]


@dataclass(frozen=True)
class Round:
    """One workload on one system; all but the times is for each node."""

    submitted_s: float
    ended_s: float
    done_s: float
    trips: float
    commands: float
    bytes_in: float
    bytes_out: float
    redis_us: float
    cpu_us: Mapping[str, float]

    @classmethod
    def between(cls, before: Counters, after: Counters, told: Mapping[str, float], nodes: int) -> Round:
        """Return the costs of what happened between two readings; `polls` round trips with `looks` commands were the harness's own."""
        return cls(
            told["submitted_s"],
            told["ended_s"],
            told["done_s"],
            (after.trips - before.trips - told["polls"]) / nodes,
            (after.commands - before.commands - told["looks"]) / nodes,
            (after.bytes_in - before.bytes_in) / nodes,
            (after.bytes_out - before.bytes_out) / nodes,
            (after.redis_us - before.redis_us) / nodes,
            {"producer": 1e6 * told["cpu_s"] / nodes}
            | {role: 1e6 * (after.cpu_s[role] - before.cpu_s[role]) / nodes for role in after.cpu_s},
        )


def read_counters(client: redis.Redis, roles: Mapping[str, Sequence[int]]) -> Counters:
    """Read Redis's counters, and the CPU time of the processes of each role."""
    stats: dict[str, Any] = client.info("stats")  # type: ignore[assignment]
    commands: dict[str, Any] = client.info("commandstats")  # type: ignore[assignment]
    # A script's time contains that of the commands which it called.
    evals = sum(commands.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("evalsha", "eval"))
    cpu = {role: sum(_cpu_s(pid) for pid in pids) for role, pids in roles.items()}
    return Counters(
        stats["total_reads_processed"],
        stats["total_net_input_bytes"],
        stats["total_net_output_bytes"],
        sum(row["calls"] for row in commands.values()),
        evals,
        cpu,
    )


def _cpu_s(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


@dataclass
class CommandCost:
    """One kind of command or script, as sent by clients."""

    per_node: float = 0.0
    us_each: float = 0.0
    inside: float = 0.0
    """Commands that one call ran inside Redis."""


def command_costs(slowlog: Iterable[Sequence[Any]], names: Mapping[str, str], nodes: int) -> dict[str, CommandCost]:
    """Return the commands that clients sent, by name, from a slow log (oldest first) that has every command.

    `names` are those of scripts by SHA-1. A command that a script ran comes before it, without a client's address.
    """
    counts: dict[str, int] = defaultdict(int)
    micros: dict[str, int] = defaultdict(int)
    nested: dict[str, int] = defaultdict(int)
    inside = 0
    for _, _, us, arguments, address, *_ in slowlog:
        if address == "?:0":
            inside += 1
            continue
        name = str(arguments[0]).upper()
        if name == "EVALSHA":
            name = names.get(str(arguments[1]), name)
        counts[name] += 1
        micros[name] += us
        nested[name] += inside
        inside = 0
    return {
        name: CommandCost(count / nodes, micros[name] / count, nested[name] / count)
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
        if name not in ("SLOWLOG", "CONFIG", "INFO")
    }


def script_names() -> dict[str, str]:
    """Return our scripts' names by SHA-1, as Redis's slow log has them."""
    names = [str(path.relative_to(LUA_ROOT).with_suffix("")) for folder in LAYERS for path in (LUA_ROOT / folder).glob("**/*.lua")]
    return {load(name).sha: name.rpartition("/")[2] for name in names}


# -- systems ------------------------------------------------------------------------------------------------------------


@dataclass
class System:
    """A running system: its Redis, its processes by role, and its producer."""

    name: str
    client: redis.Redis
    roles: dict[str, list[int]]
    producer: subprocess.Popen[str]
    rounds: dict[str, list[Round]] = field(default_factory=lambda: defaultdict(list))

    def ask(self, workload: Workload) -> dict[str, float]:
        """Let the producer run a workload, and return what it measured."""
        assert self.producer.stdin is not None
        assert self.producer.stdout is not None
        self.producer.stdin.write(json.dumps({"shape": workload.shape, "nodes": workload.nodes}) + "\n")
        self.producer.stdin.flush()
        line = self.producer.stdout.readline()
        if not line:
            raise RuntimeError(f"the producer of {self.name} ended with code {self.producer.wait()}")
        told: dict[str, float] = json.loads(line)
        return told

    def measure(self, workload: Workload) -> Round:
        """Run a workload and return what it cost."""
        before = read_counters(self.client, self.roles)
        told = self.ask(workload)
        time.sleep(QUIET_S)
        after = read_counters(self.client, self.roles)
        return Round.between(before, after, told, workload.nodes)

    def count(self, workload: Workload, names: Mapping[str, str]) -> dict[str, CommandCost]:
        """Run a workload with every command written down, which is too slow to time the workload itself."""
        self.client.config_set("slowlog-max-len", 1_000_000)
        self.client.config_set("slowlog-log-slower-than", 0)
        self.client.slowlog_reset()
        self.ask(workload)
        time.sleep(QUIET_S)
        self.client.config_set("slowlog-log-slower-than", -1)
        log: Any = self.client.execute_command("SLOWLOG", "GET", -1)
        self.client.slowlog_reset()
        return command_costs(reversed(log), names, workload.nodes)


def children(pid: int) -> list[int]:
    """Return the processes of a worker's pool."""
    return [child.pid for child in psutil.Process(pid).children()]


def start_producer(tether: Tether, module: str, env: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[str]:
    """Start a producer that reads workloads from stdin."""
    del tether  # it ends with its stdin
    return subprocess.Popen(
        [sys.executable, "-m", module], cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
    )


class OurSystem:
    """Headgate as `headgate up` runs it, without the console: recorder, beat and one worker."""

    def __init__(self, home: Path, tasks: Sequence[str] = (), commands: Commands | None = None) -> None:
        self.settings = Settings(home=home, tasks=tuple(tasks))
        self.stack = Stack(self.settings, workers=1, concurrency=SLOTS, console=False, commands=commands)

    def __enter__(self) -> System:
        self.stack.start()
        env = child_environment(os.environ, self.settings.environment(redis_url=self.stack.redis_url))
        with (self.stack.log_dir / "producer.log").open("ab") as log:
            self.producer = start_producer(Tether(), "benchmarks.fan", env, log)
        pids = self.stack.pids()
        roles = {
            "worker main": [pids["w1"]],
            "worker children": children(pids["w1"]),
            "redis": [pids["redis"]],
            "recorder": [pids["recorder"]],
            "system": [pids["system"]],
            "beat": [pids["beat"]],
        }
        return System("headgate", redis.Redis.from_url(self.stack.client_url, decode_responses=True), roles, self.producer)

    def __exit__(self, *_: object) -> None:
        self.producer.terminate()
        self.producer.wait()
        self.stack.stop()


class StockSystem:
    """Stock Celery: one worker, no beat."""

    def __init__(self, directory: Path, include: Sequence[str] = ()) -> None:
        self.directory = directory
        self.include = include
        self.tether = Tether()
        self.redis = RedisServer(directory / "redis", tether=self.tether)

    def __enter__(self) -> System:
        self.redis.start()
        env = child_environment(os.environ, {"PEER_REDIS": self.redis.url, "PYTHONPATH": str(ROOT)})
        argv = (sys.executable, "-m", "celery", "-A", "benchmarks.stock_peer", "worker", "-n", "peer@%h", *WORKER_FLAGS)
        argv += tuple(word for module in self.include for word in ("-I", module))
        client = redis.Redis.from_url(self.redis.client_url, decode_responses=True)
        log = self.directory / "worker.log"
        with log.open("ab") as output:
            self.worker = self.tether.spawn(argv, env=env, output=output)
        deadline = time.monotonic() + 60
        while " ready." not in log.read_text():
            if self.worker.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"stock Celery did not start, see {log}")
            time.sleep(0.02)
        with (self.directory / "producer.log").open("ab") as output:
            self.producer = start_producer(self.tether, "benchmarks.stock_peer", env, output)
        roles = {
            "worker main": [self.worker.pid],
            "worker children": children(self.worker.pid),
            "redis": [self.redis.pid],
        }
        return System("stock", client, roles, self.producer)

    def __exit__(self, *_: object) -> None:
        self.producer.terminate()
        self.producer.wait()
        self.worker.terminate()
        try:
            self.worker.wait(10)
        except subprocess.TimeoutExpired:
            self.worker.kill()
            self.worker.wait()
        self.redis.stop()
        self.tether.close()


# -- results ------------------------------------------------------------------------------------------------------------


def commit() -> str:
    """Return the commit that is measured, with a + when the tree has changes; '' outside a checkout."""
    try:
        words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpus": psutil.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("celery", "kombu", "redis")},
    }


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Return median, least and greatest of each measurement."""
    names = [name for name in Round.__dataclass_fields__ if name != "cpu_us"]
    flat = {name: asdict(Spread.of(getattr(each, name) for each in rounds)) for name in names}
    roles = rounds[0].cpu_us
    return flat | {"cpu_us": {role: asdict(Spread.of(each.cpu_us[role] for each in rounds)) for role in roles}}
