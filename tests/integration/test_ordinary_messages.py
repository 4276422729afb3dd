"""On Headgate's own workers a tenant header means money: also of a message that is no node's."""

from __future__ import annotations

from typing import Any

import pytest
from celery.exceptions import TaskRevokedError
from running import Running, until

TIMEOUT_S = 30
TENANT = "walk-in"


def send(stack: Running, micros: int, **headers: Any) -> Any:
    return stack.app.send_task("synthetic.spend", kwargs={"micros": micros}, headers=headers)


def test_a_message_pays_as_the_tenant_that_it_names_and_is_refused_beyond_its_budget(stack: Running) -> None:
    stack.client.tenants.create(TENANT, limit_per_day_micros=10_000)
    paid = send(stack, 4_000, tenant=TENANT, estimate_micros=5_000)
    assert paid.get(timeout=TIMEOUT_S) == 4_000
    until(lambda: stack.client.tenants.usage(TENANT).reserved_micros == 0)
    settled = stack.client.tenants.usage(TENANT).settled_micros
    assert 4_000 <= settled < 5_000
    (row,) = stack.redis.hvals(f"hg1:res:task.{paid.id}.0")
    assert row.startswith("settled|5000|")

    declared = send(stack, 1, tenant=TENANT)  # without a header, what the task declares
    assert declared.get(timeout=TIMEOUT_S) == 1
    until(lambda: [row.split("|")[:2] for row in stack.redis.hvals(f"hg1:res:task.{declared.id}.0")] == [["settled", "1000"]])

    with pytest.raises(TaskRevokedError, match=rf"tenant '{TENANT}' has \d+ of 10000 micros committed"):
        send(stack, 1, tenant=TENANT, estimate_micros=7_000).get(timeout=TIMEOUT_S)
    assert stack.client.tenants.usage(TENANT).settled_micros < 5_100


def test_a_message_of_an_unknown_tenant_is_refused_in_one_sentence_and_one_without_a_tenant_is_free(stack: Running) -> None:
    refused = [send(stack, 1, tenant=name) for name in ("nobody-here", "No Tenant!")]
    for task in refused:
        with pytest.raises(TaskRevokedError, match="there is no tenant '"):
            task.get(timeout=TIMEOUT_S)
        assert not stack.redis.exists(f"hg1:task:{task.id}")
    free = send(stack, 1)
    assert free.get(timeout=TIMEOUT_S) == 1, "the workers go on"
    assert not stack.redis.exists(f"hg1:task:{free.id}", f"hg1:res:task.{free.id}.0")
    # Nothing comes again: what was refused is acknowledged.
    until(lambda: not any(task.id in str(payload) for task in refused for payload in stack.redis.hvals("hg1:msg")))
