"""One pass over the notices that are due: each by its channel, several at once, and none waits for another's endpoint."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine
from ulid import ULID

from orchestrator.settings import Settings
from orchestrator.store.read import tenants
from tenancy.link import Link

from .hook import call_hook
from .notice import Notice
from .outbox import Outbox
from .webhook import NotDelivered, Post, host_of

LEASE_MS = 30_000
PASS_S = 15.0
"""No try begins later than this in a pass; with the deadline of the last ones it ends well before the lease."""

DEADLINE_S = 10.0
"""How long a try may take."""

AT_ONCE = 8

PLATFORM = ""
"""The tenant of notices that are about none: the platform's reports."""

log = logging.getLogger("headgate.notify")


@dataclass(eq=False)
class _Try:
    """A notice that is being delivered in a thread of its own."""

    notice: Notice
    place: str
    until: float
    post: Post | None
    error: str | None = None


class Notifier:
    """Delivers what the recorder left in the record: at least once, with the same key each time.

    A try is written down in Redis before it begins and when it ends, so that a notice is sent a second time only if its process died in
    between. May run anywhere and often: one process at a time delivers.
    """

    def __init__(
        self, link: Link, engine: Engine, settings: Settings, *, deadline_s: float = DEADLINE_S, clock: Callable[[], int] | None = None
    ) -> None:
        self.link = link
        self.engine = engine
        self.settings = settings
        self.outbox = Outbox(link, engine)
        self.deadline_s = deadline_s
        self._now_ms = clock or link.now_ms

    def deliver(self) -> int:
        """Try what is due and return how many were taken by their channel. Raises Unavailable and Fenced; the next pass goes on."""
        owner = str(ULID()).lower()
        if not self.link.call("orchestrator/notify/lease", owner, LEASE_MS):
            return 0
        try:
            return self._pass()
        finally:
            self.link.call("orchestrator/notify/lease", owner, 0)

    def _pass(self) -> int:
        ends: queue.SimpleQueue[_Try] = queue.SimpleQueue()
        running: list[_Try] = []
        broken: set[str] = set()
        taken, last = 0, time.monotonic() + PASS_S
        places = self._places(self.outbox.due(self._now_ms()))
        while True:
            # One request at a time for each endpoint: one that is silent takes one thread and is asked once in a pass.
            busy = {each.place for each in running}
            free = [place for place, waiting in places.items() if waiting and place not in busy and place not in broken]
            if free and len(running) < AT_ONCE and time.monotonic() < last:
                notice, url = places[free[0]].popleft()
                places[free[0]] = places.pop(free[0])  # the others go first then
                running.append(self._begin(notice, url, free[0], ends))
            elif running:
                taken += self._wait(running, broken, ends)
            else:
                return taken

    def _wait(self, running: list[_Try], broken: set[str], ends: queue.SimpleQueue[_Try]) -> int:
        """Wait for one try to end, or to have taken too long; return 1 when its channel took it."""
        try:
            ended = ends.get(timeout=max(0.01, min(each.until for each in running) - time.monotonic()))
        except queue.Empty:
            ended = min(running, key=lambda each: each.until)
            if ended.until > time.monotonic():
                return 0
            ended.error = f"no answer within {self.deadline_s:g} s"
            if ended.post is not None:
                ended.post.cut_off()
        if ended not in running:
            return 0  # it was given up before
        running.remove(ended)
        self._end(ended)
        if ended.error is None:
            return 1
        if ended.post is not None:
            broken.add(ended.place)
        return 0

    def _begin(self, notice: Notice, url: str | None, place: str, ends: queue.SimpleQueue[_Try]) -> _Try:
        now = self._now_ms()
        self.outbox.mark(notice, "begun", notice.next_due(now))
        post = None
        if url is not None and self.settings.webhook_secret:
            post = Post(url, notice.key, notice.body, self.settings.webhook_secret, now // 1000)
        attempt = _Try(notice, place, time.monotonic() + self.deadline_s, post)
        send = self._sender(notice, url, post)

        def run() -> None:
            error = None
            try:
                send()
            except NotDelivered as refused:
                error = str(refused)
            except Exception as fault:  # a notice that cannot be sent must not end the pass  # noqa: BLE001
                error = f"{type(fault).__name__}: {fault}"
            attempt.error = attempt.error or error
            ends.put(attempt)

        # A thread, and one that nobody waits for at exit: a name that does not resolve, or a hook, may take as long as it likes.
        threading.Thread(target=run, name=f"notice {notice.id}", daemon=True).start()
        return attempt

    def _sender(self, notice: Notice, url: str | None, post: Post | None) -> Callable[[], None]:
        if notice.channel == "log":
            return lambda: _write_line(notice)
        if notice.channel == "hook":
            return lambda: call_hook(self.settings.notify or "", notice.payload)
        if post is None:
            return lambda: _refuse(f"{url} is not told without a signature: set HEADGATE_WEBHOOK_SECRET")
        return post.send

    def _end(self, attempt: _Try) -> None:
        notice, now = attempt.notice, self._now_ms()
        if attempt.error is None:
            self.outbox.mark(notice, "sent", 0)
        elif notice.is_over(now):
            log.error(
                "notice %s is given up after %s tries: %s", notice.id, notice.tries + 1, attempt.error, extra={"tenant": notice.tenant}
            )
            self.outbox.mark(notice, "dropped", 0, attempt.error)
        else:
            log.warning("notice %s was not delivered: %s", notice.id, attempt.error, extra={"tenant": notice.tenant})
            self.outbox.mark(notice, "failed", notice.next_due(now), attempt.error)

    def _places(self, due: list[Notice]) -> dict[str, deque[tuple[Notice, str | None]]]:
        """Return notices with their URLs by where they go; what has no channel is dropped on the way."""
        webhooks = {each.id: each.policy.webhook for each in tenants(self.engine)} if due else {}
        webhooks[PLATFORM] = self.settings.reports_webhook
        places: dict[str, deque[tuple[Notice, str | None]]] = {}
        for notice in due:
            url = webhooks.get(notice.tenant) if notice.channel == "webhook" else None
            if (notice.channel == "webhook" and url is None) or (notice.channel == "hook" and not self.settings.notify):
                self.outbox.mark(notice, "dropped", 0, f"no {notice.channel} is set")
            else:
                places.setdefault(host_of(url) if url else notice.channel, deque()).append((notice, url))
        return places


def _write_line(notice: Notice) -> None:
    log.warning("%s", notice.sentence(), extra={"tenant": notice.tenant})


def _refuse(why: str) -> None:
    raise NotDelivered(why)
