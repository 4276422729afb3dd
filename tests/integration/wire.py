"""The wire: the messages that Redis really stored, as its MONITOR tells them, and what Celery's own fields in them carry."""

from __future__ import annotations

import ast
import base64
import itertools
import json
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import canvas
from orchestrator.compiler import Plan
from orchestrator.compiler.fragments import Fragment, Item, Par, Seq, edges

_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Sent:
    """One message of a node."""

    node: str
    bytes: int
    chain: list[dict[str, Any]]
    """What Celery publishes when this task has succeeded, the next step last."""
    chord: dict[str, Any] | None
    """What Celery's chord publishes when this task is the last of its group."""

    def carried(self) -> frozenset[str]:
        """The nodes that Celery itself publishes after this one."""
        following = canvas.heads_of(self.chain[-1]) if self.chain else frozenset()
        return following | (canvas.heads_of(self.chord) if self.chord else frozenset())


class Wire:
    """Everything that is put on the fair queue while the context lasts."""

    def __init__(self, redis_socket: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(redis_socket))
        self._payloads: list[bytes] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Wire:
        self._file = self._socket.makefile("rb")
        self._socket.sendall(b"MONITOR\r\n")
        assert self._file.readline().startswith(b"+OK")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # The server writes what came before this command before it closes.
        self._socket.shutdown(socket.SHUT_WR)
        self._thread.join(20)
        self._file.close()
        self._socket.close()

    def _listen(self) -> None:
        for line in self._file:
            # What the script `put` stores, not what it was asked to: a message that is there already is not stored again.
            if b' lua] "HSET" "hg1:msg" ' in line:
                self._payloads.append(line)

    def payloads(self) -> Iterator[bytes]:
        """The messages as they were stored, in their order."""
        for line in list(self._payloads):
            yield ast.literal_eval("b" + _QUOTED.findall(line)[3].decode())

    def of(self, run_id: str) -> list[Sent]:
        """The messages of a run's nodes."""
        found = []
        for payload in self.payloads():
            message = json.loads(payload)
            run, _, node = message["headers"].get("headgate") or (None, None, None)
            if run == run_id:
                args, kwargs, embed = json.loads(base64.b64decode(message["body"]))
                assert (args, kwargs) == ([], {})
                found.append(Sent(node, len(payload), embed["chain"] or [], embed["chord"]))
        return found


def faults(plan: Plan, sent: Iterable[Sent]) -> list[str]:
    """Return, in words, what the messages of a finished run lack of what the plan says that Celery's own fields carry."""
    messages = {message.node: message for message in sent}
    found = [f"{node} was never published" for node in plan.fragment_of if node not in messages]
    for fragment in plan.fragments:
        found += _faults(fragment, messages)
    return found


def _faults(fragment: Fragment, messages: dict[str, Sent]) -> list[str]:
    found = []
    for parent, child in edges(fragment.seq):
        if parent in messages and child not in messages[parent].carried():
            found.append(f"{fragment.kind} {fragment.index}: the message of {parent} does not carry {child}")
    for parent, child in _steps(fragment.seq):
        if parent in messages and not any(child in canvas.heads_of(step) for step in messages[parent].chain):
            found.append(f"{fragment.kind} {fragment.index}: {child} is no step of the chain in the message of {parent}")
    for par, join in _joins(fragment.seq):
        for end in _ends(par):
            body = messages[end].chord if end in messages else None
            if end in messages and (body is None or join not in canvas.heads_of(body)):
                found += [f"{fragment.kind} {fragment.index}: {join} is not the chord's body in the message of {end}"]
    return found


def _steps(seq: Seq) -> Iterator[tuple[str, str]]:
    """Pairs of nodes that follow each other in one row."""
    for left, right in itertools.pairwise(seq):
        if isinstance(left, str) and isinstance(right, str):
            yield left, right
    for item in seq:
        if isinstance(item, Par):
            for branch in item.all:
                yield from _steps(branch)


def _joins(seq: Seq) -> Iterator[tuple[Par, str]]:
    """Each Par with the node in which it joins."""
    for item, following in itertools.pairwise(seq):
        if isinstance(item, Par) and isinstance(following, str):
            yield item, following
    for item in seq:
        if isinstance(item, Par):
            for branch in item.all:
                yield from _joins(branch)


def _ends(item: Item) -> Iterator[str]:
    """The nodes that an item ends with."""
    if isinstance(item, str):
        yield item
    else:
        for branch in item.all:
            yield from _ends(branch[-1])
