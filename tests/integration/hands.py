"""A worker's hands for tests of the record: they do by hand what the gate does, one script after the other."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from ulid import ULID

from orchestrator.embedded import RedisServer
from orchestrator.expansion import items_of, listed
from orchestrator.graph import Graph
from orchestrator.log_key import log_key
from orchestrator.recorder import append_request
from orchestrator.recorder.__main__ import first_start
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.splice import spliced
from orchestrator.state import State
from orchestrator.store.engine import open_engine
from orchestrator.submission import Submission
from tenancy.link import Link
from tenancy.priorities import Priority
from tenancy.transport.queue import Delivery, Queue

POOL = "default"


def layers(width: int, depth: int, estimate: int = 1000) -> Graph:
    """A graph of `depth` layers of `width` nodes; each waits for the whole layer before. The last column is optional."""
    nodes: list[dict[str, Any]] = []
    for layer in range(depth):
        after = [f"n{layer - 1}.{column}" for column in range(width)] if layer else []
        for column in range(width):
            required = column < width - 1 or width == 1
            nodes.append(
                {
                    "id": f"n{layer}.{column}",
                    "task": "synthetic.noop",
                    "after": after,
                    "required": required,
                    "estimate": {"llm": estimate - 100, "compute": 100},
                }
            )
    return Graph.parse({"name": "layers", "nodes": nodes})


def make_recorder(server: RedisServer, settings: Settings) -> Recorder:
    """A recorder in this process, prepared."""
    engine = open_engine(settings.resolved_database_url(), writer=True)
    first_start(engine, 0, log_key(settings))
    recorder = Recorder(Link(server.client_url), engine, settings)
    recorder.prepare()
    return recorder


def drain(recorder: Recorder) -> None:
    """Record all that there is."""
    while recorder.step(None):
        pass


class Hands:
    """Submits runs and works on them, in this process and without Celery."""

    def __init__(self, server: RedisServer, settings: Settings, seed: int = 1) -> None:
        self.link = Link(server.client_url)
        self.settings = settings
        self.state = State(self.link)
        self.queue = Queue(self.link)
        self.random = random.Random(seed)
        self.inc = ""
        self.gen = 1
        """The generation that they work on."""
        self.piece = 2
        """How many nodes they bring at once of those that a node becomes."""

    def enroll(self) -> None:
        self.inc = str(ULID()).lower()
        self.queue.enroll(self.inc, 4000, {"name": "w", "host": "h", "pid": 1, "pools": [POOL], "tasks": ["synthetic.noop"]})

    def request(self, graph: Graph, tenant: str = "default", **fields: Any) -> tuple[str, str]:
        """Append a submission; returns run and request."""
        run = str(ULID()).lower()
        wanted = {"run": run, "gen": 1, "tenant": tenant, "digest": graph.digest, "graph": graph.name, "priority": 5, **fields}
        return wanted["run"], append_request(self.link, "request.submit", wanted, payload=graph.canonical())

    def start(self, run: str, graph: Graph, tenant: str = "default", budget: int | None = None) -> None:
        submission = Submission.of(graph, self.settings)
        reply = self.state.admit(run, self.gen, tenant, submission.want(budget))
        assert reply[0] == "admitted", reply
        down = submission.planned_down(int(reply[1]))
        for rows in submission.rows(down.choices if down else {}):
            self.state.load(run, self.gen, rows, {})
        for fragments in submission.fragments():
            self.state.load(run, self.gen, [], fragments)
        self.publish(run, self.state.launch(run, self.gen, 1 if down else 0, 1, submission.roots()), tenant)

    def publish(self, run: str, nodes: list[str], tenant: str = "default") -> None:
        for node in nodes:
            self.queue.put("{}", tenant, 5, POOL, 1000, once=f"{run}.{self.gen}.{node}", run=f"{run}.{self.gen}")

    def node_of(self, tag: str) -> tuple[str, str]:
        run, _, node = json.loads(str(self.link.client.hget("hg1:meta", tag)))["o"].split(".", 2)
        return run, node

    def begin(self) -> tuple[str, str, int, Delivery] | None:
        """Take a message and claim its node: run, node, attempt, delivery; None when there is nothing to do."""
        while delivery := self.queue.pop(self.inc, POOL, 1):
            run, node = self.node_of(delivery.tag)
            reply = self.state.begin(run, self.gen, node, self.inc, delivery.tag, delivery.number, "w")
            if reply[0] == "run" and reply[6:7] == ["expand"]:
                self.expand(run, node, int(reply[1]), json.loads(reply[2]), reply[3], source=reply[7])
            elif reply[0] == "run":
                return run, node, int(reply[1]), delivery
            self.queue.ack(self.inc, delivery.tag, delivery.number)
        return None

    def expand(
        self, run: str, node: str, attempt: int, spec: dict[str, Any], verdict: str = "", most: int = 10_000, source: str = ""
    ) -> list[Any]:
        """Bring what a map over a list becomes, or the graph that is `source`, at most so many pieces of it; returns the last answer."""
        if source:
            depth, graph = int(spec.get("depth", 0)) + 1, Graph.parse(json.loads(source))
            grown = spliced(node, graph, self.settings, Priority.NORMAL, required=True, strict=False, depth=depth, source=source)
        else:
            grown = items_of(node, spec, listed(node, spec["map"]["list"], spec["map"]["most"], {}), lambda _, text: text, verdict)
        reply: list[Any] = []
        for first in range(0, min(len(grown.rows), most * self.piece), self.piece):
            piece = grown.rows[first : first + self.piece]
            reply = self.state.expand(run, self.gen, node, attempt, self.inc, grown.told(piece), first, piece, grown.carried(piece))
            if reply[0] in ("fenced", "clash"):
                return reply
            self.publish(run, reply[2:])
        if reply[0] != "more":
            assert self.state.settle(run, self.gen, node, attempt, "", "signal") in ("settled", "same")
        return reply

    def finish(self, run: str, node: str, attempt: int, delivery: Delivery, outcome: str = "succeeded", tenant: str = "default") -> None:
        cats = f"compute={self.random.randint(1, 50)},llm={self.random.randint(1, 500)}"
        error = "" if outcome == "succeeded" else '{"type": "Boom"}'
        reply = self.state.finish(
            run, self.gen, node, attempt, self.inc, outcome, '"x"', error, cats, 0 if self.random.random() < 0.5 else -1
        )
        if reply[0] != "fenced":
            assert self.state.settle(run, self.gen, node, attempt, cats, "signal") in ("settled", "same", "waste")
        if reply[0] == "done":
            self.publish(run, reply[2:], tenant)
            unwritten = 1
            while unwritten == 1:
                unwritten, *due = self.state.cascade(run, self.gen)
                self.publish(run, due, tenant)
            if unwritten:
                left = [
                    node for node, state in self.link.read("HGETALL", f"hg1:state:{run}.{self.gen}").items() if state in ("pending", "due")
                ]
                self.state.revoke(run, self.gen, "cancelled", "stopped", left)
        if reply[0] != "retry":
            self.queue.ack(self.inc, delivery.tag, delivery.number)

    def work(self, most: int = 10_000, fail: float = 0.0, stop: Callable[[], bool] = lambda: False) -> int:
        """Run at most `most` nodes; return how many began."""
        done = 0
        while done < most and not stop() and (claimed := self.begin()):
            self.finish(*claimed, outcome="failed" if self.random.random() < fail else "succeeded")
            done += 1
        return done

    def sweep(self, run: str, tenant: str = "default") -> None:
        """Publish what is due and has no message, as the sweeper does."""
        due = [str(node) for node in self.link.read("ZRANGE", f"hg1:due:{run}.{self.gen}", 0, -1)]
        for first in range(0, len(due), 200):
            self.publish(run, self.state.stale(run, self.gen, 0, due[first : first + 200]), tenant)


class Starter:
    """As much of a kernel as starting a run from the record needs; messages are put by hand."""

    def __init__(self, hands: Hands) -> None:
        from orchestrator.launcher import Launcher

        self.link, self.state, self.settings = hands.link, hands.state, hands.settings
        self.launcher = Launcher(self)  # type: ignore[arg-type]
        self.launcher.publish = lambda run, _, tenant, due: hands.publish(run, due, tenant)  # type: ignore[method-assign,assignment,return-value]

    def finish_cascade(self, run: str, generation: int) -> set[str]:
        from orchestrator.kernel import Kernel as Real

        return Real.finish_cascade(self, run, generation)  # type: ignore[arg-type]
