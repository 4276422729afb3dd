"""Whether a log is what the recorder chained: what was changed, dropped, added or moved, and where."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from orchestrator.chain import Head, key_id

from .run_log import RunLog, Step


def out_of_order(log: RunLog) -> list[str]:
    """Return a sentence for each event that does not come after the one before it; needs no key."""
    return [
        f"event {later.position}: stands after {earlier.position}, which it came before"
        for earlier, later in pairwise(log.steps)
        if later.position <= earlier.position
    ]


def tampering(log: RunLog, key: bytes) -> list[str]:
    """Return a sentence for each place where the log is not what was chained, with the position; none for a log that is whole.

    Each event is checked against the link that stands before it, so one change is reported at one place.
    """
    if log.end is None:
        return [f"the log has {len(log.steps)} events and no end of its chain: it was taken away"] if log.steps else []
    if log.end.key_id != key_id(key):
        return [f"the log is chained with key {log.end.key_id}, and this one is {key_id(key)}: it was made anew, or another key is needed"]
    found: list[str] = []
    own = [at for at, step in enumerate(log.steps) if not step.passed or step.link is not None]
    head = Head.new(key, log.run_id, log.generation)
    for number, at in enumerate(own):
        begin = own[number - 1] + 1 if number else 0
        step = log.steps[at]
        expected = _through(key, head, log.steps[begin : at + 1])
        if step.link == expected.link:
            head = expected
            continue
        following = log.steps[at + 1 : own[number + 1] + 1] if number + 1 < len(own) else ()
        if _fits(key, head, following) or (not following and head.link == log.end.head.link):
            found.append(f"event {step.position}: was added")
            continue
        if step.link is None:
            found.append(f"event {step.position}: has no link; it was added, or its link was taken away")
        elif _fits(key, expected._replace(link=step.link), following) or step.link == log.end.head.link:
            before = f"or an event between {head.position} and it is missing" if head.events else "or an event before it is missing"
            found.append(f"event {step.position}: was changed, {before}")
        else:
            found.append(f"event {step.position}: does not belong here: it was changed, moved or added")
        head = expected._replace(link=step.link or expected.link)
    return found + _ending(log, key, head, whole=not found)


def _through(key: bytes, head: Head, steps: Sequence[Step]) -> Head:
    for step in steps:
        head = head.then(key, step.position, step.text)
    return head


def _fits(key: bytes, head: Head, following: Sequence[Step]) -> bool:
    """Say whether what follows was chained behind `head`."""
    if not following:
        return False
    return following[-1].link is not None and _through(key, head, following).link == following[-1].link


def _ending(log: RunLog, key: bytes, head: Head, *, whole: bool) -> list[str]:
    assert log.end is not None
    end, events = log.end.head, len(log.steps)
    if end.seal(key, log.run_id, log.generation) != log.end.seal:
        return [f"the end of the chain at {end.position} is not sealed with this key: it was changed"]
    if head.link != end.link:
        where = log.steps[-1].position if log.steps else "its beginning"
        return [f"the log ends at {where}, and was recorded up to {end.position}: what came last is missing"]
    if whole and events != end.events:
        return [f"the log has {events} events, and {end.events} were chained"]
    return []
