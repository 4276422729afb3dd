"""Celery's configuration for Headgate: what `orchestrator.app` loads, and where an operator changes it."""

from __future__ import annotations

from typing import Any

from kombu.entity import Queue

from orchestrator.settings import Settings
from tenancy.queues import POOL_PREFIX, SYSTEM_QUEUE
from tenancy.router import route

_settings = Settings.load()

broker_url = _settings.resolved_redis_url()
result_backend = "orchestrator.backend:NodeBackend+" + _settings.resolved_redis_url().removeprefix("redis+")

# JSON only: a message must never be able to carry code.
task_serializer = result_serializer = event_serializer = "json"
accept_content = result_accept_content = ["json"]

# What a worker consumes from; `celery worker -Q pool.gpu,system` overrides it.
task_queues = (*(Queue(POOL_PREFIX + pool) for pool in _settings.pools), Queue(SYSTEM_QUEUE))
task_default_queue = SYSTEM_QUEUE
task_routes = (route,)
task_default_priority = 5

# A message is settled when its work is: what a killed worker held goes back in line.
task_acks_late = True
task_reject_on_worker_lost = True
worker_prefetch_multiplier = 1
worker_cancel_long_running_tasks_on_connection_loss = False
# Told to end, a worker finishes what it runs, within seconds.
worker_consumer = "orchestrator.consumer:Consumer"
worker_deduplicate_successful_tasks = False
worker_hijack_root_logger = True
broker_connection_retry_on_startup = True
broker_transport_options: dict[str, Any] = {
    "incarnation_ttl_s": _settings.incarnation_ttl_s,
    "visibility_timeout": 3600,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
}
result_expires = 24 * 3600
result_chord_join_timeout = 60.0
task_ignore_result = False
enable_utc = True
timezone = "UTC"


def _every(interval_s: float, task: str, expires_s: float | None = None) -> dict[str, Any]:
    """Return an entry of beat. What nobody took in time, twice the interval unless said otherwise, is not wanted any more."""
    expires = 2 * interval_s if expires_s is None else expires_s
    return {"task": task, "schedule": interval_s, "options": {"queue": SYSTEM_QUEUE, "expires": expires, "ignore_result": True}}


beat_schedule: dict[str, dict[str, Any]] = {
    "sweep": _every(_settings.sweep_interval_s, "headgate.sweep"),
    "cost-agent": _every(_settings.agent_interval_s, "headgate.govern"),
    "notify": _every(_settings.notify_interval_s, "headgate.notify"),
    "collect": _every(_settings.collect_interval_s, "headgate.collect", _settings.collect_interval_s),
    "logs": _every(_settings.node_log_interval_s, "headgate.logs"),
    "artifacts": _every(_settings.artifacts_interval_s, "headgate.artifacts"),
    "reports": _every(_settings.reports_interval_s, "headgate.reports"),
    # By beat's clock, which may be off by minutes: what it sends must not be too old when it arrives.
    "schedules": _every(_settings.schedule_interval_s, "headgate.schedules", max(180.0, 2 * _settings.schedule_interval_s)),
    "audit": _every(_settings.audit_interval_s, "headgate.audit", _settings.audit_interval_s),
}
if not _settings.artifacts:
    del beat_schedule["artifacts"]
if not _settings.reports:
    del beat_schedule["reports"]
beat_max_loop_interval = 1
