"""What becomes of a join does not depend on the order in which its parents end."""

from __future__ import annotations

import json
from itertools import permutations, product

import pytest

from orchestrator.model import Model, NodeRow

HOWS = ("succeeded", "bad", "passed", "untaken")


def rows(rule: str | int, count: int, how: tuple[str, ...]) -> list[NodeRow]:
    """A root that conditions ask about, parents that will end as `how` says, a join of them by `rule`, and what is behind it."""
    common = {"amounts": {"": "0"}, "attempts": 1, "required": True, "next": []}
    parents = [f"p{i}" for i in range(count)]
    ruled = {**common, "joins": [["join", rule]]}
    found = [("root", 0, json.dumps({**common, "joins": [[parent, "all_succeeded"] for parent in parents]}))]
    for parent, end in zip(parents, how, strict=True):
        when = {"ref": "root", "texts": ["2"] if end == "untaken" else ["1"], "why": "root is not 2"}
        found.append((parent, 1, json.dumps({**ruled, "required": end != "passed", "when": when})))
    own = {"least": rule} if isinstance(rule, int) else {}
    found.append(("join", count, json.dumps({**common, **own, "joins": [["tail", "all_succeeded"]]})))
    found.append(("tail", 1, json.dumps(common)))
    return [(id_, wait, ctl, "{}", "", "0") for id_, wait, ctl in found]


def play(rule: str | int, how: tuple[str, ...], order: tuple[int, ...]) -> tuple[str, str, bool]:
    """Outcomes of the join and of what is behind it, and whether one of them was on a branch not taken."""
    model = Model()
    model.account("acme", 10, 9)
    model.enroll("i", 0, {"name": "w", "pools": ["default"]})
    want = {"graph": "g", "total": len(how) + 3, "estimate": "0", "floor": "0", "budget": "", "priority": 5, "pools": [], "tasks": []}
    model.admit("r", 1, "acme", json.dumps(want))
    model.load("r", 1, rows(rule, len(how), how), {})
    model.launch("r", 1, 0, 1, ["root"])
    state = model.runs["r", 1]

    def end(node: str, outcome: str) -> None:
        model.put(node, "acme", 5, "default", 1, "", 0, 0)
        taken = model.pop("i", "default", 0)
        assert taken is not None
        row = model.begin("r", 1, node, "i", taken.tag, taken.number, "w")
        assert row[0] == "run", (node, row)
        model.finish("r", 1, node, row[1], "i", outcome, "1", "{}", "", -1)
        model.settle("r", 1, node, row[1], "", "test")
        model.check()

    end("root", "succeeded")
    for i in order:
        if how[i] != "untaken":
            end(f"p{i}", "succeeded" if how[i] == "succeeded" else "failed")
    for node in ("join", "tail"):
        if state.nodes[node].state == "due":
            end(node, "succeeded")
    assert state.status == "ended"
    return state.nodes["join"].state, state.nodes["tail"].state, state.nodes["join"].not_taken


def expected(rule: str | int, how: tuple[str, ...]) -> str:
    if set(how) == {"untaken"}:
        return "skipped"
    if rule == "all_done":
        return "succeeded"
    if isinstance(rule, int):
        return "succeeded" if how.count("succeeded") >= rule else "upstream_failed"
    return "upstream_failed" if "bad" in how else "succeeded"


@pytest.mark.parametrize("rule", ["all_succeeded", "all_done", 1, 2, 3])
def test_a_join_is_what_its_rule_says_in_whatever_order_its_parents_end(rule: str | int) -> None:
    for how in product(HOWS, repeat=3):
        wanted = expected(rule, how)
        tail = {"succeeded": "succeeded", "skipped": "skipped"}.get(wanted, wanted)
        for order in permutations(range(3)):
            assert play(rule, how, order) == (wanted, tail, wanted == "skipped"), (rule, how, order)
