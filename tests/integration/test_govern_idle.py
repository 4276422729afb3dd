"""A pass of the cost agent over runs of which there is nothing to decide."""

from __future__ import annotations

import pytest
import redis

from orchestrator.assembly import HeadgateApp
from orchestrator.govern import Governor
from orchestrator.govern.survey import OF_RUN, OF_TENANT
from orchestrator.recorder import append_request
from orchestrator.recorder.loop import Recorder
from orchestrator.store.decisions import list_decisions
from tests.integration.hands import POOL, Hands, drain, layers

RUNS = 60
BESIDE = 30
"""Commands of a pass beside those for runs and their tenant: its lease, the clock, the list of runs."""


def calls(client: redis.Redis) -> int:
    return sum(
        row["calls"] for name, row in client.info("commandstats").items() if name not in ("cmdstat_info", "cmdstat_config|resetstat")
    )


@pytest.mark.parametrize("limit", [1_000_000_000, 4_000 * RUNS])
def test_a_run_of_which_nothing_is_to_be_decided_costs_a_pass_five_reads(
    app: HeadgateApp, recorder: Recorder, hands: Hands, client: redis.Redis, limit: int
) -> None:
    """With all the money that they may ever ask for; and with no more than is held, where each is looked at once and then left alone."""
    drain(recorder)
    change = {"changes": {"max_concurrent_runs": RUNS, "limit_per_day_micros": limit}, "tenant": "default", "reason": "a test", "by": "me"}
    append_request(hands.link, "request.policy", {**change, "version": None})
    drain(recorder)
    hands.queue.enroll("roomy", 600_000, {"name": "w", "host": "h", "pid": 1, "pools": [POOL], "tasks": ["synthetic.noop"], "slots": 1_000})
    graph = layers(2, 2)
    for _ in range(RUNS):
        run, _ = hands.request(graph)
        drain(recorder)
        hands.start(run, graph)
    drain(recorder)
    agent = Governor(app.headgate_kernel, recorder.engine)
    for _ in range(2):  # the first says that all places are taken, the second has nothing to say
        agent.tick()
    assert client.zcard("hg1:runs") == RUNS
    client.config_resetstat()
    agent.tick()
    told = calls(client)
    assert RUNS * OF_RUN < told <= RUNS * OF_RUN + OF_TENANT + BESIDE
    drain(recorder)
    assert {each.action for each in list_decisions(recorder.engine)} <= {"continue"}
