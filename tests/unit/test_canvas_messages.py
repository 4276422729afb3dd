"""What the canvas writes into a message, and reads from one."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.canvas import Signature, maybe_signature

from orchestrator import canvas
from orchestrator.compiler import FragmentSpec, NodeInfo, Par, Seq
from orchestrator.compiler.fragments import nodes
from tenancy.router import ANONYMOUS

pytestmark = pytest.mark.unit

RUN = "01hzy3k8v5q2m4n6p8r0t2v4x6"
APP = Celery("unit", set_as_current=False)


def written(seq: Seq, *heads: str, priority: int = 5) -> list[Signature]:
    spec = FragmentSpec(seq, {node: NodeInfo(f"task.{node}", priority, 300) for node in nodes(seq)})
    return canvas.signatures(spec, heads, RUN, 2, "acme", APP)


def received(signature: Signature) -> Any:
    """The request of the worker that gets this message."""
    options = json.loads(json.dumps(signature["options"]))
    return SimpleNamespace(chain=options.get("chain"), chord=options.get("chord"))


NESTED: Seq = ("a", Par((("b", Par((("c",), ("d",))), "e"), ("f",)), late=(("g", "h"),)), "i", "j")


def test_a_node_is_named_by_its_id_and_its_headers_and_nothing_else() -> None:
    (signature,) = written(("a",), "a", priority=3)
    assert signature["task"] == "task.a"
    assert (signature["args"], signature["kwargs"], signature["immutable"]) == ((), {}, True)
    assert signature["options"] == {
        "task_id": f"{RUN}.2.a",
        "root_id": RUN,
        "headers": {"tenant": "acme", "headgate": [RUN, 2, "a"]},
        "priority": 3,
        "exchange": "",
        "exchange_type": ANONYMOUS,
        "routing_key": "t.acme.high",
        "soft_time_limit": 300,
        "time_limit": 310,
        "reply_to": "",
    }


def test_a_pinned_node_names_its_pool_and_those_after_it_do_not() -> None:
    spec = FragmentSpec(("a", "b"), {"a": NodeInfo("t", 5, 300, "gpu"), "b": NodeInfo("t", 5, 300)})
    (signature,) = canvas.signatures(spec, ["a"], RUN, 2, "acme", APP)
    assert signature["options"]["headers"] == {"tenant": "acme", "headgate": [RUN, 2, "a"], "pool": "gpu"}
    (following,) = signature["options"]["chain"]
    assert "pool" not in following["options"]["headers"]


@pytest.mark.parametrize(
    ("head", "carried"),
    [
        ("a", {"b", "f"}),
        ("b", {"c", "d"}),
        ("c", {"e"}),
        ("d", {"e"}),
        ("e", {"i"}),
        ("f", {"i"}),
        ("g", {"h"}),
        ("h", {"i"}),
        ("i", {"j"}),
        ("j", set()),
    ],
)
def test_a_message_says_what_celery_publishes_next(head: str, carried: set[str]) -> None:
    (signature,) = written(NESTED, head)
    request = received(signature)
    # Only the last node of a branch counts down the join; before it, Celery's own freezing hands the body on.
    assert canvas.carried(request) == carried


def test_heads_come_in_the_order_of_the_fragment() -> None:
    assert [signature.id for signature in written(NESTED, "h", "a", "f")] == [f"{RUN}.2.{node}" for node in "afh"]


def test_a_head_that_is_not_in_the_fragment_is_refused() -> None:
    with pytest.raises(ValueError, match="not in this fragment: x, y"):
        written(NESTED, "y", "a", "x")


def test_a_message_holds_celerys_own_chains_chords_and_groups() -> None:
    (signature,) = written(("a", Par((("b", Par((("c",), ("d",)))), ("e",))), "f"), "a")
    (fork,) = signature.options["chain"]
    revived = maybe_signature(json.loads(json.dumps(fork)), app=APP)
    assert isinstance(revived, canvas.Fork)
    assert [type(member).__name__ for member in revived.tasks.tasks] == ["_chain", "Signature"]
    assert isinstance(revived.tasks.tasks[0].tasks[1], canvas.Fan)
    assert canvas.is_group_of_nodes(revived.tasks.id)


def test_ordinary_signatures_are_none_of_ours() -> None:
    ordinary = APP.signature("task.a", options={"headers": {"tenant": "acme"}})
    assert not canvas.is_node(ordinary)
    assert not canvas.is_node(None)
    assert canvas.heads_of(ordinary) == frozenset()
    assert not canvas.is_group_of_nodes("6b3a1a3e-6d41-4a39-a9b6-9b6c5a1f7a55")
    assert not canvas.is_group_of_nodes(None)
