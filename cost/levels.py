"""Levels of what is committed against a limit, as the record and people read them; `cost/levels.lua` decides them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from .period import MS_PER_DAY, day_of, month_ends_ms, name_of

NAMES: Final = ("WARNING", "CRITICAL", "EXCEEDED")
HEALTHY: Final = "HEALTHY"

LEFT_LOWER: Final = 5
"""Percent points by which a level is left lower than it was entered."""

ACTIONS: Final = ("notify", "hold", "suspend", "suspend_now")
"""What a policy may say of a level, the weakest first."""

STRENGTH: Final = {name: strength for strength, name in enumerate(ACTIONS, 1)}

RATE_PPM_MAX: Final = 1_000_000_000


class Level(NamedTuple):
    """The level of a day or month, and for the how many-th time in it; HEALTHY has entry 0."""

    name: str = HEALTHY
    entry: int = 0


def rate_ppm(committed: int, limit: int) -> int:
    """Return how many millionths of the limit are committed, rounded down; 1,000,000 for a limit of 0, never more than 10^9."""
    return min(RATE_PPM_MAX, committed * 1_000_000 // limit) if limit else 1_000_000


def read_level(row: str | None, period: str) -> Level:
    """Return the level that a field of the hash `level` says for `period` (`2026-11-22` or `2026-11`); another period's says HEALTHY."""
    known, _, rest = (row or "").partition("|")
    if known != period:
        return Level()
    held, _, entries = rest.partition("|")
    at = held.rfind("1")
    return Level() if at < 0 else Level(NAMES[at], int(entries.split(",")[at]))


def level_rows(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the hashes `level` by tenant that recorded level events, in their order, leave behind: the newest day and month of each."""
    newest: dict[tuple[str, str], str] = {}
    latches: dict[tuple[str, str], tuple[list[str], list[int]]] = {}
    for event in events:
        tenant, period = str(event["tenant"]), str(event["period"])
        place = tenant, "month" if len(period) == len("2026-11") else "day"
        if period > newest.get(place, ""):
            newest[place], latches[place] = period, (["0"] * 3, [0] * 3)
        if period == newest[place]:
            at = NAMES.index(str(event["level"]))
            held, entries = latches[place]
            held[at] = "1" if event["t"] == "level.entered" else "0"
            entries[at] = int(event["entry"])
    rows: dict[str, dict[str, str]] = {}
    for (tenant, name), (held, entries) in latches.items():
        rows.setdefault(tenant, {})[name] = f"{newest[tenant, name]}|{''.join(held)}|{','.join(map(str, entries))}"
    return rows


def stopped_until(policy: Mapping[str, str], rows: Mapping[str, str], now_ms: int) -> tuple[int | None, int | None]:
    """Return until when (ms) the levels of a tenant let nothing start, and until when they also end what runs; None: they do not.

    policy: the fields of its hash. rows: its hash `level`.
    """
    if policy.get("enforcement") in ("observe", "off"):
        return None, None
    today = day_of(now_ms)
    stopped: list[int] = []
    halted: list[int] = []
    for name, period, end in (("day", name_of(today), (today + 1) * MS_PER_DAY), ("month", name_of(today)[:7], month_ends_ms(today))):
        known, held, *_ = (rows.get(name) or "||").split("|")
        if known != period or (name == "month" and not policy.get("limit_month")):
            continue
        for level, entered in zip(NAMES, held, strict=True):
            strength = STRENGTH.get(policy.get(f"on_{level.lower()}") or "", 0) if entered == "1" else 0
            if strength >= STRENGTH["suspend"]:
                stopped.append(end)
            if strength >= STRENGTH["suspend_now"]:
                halted.append(end)
    return max(stopped, default=None), max(halted, default=None)
