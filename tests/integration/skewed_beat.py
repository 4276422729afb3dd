"""Celery's beat with a clock that is off. Arguments: seconds that it is ahead (behind: less than 0), file of its schedule, pidfile."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Any

from celery import Celery

off = timedelta(seconds=float(sys.argv[1]))
right = Celery.now


def now(app: Any) -> datetime:
    moment: datetime = right(app)
    return moment + off


Celery.now = now

from orchestrator.app import app  # noqa: E402 - after its clock

app.start(["beat", "--schedule", sys.argv[2], "--pidfile", sys.argv[3], "--loglevel=INFO"])
