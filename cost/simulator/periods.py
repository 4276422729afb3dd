"""Days and months in UTC, named as in ISO 8601."""

from __future__ import annotations

from datetime import UTC, date, datetime


def day_of(now_ms: int) -> str:
    """Return the day of a moment, milliseconds since 1970-01-01 UTC: "2026-01-31"."""
    return datetime.fromtimestamp(now_ms // 1000, UTC).date().isoformat()


def month_of(day: str) -> str:
    """Return the month that a day is in: "2026-01"."""
    return day[:7]


def starts_ms(day: str) -> int:
    """Return the first moment of a day."""
    return (date.fromisoformat(day) - date(1970, 1, 1)).days * 86_400_000
