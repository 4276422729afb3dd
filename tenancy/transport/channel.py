"""The fair transport: Kombu's Redis transport, with tenants' queues served by the fair queue.

Queues named `t.{tenant}.{level}` are published to the fair queue; a consumer of `pool.{name}` receives from all tenants of that pool
in fair order. Everything else (system queues, events, remote control, results) is stock Kombu.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from queue import Empty
from threading import get_ident
from time import monotonic
from typing import Any

import redis
from kombu import transport as transports
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as stock
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from tenancy import keys
from tenancy.errors import Fenced, HeadgateError, Unavailable
from tenancy.link import Link
from tenancy.queues import POOL_PREFIX, parse_queue
from tenancy.transport.incarnation import TTL_S, Incarnation
from tenancy.transport.queue import SLEEP_MS, DeadIncarnation, Delivery, Queue

FAIR_TAG = "fair:"
"""Prefix of the delivery tags that the fair queue answers for."""

ORDINARY_EVERY_S = 0.2
"""How often ordinary queues are asked while the fair queue keeps every slot busy."""

WORKER_INFO: dict[str, Any] = {}
"""What this process says of itself when it enrolls; the app fills it in."""


class FairQoS(stock.QoS):
    """Acknowledgement: fair messages by script, others as Kombu does it."""

    def append(self, message: Any, delivery_tag: str) -> None:
        if delivery_tag.startswith(FAIR_TAG):
            super(stock.QoS, self).append(message, delivery_tag)  # pop has marked it already
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        if not delivery_tag.startswith(FAIR_TAG):
            super().ack(delivery_tag)
        elif self.channel.is_on_loop():
            super(stock.QoS, self).ack(delivery_tag)  # before, so that the channel sees whether there is room for another message
            self.channel.fair_ack(delivery_tag)
        else:
            self.channel.fair_ack(delivery_tag)
            super(stock.QoS, self).ack(delivery_tag)  # after: the thread that pops must not fill a slot that is still held

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not delivery_tag.startswith(FAIR_TAG):
            super().reject(delivery_tag, requeue=requeue)
        elif requeue:
            self.channel.fair_requeue(delivery_tag)
            super(stock.QoS, self).ack(delivery_tag)
        else:
            self.ack(delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        # Fair messages are given back by the incarnation as a whole.
        if not tag.startswith(FAIR_TAG):
            super().restore_by_tag(tag, client, leftmost)

    def restore_unacked(self, client: Any = None) -> None:
        for tag in [tag for tag in self._delivered if tag.startswith(FAIR_TAG)]:
            del self._delivered[tag]
        # A channel may be closed once more after Kombu took its transport apart; asking for a connection then would end the worker.
        # Ordinary messages wait for their visibility timeout in that case, as after a kill.
        if self._delivered and getattr(self.channel.connection, "client", None) is not None:
            super().restore_unacked(client)


class FairChannel(stock.Channel):
    """A channel whose consumers of `pool.*` queues pop from the fair queue."""

    QoS = FairQoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._link: Link | None = None
        self._incarnation: Incarnation | None = None
        self._ordinary_at = 0.0
        self._sleep_ms = SLEEP_MS
        self._turn = 0
        self._acks: list[tuple[str, str, int]] = []
        self._taught: set[str] = set()
        super().__init__(*args, **kwargs)

    # -- the fair queue -------------------------------------------------------------------------

    @property
    def link(self) -> Link:
        """Scripts over a connection of this channel's own."""
        if self._link is None:
            options = self._connparams()
            for name in ("client_name", "health_check_interval", "retry_on_timeout", "max_connections"):
                options.pop(name, None)
            options["socket_timeout"] = options.get("socket_timeout") or 10.0
            self._link = Link.of(str(options.get("path") or options.get("host")), options)
        return self._link

    def pools(self) -> list[str]:
        """Names of the pools that this channel consumes from."""
        return [queue[len(POOL_PREFIX) :] for queue in self.active_queues if queue.startswith(POOL_PREFIX)]

    def _living(self) -> Incarnation:
        if self._incarnation is None or not self._incarnation.alive:
            if self._incarnation is not None:
                self._incarnation.retire()
            ttl_s = float(self.connection.client.transport_options.get("incarnation_ttl_s", TTL_S))
            incarnation = Incarnation(Queue(self.link), {**WORKER_INFO, "pools": self.pools(), "slots": self._slots()}, ttl_s=ttl_s)
            incarnation.start()
            self._incarnation = incarnation
        return self._incarnation

    def _slots(self) -> int:
        """How many messages this channel takes at once; a worker that prefetches without bound counts as one slot."""
        return self.qos.prefetch_count or 1

    def _fair_pop(self) -> tuple[str, str, Delivery] | None:
        self._sleep_ms = SLEEP_MS
        pools = self.pools()
        first = self._turn % max(1, len(pools))
        for pool in pools[first:] + pools[:first]:
            try:
                inc, found = self._pop_once(pool)
            except Fenced:
                return None  # the next epoch will be open soon; the doorbell's timeout paces the next try
            except Unavailable as error:
                raise redis.ConnectionError(str(error)) from error
            if isinstance(found, Delivery):
                self._turn += 1  # each pool in its turn: a flood in one must not keep the others' messages waiting
                return pool, inc, found
            self._sleep_ms = min(self._sleep_ms, found)
        return None

    def _pop_once(self, pool: str) -> tuple[str, Delivery | int]:
        incarnation = self._living()
        acks, self._acks = self._acks, []
        try:
            return incarnation.id, incarnation.queue.pop_or_wait(incarnation.id, pool, acks=acks)
        except Unavailable:
            for each in acks:
                self._settle(*each, Queue.ack)
            raise
        except redis.ResponseError:
            self._acks = acks + self._acks  # Redis ran none or some of them; each counts once
            raise
        except DeadIncarnation:
            incarnation.alive = False
            incarnation = self._living()
            return incarnation.id, incarnation.queue.pop_or_wait(incarnation.id, pool)

    def _deliver_fair(self, pool: str, inc: str, delivery: Delivery) -> None:
        message = loads(delivery.payload)
        message["properties"]["delivery_tag"] = f"{FAIR_TAG}{inc}:{delivery.tag}:{delivery.number}"
        message["headers"]["headgate_delivery"] = [inc, delivery.tag, delivery.number]
        if delivery.timeout_s is not None:
            message["headers"]["timelimit"] = raised(message["headers"].get("timelimit"), delivery.timeout_s)
        if delivery.number > 1:
            message["headers"]["redelivered"] = True
            message["properties"]["delivery_info"]["redelivered"] = True
        self.connection._deliver(message, POOL_PREFIX + pool)

    def fair_ack(self, delivery_tag: str) -> None:
        """Acknowledge: together with the next pop, where that comes before the event loop of this thread sleeps, else at once.

        Repeated when the reply is lost, since an acknowledgement counts once.
        """
        inc, tag, number = _parts(delivery_tag)
        if self._pops_next():
            self._acks.append((inc, tag, number))
        else:
            self._settle(inc, tag, number, Queue.ack)

    def fair_requeue(self, delivery_tag: str) -> None:
        """Hand the message back, first in line."""
        self._settle(*_parts(delivery_tag), Queue.requeue)

    def _pops_next(self) -> bool:
        """Whether this is the thread of an event loop that pops before it sleeps: no doorbell is waited for, and there is room."""
        return self.is_on_loop() and not self._in_poll and bool(self.qos.can_consume())

    def is_on_loop(self) -> bool:
        """Whether this is the thread of the event loop that pops for this channel."""
        hub = self._hub
        return hub is not None and hub._loop_thread == get_ident()

    def _settle(self, inc: str, tag: str, number: int, act: Any) -> None:
        for last in (False, True):
            try:
                act(Queue(self.link), inc, tag, number)
                return
            except Fenced:
                return  # the message belongs to an epoch that is over
            except Unavailable as error:
                if last:
                    raise redis.ConnectionError(str(error)) from error

    def _flush_acks(self) -> None:
        acks, self._acks = self._acks, []
        for each in acks:
            self._settle(*each, Queue.ack)

    def stop_popping(self) -> None:
        """Take no message from any queue from here on: the worker ends. Acknowledgements that waited for a pop go out now."""
        self.qos.can_consume = _never
        self._flush_acks()

    @property
    def _hub(self) -> Any:
        """The event loop that this channel's transport serves, if any."""
        return getattr(self.connection, "hub", None)

    def _stay_awake(self) -> None:
        """Let the event loop go round once more before it sleeps.

        A message is delivered here before the loop sleeps, not while it reads: the pool's own callback, which sees to it that the task
        is handed to a process, may already have been called in this round.
        """
        waker = getattr(self._hub, "_waker", None)
        if waker is not None:
            waker.wake()

    # -- Kombu's hooks --------------------------------------------------------------------------

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Change how many messages are taken at once: the worker's pool grew or shrank."""
        before = self._slots()
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        self._flush_acks()
        incarnation = self._incarnation
        if incarnation is None or not incarnation.alive or self._slots() == before:
            return
        try:
            incarnation.queue.slots(incarnation.id, self._slots())
        except Fenced:
            pass  # a rebuild forgets every incarnation; the next one says its slots
        except Unavailable as error:
            raise redis.ConnectionError(str(error)) from error

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        place = parse_queue(queue)
        if place is None:
            super()._put(queue, message, **kwargs)
            return
        tenant, priority = place
        headers: Mapping[str, Any] = message.get("headers") or {}
        node = headers.get("headgate")
        once = str(headers.get("id", "")) if node else ""
        arguments = (
            dumps(message),
            tenant,
            priority,
            str(headers.get("pool") or ""),
            int(headers.get("expected_ms") or 0),
            once,
            0,
            _delay_ms(headers.get("eta")),
            ".".join(map(str, node[:2])) if node else "",
            str(headers.get("task", "")),
            json.dumps(headers.get("limits") or []),
        )
        batch = kwargs.get("_publish_batch")
        try:
            if batch is not None:
                server = self.link.server_id()
                if server not in self._taught:
                    self.link.prepare("tenancy/transport/put")
                    self._taught = {server}
                batch.add("evalsha", self.link.prepared("tenancy/transport/put"), 0, server, *arguments)
            else:
                self.link.call("tenancy/transport/put", *arguments)
        except Unavailable as error:
            raise redis.ConnectionError(str(error)) from error

    def _size(self, queue: str) -> int:
        if queue.startswith(POOL_PREFIX):
            with self.conn_or_acquire() as client:
                return int(client.hlen(keys.MESSAGES))
        return int(super()._size(queue))

    def _purge(self, queue: str) -> int:
        """Forget what waits in a pool, or of a tenant at a level; a run's node is published again by the sweeper.

        Nothing is forgotten of what a worker holds.
        """
        place = parse_queue(queue)
        if queue.startswith(POOL_PREFIX):
            named: dict[str, Any] = {"pool": queue[len(POOL_PREFIX) :]}
        elif place is not None:
            named = {"tenant": place[0], "priority": place[1]}
        else:
            return int(super()._purge(queue))
        cursor, purged = "0", 0
        try:
            while True:
                cursor, forgotten = Queue(self.link).purge(cursor, **named)
                purged += forgotten
                if cursor == "0":
                    return purged
        except Unavailable as error:
            raise redis.ConnectionError(str(error)) from error

    def _brpop_start(self, timeout: float | None = None) -> None:
        if not self.pools():
            super()._brpop_start(timeout)
            return
        self._fill()
        if not self.qos.can_consume():
            return
        ordinary = [q for q in self._queue_cycle.consume(len(self.active_queues)) if not q.startswith(POOL_PREFIX)]
        sources = [keys.bell(pool) for pool in self.pools()]
        sources += [self._q_for_pri(queue, pri) for pri in self.priority_steps for queue in ordinary]
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()  # type: ignore[assignment] # Kombu's own type is wrong
        longest_s = timeout or self.brpop_timeout or 1
        self.client.connection.send_command("BRPOP", *sources, f"{min(longest_s, self._sleep_ms / 1000):.3f}")

    def _brpop_read(self, **options: Any) -> Any:
        # A bell may answer when no pool is consumed from any more: a channel is closed after its consumers.
        try:
            try:
                found = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            destination = bytes_to_str(found[0]) if found else keys.BELLS
            if destination.startswith(keys.BELLS):
                raise Empty  # somebody rang, or nobody for a second: pop on the next tick
            destination = destination.rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(destination)
            self.connection._deliver(loads(bytes_to_str(found[1])), destination)
            return True
        finally:
            self._in_poll = None  # type: ignore[assignment] # as in Kombu
            self._flush_brpop_reauth()

    def _fill(self) -> None:
        """Deliver messages until every slot has one or none is left."""
        while self.qos.can_consume():
            if monotonic() - self._ordinary_at >= ORDINARY_EVERY_S:
                self._ordinary_at = monotonic()
                self._take_ordinary()
                continue
            found = self._fair_pop()
            if found is None:
                return
            self._deliver_fair(*found)
            self._stay_awake()

    def _take_ordinary(self) -> None:
        for queue in self.active_queues:
            if not queue.startswith(POOL_PREFIX) and self.qos.can_consume():
                with contextlib.suppress(Empty):
                    self.connection._deliver(self._get(queue), queue)
                    self._stay_awake()

    def close(self) -> None:
        """Close the channel; what its incarnation holds goes back to the queue."""
        incarnation, self._incarnation = self._incarnation, None
        try:
            with contextlib.suppress(HeadgateError, redis.RedisError):  # then they are delivered once more
                self._flush_acks()
            super().close()
        finally:
            # Kombu's own close fails where Redis went away during a BRPOP, and is called again. An incarnation that went on
            # beating meanwhile would keep what it holds for ever.
            if incarnation is not None:
                incarnation.retire()
            if self._link is not None:
                with contextlib.suppress(HeadgateError, redis.RedisError):
                    self._link.close()


def _parts(delivery_tag: str) -> tuple[str, str, int]:
    inc, tag, number = delivery_tag[len(FAIR_TAG) :].rsplit(":", 2)
    return inc, tag, int(number)


def raised(limits: Sequence[float | None] | None, soft_s: int) -> list[float | None]:
    """Return Celery's time limits, hard and soft in seconds, with the soft one raised to `soft_s` and the same time between them.

    A message without limits, or with a higher one, keeps what it has.
    """
    hard, soft = limits or (None, None)
    if soft is None or soft >= soft_s:
        return [hard, soft]
    return [None if hard is None else soft_s + hard - soft, soft_s]


def _delay_ms(eta: str | None) -> int:
    if not eta:
        return 0
    when = datetime.fromisoformat(eta)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0, int((when - datetime.now(UTC)).total_seconds() * 1000))


def _never() -> bool:
    return False


class FairTransport(stock.Transport):
    """Kombu's Redis transport with fair channels."""

    Channel = FairChannel
    hub: Any = None
    """The event loop of this worker. Kombu forgets its own, `get_event_loop()`, when a connection is lost."""

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """As Kombu's."""
        self.hub = loop
        super().register_with_event_loop(connection, loop)


class NoSentinel(stock.SentinelTransport):
    """Refuses: scripts must reach the primary, and after a failover only the recorder may say that work goes on."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise HeadgateError("Headgate does not follow Redis Sentinel: name the primary, as redis://host:6379/0 or rediss://host:6379/0")


def install() -> None:
    """Put the fair transport in place of Kombu's Redis transports (sockets and Flower's Broker page keep their URL schemes).

    Kombu remembers what an alias stood for when it was first used; a process that spoke to Redis by stock Celery before would go on
    publishing to lists that nobody reads.
    """
    for alias in ("redis", "rediss", "redis+socket"):
        TRANSPORT_ALIASES[alias] = "tenancy.transport.channel:FairTransport"
        transports._transport_cache.pop(alias, None)
    TRANSPORT_ALIASES["sentinel"] = "tenancy.transport.channel:NoSentinel"
    transports._transport_cache.pop("sentinel", None)
