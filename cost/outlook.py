"""What the cost agent looks at: a run with what is pending, and its tenant. Values, in micros, of one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from cost.plan import NodeCost

OnFloor = Literal["terminate", "hold", "finish"]
"""What becomes of a run whose required nodes can no longer be paid for."""

# Per mille of confidence: half is given, half is earned by completion; other runs take some away.
_LEAST, _MOST, _GIVEN, _BY_RUN, _BY_RUNS = 300, 950, 500, 100, 300

# What cost more than it was estimated at is planned at that and 2 % more: no two nodes turn out quite alike, and the last one finds what
# the others left.
_WITH_MARGIN: Final = 102

LEFT_LOWER_PERCENT: Final = 5
"""A threshold that was passed counts as left this many points lower."""


class Basis(NamedTuple):
    """The situation of a verdict: the day, the limits in micros (None: none), the highest level that is entered, 0 to 3."""

    day: str = ""
    limit_day: int = 0
    limit_month: int | None = None
    level: int = 0

    def richer_than(self, before: Basis) -> bool:
        """Whether money has appeared since: it is another day, a limit was raised, or a level was left."""
        if self.day != before.day or self.level < before.level or self.limit_day > before.limit_day:
            return True
        return before.limit_month is not None and (self.limit_month is None or self.limit_month > before.limit_month)


NOWHERE: Final = Basis()


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with pending nodes, in micros. `spent` counts since its admission, of which `before` in earlier periods.

    `hold` is unspent, `reserved` is with its open executions, `estimate` is that of its plan as it is now, of which
    `finished` are done. `room` is what it may still be given by the tenant and by its own limit. `pending` holds the
    nodes that have not started, each at its full quality; `any_pending` says whether there are any. What ran or runs before them is
    either among them at no cost, or left out, and each node that it feeds is `fed`. Skipped nodes are left out. `current` is what
    each pending node is chosen to be now, where that is not as it is. `basis` is that of the last verdict on the run, None where
    there was none. `running` nodes are in workers' hands. `stopped` says what an earlier decision made of the run: on hold until
    somebody approves it, or nothing more starts.
    """

    run: str
    spent: int
    before: int
    hold: int
    reserved: int
    estimate: int
    finished: int
    room: int
    pending: Sequence[NodeCost]
    any_pending: bool = True
    current: Mapping[str, str] = field(default_factory=dict)
    basis: Basis | None = None
    running: int = 0
    stopped: Literal["", "hold", "finish"] = ""

    @property
    def available(self) -> int:
        """What it has and may still be given for what is pending."""
        return self.hold + self.room

    @property
    def prior(self) -> int:
        """e0: a tenth of the run's estimate, so that a first small node proves nothing."""
        return self.estimate // 10

    def expected(self, estimate: int) -> int:
        """What an estimate of this run will cost, going by what its finished nodes did; rounded up."""
        seen, told = self.spent + self.prior, self.finished + self.prior
        return -(-estimate * seen // told) if told else estimate

    def likely(self, estimate: int) -> int:
        """What an estimate of this run is planned at: what was seen, without e0, once a tenth of it is finished and cost more than said."""
        expected = self.expected(estimate)
        return max(expected, -(-estimate * self.spent * _WITH_MARGIN // (100 * self.finished))) if self._dear else expected

    def affords(self, micros: int) -> int:
        """How much estimate so much money pays for; the inverse of `likely`."""
        damped = micros * (self.finished + self.prior) // (self.spent + self.prior) if self.spent + self.prior else micros
        return min(damped, micros * 100 * self.finished // (_WITH_MARGIN * self.spent)) if self._dear else damped

    def left(self, waiting: int, claimed: int) -> int:
        """What is there for pending nodes of that estimate, once others took what they claim of the room.

        An open execution has reserved its estimate; where the finished ones cost more, so will it, and the hold pays for that.
        """
        opened = max(0, self.estimate - self.finished - waiting)
        owed = max(0, self.likely(opened) - self.reserved) if self.proven else 0
        return max(0, self.available - min(self.room, claimed) - owed)

    @property
    def _dear(self) -> bool:
        """Whether what is finished cost more than it was estimated at, and is enough to say so."""
        return self.proven and self.spent > self.finished

    @property
    def projected(self) -> int:
        """What the run will have cost the period."""
        return max(self.spent + self.hold + self.reserved, self.expected(self.estimate)) - self.before

    @property
    def likely_total(self) -> int:
        """What the run will have cost the period, going by `likely` for all that is not finished; at least what it is projected at."""
        rest = self.likely(max(0, self.estimate - self.finished)) if self._dear else 0
        return max(self.projected, self.spent + rest - self.before)

    @property
    def proven(self) -> bool:
        """Whether so much is finished that its cost says something of the rest."""
        return self.finished > 0 and self.finished >= self.prior

    def confidence(self, runs: int) -> int:
        """How far the projection is to be trusted beside that many active runs, per mille: 300 to 950."""
        completion = 1000 * self.finished // self.estimate if self.estimate else 1000
        earned = min(_MOST, _GIVEN + (1000 - _GIVEN) * completion // 1000)
        return max(_LEAST, earned - min(_BY_RUNS, _BY_RUN * max(0, runs - 1)))


@dataclass(frozen=True, slots=True)
class TenantView:
    """The tenant in its tightest period. Amounts are micros, thresholds per cent of the limit or of `max_runs`.

    `elsewhere` is settled outside active runs. `others` is what the other active runs are projected to cost the period (the sum
    of their `projected`), `others_likely` what they are likely to (the sum of their `likely_total`), and `active` counts all active
    runs, this one too. `basis` is that of a verdict made now. `levels` are the thresholds of the flags. `budget` is the rate from
    which a run is degraded that does not fit, None for not before a node is refused; `concurrency` is the factor from which runs that
    wait degrade those that run, None for never.
    """

    limit: int
    committed: int
    elsewhere: int
    others: int
    active: int
    running: int
    max_runs: int
    waiting: int
    basis: Basis = NOWHERE
    levels: tuple[int, int, int] = (80, 90, 100)
    budget: int | None = 90
    concurrency: int | None = 80
    on_floor: OnFloor = "terminate"
    observe: bool = False
    others_likely: int = 0

    @property
    def claimed(self) -> int:
        """What the other active runs are likely to take beyond what they are projected at, which counts as theirs already."""
        return max(0, self.others_likely - self.others)

    @property
    def factor(self) -> int:
        """The concurrency factor, per cent; a tenant without a place has it at 100."""
        return 100 * self.running // self.max_runs if self.max_runs else 100

    def reached(self, percent: int | None) -> bool:
        """Whether so much of the limit is committed; a limit of 0 always is."""
        return percent is not None and (self.limit == 0 or self.committed * 100 >= percent * self.limit)

    def remains_below(self, percent: int) -> bool:
        """Whether less than that of the limit is left."""
        return self.limit == 0 or (self.limit - self.committed) * 100 < percent * self.limit

    @property
    def high(self) -> bool:
        """Whether the concurrency factor is high."""
        return self.concurrency is not None and self.running * 100 >= self.concurrency * self.max_runs

    @property
    def crowded(self) -> bool:
        """Whether runs wait for one of several places of which many are taken. The line for a single place is the tenant's own order."""
        return self.high and self.waiting > 0 and self.max_runs > 1
