"""The canvas on a real worker: every edge that a plan calls carried is travelled by Celery's own fields, and nothing runs twice."""

from __future__ import annotations

import base64
import importlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import redis
from celery.signals import before_task_publish
from kombu import transport as transports
from kombu.transport import TRANSPORT_ALIASES

from orchestrator import canvas
from orchestrator.compiler import NodeInfo, Plan, compile_plan, decode_fragment, encode_fragment
from orchestrator.compiler.fragments import edges
from orchestrator.compiler.measure import DEPTH_MAX
from orchestrator.embedded import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

HERE = Path(__file__).parent
TASK = "test.noop"
TENANT = "acme"
UNBOUNDED = {"nodes_max": 10**6, "bytes_max": 10**9}
Graph = dict[str, list[str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def canvas_app(server: RedisServer) -> Iterator[ModuleType]:
    """The test app, as the producer has it; it publishes by the stock transport, whatever this process has installed before."""
    aliases, cached = dict(TRANSPORT_ALIASES), dict(transports._transport_cache)
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "redis+socket"), "kombu.transport.redis:Transport"))
    transports._transport_cache.clear()
    os.environ["CANVAS_TEST_SOCKET"] = str(server.socket)
    sys.path.insert(0, str(HERE))
    module = importlib.import_module("canvas_app")
    yield module
    # Signals are the process's: without this every later publication would look for a Redis that is gone.
    before_task_publish.disconnect(module.record)
    sys.path.remove(str(HERE))
    del os.environ["CANVAS_TEST_SOCKET"], sys.modules["canvas_app"]
    TRANSPORT_ALIASES.update(aliases)
    transports._transport_cache.clear()
    transports._transport_cache.update(cached)


@pytest.fixture(scope="module")
def worker(canvas_app: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[psutil.Popen]:
    """One real worker with two processes."""
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    paths = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "canvas_app",
        "worker",
        "-c",
        "2",
        "--without-gossip",
        "--without-mingle",
        "-l",
        "INFO",
    ]
    with log.open("wb") as out:
        process = psutil.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=out, stderr=out, cwd=log.parent)
        deadline = time.monotonic() + 15
        while " ready." not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process
        process.terminate()
        try:
            process.wait(20)
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            process.kill()
            process.wait(5)


def run_id(number: int = 0) -> str:
    return f"{number:026d}"


class Run:
    """One run of a graph on the worker."""

    count = 0

    def __init__(self, app: ModuleType, graph: Graph, pools: Mapping[str, str] | None = None, **bounds: int) -> None:
        Run.count += 1
        self.pools = dict(pools or {})
        self.app, self.graph, self.id = app, graph, run_id(Run.count)
        self.plan: Plan = compile_plan(
            graph, **{**UNBOUNDED, **bounds}, weight=lambda node: canvas.signature_bytes(node, TASK, TENANT, self.pools.get(node))
        )
        info = {node: NodeInfo(TASK, 5, 30, self.pools.get(node)) for node in graph}
        self.fragments = [encode_fragment(fragment, info) for fragment in self.plan.fragments]
        document = {
            "children": self.plan.children,
            "waits": {node: len(parents) for node, parents in self.plan.parents.items()},
            "fragment_of": self.plan.fragment_of,
            "fragments": self.fragments,
        }
        app.state.set(f"plan:{self.id}", json.dumps(document))

    def start(self) -> Run:
        self.app.launch(self.id, {node for node, parents in self.plan.parents.items() if not parents})
        return self

    def start_behind(self, done: set[str]) -> Run:
        """Start as after a crash: `done` have ended, and nothing that follows them was published."""
        due = {child for node in sorted(done) for child in self.app.finish(self.id, node)} - done
        self.app.launch(self.id, due)
        return self

    def wait(self, count: int | None = None) -> list[dict]:
        wanted = len(self.graph) if count is None else count
        deadline = time.monotonic() + 15
        while self.app.state.llen(f"log:{self.id}") < wanted:
            assert time.monotonic() < deadline, f"{self.app.state.llen(f'log:{self.id}')} of {wanted}: {self.plan.fragments}"
            time.sleep(0.005)
        return self.log()

    def log(self) -> list[dict]:
        return [json.loads(line) for line in self.app.state.lrange(f"log:{self.id}", 0, -1)]

    def wire(self) -> list[dict]:
        return [json.loads(line) for line in self.app.state.lrange(f"wire:{self.id}", 0, -1)]

    def check(self, done: frozenset[str] | set[str] = frozenset()) -> None:
        """Wait for the end; each node ran once, after its parents, and each carried edge was in its parent's message."""
        log = {entry["node"]: entry for entry in self.wait(len(self.graph) - len(done))}
        assert Counter(entry["node"] for entry in self.log()) == Counter(set(self.graph) - done)
        for node, parents in self.graph.items():
            for parent in set(parents) - done:
                if node not in done:
                    assert log[parent]["ended"] <= log[node]["started"], (parent, node)
        for fragment in self.plan.fragments:
            for parent, child in edges(fragment.seq):
                if parent in log:
                    assert child in log[parent]["carried"], (parent, child)
        for entry in log.values():
            assert entry["id"] == f"{self.id}.1.{entry['node']}"
            assert entry["args"] == [[], {}]
            assert entry["root"] == self.id
            assert entry["timelimit"] == [40, 30]
            assert entry["tenant"] == TENANT
            assert entry["priority"] == 5
            assert entry["pool"] == self.pools.get(entry["node"])
            assert entry["queues"] == [self.app.QUEUE]
        self.check_wire()

    def check_wire(self) -> None:
        """Each message carries what the plan says, each node once, in no more bytes than the plan says."""
        planned = {message.node: message for message in self.plan.messages()}
        for message in self.wire():
            assert (message["exchange"], message["routing_key"]) == ("", self.app.QUEUE)
            mentioned = Counter(ids(json.loads(message["body"])))
            assert set(mentioned.values()) <= {1}, message["node"]
            assert len(mentioned) + 1 == planned[message["node"]].nodes
            assert message["bytes"] <= planned[message["node"]].bytes


def ids(document: object) -> Iterator[str]:
    """Yield the node of every signature inside a message."""
    if isinstance(document, dict):
        if "headgate" in document:
            yield document["headgate"][2]
        for value in document.values():
            yield from ids(value)
    elif isinstance(document, list):
        for value in document:
            yield from ids(value)


def fan(width: int, source: str = "s", sink: str = "t") -> Graph:
    middle = [f"m{index}" for index in range(width)]
    return {source: [], **{node: [source] for node in middle}, sink: middle}


def nested(depth: int) -> Graph:
    graph: Graph = {}
    for level in range(depth):
        graph[f"f{level}"] = [f"f{level - 1}"] if level else []
        graph[f"x{level}"] = [f"f{level}"]
    for level in reversed(range(depth)):
        graph[f"j{level}"] = [f"x{level}", f"j{level + 1}" if level < depth - 1 else f"f{level}"]
    return graph


def comb(teeth: int) -> Graph:
    graph: Graph = {}
    for level in range(teeth):
        graph[f"f{level}"] = [f"f{level - 1}"] if level else []
        graph[f"x{level}"] = [f"f{level}"]
    return {**graph, "end": [f"x{level}" for level in range(teeth)]}


SHAPES: dict[str, Graph] = {
    "pipeline": {"a": [], "b": ["a"], "c": ["b"], "d": ["c"]},
    "fork and join": {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]},
    "tail behind a join": {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["d"], "f": ["e"]},
    "branches of several nodes": {"a": [], "b": ["a"], "b2": ["b"], "b3": ["b2"], "c": ["a"], "d": ["b3", "c"], "e": ["d"]},
    "fork in a branch": {
        "a": [],
        "b": ["a"],
        "b1": ["b"],
        "b2": ["b"],
        "bj": ["b1", "b2"],
        "bt": ["bj"],
        "c": ["a"],
        "d": ["bt", "c"],
        "e": ["d"],
    },
    "branch that begins with a fork": {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "x": ["a"], "j": ["d", "x"], "k": ["j"]},
    "branch that ends in a fork": {"a": [], "b": ["a"], "c": ["b"], "d": ["b"], "x": ["a"], "j": ["c", "d", "x"], "k": ["j"]},
    "fork in a fork in a fork": nested(3),
    "as deep as a fragment may be": nested(DEPTH_MAX),
    "deeper than a fragment may be": nested(DEPTH_MAX + 9),
    "a comb with one end": comb(DEPTH_MAX + 9),
    "chain of forks": {
        **fan(3, "s", "t"),
        **{f"n{index}": ["t"] for index in range(4)},
        "u": [f"n{index}" for index in range(4)],
        "v": ["u"],
    },
    "fork first": {"a": [], "b": [], "c": ["a", "b"], "d": ["c"]},
    "fork first, with different parents": {"p": [], "q": [], "r": ["p", "q"], "u": ["q"], "x": ["p"], "j": ["r", "u"], "k": ["j"]},
    "fork without a join": {"a": [], "b": ["a"], "b2": ["b"], "c": ["a"], "d": ["a"]},
    "tree": {str(node): [str((node - 1) // 3)] if node else [] for node in range(40)},
    "tree upside down": {str(node): [str(child) for child in (2 * node + 1, 2 * node + 2) if child < 31] for node in range(31)},
    "the shape of N": {"a": [], "b": [], "c": ["a"], "d": ["a", "b"]},
    "every node of one layer before every node of the next": {
        f"{layer}.{place}": [f"{layer - 1}.{other}" for other in range(3)] if layer else [] for layer in range(4) for place in range(3)
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_node_of_every_shape_runs_once_and_after_its_parents(shape: str, canvas_app: ModuleType, worker: psutil.Popen) -> None:
    Run(canvas_app, SHAPES[shape]).start().check()


@pytest.mark.parametrize(
    "shape", ["pipeline", "fork in a branch", "branch that ends in a fork", "chain of forks", "tree", "tree upside down"]
)
def test_pools_travel_with_the_nodes_that_are_pinned_and_with_no_others(shape: str, canvas_app: ModuleType, worker: psutil.Popen) -> None:
    for pinned in (list(SHAPES[shape]), list(SHAPES[shape])[::2]):
        Run(canvas_app, SHAPES[shape], pools=dict.fromkeys(pinned, "p" * 63)).start().check()


@pytest.mark.parametrize(
    "shape", ["pipeline", "branches of several nodes", "fork in a branch", "branch that ends in a fork", "chain of forks", "tree"]
)
def test_cut_fragments_run_like_whole_ones(shape: str, canvas_app: ModuleType, worker: psutil.Popen) -> None:
    for nodes_max in (1, 2, 3, 5):
        Run(canvas_app, SHAPES[shape], nodes_max=nodes_max).start().check()


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if "deep" not in shape])
def test_any_node_can_be_the_first_after_a_crash(shape: str, canvas_app: ModuleType, worker: psutil.Popen) -> None:
    random_ = random.Random(shape)
    graph = SHAPES[shape]
    for _ in range(4):
        done: set[str] = set()
        while len(done) < len(graph) - 1 and (not done or random_.random() < 0.8):
            done.add(random_.choice([node for node in sorted(graph) if node not in done and set(graph[node]) <= done]))
        Run(canvas_app, graph).start_behind(done).check(done) if _has_frontier(graph, done) else None


def _has_frontier(graph: Graph, done: set[str]) -> bool:
    """Whether every root is done, so that only `finish` says what is due."""
    return all(graph[node] or node in done for node in graph)


def random_graph(seed: int) -> Graph:
    """A fork-rich series-parallel graph, with some edges across."""
    random_ = random.Random(seed)
    pairs, count = [(0, 1)], 2
    for _ in range(random_.randrange(5, 45)):
        index = random_.randrange(len(pairs))
        left, right = pairs[index]
        if random_.random() < 0.5:
            pairs.append((left, right))
        else:
            pairs[index] = (left, count)
            pairs.append((count, right))
            count += 1
    graph: Graph = {str(node): [] for node in range(count)}
    for left, right in pairs:
        if str(left) not in graph[str(right)]:
            graph[str(right)].append(str(left))
    ordered = _topological(graph)
    for _ in range(random_.choice([0, 0, 2, 6])):
        left, right = sorted(random_.sample(range(count), 2)) if count > 1 else (0, 0)
        if left != right and ordered[left] not in graph[ordered[right]]:
            graph[ordered[right]].append(ordered[left])
    return graph


def _topological(graph: Graph) -> list[str]:
    order: list[str] = []
    while len(order) < len(graph):
        order.extend(node for node in graph if node not in order and set(graph[node]) <= set(order))
    return order


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_run_in_their_order(seed: int, canvas_app: ModuleType, worker: psutil.Popen) -> None:
    random_ = random.Random(seed)
    Run(canvas_app, random_graph(seed), nodes_max=random_.choice([4, 12, 10**6])).start().check()


@pytest.mark.parametrize("name", ["montage-chameleon-2mass-005d-001", "epigenomics-chameleon-hep-1seq-100k-001"])
def test_a_real_workflow_runs_in_its_order(name: str, canvas_app: ModuleType, worker: psutil.Popen) -> None:
    document = json.loads((HERE.parent / "workflows" / f"{name}.json").read_text())
    graph: Graph = {node["id"]: [] for node in document["nodes"]}
    for parent, child in document["edges"]:
        graph[child].append(parent)
    Run(canvas_app, graph, nodes_max=40, bytes_max=32_768).start().check()


# -- the wire, without a worker ---------------------------------------------------------------------


def published(app: ModuleType, server: RedisServer, graph: Graph, tenant: str = "wire", **bounds: int) -> dict[str, tuple[dict, int]]:
    """Publish the heads of every fragment as roots would be, and return (message, raw bytes) of each node from the broker's lists."""
    Run.count += 1
    plan = compile_plan(graph, **{**UNBOUNDED, **bounds}, weight=lambda node: canvas.signature_bytes(node, TASK, tenant))
    info = dict.fromkeys(graph, (TASK, 5, 300))
    with redis.Redis(unix_socket_path=str(server.socket), decode_responses=True) as client:
        for fragment in plan.fragments:
            spec = decode_fragment(encode_fragment(fragment, info))
            canvas.publish(app.app, canvas.signatures(spec, fragment.heads, run_id(Run.count), 1, tenant, app.app))
        raw = [payload for key in client.keys(f"t.{tenant}.normal*") for payload in client.lrange(key, 0, -1)]
        client.delete(*client.keys(f"t.{tenant}.normal*"))
    found: dict[str, tuple[dict, int]] = {}
    for payload in raw:
        message = json.loads(payload)
        message["decoded"] = json.loads(base64.b64decode(message["body"]))
        found[message["headers"]["headgate"][2]] = (message, len(payload))
    return found


def test_a_pipeline_is_one_message_with_the_rest_as_its_chain(canvas_app: ModuleType, server: RedisServer) -> None:
    messages = published(canvas_app, server, SHAPES["pipeline"])
    assert list(messages) == ["a"]
    args, kwargs, fields = messages["a"][0]["decoded"]
    assert (args, kwargs, fields["chord"]) == ([], {}, None)
    assert [step["options"]["headers"]["headgate"][2] for step in fields["chain"]] == ["d", "c", "b"]


def test_a_fork_is_a_chord_in_the_chain_of_the_node_before_it(canvas_app: ModuleType, server: RedisServer) -> None:
    messages = published(canvas_app, server, SHAPES["tail behind a join"])
    assert list(messages) == ["a"]
    chain = messages["a"][0]["decoded"][2]["chain"]
    assert [step.get("subtask_type") for step in chain] == [None, None, "fork"]
    assert canvas.heads_of(chain[-1]) == {"b", "c"}
    assert canvas.heads_of(chain[-1]["kwargs"]["body"]) == {"d"}


def test_a_leading_fork_is_its_header_with_the_join_as_chord(canvas_app: ModuleType, server: RedisServer) -> None:
    messages = published(canvas_app, server, SHAPES["fork first"])
    assert set(messages) == {"a", "b"}
    for message, _ in messages.values():
        fields = message["decoded"][2]
        assert not fields["chain"]
        assert canvas.heads_of(fields["chord"]) == {"c"}
        assert canvas.heads_of(fields["chord"]["options"]["chain"][-1]) == {"d"}


def test_no_message_passes_64_kib_and_all_of_them_grow_with_the_nodes(canvas_app: ModuleType, server: RedisServer) -> None:
    """Chains, and fans there and back, at the bounds of the settings; the messages here are what the platform publishes."""
    bounds = {"nodes_max": 40, "bytes_max": 16_384}
    sizes: dict[tuple[str, int], int] = {}
    for count in (250, 500, 1000):
        chain: Graph = {f"n{index}": [f"n{index - 1}"] if index else [] for index in range(count)}
        for name, graph in (("chain", chain), ("fan", fan(count))):
            raw = [size for _, size in published(canvas_app, server, graph, **bounds).values()]
            assert max(raw) < 65_536
            sizes[name, count] = sum(raw)
    for name in ("chain", "fan"):
        assert sizes[name, 1000] / sizes[name, 250] == pytest.approx(4, rel=0.1)


def test_another_tenant_costs_no_queue_and_no_declaration(canvas_app: ModuleType, server: RedisServer) -> None:
    app = canvas_app.app
    with redis.Redis(unix_socket_path=str(server.socket), decode_responses=True) as client:
        published(canvas_app, server, SHAPES["pipeline"])
        before = set(app.amqp.queues), set(client.keys("_kombu*"))
        for number in range(20):
            published(canvas_app, server, SHAPES["tail behind a join"], tenant=f"tenant-{number}")
        assert (set(app.amqp.queues), set(client.keys("_kombu*"))) == before


def test_a_thousand_heads_are_one_pipeline(canvas_app: ModuleType, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[int] = []
    execute = redis.client.Pipeline.execute

    def spy(pipeline: redis.client.Pipeline, *args: object, **kwargs: object) -> object:
        executed.append(len(pipeline))
        return execute(pipeline, *args, **kwargs)

    graph = fan(1000)
    plan = compile_plan(graph, nodes_max=40, bytes_max=16_384, weight=len)
    fragment = plan.fragments[plan.fragment_of["t"]]
    spec = decode_fragment(encode_fragment(fragment, dict.fromkeys(graph, (TASK, 5, 300))))
    made = canvas.signatures(spec, fragment.heads, run_id(999), 1, "batch", canvas_app.app)
    monkeypatch.setattr(redis.client.Pipeline, "execute", spy)
    assert canvas.publish(canvas_app.app, made) == 1000
    assert executed == [1000]
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        assert sum(client.llen(key) for key in client.keys("t.batch.normal*")) == 1000
        client.delete(*client.keys("t.batch.normal*"))
