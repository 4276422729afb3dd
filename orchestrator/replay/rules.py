"""What must hold of any log, whatever the recorder makes of it: rules of their own, read from the events alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from orchestrator.recorder.projection import Event, parse_event
from orchestrator.store.chain import is_rebuild
from orchestrator.store.expansions import became

from .run_log import RunLog, Step

Told = tuple[Step, Event]

KNOWN = frozenset(
    {
        *(
            "epoch.opened",
            "request.submit",
            "run.held",
            "run.admitted",
            "run.refused",
            "run.started",
            "run.stopping",
            "run.cancelling",
            "run.ended",
        ),
        *("node.due", "node.began", "node.retry", "node.lost", "node.duplicate", "node.ended", "node.adopted"),
        "node.expanded",
        *("decision.made", "decision.applied", "node.judged", "node.cancelling", "run.reprioritised", "deadline.raised"),
        *("run.approved", "run.away", "run.lapsed", "run.back"),
        *("money.extended", "money.refused", "money.would_refuse", "money.settled", "money.voided"),
    }
)
"""Types that the rule of outcomes was made for. Where a log has others, a newer version made them, and outcomes are not judged."""

NOT_TAKEN = "not taken"
"""How the reason of a node begins that a condition left out: that is nothing given up."""


def broken(log: RunLog, required: Mapping[str, bool] | None, adopted_lowered: bool | None) -> list[str]:
    """Return a sentence for each rule that the log breaks.

    required: the nodes of the graph, and whether the run needs them; None where the graph is not known.
    adopted_lowered: whether an adopted node had run as a cheaper variant of itself; None where that is not known.
    """
    told = [(step, parse_event(step.text)) for step in log.steps]
    if required is not None:
        required = {**required, **dict(_became(told))}
    found: list[str] = []
    for rule in (_one_outcome, _executions_once, _attempts_ascend, _one_end, _costs_what_was_settled):
        found += judged(rule(told, required))
    kinds = {str(event.get("t")) for _, event in told}
    if kinds <= KNOWN:
        found += judged(_outcome_follows(told, required, adopted_lowered))
    return found


def _became(told: Iterable[Told]) -> Iterator[tuple[str, bool]]:
    """Yield the nodes that others became, and whether the run needs each; an event that does not read is another rule's."""
    for _, event in _of(told, "node.expanded"):
        try:
            yield from became(event).items()
        except (KeyError, ValueError, TypeError, AttributeError):
            continue


def judged(sentences: Iterator[str]) -> list[str]:
    """Return what a rule says; that it cannot be applied where an event does not read."""
    try:
        return list(sentences)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        return [f"the log has an event that does not read as its type says: {error!r}"]


def _of(told: Iterable[Told], *kinds: str) -> Iterator[Told]:
    return ((step, event) for step, event in told if event.get("t") in kinds)


def _adopted(told: Iterable[Told]) -> set[str]:
    return {str(node) for _, event in _of(told, "node.adopted") for node in dict(event.get("nodes") or {})}


def _one_outcome(told: list[Told], required: Mapping[str, bool] | None) -> Iterator[str]:
    """A node has one outcome, and every node has one when the run has ended."""
    ends: dict[str, list[Step]] = defaultdict(list)
    for step, event in _of(told, "node.ended"):
        ends[str(event["node"])].append(step)
    for node, steps in ends.items():
        if len(steps) > 1:
            yield f"node {node}: has {len(steps)} outcomes, by events {', '.join(str(step.position) for step in steps)}"
    if next(_of(told, "run.ended"), None) is not None:
        for node in sorted((required or {}).keys() - ends.keys() - _adopted(told)):
            yield f"node {node}: the run has ended, and it has no outcome"


def _executions_once(told: list[Told], _required: object) -> Iterator[str]:
    """An execution begins once, and is settled once or given back; what comes later is waste."""
    state: dict[tuple[str, int], str] = {}
    rebuilt = False

    def subject(event: Event, step: Step) -> str:
        return f"node {event['node']} attempt {event['attempt']} (event {step.position})"

    for step, event in told:
        kind, execution = str(event.get("t")), (str(event.get("node")), int(event.get("attempt") or 0))
        if step.passed or is_rebuild(kind, step.text):
            rebuilt = True
            state = {each: "void" if held == "open" else held for each, held in state.items()}
        elif kind == "node.began":
            if execution in state:
                yield f"{subject(event, step)}: began before"
            state[execution] = "open"
        elif kind in ("money.settled", "money.voided"):
            how = "void" if kind == "money.voided" else str(event.get("kind") or "settle")
            held = state.get(execution)
            if how == "waste":
                if held != "void" and not (held is None and rebuilt):
                    yield f"{subject(event, step)}: is charged as waste, and its money was not given back before"
                state[execution] = "wasted"
            elif held == "open":
                state[execution] = "settled" if how == "settle" else "void"
            elif not (held in ("void", None) and how == "void" and rebuilt):
                yield f"{subject(event, step)}: {how}, and it is {held or 'not begun'}"
    if next(_of(told, "run.ended"), None) is not None:
        for (node, attempt), held in state.items():
            if held == "open":
                yield f"node {node} attempt {attempt}: the run has ended, and it was neither settled nor given back"


def _attempts_ascend(told: list[Told], _required: object) -> Iterator[str]:
    """Attempts of a node are numbered upwards, and one that succeeded had begun."""
    last: dict[str, int] = {}
    for step, event in _of(told, "node.began", "node.ended"):
        node, attempt = str(event["node"]), int(event.get("attempt") or 0)
        if event["t"] == "node.began":
            if attempt <= last.get(node, 0):
                yield f"node {node}: attempt {attempt} begins at event {step.position}, after attempt {last[node]}"
            last[node] = attempt
        elif event.get("outcome") == "succeeded" and last.get(node) != attempt:
            yield f"node {node}: attempt {attempt} succeeded at event {step.position}, and the last that began is {last.get(node)}"


def _one_end(told: list[Told], _required: object) -> Iterator[str]:
    """A run ends once, and nothing of its nodes happens behind its end but what is charged late."""
    end: Step | None = None
    for step, event in told:
        kind = str(event.get("t"))
        if kind == "run.ended":
            if end is not None:
                yield f"the run ended at event {end.position}, and again at {step.position}"
            end = step
        elif end is not None and kind in ("node.began", "node.ended", "node.retry", "node.due", "run.started", "run.admitted"):
            yield f"event {step.position} is a {kind}, and the run ended at {end.position}"


def _costs_what_was_settled(told: list[Told], _required: object) -> Iterator[str]:
    """What a run says at its end that it cost is the sum of its settlements, and of each the sum of its categories."""
    so_far = 0
    for step, event in _of(told, "money.settled", "run.ended"):
        if event["t"] == "run.ended":
            if int(event.get("cost") or 0) != so_far:
                yield f"event {step.position}: says that the run cost {int(event.get('cost') or 0)} micros, and {so_far} were settled"
            continue
        amount, cats = int(event["amount"]), sum(int(micros) for micros in dict(event.get("cats") or {}).values())
        if amount != cats:
            yield f"event {step.position}: settles {amount} micros, and its categories come to {cats}"
        so_far += amount


def _outcome_follows(told: list[Told], required: Mapping[str, bool] | None, adopted_lowered: bool | None) -> Iterator[str]:
    """A run's outcome and counts follow from its nodes'."""
    end = next(_of(told, "run.ended"), None)
    if end is None:
        return
    step, event = end
    outcomes = {str(each["node"]): (str(each["outcome"]), str(each.get("reason") or "")) for _, each in _of(told, "node.ended")}
    counts = Counter(outcome for outcome, _ in outcomes.values())
    counts["succeeded"] += len(_adopted(told) - outcomes.keys())
    said = {str(name): int(count) for name, count in dict(event.get("counts") or {}).items() if int(count)}
    if said != dict(+counts):
        yield f"event {step.position}: counts {said}, and the nodes ended as {dict(+counts)}"
    if required is None:
        return
    expected = _expected(told, outcomes, required, bool(adopted_lowered))
    unknown = adopted_lowered is None and _adopted(told) and expected == "succeeded"
    if event["outcome"] != expected and not (unknown and event["outcome"] == "degraded"):
        yield f"event {step.position}: the run is {event['outcome']}, and its nodes make it {expected}"


def _expected(told: list[Told], outcomes: Mapping[str, tuple[str, str]], required: Mapping[str, bool], lowered: bool) -> str:
    bad = {
        node
        for node, (outcome, reason) in outcomes.items()
        if outcome != "succeeded" and not (outcome == "skipped" and reason.startswith(NOT_TAKEN))
    }
    made = [event for _, event in _of(told, "decision.made") if event.get("action") == "terminate" and not event.get("observed")]
    if made:
        return "terminated_by_cost"
    if next(_of(told, "run.cancelling"), None) is not None:
        return "cancelled"
    if any(required.get(node, True) for node in bad):
        return "failed"
    began = {str(event["node"]): str(event.get("verdict") or "") for _, event in _of(told, "node.began")}
    lowered = lowered or any(outcomes.get(node, ("", ""))[0] == "succeeded" and verdict for node, verdict in began.items())
    return "degraded" if bad or lowered else "succeeded"
