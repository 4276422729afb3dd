"""Which variant of a task runs: the one whose quality per cost could be best, going by what is known (UCB1, Auer et al. 2002)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .profile import Profile


class Candidate(NamedTuple):
    """A variant ('' is the task as it is): executions known of it, as they count now; mean quality, 0 to 1; mean cost in micros."""

    variant: str
    weight: float
    quality: float
    micros: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen and from what: with the candidates, the profile and `seen` it can be made again."""

    variant: str
    reason: str
    candidates: tuple[Candidate, ...]
    seen: int


def choose(candidates: Sequence[Candidate], profile: Profile, seen: int) -> Choice:
    """Return the variant to run. The first candidate is the declared default; `seen` is how many executions were ever learned from.

    Below the profile's `runs` the default is taken, and where nothing may be explored the best of those that are known. Else each one's
    quality per cost, as a share of the best, and confidence x sqrt(ln total / weight) are added up, where `total` is the sum of the
    weights; the highest sum runs, one that is unknown first; of equal ones the first.
    Raises ValueError without candidates.
    """
    if not candidates:
        raise ValueError("there is no variant to choose from; give the declared default first")
    given = tuple(candidates)
    known = [each for each in given if each.weight > 0]
    if seen < profile.runs or not known:
        return Choice(given[0].variant, f"default: {seen} executions are known, of {profile.runs}", given, seen)
    scores = {each.variant: each.quality / max(each.micros, 1.0) for each in known}
    if not profile.explores:
        chosen = max(known, key=lambda each: scores[each.variant])
        return Choice(chosen.variant, "best: nothing is explored", given, seen)
    if len(known) < len(given):
        new = next(each for each in given if each.weight <= 0)
        return Choice(new.variant, "nothing is known of it", given, seen)
    best = max(scores.values()) or 1.0
    wide = profile.confidence / 1_000 * math.sqrt(math.log(max(math.e, sum(each.weight for each in given))))
    bounds = {each.variant: scores[each.variant] / best + wide / math.sqrt(each.weight) for each in given}
    chosen = max(given, key=lambda each: bounds[each.variant])
    return Choice(chosen.variant, f"bound {bounds[chosen.variant]:.3f}", given, seen)
