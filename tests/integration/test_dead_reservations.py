"""What a dead worker had reserved goes back within a sweep, also where the node's message waits in line for long."""

from __future__ import annotations

from pathlib import Path

import fleet
from running import Running, until

from orchestrator import Graph

TIMEOUT_S = 60
TENANT = "mourning"


def test_no_reservation_outlives_its_worker_though_its_tenant_is_paused(stack: Running, tmp_path: Path) -> None:
    client, release, begun = stack.client, tmp_path / "release", tmp_path / "begun"
    client.tenants.create(TENANT, pool="mortal")
    estimate = 40_000
    node = {"id": "n", "task": "slots.wait", "params": {"path": str(release), "begun": str(begun)}, "estimate": {"llm": estimate}}
    with fleet.worker(stack, "doomed", "-c", "1", pools="mortal") as doomed:
        run = client.submit(Graph.parse({"name": "mortal", "nodes": [node]}), tenant=TENANT)
        until(begun.exists)
        assert stack.redis.hget(f"hg1:tenant:{TENANT}", "reserved") == str(estimate)
        client.pause(f"tenant:{TENANT}")
        try:
            fleet.kill(doomed)
            until(lambda: stack.redis.hget(f"hg1:tenant:{TENANT}", "reserved") == "0")
            # Nothing of the node has begun again: its message waits for the tenant, and its money is back in the hold.
            assert stack.redis.hget("hg1:depth:mortal", f"{TENANT}|5") == "1"
            assert stack.redis.hget(f"hg1:purse:{run.run_id}.1", "hold") == str(estimate)
            assert stack.redis.hget(f"hg1:state:{run.run_id}.1", "n") == "due"
        finally:
            client.resume(f"tenant:{TENANT}")
    until(lambda: any(event["t"] == "money.voided" for event in run.events))
    expired = next(event for event in run.events if event["t"] == "money.voided")
    dead = next(event for event in run.events if event["t"] == "node.lost")
    assert (expired["kind"], expired["attempt"], dead["attempt"]) == ("expire", 1, 1)
    release.touch()
    with fleet.worker(stack, "heir", "-c", "1", pools="mortal"):
        assert run.wait(TIMEOUT_S).outcome == "succeeded"
    assert [event["attempt"] for event in run.events if event["t"] == "money.settled"] == [2]
