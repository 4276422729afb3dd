"""Rules of order: who may begin when, what a join waits for, and what becomes of those that never begin. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from benchmarks.chaos.log import Event, Evidence, NodeShape, RunKey, Violation

PASSING = ("succeeded", "skipped")
OPTIONAL_PASSING = (*PASSING, "failed", "timed_out")
CLOSING = ("run.cancelling", "run.stopping", "run.ended")
NOT_TAKEN = "not taken: "

NodeKey = tuple[str, int, str]


def parents_first(e: Evidence) -> Iterator[Violation]:
    """No execution begins before its parents' outcomes let it begin; nor after its own, its cancellation, or its run's end or fence."""
    ended: dict[RunKey, dict[str, str]] = defaultdict(dict)
    results: dict[NodeKey, str] = {}
    closed: dict[RunKey, str] = {}
    told: set[NodeKey] = set()
    expanded: set[NodeKey] = set()
    for event in e.events:
        if is_expanded(event):
            expanded.add(event.node)
        if event.kind in ("node.ended", "node.adopted"):
            ended[event.run].update(event.endings)
            results.update({(*event.run, node): str(event.data.get("result") or "") for node in event.endings})
        elif event.kind in CLOSING:
            closed[event.run] = event.kind
        elif event.kind == "node.cancelling":
            told.update((*event.run, str(node)) for node in event.data["nodes"])
        elif event.kind == "node.began":
            subject = f"{event.run[0]} {event.data['node']} at {event}"
            if event.run in closed:
                yield Violation("parents first", subject, f"begins after {closed[event.run]}")
            if event.node in told:
                yield Violation("parents first", subject, "begins after node.cancelling")
            if event.node[2] in ended[event.run]:
                yield Violation("parents first", subject, f"begins though it is {ended[event.run][event.node[2]]}")
            shape = e.shapes.get(event.run, {})
            if event.node[2] in shape:
                for why in _in_the_way(event.node, shape, ended[event.run], results):
                    yield Violation("parents first", subject, why)
                for why in _missing_items(shape[event.node[2]], ended[event.run]) if event.node in expanded else ():
                    yield Violation("parents first", subject, why)


def is_expanded(event: Event) -> bool:
    """Whether a map has become all of its items with this event, which ends its first execution."""
    return event.kind == "node.expanded" and int(event.data["first"]) + int(event.data["count"]) >= int(event.data["of"])


def _missing_items(mine: NodeShape, ended: Mapping[str, str]) -> Iterator[str]:
    """What a map that gathers does not wait for, and should."""
    succeeded = sum(ended.get(item) == "succeeded" for item in mine.items)
    if isinstance(mine.over, int):
        if succeeded < mine.over:
            yield f"{succeeded} of its items have succeeded, and it waits for {mine.over}"
    elif left := [item for item in mine.items if item not in ended or (mine.over == "all_succeeded" and ended[item] not in PASSING)]:
        yield f"its item {left[0]} is {ended.get(left[0]) or 'not ended'}"


def _in_the_way(node: NodeKey, shape: Mapping[str, NodeShape], ended: Mapping[str, str], results: Mapping[NodeKey, str]) -> Iterator[str]:
    mine = shape[node[2]]
    if isinstance(mine.join, int):
        succeeded = sum(ended.get(parent) == "succeeded" for parent in mine.parents)
        if succeeded < mine.join:
            yield f"{succeeded} of its parents have succeeded, and it waits for {mine.join}"
    else:
        for parent in mine.parents:
            outcome = ended.get(parent)
            passing = PASSING if shape[parent].required else OPTIONAL_PASSING
            if outcome is None or (mine.join == "all_succeeded" and outcome not in passing):
                yield f"its parent {parent} is {outcome or 'not ended'}"
    if mine.when is not None:
        asked, text, equal = mine.when
        if ended.get(asked) != "succeeded":
            yield f"its condition asks about {asked}, which is {ended.get(asked) or 'not ended'}"
        elif results.get((node[0], node[1], asked)) and (results[node[0], node[1], asked] == text) != equal:
            yield f"its condition does not hold: {asked} is {results[node[0], node[1], asked]}"


def fates_follow_from_parents(e: Evidence) -> Iterator[Violation]:
    """A node that never began is what its parents and its condition make of it, or was cancelled; nobody else is left out."""
    ended: dict[RunKey, dict[str, str]] = defaultdict(dict)
    reasons: dict[NodeKey, str] = {}
    closed: set[RunKey] = set()
    told: set[NodeKey] = set()
    began: set[NodeKey] = set()
    results: dict[NodeKey, str] = {}
    for event in e.events:
        if event.kind == "node.adopted":
            ended[event.run].update(event.endings)
        elif event.kind == "node.ended":
            ended[event.run].update(event.endings)
            reasons[event.node] = str(event.data.get("reason") or "")
            results[event.node] = str(event.data.get("result") or "")
        elif event.kind in ("run.cancelling", "run.stopping"):
            closed.add(event.run)
        elif event.kind == "node.cancelling":
            told.update((*event.run, str(node)) for node in event.data["nodes"])
        elif event.kind == "node.began":
            began.add(event.node)
    for run, outcomes in ended.items():
        shape = e.shapes.get(run, {})
        untaken = {node for node in outcomes if reasons.get((*run, node), "").startswith(NOT_TAKEN)}
        for node, outcome in outcomes.items():
            key = (*run, node)
            if node not in shape or outcome in ("succeeded", "failed", "timed_out"):
                continue
            wrong = ""
            if outcome == "cancelled":
                wrong = "" if run in closed or key in told else "cancelled, and nobody cancelled it"
            elif node in untaken:
                wrong = _why_taken(shape[node], untaken, outcomes, run, results)
            elif outcome == "upstream_failed":
                wrong = "" if _is_out_of_reach(shape[node], shape, outcomes) else "upstream_failed, and its parents let it begin"
            elif outcome == "skipped" and key not in began:
                wrong = f"skipped without an execution: {reasons.get(key)!r}"
            if wrong:
                yield Violation("fate", f"{run[0]}.{run[1]} {node}", wrong)


def _why_taken(mine: NodeShape, untaken: set[str], outcomes: Mapping[str, str], run: RunKey, results: Mapping[NodeKey, str]) -> str:
    if mine.parents and all(parent in untaken for parent in mine.parents):
        return ""
    if mine.when is None:
        return "not taken, though a parent was taken and it has no condition"
    asked, text, equal = mine.when
    if outcomes.get(asked) != "succeeded":
        return ""
    found = results.get((*run, asked), "")
    return f"not taken, though {asked} is {found}" if found and (found == text) == equal else ""


def _is_out_of_reach(mine: NodeShape, shape: Mapping[str, NodeShape], outcomes: Mapping[str, str]) -> bool:
    if mine.items and mine.over != "all_done":
        succeeded = sum(outcomes.get(item) == "succeeded" for item in mine.items)
        if succeeded < (mine.over if isinstance(mine.over, int) else len(mine.items)):
            return True
    if isinstance(mine.join, int):
        return sum(outcomes.get(parent) == "succeeded" for parent in mine.parents) < mine.join
    bad = any(outcomes.get(parent) not in (PASSING if shape[parent].required else OPTIONAL_PASSING) for parent in mine.parents)
    return mine.join == "all_succeeded" and bad


def nothing_begins_while_paused(e: Evidence) -> Iterator[Violation]:
    """Between the pause of the platform, a tenant or a run and its end nothing of it begins."""
    paused: set[str] = set()
    for event in e.events:
        if event.kind == "scope.paused":
            paused.add(str(event.data["scope"]))
        elif event.kind == "scope.resumed":
            paused.discard(str(event.data["scope"]))
        elif event.kind == "node.began":
            scopes = {"platform", f"tenant:{event.data.get('tenant')}", f"run:{event.run[0]}.{event.run[1]}"}
            if held := scopes & paused:
                yield Violation("paused", f"{event.run[0]} {event.data['node']} at {event}", f"begins while {min(held)} is paused")


def reruns_repeat_nothing(e: Evidence) -> Iterator[Violation]:
    """A generation that runs what had no success adopts all that had succeeded, and begins none of it."""
    succeeded: dict[RunKey, set[str]] = defaultdict(set)
    adopted: dict[RunKey, set[str]] = defaultdict(set)
    began: dict[RunKey, set[str]] = defaultdict(set)
    for event in e.events:
        if event.kind in ("node.ended", "node.adopted"):
            succeeded[event.run].update(node for node, outcome in event.endings.items() if outcome == "succeeded")
        if event.kind == "node.adopted":
            adopted[event.run].update(event.endings)
        elif event.kind == "node.began":
            began[event.run].add(event.node[2])
    for row in e.runs:
        if row.generation == 1:
            continue
        before, mine = succeeded[row.run_id, row.generation - 1], (row.run_id, row.generation)
        for node in sorted(before & began[mine]):
            yield Violation("rerun", f"{row.run_id}.{row.generation} {node}", "had succeeded, and began again")
        whole = {item for node in adopted[mine] for item in e.shapes.get((row.run_id, row.generation - 1), {}).get(node, NodeShape()).items}
        for node in sorted(before - adopted[mine] - whole):  # of a map that succeeded the result is adopted, and no item
            yield Violation("rerun", f"{row.run_id}.{row.generation} {node}", "had succeeded, and was not adopted")


def one_execution_at_once(e: Evidence) -> Iterator[Violation]:
    """Executions of one node follow each other: each is ended, to be retried, or declared lost before the next begins."""
    running: dict[NodeKey, int] = {}
    last: dict[NodeKey, int] = {}
    for event in e.events:
        if event.kind == "epoch.opened" and int(event.data.get("rebuilt") or 0):
            running.clear()  # what ran is fenced, and void in the ledger
        if is_expanded(event):
            running.pop(event.node, None)
        if event.kind not in ("node.began", "node.retry", "node.lost", "node.ended"):
            continue
        subject, attempt = f"{event.run[0]} {event.data['node']} at {event}", int(event.data.get("attempt") or 0)
        if event.kind == "node.began":
            if event.node in running:
                yield Violation("one at once", subject, f"attempt {attempt} begins while {running[event.node]} runs")
            if attempt <= last.get(event.node, 0):
                yield Violation("one at once", subject, f"attempt {attempt} comes after {last[event.node]}")
            running[event.node] = last[event.node] = attempt
            continue
        ran = running.pop(event.node, None)
        if event.kind != "node.ended" and ran != attempt:
            yield Violation("one at once", subject, f"{event.kind} of attempt {attempt} while {ran} runs")
        elif event.kind == "node.ended" and ran is not None and ran != attempt:
            yield Violation("one at once", subject, f"attempt {attempt} ended while {ran} runs")
        elif event.kind == "node.ended" and ran is None and event.data["outcome"] in ("succeeded", "timed_out"):
            yield Violation("one at once", subject, f"{event.data['outcome']} without an execution")
    for (run_id, _, node), attempt in running.items():
        yield Violation("one at once", f"{run_id} {node}", f"attempt {attempt} was never ended")
