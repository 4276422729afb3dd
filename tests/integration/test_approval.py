"""What its cost has ended, or what is held for it, goes on by an approval alone: real beat, real workers, the stock schedule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from running import Running, by_id, until

from orchestrator.approval import waiting
from orchestrator.cli import main
from orchestrator.govern.governor import Governor
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.log_key import log_key
from orchestrator.replay import replay_run
from orchestrator.store import read
from tenancy.errors import Refused

TICKS_S = 30
TIMEOUT_S = 60
LIMIT = 1_000_000


def graph(path: Path) -> Graph:
    """A node that costs more than it says, one that runs until there is `go`, and one behind it that can no longer be paid for by then."""
    params = {"micros": 950_000, "path": str(path), "log": f"{path}/log.dear"}
    dear = {"id": "dear", "task": "node_tasks.charge_then_wait", "params": params, "estimate": {"other": 400_000}, "attempts": 1}
    waits = {"id": "waits", "task": "node_tasks.wait_for", "params": {"path": f"{path}/go", "log": f"{path}/log.waits"}, "after": ["dear"]}
    behind = {"id": "behind", "task": "node_tasks.quality", "params": {"level": "full", "log": f"{path}/log.behind"}, "after": ["waits"]}
    nodes = [dear, {**waits, "estimate": {"other": 0}}, {**behind, "estimate": {"other": 300_000}}]
    return Graph.parse({"name": "approved", "nodes": nodes})


def submitted(stack: Running, tenant: str, path: Path, limit: int = LIMIT, **policy: Any) -> RunHandle:
    """A run that waits in its second node, while what the first one cost is known."""
    path.mkdir(exist_ok=True)
    if tenant in {each.id for each in stack.client.tenants.list()}:
        stack.client.tenants.update(tenant, limit_per_day_micros=limit, reason="another one")
    else:
        stack.client.tenants.create(tenant, limit_per_day_micros=limit, **policy)
    return stack.client.submit(graph(path), tenant=tenant)


def terminated(run: RunHandle, path: Path) -> RunHandle:
    """The run, ended by its cost."""
    until(lambda: any(each.action == "terminate" for each in run.decisions()), TICKS_S)
    (path / "go").touch()
    assert run.wait(TIMEOUT_S).outcome == "terminated_by_cost"
    return run


def headgate(stack: Running, *words: str) -> Result:
    with stack.client.settings.in_force():
        return CliRunner().invoke(main, list(words))


def test_a_run_that_its_cost_ended_goes_on_by_an_approval_and_not_otherwise(stack: Running, tmp_path: Path) -> None:
    run = terminated(submitted(stack, "appr-terminated", tmp_path), tmp_path)
    kinds = [step.kind for step in run.explain("behind")]
    assert kinds[:3] == ["outcome", "decision", "trigger"]
    assert run.explain("behind")[1].text.startswith("decision ")
    with pytest.raises(Refused, match="only after an approval"):
        run.rerun()
    assert headgate(stack, "rerun", run.run_id).exit_code != 0
    unsaid = headgate(stack, "approve", run.run_id, "--by", "ann")
    assert (unsaid.exit_code, "--reason" in unsaid.output) == (2, True)

    poor = headgate(stack, "approve", run.run_id, "--by", "ann", "--reason", "the customer pays")
    assert poor.exit_code == 4, "there is no money for it yet"
    stack.client.tenants.update("appr-terminated", limit_per_day_micros=10 * LIMIT, reason="the customer pays")
    done = headgate(stack, "approve", run.run_id, "--by", "ann", "--reason", "the customer pays", "--json")
    assert done.exit_code == 0, done.output
    generation = json.loads(done.stdout)["generation"]
    last = stack.client.run(run.run_id).wait(TIMEOUT_S)
    assert (last.generation, last.outcome) == (generation, "succeeded")
    assert by_id(last)["dear"]["adopted"] == 1, "what succeeded is not run again"
    assert (tmp_path / "log.behind").read_text() == "full\n"
    again = stack.client.approve(run.run_id, reason="once more", by="bob")
    assert again.generation == generation, "approving again opens nothing"
    lines = [line for line in read.audit(stack.client.engine, run=run.run_id) if line.action == "run.approved"]
    assert {(line.actor, line.reason) for line in lines} == {("ann", "the customer pays")}
    for number in range(1, generation + 1):
        if read.get_run(stack.client.engine, run.run_id, number).status == "ended":
            assert replay_run(stack.client.engine, run.run_id, number, log_key(stack.client.settings)).differences == ()


def test_many_are_approved_at_once_and_once(stack: Running, tmp_path: Path) -> None:
    first = terminated(submitted(stack, "appr-many", tmp_path / "1"), tmp_path / "1")
    second = terminated(submitted(stack, "appr-many", tmp_path / "2", 2 * LIMIT - 50_000), tmp_path / "2")
    stack.client.tenants.update("appr-many", limit_per_day_micros=10 * LIMIT, reason="it was a mistake")
    dry = headgate(stack, "approve", "--tenant", "appr-many", "--since", "1h", "--dry-run", "--json")
    assert {each["run_id"] for each in json.loads(dry.stdout)} == {first.run_id, second.run_id}
    assert first.client.run(first.run_id).generation == 1, "a dry run approves nothing"
    assert json.loads(headgate(stack, "approve", "--tenant", "default", "--since", "1h", "--dry-run", "--json").stdout) == []
    done = headgate(stack, "approve", "--tenant", "appr-many", "--since", "1h", "--by", "ann", "--reason", "it was a mistake")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "2 of 2 runs go on"), done.output
    for run in (first, second):
        assert stack.client.run(run.run_id).wait(TIMEOUT_S).outcome == "succeeded"
    once_more = headgate(stack, "approve", "--tenant", "appr-many", "--since", "1h", "--by", "ann", "--reason", "it was a mistake")
    assert once_more.stdout == "0 of 0 runs go on\n"
    assert stack.client.run(first.run_id).generation == 2


def test_a_run_that_is_held_goes_on_itself_once_somebody_approves(stack: Running, tmp_path: Path) -> None:
    run = submitted(stack, "appr-held", tmp_path, on_floor="hold")
    (found,) = until(lambda: waiting(stack.client.engine, tenant="appr-held"), TICKS_S)
    assert (found.run_id, found.generation, found.why) == (run.run_id, 1, "held")
    refused = headgate(stack, "resume", "run", run.run_id, "--reason", "it looks idle")
    assert (refused.exit_code != 0, f"headgate approve {run.run_id}" in refused.output) == (True, True), refused.output
    stack.client.tenants.update("appr-held", limit_per_day_micros=10 * LIMIT, reason="the customer pays")
    (tmp_path / "go").touch()
    until(lambda: by_id(run)["waits"]["outcome"] == "succeeded")
    assert (run.outcome, by_id(run)["behind"]["started_at"]) == (None, None)
    goes_on = run.approve(reason="the customer pays", by="ann")
    assert (goes_on.generation, goes_on.wait(TIMEOUT_S).outcome) == (1, "succeeded")
    assert waiting(stack.client.engine, tenant="appr-held") == []
    (line,) = [line for line in read.audit(stack.client.engine, run=run.run_id) if line.action == "run.approved"]
    assert (line.actor, line.reason) == ("ann", "the customer pays")
    assert replay_run(stack.client.engine, run.run_id, 1, log_key(stack.client.settings)).differences == ()


def test_what_its_cost_did_not_end_needs_no_approval(stack: Running) -> None:
    run = stack.client.submit(Graph.parse({"name": "fine", "nodes": [{"id": "a", "task": "synthetic.noop"}]})).wait(TIMEOUT_S)
    with pytest.raises(Refused, match="there is nothing to approve"):
        run.approve(reason="why not")


def test_the_agent_decides_nothing_while_it_is_paused_and_goes_on_when_it_is_resumed(stack: Running, tmp_path: Path) -> None:
    stack.client.pause("agent", reason="the estimates are wrong", by="ann")
    try:
        said = headgate(stack, "agent", "status")
        assert "paused since" in said.stdout
        assert "by ann: the estimates are wrong" in said.stdout
        run = submitted(stack, "appr-paused", tmp_path)
        until(lambda: run.cost_micros >= 950_000)
        assert str(Governor(stack.client.kernel, stack.client.engine).tick()) == "decided 0, completed 0"
        assert run.decisions() == []
    finally:
        stack.client.resume("agent", reason="mended", by="ann")
    terminated(run, tmp_path)
