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

beat_schedule: dict[str, dict[str, Any]] = {
    "sweep": {
        "task": "headgate.sweep",
        "schedule": _settings.sweep_interval_s,
        # A sweep that nobody took before the next one is due is not wanted any more.
        "options": {"queue": SYSTEM_QUEUE, "expires": 2 * _settings.sweep_interval_s, "ignore_result": True},
    },
    "cost-agent": {
        "task": "headgate.govern",
        "schedule": _settings.agent_interval_s,
        "options": {"queue": SYSTEM_QUEUE, "expires": 2 * _settings.agent_interval_s, "ignore_result": True},
    },
    "notify": {
        "task": "headgate.notify",
        "schedule": _settings.notify_interval_s,
        "options": {"queue": SYSTEM_QUEUE, "expires": 2 * _settings.notify_interval_s, "ignore_result": True},
    },
    "collect": {
        "task": "headgate.collect",
        "schedule": _settings.collect_interval_s,
        "options": {"queue": SYSTEM_QUEUE, "expires": _settings.collect_interval_s, "ignore_result": True},
    },
    "logs": {
        "task": "headgate.logs",
        "schedule": _settings.node_log_interval_s,
        "options": {"queue": SYSTEM_QUEUE, "expires": 2 * _settings.node_log_interval_s, "ignore_result": True},
    },
    "artifacts": {
        "task": "headgate.artifacts",
        "schedule": _settings.artifacts_interval_s,
        "options": {"queue": SYSTEM_QUEUE, "expires": 2 * _settings.artifacts_interval_s, "ignore_result": True},
    },
    "reports": {
        "task": "headgate.reports",
        "schedule": _settings.reports_interval_s,
        "options": {"queue": SYSTEM_QUEUE, "expires": 2 * _settings.reports_interval_s, "ignore_result": True},
    },
    "schedules": {
        "task": "headgate.schedules",
        "schedule": _settings.schedule_interval_s,
        # By beat's clock, which may be off by minutes: what it sends must not be too old when it arrives.
        "options": {"queue": SYSTEM_QUEUE, "expires": max(180.0, 2 * _settings.schedule_interval_s), "ignore_result": True},
    },
    "audit": {
        "task": "headgate.audit",
        "schedule": _settings.audit_interval_s,
        "options": {"queue": SYSTEM_QUEUE, "expires": _settings.audit_interval_s, "ignore_result": True},
    },
}
if not _settings.artifacts:
    del beat_schedule["artifacts"]
if not _settings.reports:
    del beat_schedule["reports"]
beat_max_loop_interval = 1
