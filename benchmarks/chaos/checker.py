"""The checker: what the record and Redis must agree on once every run has ended, whatever was killed. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from benchmarks.chaos.log import Event, Evidence, Execution, RunKey, Violation, with_items
from benchmarks.chaos.order import (
    NOT_TAKEN,
    fates_follow_from_parents,
    nothing_begins_while_paused,
    one_execution_at_once,
    parents_first,
    reruns_repeat_nothing,
)

POISON = "three workers died while they ran it"


def check(evidence: Evidence) -> list[Violation]:
    """Return every violation, in the order of the rules."""
    evidence = with_items(evidence)
    return [violation for rule in RULES for violation in rule(evidence)]


def log_is_whole(e: Evidence) -> Iterator[Violation]:
    """Positions follow each other without a hole, and the recorder found nothing wrong."""
    before: Event | None = None
    for event in e.events:
        if event.seq != 1 and (before is None or (event.epoch, event.seq) != (before.epoch, before.seq + 1)):
            yield Violation("log", str(event), f"follows {before}")
        if before is not None and event.epoch < before.epoch:
            yield Violation("log", str(event), f"an epoch goes back, after {before}")
        before = event
    for incident in e.incidents:
        yield Violation("log", "incident", incident)


def submissions_are_kept(e: Evidence) -> Iterator[Violation]:
    """Each submission that returned is one run, and each run has ended."""
    times = Counter(e.keys)
    known = {row.run_id for row in e.runs}
    for key, run_id in e.submitted.items():
        if times[key] != 1:
            yield Violation("submission", key, f"{times[key]} runs have this key")
        if run_id not in known:
            yield Violation("submission", key, f"its run {run_id} is not on record")
    for row in e.runs:
        if row.status not in ("ended", "refused"):
            yield Violation("submission", row.run_id, f"is {row.status} and not ended")


def one_outcome_each(e: Evidence) -> Iterator[Violation]:
    """Every node of every admitted run got exactly one outcome, and the rows say the same; no node succeeded twice."""
    ended: dict[tuple[str, int, str], list[str]] = defaultdict(list)
    for event in _of(e, "node.ended", "node.adopted"):
        for node, outcome in event.endings.items():
            ended[*event.run, node].append(outcome)
    refused = {(row.run_id, row.generation) for row in e.runs if row.status == "refused"}
    for run, shape in e.shapes.items():
        for node in shape if run not in refused else ():
            outcomes = ended.pop((*run, node), [])
            subject = f"{run[0]} {node}"
            if outcomes.count("succeeded") > 1:
                yield Violation("succeeded twice", subject, str(outcomes))
            if len(outcomes) != 1:
                yield Violation("one outcome", subject, f"has {outcomes or 'none'}")
            elif e.outcomes.get((*run, node)) != outcomes[0]:
                yield Violation("one outcome", subject, f"the log says {outcomes[0]}, its row {e.outcomes.get((*run, node))}")
    for (run_id, _, node), outcomes in ended.items():
        yield Violation("one outcome", f"{run_id} {node}", f"is not in the graph, or its run was refused, and has {outcomes}")


def fails_only_by_itself(e: Evidence) -> Iterator[Violation]:
    """What is killed costs a node no attempt: only its own task makes it fail, or three workers that died while they ran it."""
    for event in _of(e, "node.retry", "node.ended"):
        shape = e.shapes.get(event.run, {}).get(event.node[2])
        if shape is None or shape.may_fail or event.data["outcome"] not in ("failed", "timed_out"):
            continue
        if event.data.get("reason") != POISON:
            error = event.data.get("reason") or event.data.get("error")
            yield Violation("fails by itself", f"{event.run[0]} {event.data['node']} at {event}", str(error)[:300])


def charged_once(e: Evidence) -> Iterator[Violation]:
    """Each execution has one reservation and is either settled once or void; waste is booked on void ones only, once."""
    began = Counter(event.execution for event in _of(e, "node.began"))
    kinds: dict[Execution, set[str]] = defaultdict(set)
    for entry in e.ledger:
        if entry.kind not in ("hold", "release"):  # those are of a run
            kinds[entry.execution].add("void" if entry.kind == "expire" else entry.kind)
    closing: dict[Execution, list[str]] = defaultdict(list)
    for event in e.events:
        if event.kind == "money.settled":
            closing[event.execution].append(str(event.data["kind"]))
        elif event.kind == "money.voided":
            closing[event.execution].append("void")
    for execution in sorted(began.keys() | kinds.keys() | closing.keys()):
        subject, entries, events = " ".join(map(str, execution)), kinds[execution], closing[execution]
        if began[execution] != 1:
            yield Violation("charged once", subject, f"began {began[execution]} times")
        if "reserve" not in entries:
            yield Violation("charged once", subject, "has no reservation in the ledger")
        if ("settle" in entries) == ("void" in entries):
            yield Violation("charged once", subject, f"must be settled or void, and has {sorted(entries)}")
        if "waste" in entries and "void" not in entries:
            yield Violation("charged once", subject, "wasted and not void")
        for kind in ("settle", "waste", "void"):
            # A void of recovery is written by the recorder itself: no script made an event of it.
            if events.count(kind) > 1 or (kind in entries and not events.count(kind) and kind != "void"):
                yield Violation("charged once", subject, f"{kind} happened {events.count(kind)} times")
            if kind in events and kind not in entries:
                yield Violation("charged once", subject, f"{kind} is in the log and not in the ledger")
    rebuilt = any(event.kind == "epoch.opened" and int(event.data.get("rebuilt") or 0) for event in e.events)
    if not rebuilt:
        for execution, entries in sorted(kinds.items()):
            if "void" in entries and "void" not in closing[execution]:
                yield Violation("charged once", " ".join(map(str, execution)), "void by recovery, and nothing was rebuilt")


def charged_what_it_used(e: Evidence) -> Iterator[Violation]:
    """A node that succeeded is charged what its task spends, in the attempt that succeeded, unless Redis lost the charge."""
    void = {entry.execution for entry in e.ledger if entry.kind == "expire"}
    rebuilt = {event.epoch for event in e.events if event.kind == "epoch.opened" and int(event.data.get("rebuilt") or 0)}
    settled: dict[Execution, Counter[str]] = defaultdict(Counter)
    for entry in e.ledger:
        if entry.kind == "settle" and entry.category:
            settled[entry.execution][entry.category] += entry.amount
    for event in _of(e, "node.ended"):
        shape = e.shapes.get(event.run, {}).get(event.node[2])
        if event.data["outcome"] != "succeeded" or shape is None:
            continue
        for category, amount in shape.charge.items():
            found = settled[event.execution][category]
            if not found and event.execution in void and any(epoch > event.epoch for epoch in rebuilt):
                continue  # its settlement was in the tail that Redis lost, and not on record
            if found != amount:
                yield Violation("charged exactly", " ".join(map(str, event.execution)), f"{category}: {found} instead of {amount} micros")


def ledger_is_the_counters(e: Evidence) -> Iterator[Violation]:
    """What Redis counts by tenant and day is what the ledger says, to the micro; nothing is held, reserved or running any more."""
    sums: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for entry in e.ledger:
        if entry.kind in ("settle", "waste"):
            day = sums[entry.tenant, entry.day]
            day["settled"] += entry.amount
            day["waste"] += entry.amount if entry.kind == "waste" else 0
            if entry.category:
                day[f"c:{entry.category}"] += entry.amount
    for key in sorted(sums.keys() | e.spent.keys()):
        wanted, found = sums[key], e.spent.get(key, {})
        for name in sorted(wanted.keys() | found.keys()):
            if int(found.get(name, 0)) != wanted[name]:
                detail = f"{name} is {found.get(name, 0)} in Redis and {wanted[name]} in the ledger"
                yield Violation("counters", f"{key[0]} day {key[1]}", detail)
    for tenant, counters in sorted(e.counters.items()):
        for name in ("held", "running"):
            if int(counters.get(name) or 0):
                yield Violation("counters", tenant, f"{name} is {counters[name]} with no run left")


def outcome_follows(e: Evidence) -> Iterator[Violation]:
    """A run's outcome follows from its nodes', and its counts are theirs."""
    nodes: dict[RunKey, dict[str, str]] = defaultdict(dict)
    cancelled: set[RunKey] = set()
    cheaper: dict[tuple[str, int, str], bool] = {}
    untaken: set[tuple[str, int, str]] = set()
    ends: dict[RunKey, list[Event]] = defaultdict(list)
    for event in e.events:
        if event.kind in ("node.ended", "node.adopted"):
            nodes[event.run].update(event.endings)
            if str(event.data.get("reason") or "").startswith(NOT_TAKEN):
                untaken.add(event.node)
        elif event.kind == "run.cancelling":
            cancelled.add(event.run)
        elif event.kind == "node.began":
            cheaper[event.node] = bool(event.data.get("verdict"))
        elif event.kind == "run.ended":
            ends[event.run].append(event)
    for row in e.runs:
        run = (row.run_id, row.generation)
        if row.status == "refused":
            continue
        shape, outcomes = e.shapes.get(run, {}), nodes[run]
        bad = [node for node, outcome in outcomes.items() if outcome != "succeeded" and (*run, node) not in untaken]
        required_bad = any(shape[node].required for node in bad if node in shape)
        expected = "succeeded"
        if run in cancelled:
            expected = "cancelled"
        elif required_bad:
            expected = "failed"
        elif bad or any(outcome == "succeeded" and cheaper.get((*run, node)) for node, outcome in outcomes.items()):
            expected = "degraded"
        if row.outcome != expected:
            yield Violation("run outcome", row.run_id, f"is {row.outcome}, its nodes make it {expected}")
        if len(ends[run]) != 1:
            yield Violation("run outcome", row.run_id, f"ended {len(ends[run])} times")
            continue
        counts = {str(name): int(count) for name, count in dict(ends[run][0].data.get("counts") or {}).items()}
        if counts != dict(Counter(outcomes.values())):
            yield Violation("run outcome", row.run_id, f"counts {counts}, its nodes {dict(Counter(outcomes.values()))}")


def cost_is_the_settlements(e: Evidence) -> Iterator[Violation]:
    """A run costs the sum of its settlements; its last event says what was settled until then."""
    ledger: Counter[RunKey] = Counter()
    for entry in e.ledger:
        if entry.kind in ("settle", "waste"):
            ledger[entry.run_id, entry.generation] += entry.amount
    so_far: Counter[RunKey] = Counter()
    for event in e.events:
        if event.kind == "money.settled":
            so_far[event.run] += int(event.data["amount"])
        elif event.kind == "run.ended" and int(event.data["cost"]) != so_far[event.run]:
            yield Violation("run cost", event.run[0], f"its end says {event.data['cost']} and {so_far[event.run]} was settled by then")
    for row in e.runs:
        run = (row.run_id, row.generation)
        if not row.cost_micros == ledger[run] == so_far[run]:
            yield Violation("run cost", row.run_id, f"is {row.cost_micros}, the ledger sums to {ledger[run]}, the log to {so_far[run]}")


def nothing_left(e: Evidence) -> Iterator[Violation]:
    """Redis holds no message, lease, hold or live run of what has ended."""
    for name, count in sorted(e.leftovers.items()):
        if count:
            yield Violation("leftovers", name, f"{count} left")


def logs_are_whole_and_make_the_record(e: Evidence) -> Iterator[Violation]:
    """The chain of each run's log is whole, and the log alone makes the run's record, byte for byte."""
    for sentence in e.replays:
        run, _, difference = sentence.partition(": ")
        yield Violation("replay", run, difference)


RULES = (
    log_is_whole,
    submissions_are_kept,
    one_outcome_each,
    parents_first,
    fates_follow_from_parents,
    nothing_begins_while_paused,
    reruns_repeat_nothing,
    one_execution_at_once,
    fails_only_by_itself,
    charged_once,
    charged_what_it_used,
    ledger_is_the_counters,
    outcome_follows,
    cost_is_the_settlements,
    nothing_left,
    logs_are_whole_and_make_the_record,
)


def _of(e: Evidence, *kinds: str) -> Iterable[Event]:
    return (event for event in e.events if event.kind in kinds)
