"""The canvas: the only place that builds Celery's chains, chords, groups and signatures.

A head is published with all that its fragment lets Celery publish after it: the rest of its row as the message's `chain`,
the join of the Par that it stands in as its `chord`. That is what `chain.run` and `chord.run` would send; they are not called,
because both drop the producer and so could not be batched, and because they copy every signature several times.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import celery
from celery import Celery
from celery.canvas import Signature
from celery.result import AsyncResult, GroupResult

from orchestrator.compiler.fragments import FragmentSpec, Par, Seq, nodes
from tenancy.priorities import Priority
from tenancy.queues import parse_queue, queue_name
from tenancy.router import ANONYMOUS

HARD_LIMIT_GRACE_S = 10
"""Seconds between the soft and the hard time limit."""

SIGNATURE_BYTES = 520
"""Bytes of one node's signature in a message, without its names and with its share of the chain, chord or group around it: 340 in
a chain, up to 500 where every third node is a join (measured; the tests of the canvas hold it)."""

_GROUP_SUFFIX = ":group"
_GROUP_ID = re.compile(r"[0-9a-z]{26}\.[0-9]+\.[A-Za-z0-9_.-]+" + _GROUP_SUFFIX)


_POOL_BYTES = len(', "pool": ""')


def signature_bytes(node_id: str, task: str, tenant: str, pool: str | None = None) -> int:
    """Return the most bytes that the signature of a node takes in the body of a message, before its base64."""
    pinned = _POOL_BYTES + len(pool) if pool else 0
    return SIGNATURE_BYTES + 4 * len(node_id) + len(task.encode()) + 2 * len(tenant) + pinned


@Signature.register_type("fork")
class Fork(celery.chord):
    """A chord whose nodes have their ids already, so that waiting inside another message it is not frozen.

    Celery's freezing would give the header a random id, and every node in it options that nobody reads.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.subtask_type = "fork"
        # Where Celery looks for the members of a chord that waits in a message, once it is frozen.
        self.kwargs["header"] = celery.group(self.kwargs["header"], app=self._app, task_id=self.id)

    def freeze(self, *_: Any, chord: Any = None, **__: Any) -> AsyncResult:
        """Let the body count down `chord`, as the last node of this step."""
        if chord:
            self.kwargs["body"] = _with(self.kwargs["body"], chord=chord)
        return self.app.AsyncResult(self.kwargs["body"].id)


@Signature.register_type("fan")
class Fan(celery.group):
    """A group at the end of a branch of a chord: a message has the chord's body once, not once for each member.

    Celery hands the option of the group on to the members when the group is applied.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.subtask_type = "fan"

    def freeze(self, *_: Any, chord: Any = None, **__: Any) -> GroupResult:
        """Let the members count down `chord`."""
        if chord:
            self.options["chord"] = chord
        return self.app.GroupResult(self.id, [])


def signatures(spec: FragmentSpec, heads: Collection[str], run_id: str, generation: int, tenant: str, app: Celery) -> list[Signature]:
    """Return the signatures to publish for `heads`, any nodes of the fragment, in the order of the fragment.

    Raises
    ------
    ValueError
        A head is not in the fragment.
    """
    writer = _Writer(spec, frozenset(heads), run_id, generation, tenant, app)
    if missing := writer.heads - spec.nodes.keys():
        raise ValueError(f"not in this fragment: {', '.join(sorted(missing))}")
    writer.row(spec.seq, None)
    return writer.found[::-1]


@dataclass(slots=True)
class _Writer:
    """Writes rows from the right, because each step is sent with those on its right."""

    spec: FragmentSpec
    heads: frozenset[str]
    run_id: str
    generation: int
    tenant: str
    app: Celery
    found: list[Signature] = field(default_factory=list)

    def row(self, seq: Seq, body: Signature | None) -> None:
        """Find the messages of the heads in `seq`; `body` is what its end counts down, if it stands in a Par."""
        steps: list[Signature] = []  # as in a message: the next one last
        join: Signature | None = None
        for position in range(len(seq) - 1, -1, -1):
            if len(self.found) == len(self.heads):
                return
            item = seq[position]
            last = body if position + 1 == len(seq) else None
            if isinstance(item, Par):
                after = body if join is None else _with(join, chain=steps)
                for branch in reversed(item.all):
                    self.row(branch, after)
                if not position or len(self.found) == len(self.heads):
                    return  # no message of a head that stands before it carries it
                steps = [*steps, self.par(item, join, last)]
                join = None
                continue
            node = self.node(item, last)
            if item in self.heads:
                self.found.append(_with(node, chain=steps, root_id=self.run_id))
            if position and isinstance(seq[position - 1], Par):
                join = node
            else:
                steps = [*steps, node]

    def par(self, par: Par, join: Signature | None, body: Signature | None) -> Signature:
        """Return the chord that ends in `join`, or the group whose members all count down `body`."""
        members = [self.branch(branch) for branch in par.branches]
        if join is not None:
            step = Fork(members, body=join, app=self.app, task_id=f"{join.id}{_GROUP_SUFFIX}")
            step.kwargs["header"] = members  # shorter in a message, and a Fork made from the message has a group again
        else:
            first = next(nodes((par,)))
            step = Fan(members, app=self.app, task_id=f"{self.task_id(first)}{_GROUP_SUFFIX}")
            if body is not None:
                step.options["chord"] = body
        del step["immutable"]  # Celery reads a missing one as False
        return step

    def branch(self, seq: Seq) -> Signature:
        """Return a whole branch as one signature."""
        steps: list[Signature] = []
        for position, item in enumerate(seq):
            if isinstance(item, Par):
                join = seq[position + 1] if position + 1 < len(seq) else None
                assert not isinstance(join, Par)
                steps.append(self.par(item, None if join is None else self.node(join, None), None))
            elif not position or isinstance(seq[position - 1], str):
                steps.append(self.node(item, None))
        if len(steps) == 1:
            return steps[0]
        chain = celery.chain(steps, app=self.app)
        del chain["immutable"]
        return chain

    def task_id(self, node: str) -> str:
        return f"{self.run_id}.{self.generation}.{node}"

    def node(self, node: str, body: Signature | None) -> Signature:
        task, priority, timeout_s, pool = self.spec.nodes[node]
        headers: dict[str, Any] = {"tenant": self.tenant, "headgate": [self.run_id, self.generation, node]}
        if pool:
            headers["pool"] = pool
        made = Signature(
            task,
            immutable=True,
            app=self.app,
            options={
                "task_id": self.task_id(node),
                "headers": headers,
                "priority": priority,
                "exchange": "",
                "exchange_type": ANONYMOUS,
                "routing_key": queue_name(self.tenant, Priority(priority)),
                "soft_time_limit": timeout_s,
                "time_limit": timeout_s + HARD_LIMIT_GRACE_S,
                "reply_to": "",  # else Celery adds its thread's id to each step that it prepares
            },
        )
        del made["subtask_type"]  # Celery reads a missing one as None
        return made if body is None else _with(made, chord=body)


def _with(signature: Signature, **options: Any) -> Signature:
    """Return `signature` with more options, sharing everything else; an empty option is left out."""
    made = Signature.__new__(type(signature))
    made.update(signature)
    made._app, made._type = signature._app, signature._type
    made["options"] = {**signature.options, **{name: value for name, value in options.items() if value}}
    return made


def publish(app: Celery, signatures: Sequence[Mapping[str, Any]]) -> int:
    """Publish signatures of nodes in one batch, one pipeline of Redis for up to 1000; return how many.

    Signals and routing options are those of `Signature.apply_async`; no result object is made, so nothing is subscribed to.

    Raises
    ------
    kombu.exceptions.OperationalError, kombu.exceptions.BatchPublishError
        The broker cannot be reached; some may have been published.
    """
    if not signatures:
        return 0
    parent = app.current_worker_task
    parent_id = parent.request.id if parent else None
    sent_event = bool(app.conf.task_send_sent_event)
    with app.producer_or_acquire() as producer, producer.connection._reraise_as_library_errors(), producer.batch():
        for signature in signatures:
            _send(app, producer, signature, parent_id, sent_event)
    return len(signatures)


def _send(app: Celery, producer: Any, signature: Mapping[str, Any], parent_id: str | None, sent_event: bool) -> None:
    options = signature["options"]
    headers = options["headers"]
    message = app.amqp.create_task_message(
        options["task_id"],
        signature["task"],
        chain=options.get("chain"),
        chord=options.get("chord"),
        root_id=headers["headgate"][0],
        parent_id=parent_id,
        soft_time_limit=options["soft_time_limit"],
        time_limit=options["time_limit"],
        ignore_result=True,
        create_sent_event=sent_event,
        argsrepr="()",  # as Celery would say it of a message without arguments, which it looks at for as long as at one with them
        kwargsrepr="{}",
    )
    queue = parse_queue(options["routing_key"])
    assert queue is not None
    app.amqp.send_task_message(
        producer,
        signature["task"],
        message,
        exchange="",
        exchange_type=ANONYMOUS,
        routing_key=options["routing_key"],
        # Not `options["priority"]`: Celery loses it on the body of a chord that stands in a chain (celery#7517).
        priority=queue[1],
        headers=headers,
        retry=False,
    )


def carried(request: Any) -> frozenset[str]:
    """Return the nodes that Celery publishes when the task of this request succeeds.

    These are the heads of its next chain step, and the body of its chord, which is published with the last part.
    """
    found: set[str] = set()
    if request.chain:
        found |= heads_of(request.chain[-1])
    if request.chord:
        found |= heads_of(request.chord)
    return frozenset(found)


def heads_of(signature: Mapping[str, Any]) -> frozenset[str]:
    """Return the nodes that are published when `signature`, as in a message or as an object, is applied."""
    return frozenset(_heads(signature))


def _heads(signature: Any) -> Iterable[str]:
    match signature.get("subtask_type"):
        case "chain":
            yield from _heads(signature["kwargs"]["tasks"][0])
        case "fork" | "chord":
            for member in _members(signature["kwargs"]["header"]):
                yield from _heads(member)
        case "fan" | "group":
            for member in signature["kwargs"]["tasks"]:
                yield from _heads(member)
        case _ if is_node(signature):
            yield signature["options"]["headers"]["headgate"][2]


def _members(header: Any) -> Iterable[Any]:
    """Return the members of a chord's header, which Celery keeps as a list or as a group."""
    members: Iterable[Any] = header["kwargs"]["tasks"] if isinstance(header, Mapping) else header
    return members


def is_node(signature: Any) -> bool:
    """Say whether `signature` is that of a node, and not of an ordinary Celery task."""
    return bool(signature) and "headgate" in ((signature.get("options") or {}).get("headers") or ())


def is_group_of_nodes(group_id: str | None) -> bool:
    """Say whether Celery's group id is one of ours."""
    return bool(group_id) and _GROUP_ID.fullmatch(str(group_id)) is not None
