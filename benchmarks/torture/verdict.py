"""The verdict over a round: nothing lost, no two unfenced owners, no slot taken for ever, nobody called poison who is not. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

DEATHS_MAX = 3


@dataclass(frozen=True)
class Kill:
    """A SIGKILL at `at` (epoch ms, before it was sent): of the group of a worker's main process, or of one process of a pool."""

    kind: str
    at: int
    pid: int
    worker: str

    def ended(self, execution: Execution) -> bool:
        """Whether it ended this execution."""
        victim = execution.main if self.kind == "group" else execution.pid
        return self.pid == victim and execution.began <= self.at and (execution.ended is None or execution.ended >= self.at)


@dataclass
class Execution:
    """One delivery that began; `ended` is None where its process was killed."""

    id: str
    inc: str
    tag: str
    number: int
    pid: int
    began: int
    ended: int | None = None

    @property
    def main(self) -> int:
        """The process id of its worker; an incarnation's id is host.pid.random."""
        return int(self.inc.split(".")[-2])


@dataclass(frozen=True)
class Evidence:
    """What is known when all is quiet. `published` are ids of ordinary messages, `nodes` those of runs with their outcomes."""

    published: frozenset[str]
    nodes: Mapping[str, str]
    executions: Sequence[Execution]
    kills: Sequence[Kill]
    deaths: Mapping[str, int]
    """Incarnation -> when it was declared dead."""
    retired: Mapping[str, int]
    """Incarnation -> when it left on purpose; no excuse for what it still ran."""
    letters: Mapping[str, Mapping[str, Any]]
    """Id of a message, ordinary or a node's -> its dead letter."""
    leftovers: Mapping[str, Any]
    two_owners: Sequence[str]
    """Tags that two incarnations held at one moment, by a look into Redis that nothing could come between."""


def read(lines: Iterable[Mapping[str, Any]]) -> list[Execution]:
    """Return the executions of a log, in the order in which they began."""
    found: dict[tuple[str, str, int, int], Execution] = {}
    for line in lines:
        key = (line["id"], line["tag"], line["number"], line["pid"])
        if line["what"] == "began":
            found[key] = Execution(line["id"], line["inc"], line["tag"], line["number"], line["pid"], line["at"])
        elif key in found:
            found[key].ended = line["at"]
    return sorted(found.values(), key=lambda each: each.began)


def violations(seen: Evidence) -> list[str]:
    """Return one sentence for each promise that was broken."""
    return [*_lost(seen), *_doubles(seen), *_poisoned(seen), *_left(seen)]


def _lost(seen: Evidence) -> Iterable[str]:
    done = {each.id for each in seen.executions if each.ended is not None}
    for name in sorted(seen.published - done - seen.letters.keys()):
        yield f"lost: {name} was never executed to its end"
    for name, outcome in sorted(seen.nodes.items()):
        if outcome == "succeeded" and name not in done:
            yield f"lost: node {name} is said to have succeeded and never ended"
        if outcome not in ("succeeded", "failed", "upstream_failed", "skipped"):
            yield f"lost: node {name} is {outcome or 'without an outcome'}"


def _killer(execution: Execution, kills: Sequence[Kill]) -> Kill | None:
    """Return the kill that ended it: the first one that could; a process can be killed once."""
    return min((kill for kill in kills if kill.ended(execution)), key=lambda kill: kill.at, default=None)


def _end_of(execution: Execution, kills: Sequence[Kill]) -> int | None:
    """Return when it no longer ran: when it ended or was killed; None if nobody knows."""
    killer = _killer(execution, kills)
    return execution.ended if killer is None else killer.at


def _deliveries(executions: Iterable[Execution]) -> dict[str, list[Execution]]:
    """Return the executions by id, in the order of their deliveries: a worker declared dead may begin late what it holds no more."""
    since: dict[tuple[str, str], int] = {}
    found = defaultdict(list)
    for each in executions:
        since.setdefault((each.id, each.tag), each.began)
        found[each.id].append(each)
    return {name: sorted(rows, key=lambda each: (since[each.id, each.tag], each.number)) for name, rows in found.items()}


def _doubles(seen: Evidence) -> Iterable[str]:
    for tag in seen.two_owners:
        yield f"two owners: {tag} was held by two incarnations at once"
    for name, rows in _deliveries(seen.executions).items():
        for first, second in pairwise(rows):
            fenced = seen.deaths.get(first.inc)
            if fenced is not None and fenced <= second.began:
                continue
            ended = _end_of(first, seen.kills)
            if ended is None:
                yield f"unexplained: delivery {first.number} of {name} by {first.inc} neither ended nor was killed"
            elif ended > second.began:
                yield (
                    f"two owners: {name} began by {second.inc} {ended - second.began} ms before it had ended by {first.inc}, "
                    f"{second.began - first.began} ms after it had begun there; {_end(first.inc, second.began, seen)}"
                )


def _end(inc: str, began: int, seen: Evidence) -> str:
    """Return what is known of the end of an incarnation, for whoever looks for the reason."""
    for what, ends in (("was declared dead", seen.deaths), ("retired", seen.retired)):
        if inc in ends:
            return f"that worker {what} {ends[inc] - began} ms after the second began"
    return "that worker neither died nor retired"


def _poisoned(seen: Evidence) -> Iterable[str]:
    """Three executions of one message that really were killed make it poison, and nothing else does."""
    killed: dict[str, int] = defaultdict(int)
    for each in seen.executions:
        if any(kill.ended(each) for kill in seen.kills):
            killed[each.id] += 1
    ours = {kill.pid for kill in seen.kills if kill.kind == "group"}
    for name, letter in seen.letters.items():
        deaths = letter.get("deaths") or []
        real = sum(1 for death in deaths if int(str(death["inc"]).split(".")[-2]) in ours)
        if max(real, killed[name]) < DEATHS_MAX:
            yield f"poison: {name} became a dead letter after {real} workers and {killed[name]} executions of it were killed: {letter}"
    for name, outcome in seen.nodes.items():
        if outcome == "failed" and killed[name] < DEATHS_MAX:
            yield f"poison: node {name} failed after {killed[name]} executions of it were killed"


def _left(seen: Evidence) -> Iterable[str]:
    for key, size in sorted(seen.leftovers.items()):
        yield f"left over: {key} = {size}"


# -- times ------------------------------------------------------------------------------------------------------------------


def times(seen: Evidence) -> dict[str, list[int]]:
    """Return milliseconds from a kill until: `back`, what a killed worker held was back in line; `again`, by kind of kill, an execution
    that it ended had begun again."""
    found: dict[str, list[int]] = {"back": [], "group": [], "child": []}
    held = {each.inc for each in seen.executions}
    for kill in seen.kills:
        if kill.kind == "group":
            found["back"] += [at - kill.at for inc, at in seen.deaths.items() if inc in held and int(inc.split(".")[-2]) == kill.pid]
    for rows in _deliveries(seen.executions).values():
        for first, second in pairwise(rows):
            if (killer := _killer(first, seen.kills)) and killer.at <= second.began:
                found[killer.kind].append(second.began - killer.at)
    return {name: sorted(each) for name, each in found.items()}
