"""How much a tenant learns: three profiles, and what pressure on its budget makes of them. Per mille throughout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

Pressure = Literal["eased", "none", "high", "exceeded"]

LEFT_PERMILLE: Final = 50
"""A threshold that was passed is left that far on its other side, as the levels of a budget are."""

_HIGH, _EASED = 900, 500
_EXPLORATION_MOST, _SHARE_MOST = 300, 200


@dataclass(frozen=True, slots=True)
class Profile:
    """What learning is allowed; values per mille where not said otherwise.

    exploration: of the choices that may be of another variant than the best. confidence: c of the upper confidence bound, in thousandths.
    runs: below so many the declared default is taken. share: of the limit that learning may cost, and exploring of that.
    explores: whether anything runs for the sake of learning. every_runs: how many runs its values stand for, 0 where `every_days` counts.
    gives, takes: whether others learn from it, and it from others, where the tenant's own flag allows it too.
    """

    name: str
    exploration: int
    confidence: int
    runs: int
    share: int
    explores: bool
    exploring: int
    every_days: int
    every_runs: int
    gives: bool
    takes: bool


PROFILES: Final = {
    each.name: each
    for each in (
        Profile("CONSERVATIVE", 50, 500, 1_000, 50, False, 100, 7, 0, False, True),
        Profile("BALANCED", 100, 1_000, 500, 100, True, 200, 1, 0, True, True),
        Profile("AGGRESSIVE", 200, 2_000, 100, 200, True, 300, 0, 50, True, True),
    )
}


def pressure(rate: int, before: Pressure = "none", *, exceeded: bool = False) -> Pressure:
    """Return the pressure at a rate of committed to limit, per mille, after what it was before; a threshold is left 50 beyond it."""
    if exceeded:
        return "exceeded"
    if rate > _HIGH or (before in ("high", "exceeded") and rate > _HIGH - LEFT_PERMILLE):
        return "high"
    if rate < _EASED or (before == "eased" and rate < _EASED + LEFT_PERMILLE):
        return "eased"
    return "none"


def effective(base: Profile, under: Pressure) -> Profile:
    """Return what holds of a profile under pressure: always from the base, so that doing it twice changes nothing.

    Eased, exploration and share are raised by a fifth, up to 300 and 200, and never lowered; high halves both and stops exploring;
    exceeded leaves learning nothing.
    """
    match under:
        case "eased":
            exploration = max(base.exploration, min(_EXPLORATION_MOST, base.exploration * 6 // 5))
            return replace(base, exploration=exploration, share=max(base.share, min(_SHARE_MOST, base.share * 6 // 5)))
        case "high":
            return replace(base, exploration=base.exploration // 2, share=base.share // 2, explores=False)
        case "exceeded":
            return replace(base, exploration=base.exploration // 2, share=0, explores=False)
    return base


def learning_money(limit_micros: int, profile: Profile) -> int:
    """Return what learning may cost of a limit, in micros, rounded down; that of exploring is `exploring` per mille of it."""
    return limit_micros * profile.share // 1_000
