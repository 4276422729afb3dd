"""A Celery app for the tests of the canvas: stock transport, and the smallest state that can stand in for ours.

`finish` counts every child of a node once for each parent; what became due is left to Celery's chain and chord fields where they
carry it, and published otherwise. Everything is written down in Redis for the test to read.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import redis
from celery import Celery, Task
from celery.backends.redis import RedisBackend
from celery.canvas import maybe_signature
from celery.signals import before_task_publish
from kombu import Queue

from orchestrator import canvas
from orchestrator.compiler import decode_fragment

SOCKET = os.environ["CANVAS_TEST_SOCKET"]
QUEUE = "t.acme.normal"
TENANT = "acme"
GENERATION = 1
state = redis.Redis(unix_socket_path=SOCKET, db=1, decode_responses=True)


class CountingBackend(RedisBackend):
    def apply_chord(self, header_result_args: Any, body: Any, *args: Any, **kwargs: Any) -> None:
        assert canvas.is_node(body)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        assert canvas.is_group_of_nodes(group_id)

    def on_chord_part_return(self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any) -> None:
        body = maybe_signature(request.chord, app=self.app)
        if request.due & canvas.heads_of(body):
            canvas.publish(self.app, [body])


class NodeTask(Task):
    abstract = True
    ignore_result = True

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        run, _generation, node = self.request.headgate
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        time.sleep(0.002)
        entry = {
            "node": node,
            "started": started,
            "carried": sorted(canvas.carried(self.request)),
            "args": [args, kwargs],
            "root": self.request.root_id,
            "priority": self.request.delivery_info["priority"],
            "timelimit": self.request.timelimit,
            "tenant": self.request.tenant,
            "pool": getattr(self.request, "pool", None),
            "id": self.request.id,
            "queues": sorted(self.app.amqp.queues),
            "ended": time.clock_gettime(time.CLOCK_MONOTONIC),
        }
        state.rpush(f"log:{run}", json.dumps(entry))
        due = finish(run, node)
        carried = canvas.carried(self.request)
        self.request.due = due & carried
        launch(run, due - carried)
        return "done"


def finish(run: str, node: str) -> set[str]:
    plan = json.loads(state.get(f"plan:{run}"))
    due = set()
    for child in plan["children"][node]:
        state.sadd(f"done:{run}:{child}", node)
        complete = state.scard(f"done:{run}:{child}") == plan["waits"][child]
        if complete and state.set(f"due:{run}:{child}", node, nx=True):
            due.add(child)
    return due


def launch(run: str, nodes: set[str]) -> None:
    plan = json.loads(state.get(f"plan:{run}"))
    members: dict[int, list[str]] = {}
    for node in sorted(nodes):
        members.setdefault(plan["fragment_of"][node], []).append(node)
    for index, heads in members.items():
        spec = decode_fragment(plan["fragments"][index])
        canvas.publish(app, canvas.signatures(spec, heads, run, GENERATION, TENANT, app))
    if nodes:
        state.rpush(f"launched:{run}", *sorted(nodes))


app = Celery("canvas_app", task_cls=NodeTask)
app.conf.update(
    broker_url=f"redis+socket://{SOCKET}?virtual_host=0",
    result_backend=f"canvas_app.CountingBackend+socket://{SOCKET}?virtual_host=2",
    broker_connection_retry_on_startup=True,
    task_queues=[Queue(QUEUE)],
    task_default_queue=QUEUE,
    task_create_missing_queues=False,
    worker_prefetch_multiplier=4,
    worker_hijack_root_logger=False,
)


@app.task(name="test.noop")
def noop() -> None: ...


@before_task_publish.connect
def record(sender: Any = None, headers: Any = None, body: Any = None, routing_key: Any = None, exchange: Any = None, **_: Any) -> None:
    if "headgate" in headers:
        run, _generation, node = headers["headgate"]
        wire = json.dumps(body)
        entry = {"node": node, "bytes": len(wire), "exchange": exchange, "routing_key": routing_key, "body": wire}
        state.rpush(f"wire:{run}", json.dumps(entry))
