"""Our side of the join night: the same join as a graph on the stack of the demo."""

from __future__ import annotations

from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.store import read

from .scene import TENANTS, Scene
from .side import View, worker_of

JOIN = "join"


class OurSide:
    """Headgate, which has its workers already."""

    name = "headgate"

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._run: RunHandle | None = None

    def submit(self, members: int, seconds: float) -> None:
        self._run = self._scene.client.submit(join_of(members, seconds), tenant=TENANTS[0])

    def look(self, now: float) -> View:
        nodes = self._nodes()
        join = next(node for node in nodes if node.id == JOIN)
        running: dict[int, dict[str, float]] = {}
        for node in nodes:
            if node.id != JOIN and node.state == "running" and node.worker:
                running.setdefault(worker_of(node.worker), {})[node.id] = node.started_at or now
        done = sum(node.outcome == "succeeded" for node in nodes if node.id != JOIN)
        return View(done, running, join.started_at if join.state in ("running", "ended") else None)

    def kill(self, worker: int) -> int:
        return self._scene.stack.kill_worker(worker)

    def executions(self) -> int:
        """Return how often members were begun, all attempts counted."""
        return sum(node.attempt for node in self._nodes() if node.id != JOIN)

    def _nodes(self) -> list[read.NodeView]:
        assert self._run is not None, "not submitted"
        return read.get_nodes(self._scene.client.engine, self._run.run_id)


def join_of(members: int, seconds: float) -> Graph:
    """Return `members` nodes that sleep for `seconds` each, and a node after all of them."""
    names = [f"member-{number:02d}" for number in range(1, members + 1)]
    nodes = [{"id": name, "task": "synthetic.sleep", "params": {"seconds": seconds}} for name in names]
    return Graph.parse({"name": f"join_of_{members}", "nodes": [*nodes, {"id": JOIN, "task": "synthetic.noop", "after": names}]})
