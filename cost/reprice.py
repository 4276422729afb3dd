"""What an execution would cost by other prices, as corrections of what it was charged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .prices import PriceTable, UsageLine, settle_micros


class Charge(NamedTuple):
    """Micros of an execution in a day (since 1970-01-01 UTC) and category: what it was charged, or how that is corrected."""

    day: int
    category: str
    micros: int


def corrections(charged: Sequence[Charge], lines: Iterable[UsageLine], table: PriceTable) -> list[Charge]:
    """Return what makes of the charges of one execution what its usage costs by `table`; none where they agree.

    charged: in the order of their days, with what earlier corrections made of them. More is charged in the first day of its category;
    less is taken from the days in their order, from none more than it has.
    Raises ValueError where the table has no price for a unit.
    """
    costs = settle_micros(lines, table)
    found: list[Charge] = []
    for category in sorted({*costs, *(each.category for each in charged if each.category)}):
        days = [each for each in charged if each.category == category]
        more = costs.get(category, 0) - sum(each.micros for each in days)
        if more > 0:
            found.append(Charge((days or charged)[0].day, category, more))
        for each in days:
            less = min(max(0, -more), each.micros)
            if less:
                found.append(Charge(each.day, category, -less))
                more += less
    return found
