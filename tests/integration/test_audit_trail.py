"""Every control call has its line in the audit: all mutating commands, web routes and client calls are listed here, and tried."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from running import Running, until

from orchestrator.cli import main
from orchestrator.client import Client
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.store import read
from orchestrator.web.console import HANDLERS
from orchestrator.web.page import Act

READS = {
    *("audit", "console", "estimate", "plan", "schema", "runs", "show", "watch", "queues", "queues letters", "workers list"),
    *("workers wanted", "tenant list", "tenant show", "tenant history", "prices list", "prices show", "prices diff", "ledger export"),
    *("ledger audit", "replay", "verify", "schedule list", "schedule show", "decisions", "explain", "agent status", "whatif"),
    *("logs", "report", "top", "budget", "graph", "completion", "trace export"),
}
"""Commands that change nothing."""

BEGIN = {"demo", "up", "sweep", "run", "submit"}
"""Commands that start services or runs, or repair; an admission is audited with its tenant."""

CONTROLS = {
    "cancel": ("run.cancelling", ["{live}"]),
    "rerun": ("run.rerun", ["{failed}"]),
    "approve": ("run.approved", []),
    "agent pause": ("scope.paused", []),
    "agent resume": ("scope.resumed", []),
    "priority": ("run.reprioritised", ["{live}", "HIGH"]),
    "deadline": ("deadline.raised", ["{live}", "--timeout-s", "600"]),
    "pause": ("scope.paused", ["tenant", "{tenant}"]),
    "resume": ("scope.resumed", ["tenant", "{tenant}"]),
    "tenant create": ("tenant.created", ["{tenant}-new"]),
    "tenant fork": ("tenant.created", ["{tenant}", "{tenant}-fork"]),
    "tenant set": ("policy.changed", ["{tenant}", "weight=3"]),
    "tenant suspend": ("tenant.suspended", ["{tenant}"]),
    "tenant resume": ("tenant.resumed", ["{tenant}"]),
    "tenant close": ("tenant.closed", ["{tenant}-new"]),
    "prices set": ("prices.changed", ["{prices}", "--tenant", "{tenant}"]),
    "prices reset": ("prices.changed", ["--tenant", "{tenant}"]),
    "ledger adjust": ("money.adjusted", ["{tenant}", "0.01", "--category", "other"]),
    "ledger reprice": ("ledger.repriced", ["--from", "{today}", "--version", "{tenant}", "--tenant", "{tenant}"]),
    "schedule create": ("schedule.created", ["nightly", "{graph}", "--cron", "0 3 1 1 *", "--tenant", "{tenant}"]),
    "schedule set": ("schedule.changed", ["nightly", "--jitter", "5s", "--tenant", "{tenant}"]),
    "schedule pause": ("schedule.paused", ["nightly", "--tenant", "{tenant}"]),
    "schedule resume": ("schedule.resumed", ["nightly", "--tenant", "{tenant}"]),
    "schedule delete": ("schedule.deleted", ["nightly", "--tenant", "{tenant}"]),
    "backfill": ("backfill.begun", ["{graph}", "--every", "1d", "--from", "2026-01-01", "--to", "2026-01-02", "--tenant", "{tenant}"]),
    "queues requeue": ("letters.requeue", ["--all"]),
    "queues discard": ("letters.discard", ["--all"]),
    "prune": ("record.pruned", ["--keep-days", "1"]),
    "migrate": ("record.migrated", []),
    "workers scale": ("workers.scaled", ["4"]),
    "workers drain": ("worker.drained", []),
}
"""Commands that change something: the action in the audit, and arguments that do it here."""

TRIED_ELSEWHERE = {"workers drain", "ledger reprice", "approve", "prune", "migrate"}
"""A drain takes a worker from the other tests; prices are applied anew to what somebody has used (test_ledger.py); an approval needs a
run that its cost has ended (test_approval.py); nothing is old enough to be pruned, or at another revision (tests/conformance)."""


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        path = f"{before} {name}".strip()
        if isinstance(command, click.Group):
            yield from commands(command, path)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield path, command


def test_every_command_reads_begins_or_is_a_control_call_with_who_and_why() -> None:
    found = dict(commands(main))  # type: ignore[arg-type]
    unlisted = found.keys() - READS - BEGIN - CONTROLS.keys()
    assert not unlisted, f"say what {sorted(unlisted)} change, with their lines in the audit"
    for path in CONTROLS:
        options = {parameter.name for parameter in found[path].params}
        assert {"by", "reason"} <= options, f"{path} does not say who and why"


def test_every_client_call_that_changes_something_says_who_and_why() -> None:
    from orchestrator.ledger import Ledger
    from orchestrator.price_tables import PriceTables
    from orchestrator.schedules.book import Schedules
    from orchestrator.tenants import Tenants

    reads = {
        Client: {"run", "submit", "check", "decisions", "explain"},
        RunHandle: {"wait", "result", "decisions", "explain", "logs", "log_reader", "view", "nodes", "events"},
        Tenants: {"get", "list", "history", "usage", "default_priority", "is_strict"},
        PriceTables: {"list", "get", "in_force"},
        Ledger: {"entries"},
        Schedules: {"show", "list", "graph", "ticks"},
    }
    for kind, quiet in reads.items():
        for name, call in inspect.getmembers(kind, inspect.isfunction):
            sync = name.removeprefix("a").removesuffix("_")  # the same call for asyncio
            if not name.startswith("_") and quiet.isdisjoint({name, sync}):
                assert {"by", "reason"} <= set(inspect.signature(call).parameters), f"{kind.__name__}.{name} does not say who and why"


WEB = {
    "RunsAct.post": "test_console_runs.py::test_what_pages_do_to_runs_is_done_and_audited_and_one_refusal_keeps_no_other_from_it",
    "LettersAct.post": "test_console_queues.py::test_dead_letters_are_sent_again_and_dropped_and_who_and_why_is_on_record",
    "TenantAct.post": "test_console_tenants.py::test_a_tenant_is_paused_and_resumed_from_its_page_and_every_page_says_so",
}
"""Routes of the console that change something: where their lines in the audit are looked at."""


def test_every_web_route_of_ours_that_changes_something_is_listed_and_a_console_that_is_read_only_has_none() -> None:
    changing = ("post", "put", "patch", "delete")
    found = {
        f"{handler.__name__}.{verb}": handler
        for _, handler, *_ in HANDLERS
        for verb in changing
        for owner in handler.__mro__
        if verb in vars(owner) and owner.__module__.startswith("orchestrator")
    }
    assert found.keys() == WEB.keys(), "give it its lines in the audit, and list it here"
    for handler in found.values():
        assert issubclass(handler, Act), f"{handler.__name__} must refuse in a console that is read-only, and what other sites ask"
    for place in WEB.values():
        file, _, test = place.partition("::")
        assert f"def {test}(" in (Path(__file__).parent / file).read_text(), place


def test_every_control_command_leaves_its_line(stack: Running, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    client = stack.client
    tenant = f"audit-{tmp_path.name[-6:].strip('_').replace('_', '-')}"
    client.tenants.create(tenant, can_fork=True)
    sleep = {"id": "s", "task": "synthetic.sleep", "params": {"seconds": 20}}
    fails = {
        "id": "f",
        "task": "node_tasks.needs",
        "params": {"name": "f", "log": str(tmp_path / "log"), "path": "/nowhere"},
        "attempts": 1,
    }
    live = client.submit(Graph.parse({"name": "live", "nodes": [sleep, {"id": "n", "task": "synthetic.noop", "after": ["s"]}]}))
    failed = client.submit(Graph.parse({"name": "failed", "nodes": [fails]})).wait(30)
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"version": tenant, "prices": {"llm/token": "0.5", "compute/second": "10"}}))
    words = {"live": live.run_id, "failed": failed.run_id, "tenant": tenant, "prices": str(prices)}
    words["graph"] = str(tmp_path / "graph.json")
    (tmp_path / "graph.json").write_text(Graph.parse({"name": "g", "nodes": [{"id": "n", "task": "synthetic.noop"}]}).canonical().decode())
    words["today"] = datetime.now(UTC).date().isoformat()
    # The priority and the time of a run before its end.
    first = ["priority", "deadline"]
    order = first + [path for path in CONTROLS if path not in (*first, *TRIED_ELSEWHERE)]
    try:
        with client.settings.in_force():
            for path in order:
                action, arguments = CONTROLS[path]
                said = [*path.split(), *(word.format(**words) for word in arguments), "--by", "ann", "--reason", f"because of {path}"]
                done = CliRunner().invoke(main, said)
                assert done.exit_code == 0, (said, done.output)
                lines = until(lambda path=path: [line for line in read.audit(client.engine) if line.reason == f"because of {path}"])  # type: ignore[misc]
                assert {(line.action, line.actor) for line in lines} == {(action, "ann")}, path
            assert CliRunner().invoke(main, ["workers", "drain", "nobody"]).exit_code != 0
            shown = CliRunner().invoke(main, ["audit", "--run", live.run_id, "--since", "1h", "--json"])
            assert {line["action"] for line in json.loads(shown.stdout)} >= {"run.cancelling", "run.reprioritised"}
            assert "because of pause" in CliRunner().invoke(main, ["audit", "--tenant", tenant]).stdout
            assert CliRunner().invoke(main, ["audit", "--since", "yesterday"]).exit_code == 2
    finally:
        live.cancel()


def test_a_run_in_flight_changes_its_line_and_what_comes_later_follows(stack: Running, tmp_path: Path) -> None:
    client = stack.client
    client.pause("tenant:default", reason="test")
    try:
        nodes: list[dict[str, Any]] = [{"id": "a", "task": "synthetic.noop"}, {"id": "b", "task": "synthetic.noop", "after": ["a"]}]
        run = client.submit(Graph.parse({"name": "g", "nodes": nodes}))

        def priority(node: str) -> int | None:
            tag = stack.redis.hget("hg1:once", f"{run.run_id}.1.{node}")
            return None if tag is None else int(json.loads(str(stack.redis.hget("hg1:meta", str(tag))))["p"])

        assert until(lambda: priority("a")) == 5
        assert run.reprioritise("HIGH", reason="it is late", by="ann")
        assert priority("a") == 3
        assert read.get_run(client.engine, run.run_id).priority == 3
        assert not run.reprioritise("HIGH")
    finally:
        client.resume("tenant:default", reason="test")
    assert run.wait(30).outcome == "succeeded"
    popped = [event for event in run.events if event["t"] == "run.reprioritised"]
    assert [(event["former"], event["priority"]) for event in popped] == [(5, 3), (3, 3)]
    assert not stack.redis.hexists("hg1:ranks", f"{run.run_id}.1")
