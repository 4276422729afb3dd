"""Periods: days since 1970-01-01 UTC, and the months that they are in; as `cost/period.lua` has them."""

from __future__ import annotations

from datetime import date
from typing import Final

MS_PER_DAY: Final = 86_400_000
_EPOCH: Final = date(1970, 1, 1).toordinal()


def day_of(now_ms: int) -> int:
    """Return the day of a moment, in days since 1970-01-01 UTC."""
    return now_ms // MS_PER_DAY


def month_of(day: int) -> int:
    """Return the month of a day (days since 1970-01-01 UTC) as yyyymm."""
    found = date.fromordinal(_EPOCH + day)
    return found.year * 100 + found.month


def name_of(day: int) -> str:
    """Return a day as ISO 8601 writes it: 20454 is "2026-01-01"."""
    return date.fromordinal(_EPOCH + day).isoformat()


def first_of_month_before(day: int) -> int:
    """Return the first day of the month before the one that `day` is in: from there on, two months are whole."""
    found = date.fromordinal(_EPOCH + day)
    year, month = divmod(found.year * 12 + found.month - 2, 12)
    return date(year, month + 1, 1).toordinal() - _EPOCH


def month_ends_ms(day: int) -> int:
    """Return the first moment, in ms, after the month that a day is in."""
    found = date.fromordinal(_EPOCH + day)
    year, month = divmod(found.year * 12 + found.month, 12)
    return (date(year, month + 1, 1).toordinal() - _EPOCH) * MS_PER_DAY


def first_of_month(day: int) -> int:
    """Return the first day of the month that `day` is in."""
    return day - date.fromordinal(_EPOCH + day).day + 1
