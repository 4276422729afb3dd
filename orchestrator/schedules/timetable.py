"""When a schedule's times are: by cron in a timezone, or every so many seconds. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

EVERY_MIN_S, EVERY_MAX_S = 5, 366 * 86_400
HORIZON_MS = 5 * 366 * 86_400_000
"""A cron expression has a time within so long (29 February skips a century's year, and no schedule starts at that)."""

_LATEST_MS = 253_000_000_000_000
"""A moment of the year 9987: what calendars can do ends soon after."""

_HOUR_MS = 3_600_000
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")


@dataclass(frozen=True)
class Timetable:
    """Times that go on for ever, as whole milliseconds since 1970-01-01 UTC.

    cron: five fields (minute, hour, day of month, month, day of week), or a name such as @daily, in the time of `timezone`, an IANA
    name. At a change of the clock it does as Debian's cron: a fixed time in a skipped hour comes at the end of that hour, one in a
    repeated hour comes in the first of the two; where minute or hour begins with `*` the clock is followed as it goes.
    every_s: 5 to 31,622,400 seconds; the times are whole multiples of it since 1970-01-01 UTC.
    Raises ValueError, with one sentence, unless exactly one of the two is given and has times.
    """

    cron: str | None = None
    every_s: int | None = None
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        self.zone  # noqa: B018 - an unknown one is refused here
        if (self.cron is None) == (self.every_s is None):
            raise ValueError("a schedule has a cron expression or an interval, one of the two")
        if self.cron is not None:
            self._check_cron()
        elif type(self.every_s) is not int or not EVERY_MIN_S <= self.every_s <= EVERY_MAX_S:
            raise ValueError(f"the interval is {self.every_s!r}; give {EVERY_MIN_S} to {EVERY_MAX_S} whole seconds")

    def _check_cron(self) -> None:
        said = str(self.cron)[:100]
        if len(self._expression.split()) != 5:
            raise ValueError(
                f"{said!r} is no cron expression; give minute, hour, day of month, month and day of week, or a name like @daily"
            )
        try:
            CronSim(self._expression, datetime(2026, 1, 1, tzinfo=UTC))
        except (CronSimError, ValueError, ArithmeticError, AssertionError) as error:
            raise ValueError(f"{said!r} is no cron expression: {str(error).lower() or 'unreadable'}") from None
        if self.next(1_767_225_600_000) is None:
            raise ValueError(f"the cron expression {said!r} has no time in the next years; correct its day or month")

    @cached_property
    def zone(self) -> ZoneInfo:
        """The timezone. Raises ValueError for one that there is not."""
        try:
            if not _ZONE.fullmatch(self.timezone):
                raise ValueError
            return ZoneInfo(self.timezone)
        except (KeyError, ValueError, TypeError, OSError):
            raise ValueError(f"there is no timezone {str(self.timezone)[:64]!r}; give an IANA name such as Europe/Berlin or UTC") from None

    @property
    def _expression(self) -> str:
        text = str(self.cron).strip()
        return _MACROS.get(text.lower(), text)

    def times(self, after: int, until: int) -> Iterator[int]:
        """Yield the times in (after, until], in order, each once."""
        if self.every_s is not None:
            step = self.every_s * 1000
            yield from range((after // step + 1) * step, until + 1, step)
            return
        # Cron has whole minutes: the search may begin at a whole second, and what it says must be later than what came before.
        last = max(0, after)
        start = datetime.fromtimestamp(last // 1000, self.zone)
        for found in CronSim(self._expression, start):
            at = int(found.timestamp()) * 1000
            if at > until:
                return
            if at > last:
                last = at
                yield at

    def next(self, after: int) -> int | None:
        """Return the first time after a moment; None where none comes within five years."""
        return next(self.times(after, min(after + HORIZON_MS, _LATEST_MS)), None)

    def last(self, after: int, until: int) -> int | None:
        """Return the last time in (after, until], or None. The cost does not grow with the number of times in between."""
        width = _HOUR_MS
        while True:
            since = max(after, until - width)
            newest = deque(self.times(since, until), maxlen=1)
            if newest or since == after:
                return newest[0] if newest else None
            width *= 4

    def local(self, at: int) -> datetime:
        """Return a moment in the timezone."""
        return datetime.fromtimestamp(at / 1000, self.zone)
