"""Where graphs are drawn: every node in one box, edges forward, boxes apart, lanes alike folded, thousands of nodes soon."""

from __future__ import annotations

import cProfile
import json
import pstats
import random
from pathlib import Path
from typing import Any

import pytest

from orchestrator.drawing.layout import FOLD_FROM, HEIGHT, WIDTH, fold, lay_out
from orchestrator.redaction import HIDDEN, redacted
from orchestrator.store.position import Position
from orchestrator.store.read import EventView
from orchestrator.web.run_view import attempts, columns, drawing, error_of, event_json, result_of, spec_parents

WORKFLOWS = sorted((Path(__file__).parents[1] / "workflows").glob("*.json"))


def random_graph(seed: int) -> dict[str, tuple[str, ...]]:
    chance = random.Random(seed)
    return {
        f"n{at}": tuple({f"n{chance.randrange(at)}" for _ in range(chance.randint(0, 3))} if at else ())
        for at in range(chance.randint(1, 40))
    }


@pytest.mark.parametrize("seed", range(60))
def test_every_node_is_in_one_box_every_edge_leads_forward_and_no_two_boxes_touch(seed: int) -> None:
    parents = random_graph(seed)
    laid = lay_out(parents, dict.fromkeys(parents, "task"))
    assert sorted(node for box in laid.boxes for node in box.members) == sorted(parents)
    number = {node: at for at, box in enumerate(laid.boxes) for node in box.members}
    drawn = {(edge.source, edge.target) for edge in laid.edges}
    assert drawn == {(number[parent], number[node]) for node, above in parents.items() for parent in above}
    for edge in laid.edges:
        assert laid.boxes[edge.source].x + WIDTH < laid.boxes[edge.target].x
    for at, box in enumerate(laid.boxes):
        assert 0 <= box.x <= laid.width - WIDTH + 0.01
        assert 0 <= box.y <= laid.height - HEIGHT + 0.01
        for other in laid.boxes[:at]:
            assert abs(box.x - other.x) >= WIDTH or abs(box.y - other.y) >= HEIGHT


def test_lanes_alike_are_one_lane_of_boxes_and_those_that_differ_are_not() -> None:
    count = FOLD_FROM + 1
    parents: dict[str, tuple[str, ...]] = {"root": ()}
    for at in range(count):
        parents |= {f"a{at}": ("root",), f"b{at}": (f"a{at}",)}
    parents |= {"odd": ("root",), "join": (*(f"b{at}" for at in range(count)), "odd")}
    alike = {node: node[0] for node in parents}
    groups = fold(parents, alike)
    assert [f"a{at}" for at in range(count)] in groups
    assert [f"b{at}" for at in range(count)] in groups
    assert ["odd"] in groups
    few = {node: above for node, above in parents.items() if node not in {"a6", "b6", "a5", "b5"}}
    few["join"] = tuple(parent for parent in few["join"] if parent in few)
    assert all(len(group) == 1 for group in fold(few, alike))


def test_the_work_of_drawing_grows_as_the_graph_does() -> None:
    def layers(width: int) -> list[dict[str, Any]]:
        return [{"id": "root", "task": "t"}] + [
            {
                "id": f"n{layer}.{at}",
                "task": "t",
                "after": [f"n{layer - 1}.{at}", f"n{layer - 1}.{(at * 7 + 3) % width}"] if layer else ["root"],
            }
            for layer in range(10)
            for at in range(width)
        ]

    def calls(nodes: list[dict[str, Any]]) -> int:
        profile = cProfile.Profile()
        assert len(profile.runcall(drawing, nodes)["ids"]) == len(nodes)
        return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]

    # 10.08 times as many nodes; calls, because seconds depend on what else the machine does.
    assert calls(layers(999)) / calls(layers(99)) < 13


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_real_workflows_are_drawn_with_every_task(path: Path) -> None:
    told = json.loads(path.read_text())
    tasks = told["nodes"]
    after = {task["id"]: [source for source, target in told["edges"] if target == task["id"]] for task in tasks}
    drawn = drawing([{"id": task["id"], "task": task["kind"], "after": after[task["id"]]} for task in tasks])
    assert sorted(at for _, _, members in drawn["boxes"] for at in members) == list(range(len(tasks)))


def test_parents_of_a_recorded_graph_come_from_params_conditions_maps_and_after() -> None:
    nodes = [
        {"id": "a"},
        {"id": "b", "params": {"x": [{"y": {"$ref": "a"}}]}},
        {"id": "c", "when": {"ref": "a", "equals": 1}, "after": ["b", "a"]},
        {"id": "d", "map": {"$ref": "c"}},
        {"id": "e", "after": ["gone"]},
    ]
    assert spec_parents(nodes) == {"a": (), "b": ("a",), "c": ("a", "b"), "d": ("c",), "e": ()}


def test_states_are_columns_in_the_graphs_order_and_items_come_after_it() -> None:
    def row(node: str, **said: object) -> dict[str, object]:
        names = (
            "state",
            "outcome",
            "reason",
            "attempt",
            "worker",
            "verdict",
            "queued_at",
            "started_at",
            "finished_at",
            "adopted",
            "decision",
        )
        return {"node_id": node, **dict.fromkeys(names), "cost_micros": 3, **said}

    rows = [
        row("m.10", state="due"),
        row("m.9", state="running", worker="w2", attempt=2, started_at=5),
        row("b", state="ended", outcome="skipped", reason="not taken: a is 2", worker="w1"),
        row("a", state="ended", outcome="skipped", reason="it failed", adopted=1),
    ]
    found = columns(["a", "b", "m"], rows)
    assert found["more"] == ["m.9", "m.10"]
    assert found["states"] == "knprq"
    assert found["workers"] == ["w1", "w2"]
    assert found["worker"] == [-1, 0, -1, 1, -1]
    assert found["started_at"] == [None, None, None, 5, None]
    assert found["adopted"] == [0]


def test_secrets_are_hidden_wherever_they_stand_and_nothing_else_is() -> None:
    given = {
        "password": "x1",
        "api_key": "x2",
        "nested": [{"Authorization": "x3", "auth_token": "x4", "url": "postgresql://ann:x5@db/name", "DB_PASSWORD": "x6"}],
        "tokens": 600,
        "author": "ann",
        "keyword": "k",
        "secret": None,
    }
    shown = redacted(given)
    assert not any(f"x{at}" in json.dumps(shown) for at in range(1, 7))
    assert shown["nested"][0]["url"] == f"postgresql://ann:{HIDDEN}@db/name"
    assert (shown["tokens"], shown["author"], shown["keyword"], shown["secret"]) == (600, "ann", "k", None)
    deep: dict[str, object] = {}
    for _ in range(200):
        deep = {"d": deep}
    assert redacted(deep)
    event = EventView(Position(1, 1), 1.0, "node.ended", {"result": '{"token":"x7"}', "error": "", "lines": "[]"})
    assert "x7" not in json.dumps(event_json(event))
    assert "x8" not in json.dumps(result_of('{"secret_key":"x8"}'))
    assert "x9" not in json.dumps(error_of('{"type":"E","message":"cannot reach redis://me:x9@host/0"}'))


def test_attempts_are_told_by_their_events() -> None:
    events = [
        {"t": "node.began", "attempt": 1, "at": 1000, "worker": "w1"},
        {"t": "node.lost", "attempt": 1, "at": 2000},
        {"t": "node.began", "attempt": 2, "at": 3000, "worker": "w2"},
        {"t": "node.retry", "attempt": 2, "at": 4000, "outcome": "failed", "error": '{"type": "Boom", "message": "no"}', "delay_ms": 500},
        {"t": "node.began", "attempt": 3, "at": 5000, "worker": "w2"},
    ]
    told = attempts(events)
    assert [(each["attempt"], each["outcome"], each["ended"]) for each in told] == [(1, "lost", 2.0), (2, "failed", 4.0), (3, None, None)]
    assert told[1]["error"] == {"type": "Boom", "message": "no"}
    assert told[1]["delay_s"] == 0.5
