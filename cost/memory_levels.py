"""Levels on dictionaries: what `cost/levels.lua` means, with the latches of the simulator."""

from __future__ import annotations

import calendar
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from cost.levels import LEFT_LOWER, STRENGTH, rate_ppm
from cost.simulator.levels import NAMES, Latches
from tenancy.transport.memory import MemoryQueue

DAY_MS: Final = 86_400_000


@dataclass(slots=True, kw_only=True)
class LevelTerms:
    """What a tenant's policy says of levels: percent of the limit, and what is done on each; the month's limit, None is none."""

    limit_month: int | None = None
    warn: int = 80
    critical: int = 90
    exceeded: int = 100
    on_warning: str = "notify"
    on_critical: str = "notify"
    on_exceeded: str = "notify"
    enforcement: str = "enforce"

    @property
    def percents(self) -> tuple[int, int, int]:
        return self.warn, self.critical, self.exceeded

    @property
    def acts(self) -> tuple[str, str, str]:
        return self.on_warning, self.on_critical, self.on_exceeded


@dataclass(slots=True)
class Standing:
    """The latches of a tenant's day or month, and which day or month that was."""

    period: str = ""
    latches: Latches = field(default_factory=Latches)

    def row(self) -> str:
        """As the hash `level` has it."""
        return f"{self.period}|{''.join(str(int(held)) for held in self.latches.held)}|{','.join(map(str, self.latches.entries))}"


class Period(NamedTuple):
    """A period of now that has a limit; `ends` in ms."""

    name: str
    period: str
    limit: int
    committed: int
    ends: int


class MemoryLevels(MemoryQueue, ABC):
    """What is committed against limits, by the ledger that inherits this."""

    def __init__(self, *, server: str = "local", now_ms: int = 0) -> None:
        super().__init__(server=server, now_ms=now_ms)
        self.levels: dict[tuple[str, str], Standing] = {}

    @abstractmethod
    def _level_terms(self, tenant: str) -> tuple[int, LevelTerms]:
        """The limit of the day, and the rest of a tenant's terms."""

    @abstractmethod
    def _committed(self, tenant: str, days: range) -> int:
        """Settled and reserved of these days."""

    def level(self, tenant: str) -> int:
        """A tenant's policy or period changed: enter and leave levels by what holds now."""
        self._fence()
        self._take_levels(tenant, "policy")
        return 1

    def _periods(self, tenant: str) -> list[Period]:
        """The day, and the month where it has a limit; their latches begin anew with them."""
        limit, terms = self._level_terms(tenant)
        today = self.now_ms // DAY_MS
        date = datetime.fromtimestamp(self.now_ms // 1000, UTC).date()
        found = [Period("day", date.isoformat(), limit, self._committed(tenant, range(today, today + 1)), (today + 1) * DAY_MS)]
        if terms.limit_month is not None:
            first = today - date.day + 1
            days = range(first, first + calendar.monthrange(date.year, date.month)[1])
            found.append(Period("month", f"{date:%Y-%m}", terms.limit_month, self._committed(tenant, days), days.stop * DAY_MS))
        return found

    def _latches(self, tenant: str, period: Period) -> Latches:
        known = self.levels.get((tenant, period.name))
        return known.latches if known is not None and known.period == period.period else Latches()

    def _take_levels(self, tenant: str, cause: str) -> None:
        """Enter and leave levels after what is committed, a limit or the policy has changed."""
        _, terms = self._level_terms(tenant)
        changed = cause == "policy"
        for period in self._periods(tenant):
            latches = self._latches(tenant, period)
            for level, entered, entry in latches.update(period.committed, period.limit, terms.percents, LEFT_LOWER):
                self.levels[tenant, period.name] = Standing(period.period, latches)
                changed = True
                act = terms.acts[NAMES.index(level)]
                told = {"would_act": act} if entered and terms.enforcement == "observe" and STRENGTH[act] > STRENGTH["notify"] else {}
                self._append(
                    "level.entered" if entered else "level.left",
                    tenant=tenant,
                    period=period.period,
                    level=level,
                    entry=entry,
                    rate_ppm=rate_ppm(period.committed, period.limit),
                    committed=str(period.committed),
                    limit=str(period.limit),
                    cause=cause,
                    **told,
                )
        if changed:
            self._stop_until(tenant, self._lasts_until(tenant, STRENGTH["suspend"]))
            self.halted.pop(tenant, None)
            if (halted := self._lasts_until(tenant, STRENGTH["suspend_now"])) is not None:
                self.halted[tenant] = halted

    def _action(self, tenant: str) -> tuple[int, int]:
        """The strongest action of the levels that are entered, and until when (ms) that strength lasts at most."""
        return max([(STRENGTH["notify"], 0), *self._acting(tenant)])

    def _lasts_until(self, tenant: str, least: int) -> int | None:
        """Until when (ms) some level that is entered acts with at least that strength."""
        return max((ends for strength, ends in self._acting(tenant) if strength >= least), default=None)

    def _acting(self, tenant: str) -> list[tuple[int, int]]:
        """Strength and end (ms) of the action of each level that is entered."""
        _, terms = self._level_terms(tenant)
        found = []
        for period in self._periods(tenant):
            for held, act in zip(self._latches(tenant, period).held, terms.acts, strict=True):
                if held and terms.enforcement == "enforce":
                    found.append((STRENGTH[act], period.ends))
        return found

    def _spent_up(self, tenant: str) -> tuple[str, str, int, bool] | None:
        """Why levels let no new run in: None, or limit, committed, when that ends (ms), and whether the policy says that runs wait."""
        if self._level_terms(tenant)[1].enforcement != "enforce":
            return None
        periods = self._periods(tenant)
        full = next((period for period in periods if period.committed >= period.limit), None)
        strength, ends = self._action(tenant)
        if strength == STRENGTH["notify"]:
            return None if full is None else (str(full.limit), str(full.committed), full.ends, False)
        shown = full or periods[0]
        return str(shown.limit), str(shown.committed), ends, True

    def check(self) -> None:
        """Assert that latches stand as what is committed says, and that exactly those are stopped whose level says so."""
        super().check()
        for (tenant, name), standing in self.levels.items():
            period = next((each for each in self._periods(tenant) if (each.name, each.period) == (name, standing.period)), None)
            if period is None:
                continue
            _, terms = self._level_terms(tenant)
            for level, percent, held in zip(NAMES, terms.percents, standing.latches.held, strict=True):
                above = period.limit == 0 or period.committed * 100 >= percent * period.limit
                far_below = period.limit > 0 and period.committed * 100 < (percent - LEFT_LOWER) * period.limit
                assert held or not above, f"{tenant} is not at {level} with {period}"
                assert not held or not far_below, f"{tenant} is at {level} with {period}"
