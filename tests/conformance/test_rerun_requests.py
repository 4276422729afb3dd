"""Requests for another generation, on a real database: what it adopts follows from the record alone."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from orchestrator.approval import to_approve, waiting
from orchestrator.graph import Graph
from orchestrator.recorder.requests import decide
from orchestrator.recorder.reruns import adopted, below, wanted_again
from orchestrator.recorder.tenants import create_tenant
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.read import audit
from tenancy.policy import Policy

pytestmark = pytest.mark.both_records


GRAPH = Graph.parse(
    {
        "name": "g",
        "nodes": [
            {"id": "a", "task": "synthetic.noop"},
            {"id": "b", "task": "synthetic.noop", "after": ["a"]},
            {"id": "c", "task": "synthetic.noop", "after": ["a"]},
            {"id": "d", "task": "synthetic.noop", "after": ["b", "c"]},
        ],
    }
)


class Desk:
    """Decides requests one at a time, as they come out of the log."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.asked = 0

    def approve(self, of: int, **said: Any) -> dict[str, Any]:
        return self.ask(more={"approval": 1, "of": of, **said})

    def ask(
        self,
        what: str = "failed",
        *nodes: str,
        request: str = "",
        run: str = "r",
        budget: Any = None,
        more: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        self.asked += 1
        event = {"t": "request.rerun", "request": request or f"q{self.asked}", "at": self.asked, "by": "ann", "reason": "because"}
        event |= {"run": run, "what": what, "nodes": json.dumps(nodes), "budget": budget, **(more or {})}
        with self.engine.begin() as connection:
            (answer,) = decide(connection, [event], {}).values()
        return answer

    def ends(self, generation: int, outcome: str = "failed", status: str = "ended", **nodes: Any) -> None:
        """The generation ends with outcomes of nodes; a number is the generation that one was adopted from."""
        with self.engine.begin() as connection:
            of_generation = (t.run.c.run_id == "r") & (t.run.c.generation == generation)
            connection.execute(update(t.run).where(of_generation).values(status=status, outcome=outcome))
            for node, what in nodes.items():
                adopted = what if isinstance(what, int) else None
                row = dict.fromkeys((name for name in t.node.c.keys() if name.startswith("cost_")), 0)  # noqa: SIM118
                row |= {"run_id": "r", "generation": generation, "node_id": node, "state": "ended", "adopted": adopted}
                connection.execute(insert(t.node), row | {"outcome": "succeeded" if adopted else what})

    def adopts(self, generation: int) -> dict[str, int]:
        of_generation = (t.run.c.run_id == "r") & (t.run.c.generation == generation)
        with self.engine.connect() as connection:
            return dict(json.loads(connection.execute(select(t.run.c.adopts).where(of_generation)).scalar() or "{}"))


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=0, seq=0))
        create_tenant(connection, "acme", "acme", Policy(), 0, actor="headgate")
        row = {"run_id": "r", "generation": 1, "tenant": "acme", "key": "k", "graph_name": "g", "digest": GRAPH.digest, "budget": 900}
        row |= {"submitted_at": 0, "cost_micros": 0}
        connection.execute(insert(t.run), row | {"spec": zlib.compress(GRAPH.canonical()), "labels": "{}", "priority": 3})
    yield Desk(engine)
    engine.dispose()


def test_the_next_generation_is_what_the_one_before_was_but_for_key_and_adoptions(desk: Desk) -> None:
    desk.ends(1, a="succeeded", b="failed", c="succeeded", d="upstream_failed")
    assert desk.ask() == {"status": "accepted", "run": "r", "gen": 2, "adopted": 2, "again": 2}
    assert desk.adopts(2) == {"a": 1, "c": 1}
    with desk.engine.connect() as connection:
        first, second = connection.execute(select(t.run).order_by(t.run.c.generation)).mappings().all()
    differing = {name for name in first if first[name] != second[name]}
    assert differing == {"generation", "key", "adopts", "submitted_at", "status", "outcome"}
    assert (second["status"], second["key"], second["budget"]) == ("submitted", None, 900)
    (line,) = audit(desk.engine, "acme")[1:]
    assert (line.action, line.actor, line.reason, line.target) == ("run.rerun", "ann", "because", "r")


def test_a_request_that_comes_again_makes_one_generation_and_another_one_finds_it_live(desk: Desk) -> None:
    desk.ends(1, a="failed")
    assert desk.ask(request="same") == desk.ask(request="same")
    assert desk.ask() == {"status": "live", "run": "r", "gen": 2}


def test_adoptions_name_the_generation_that_ran_the_node(desk: Desk) -> None:
    desk.ends(1, a="succeeded", b="succeeded", c="failed", d="upstream_failed")
    assert desk.ask(budget="500")["status"] == "accepted"
    desk.ends(2, a=1, b=1, c="succeeded", d="failed")
    assert desk.ask("from", "b")["again"] == 2
    assert desk.adopts(3) == {"a": 1, "c": 2}


@pytest.mark.parametrize("status", ["refused", "ended"])
def test_a_generation_that_ended_before_it_adopted_hands_its_adoptions_on(desk: Desk, status: str) -> None:
    desk.ends(1, a="succeeded", b="succeeded", c="succeeded", d="succeeded")
    assert desk.ask("node", "b")["again"] == 1
    nodes = {"a": "cancelled", "b": "cancelled"} if status == "ended" else {}
    desk.ends(2, "cancelled", status, **nodes)
    assert desk.ask()["gen"] == 3
    assert desk.adopts(3) == {"a": 1, "c": 1, "d": 1}


def test_what_cannot_run_again_is_answered_and_changes_nothing(desk: Desk) -> None:
    assert desk.ask()["status"] == "live"
    desk.ends(1, "succeeded", a="succeeded", b="succeeded", c="succeeded", d="succeeded")
    assert desk.ask()["status"] == "nothing"
    assert desk.ask("from", "a", "x")["nodes"] == ["x"]
    assert desk.ask("from")["status"] == desk.ask("failed", "a")["status"] == desk.ask("all", "a")["status"] == "invalid"
    assert desk.ask("from", "a", budget="much")["status"] == "invalid"
    assert desk.ask(run="nobody")["status"] == "unknown_run"
    desk.ends(1, "terminated_by_cost")
    assert desk.ask("from", "a")["status"] == "approval"
    desk.ends(1, status="refused")
    assert desk.ask()["status"] == "refused"
    desk.ends(1)
    with desk.engine.begin() as connection:
        connection.execute(update(t.tenant).values(status="suspended"))
    assert desk.ask("from", "a") == {"status": "suspended", "run": "r", "gen": 1, "standing": "suspended"}
    with desk.engine.connect() as connection:
        assert len(connection.execute(select(t.run)).all()) == 1
    assert [line.action for line in audit(desk.engine, "acme")] == ["tenant.created"]


def test_below_is_a_node_and_all_that_depends_on_it() -> None:
    assert below(GRAPH.parents(), ["b"]) == {"b", "d"}
    assert below(GRAPH.parents(), ["a"]) == {"a", "b", "c", "d"}
    assert below(GRAPH.parents(), []) == set()


def test_what_its_cost_ended_goes_on_by_an_approval_alone_and_the_audit_says_whose(desk: Desk) -> None:
    desk.ends(1, "terminated_by_cost", a="succeeded", b="cancelled", c="skipped", d="cancelled")
    assert desk.ask()["status"] == "approval"
    with desk.engine.begin() as connection:
        connection.execute(update(t.run).values(finished_at=5_000))
    (found,) = waiting(desk.engine, tenant="acme")
    assert (found.run_id, found.generation, found.why, found.at) == ("r", 1, "terminated", 5.0)
    assert desk.approve(1, budget="700") == {"status": "accepted", "run": "r", "gen": 2, "adopted": 1, "again": 3}
    assert desk.adopts(2) == {"a": 1}, "what succeeded is not run again; what was revoked or given up is"
    (line,) = audit(desk.engine, "acme")[1:]
    assert (line.action, line.actor, line.reason, line.said["generation"]) == ("run.approved", "ann", "because", 2)
    assert waiting(desk.engine, tenant="acme") == []


def test_an_approval_that_comes_again_opens_nothing_more(desk: Desk) -> None:
    desk.ends(1, "terminated_by_cost", a="succeeded", b="cancelled")
    assert desk.approve(1)["status"] == "accepted"
    assert desk.approve(1) == {"status": "approved", "run": "r", "gen": 2}
    desk.ends(2, "degraded", a=1, b="succeeded", c="succeeded", d="skipped")
    assert desk.approve(to_approve(desk.engine, "r")) == {"status": "approved", "run": "r", "gen": 2}
    assert [line.action for line in audit(desk.engine, "acme")] == ["tenant.created", "run.approved"]


def test_only_what_its_cost_ended_can_be_approved(desk: Desk) -> None:
    assert desk.approve(1)["status"] == "live"
    desk.ends(1, "failed", a="failed")
    assert desk.ask(more={"approval": 1}) == {"status": "unneeded", "run": "r", "gen": 1, "outcome": "failed"}
    assert desk.ask(more={"approval": 1, "of": "first"})["status"] == "invalid"
    assert desk.approve(to_approve(desk.engine, "r"))["status"] == "unneeded"


def test_an_approval_that_admission_refused_is_still_to_be_given_again(desk: Desk) -> None:
    desk.ends(1, "terminated_by_cost", a="succeeded", b="cancelled")
    assert desk.approve(1)["status"] == "accepted"
    with desk.engine.begin() as connection:
        connection.execute(update(t.run).where(t.run.c.generation == 2).values(status="refused", finished_at=5_000))
    (found,) = waiting(desk.engine)
    assert (found.generation, found.why, found.at) == (2, "refused", 5.0)
    assert waiting(desk.engine, since=6.0) == waiting(desk.engine, tenant="birch") == []
    assert desk.approve(to_approve(desk.engine, "r"))["gen"] == 3
    assert desk.adopts(3) == {"a": 1}


READING = Graph.parse(
    {
        "name": "reading",
        "nodes": [
            {"id": "a", "task": "synthetic.noop"},
            {"id": "b", "task": "synthetic.noop", "params": {"inputs": [{"$ref": "a"}]}},
            {"id": "c", "task": "synthetic.noop", "params": {"inputs": [{"$ref": "b"}]}},
            {"id": "d", "task": "synthetic.noop", "after": ["a"]},
            {"id": "e", "task": "synthetic.noop", "params": {"inputs": [{"$ref": "b"}]}, "after": ["d"]},
        ],
    }
)


@pytest.mark.parametrize(
    ("had", "gone", "again"),
    [
        ("abcd", "", ""),
        ("abcd", "b", "b"),  # e takes it
        ("abcd", "ab", "ab"),  # and b takes that of a
        ("abcd", "ad", ""),  # nobody who runs takes them
        ("abcde", "bce", "bce"),  # the graph's own results are c and e
        ("abcde", "ad", ""),
    ],
)
def test_a_collected_result_runs_again_where_it_is_wanted_and_nowhere_else(had: str, gone: str, again: str) -> None:
    assert wanted_again(READING, set(had), set(gone)) == set(again)


def test_a_generation_does_not_adopt_what_was_collected(desk: Desk) -> None:
    desk.ends(1, "failed", a="succeeded", b="succeeded", c="succeeded", d="failed")
    assert desk.ask(more={"gone": json.dumps(["d", "nobody"])})["adopted"] == 3
    assert desk.adopts(2) == {"a": 1, "b": 1, "c": 1}
    desk.ends(2, "succeeded", a=1, b=1, c=1, d="succeeded")
    assert desk.ask()["status"] == "nothing"
    assert desk.ask(more={"gone": json.dumps(["d"])})["status"] == "accepted"
    assert desk.adopts(3) == {"a": 1, "b": 1, "c": 1}


OUTER = Graph.parse(
    {
        "name": "g",
        "nodes": [
            {"id": "s", "task": "synthetic.noop"},
            {"id": "m", "task": "synthetic.noop", "map": {"$ref": "s"}, "params": {"n": {"$item": True}}},
            {"id": "n", "task": "synthetic.noop", "params": {"n": {"$ref": "s"}}},
            {"id": "e", "task": "synthetic.noop", "after": ["m", "n"]},
        ],
    }
)
GRAPHS = {"n": "N", "n.d": "D", "m.1": "M"}
"""`n` became n.a, n.d and n.z, that one n.d.a and n.d.b; item 1 of `m` became m.1.a and m.1.b."""


@pytest.mark.parametrize(
    ("successes", "again", "gone", "adopts", "becomes"),
    [
        ("s m.0 n.a n.d.a m.1.a", "", "", "s m.0 n.a n.d.a m.1.a", "n n.d m.1"),
        ("s m.0 n.a n.d n.d.a n.d.b m.1 m.1.a", "", "", "s m.0 n.a n.d m.1", "n"),
        ("s m.0 n.a n.d.a m.1.a", "", "n", "s m.0 m.1.a", "m.1"),
        ("s m.0 n.a n.d.a m.1.a", "", "n.d m.1", "s m.0 n.a", "n"),
        ("s m.0 n.a n.d.a m.1.a", "", "s", "", ""),
        ("s m.0 n.a n.d.a m.1.a", "n", "", "s m.0 m.1.a", "m.1"),
        ("s m m.0 m.1 m.1.a n n.a n.d n.d.a n.d.b n.z e", "n.d.b", "", "s m n.a n.d.a n.z e", "n n.d"),
        ("s m m.0 m.1 m.1.a n n.a n.d n.d.a n.d.b n.z e", "m.1", "", "s n m.0 e", ""),
        ("s m m.0 m.1 m.1.a n n.a n.d n.d.a n.d.b n.z e", "m.1.a", "", "s n m.0 e", "m.1"),
    ],
)
def test_what_nodes_became_is_known_to_the_next_generation_as_far_as_nothing_before_it_runs_again(
    successes: str, again: str, gone: str, adopts: str, becomes: str
) -> None:
    found, graphs = adopted(OUTER, dict.fromkeys(successes.split(), 1), again.split(), GRAPHS, set(gone.split()), alone=True)
    assert (set(found), set(graphs)) == (set(adopts.split()), set(becomes.split()))
    assert graphs == {node: GRAPHS[node] for node in graphs}


def test_from_a_node_of_a_returned_graph_all_of_that_graph_runs_again_and_what_depends_on_it() -> None:
    successes = dict.fromkeys(["s", "m", "m.0", "n", "n.a", "n.d", "n.d.a", "n.d.b", "n.z", "e"], 1)
    assert adopted(OUTER, successes, ["n.d.b"], GRAPHS, alone=False) == ({"s": 1, "m": 1}, {"n": "N"})
