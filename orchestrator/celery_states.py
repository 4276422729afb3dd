"""The outcomes of nodes as Celery's own tools know them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from celery import states

STATES: Final[Mapping[str, str]] = {
    "succeeded": states.SUCCESS,
    "skipped": states.SUCCESS,
    "failed": states.FAILURE,
    "timed_out": states.FAILURE,
    "cancelled": states.REVOKED,
    "upstream_failed": states.REVOKED,
}
"""Celery's state of each outcome; a skipped node has the result "skipped: reason"."""
