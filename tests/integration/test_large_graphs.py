"""Large graphs: messages stay small, bytes grow with the nodes and no faster, and compiling takes seconds."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest
from running import Running
from test_wire import noops
from wire import Wire, faults

from orchestrator.graph import Graph
from orchestrator.submission import Submission

MESSAGE_BYTES_MAX = 65_536
TIMEOUT_S = 60


def chain(length: int) -> Graph:
    return noops("chain", {f"n{index}": [f"n{index - 1}"] if index else [] for index in range(length)})


def fan(width: int) -> Graph:
    members = [f"m{index}" for index in range(width)]
    return noops("fan", {"source": [], **{member: ["source"] for member in members}, "sink": members})


@pytest.mark.parametrize("shape", [chain, fan])
def test_a_thousand_nodes_run_to_the_end_in_small_messages_whose_bytes_are_linear(shape: Callable[[int], Graph], stack: Running) -> None:
    per_node = {}
    for size in (100, 1000):
        graph = shape(size)
        assert stack.stack.redis is not None
        with Wire(stack.stack.redis.socket) as wire:
            run = stack.client.submit(graph).wait(TIMEOUT_S)
        assert run.outcome == "succeeded"
        assert run.result() is None
        sent = wire.of(run.run_id)
        assert len(sent) == len(graph.nodes)
        assert max(message.bytes for message in sent) <= MESSAGE_BYTES_MAX
        assert faults(Submission.of(graph, stack.client.settings).plan, sent) == []
        per_node[size] = sum(message.bytes for message in sent) / len(sent)
    # Ten times the nodes make ten times the bytes: what one node takes stays the same, but for longer ids and shorter last pieces.
    assert per_node[1000] <= 1.25 * per_node[100], per_node


HUNDRED_THOUSAND = r"""
import json, re, sys, time
from orchestrator.graph import Graph, Limits
from orchestrator.settings import Settings
from orchestrator.submission import Submission

shape, count = sys.argv[1], 100_000
if shape == "chain":
    above = lambda index: [f"n{index - 1}"] if index else []
elif shape == "fan":
    above = lambda index: [] if not index else ["n0"] if index < count - 1 else [f"n{each}" for each in range(1, count - 1)]
else:  # layers of 100, each node after three of the layer before
    above = lambda index: [f"n{index - index % 100 - 100 + (index + step) % 100}" for step in (0, 7, 31)] if index >= 100 else []
document = {"name": "large", "nodes": [{"id": f"n{index}", "task": "synthetic.noop", "after": above(index)} for index in range(count)]}
text = json.dumps(document).encode()
settings = Settings(max_nodes=200_000, max_edges=1_000_000, max_graph_bytes=64 * 2**20)
started = time.process_time()
limits = Limits(nodes=settings.max_nodes, edges=settings.max_edges, bytes_max=settings.max_graph_bytes)
graph = Graph.parse(text, limits)
parsed = time.process_time()
submission = Submission.of(graph, settings)
compiled = time.process_time()
# Not ru_maxrss, which a child inherits from the process that forked it.
peak_kb = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
print(json.dumps({
    "parse_s": parsed - started, "compile_s": compiled - parsed, "fragments": len(submission.plan.fragments),
    "largest": submission.plan.statistics.largest_message.bytes, "nodes": len(graph.nodes),
    "bytes": peak_kb * 1024,
}))
"""


@pytest.mark.parametrize("shape", ["layers", *(pytest.param(shape, marks=pytest.mark.slow) for shape in ("chain", "fan"))])
def test_a_hundred_thousand_nodes_compile_in_seconds_and_bounded_memory_where_the_setting_allows_them(shape: str) -> None:
    program = [sys.executable, "-c", HUNDRED_THOUSAND, shape]
    done = subprocess.run(program, capture_output=True, text=True, timeout=100, preexec_fn=_bound_memory, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout)
    assert measured["nodes"] == 100_000
    assert measured["compile_s"] < 15
    assert measured["largest"] <= MESSAGE_BYTES_MAX * 3 // 4
    assert measured["bytes"] < 1 * 2**30


def _bound_memory() -> None:
    """No more than 3 GiB of address space: a compiler that squares the nodes dies of it."""
    resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
