"""The supervisor: children that die are started again, with growing patience."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from orchestrator.embedded.child import Child
from orchestrator.embedded.redis_server import RedisServer
from orchestrator.embedded.reload import SourceWatch
from tenancy.errors import Unavailable

_TICK_S = 0.1
_LOOK_EVERY_S = 0.5


class Supervisor:
    """Watches `children` and `redis` from a thread of its own until it is stopped.

    `report` is told in one sentence what happened, `on_change` that pids changed. With `sources`, the workers make room
    for new ones when a file changes.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        redis: RedisServer | None = None,
        sources: SourceWatch | None = None,
        grace_s: float,
        report: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self._children = children
        self._redis = redis
        self._sources = sources
        self._grace_s = grace_s
        self._report = report
        self._on_change = on_change
        self._stopping = threading.Event()
        self._mutex = threading.RLock()
        self._look_at = 0.0
        self._thread = threading.Thread(target=self._run, name="headgate-supervisor", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; nothing is started again after this returns."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def kill(self, child: Child, *, restart: bool) -> int:
        """Send SIGKILL to the group of `child` and return its pid; raises Unavailable if it does not run."""
        with self._mutex:
            pid = child.pid
            if pid is None or not child.alive():
                raise Unavailable(f"{child.name} does not run at the moment")
            child.retired = not restart
            child.kill()
        return pid

    def _run(self) -> None:
        while not self._stopping.wait(_TICK_S):
            happened: list[str] = []
            with self._mutex:
                # A full disk, say, must not end the watch: what happened up to there is told, the rest is tried again.
                try:
                    for sentence in self._tick(time.monotonic()):
                        happened.append(sentence)  # noqa: PERF402 (kept when the tick breaks off)
                    if happened:
                        self._on_change()
                except OSError as error:
                    happened.append(f"the supervisor could not go on, trying again: {error}")
            for sentence in happened:
                self._report(sentence)

    def _tick(self, now: float) -> Iterator[str]:
        if self._redis is not None and not self._redis.alive():
            yield from self._revive(self._redis)
        for child in self._children:
            yield from self._tend(child, now)
        if self._sources is not None and now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            changed = self._sources.changed()
            if changed:
                for child in self._workers():
                    child.make_room(now, self._grace_s)
                yield f"{', '.join(file.name for file in changed)} changed, the workers start anew"

    def _tend(self, child: Child, now: float) -> Iterator[str]:
        if child.pid is not None and not child.alive():
            how = child.bury(now)
            wait = f", starts again in {child.due_at - now:.2g} s" if child.due_at is not None and child.due_at > now else ""
            # A program that ended by itself says why, as one that was killed cannot.
            why = f": {child.last_words()}" if how.startswith("ended") else ""
            if how != "made room":
                yield f"{child.name} {how}{wait}{why} (see {child.program.log})"
        if child.kill_at is not None and now >= child.kill_at:
            child.kill()
        if child.due_at is not None and now >= child.due_at:
            child.start()
            yield f"{child.name} started (pid {child.pid})"

    def _revive(self, redis: RedisServer) -> Iterator[str]:
        try:
            redis.start()
        except Unavailable as refusal:
            yield f"redis did not come back, trying again: {refusal}"
        else:
            yield f"redis ended unexpectedly and was started again (pid {redis.pid})"

    def _workers(self) -> list[Child]:
        return [child for child in self._children if child.name.startswith("w") and child.alive()]
