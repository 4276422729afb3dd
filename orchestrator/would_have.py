"""What decisions that were only observed would have given up, and saved. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.store.decisions import STOPPING, Change, DecisionView


@dataclass(frozen=True)
class WouldHave:
    """What the observed decisions about a tenant's runs come to.

    given_up: nodes by what would have become of them, `skip` or the kind of the variant. saving_micros: by the estimates. stopped: runs by
    the action that would have stopped them: terminate, hold or finish.
    """

    tenant: str
    decisions: int
    runs: int
    given_up: dict[str, int] = field(default_factory=dict)
    saving_micros: int = 0
    stopped: dict[str, int] = field(default_factory=dict)


def would_have(decisions: Iterable[DecisionView]) -> list[WouldHave]:
    """Return the sums by tenant, of the decisions that were only observed, in their order.

    Nothing came of them, so the agent said the same of a node again and again: the last word on each node counts, once.
    """
    counted: dict[str, list[DecisionView]] = {}
    for each in decisions:
        if each.observed:
            counted.setdefault(each.tenant, []).append(each)
    return [_of_tenant(tenant, found) for tenant, found in sorted(counted.items())]


def _of_tenant(tenant: str, decisions: list[DecisionView]) -> WouldHave:
    words: dict[tuple[str, int, str], Change] = {}
    stopped: dict[tuple[str, int], str] = {}
    for each in decisions:
        run = (each.run_id, each.generation)
        for change in each.plan:
            words[(*run, change.node)] = change
        if each.action in STOPPING:
            stopped[run] = each.action
    kept = [change for change in words.values() if change.saving > 0]
    return WouldHave(
        tenant,
        len(decisions),
        len({(each.run_id, each.generation) for each in decisions}),
        dict(sorted(Counter(change.type for change in kept).items())),
        sum(change.saving for change in kept),
        dict(sorted(Counter(stopped.values()).items())),
    )
