"""Feeds Flower's list of tasks and our counters from our log: Celery's own events of tasks cost workers much, and are gone when Flower
starts late.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from sqlalchemy import Engine

from orchestrator.metrics.tally import TYPES as COUNTED
from orchestrator.metrics.tally import Tally
from orchestrator.store.log_pieces import Piece, newest_but, piece_after, task_names
from orchestrator.store.position import Position
from orchestrator.web.page import UNREACHABLE
from orchestrator.web.task_state import TaskState

LOOKED_BACK = 20_000
"""Events of before the start of the console that are read, so many at most."""
PIECE = 500
AT_ONCE = 50
"""Events that are taken before the loop serves others again."""
PERIOD_S = 1.0
AWAY_S = 5.0
SETTLED_EACH = 1_000
"""Events after which what is kept of them is not looked through by collections of garbage any more."""
RUNS_KEPT = 500
LISTED = frozenset({"node.began", "node.retry", "node.ended"})
"""Types of events that the list of tasks is made from."""

log = logging.getLogger(__name__)


class Feed:
    """Reads the log in threads of `executor`, and tells the state that `state` gives in the loop's own.

    `tally` counts what happened since the feed began, in those threads.
    """

    def __init__(self, engine: Engine, executor: Executor, state: Callable[[], TaskState], tally: Tally) -> None:
        self._engine = engine
        self._executor = executor
        self._state = state
        self._tally = tally
        self._names: OrderedDict[tuple[str, int], Mapping[str, str]] = OrderedDict()
        self._after: Position | None = None
        self._begun: Position | None = None
        self._unsettled = 0

    async def run(self, goes_on: Callable[[], bool]) -> None:
        """Go on until `goes_on` says no; while the record is away, try again every few seconds."""
        away = False
        while goes_on():
            try:
                full = await self.step()
                away = False
            except UNREACHABLE as error:
                full = False
                if not away:
                    log.warning("the list of tasks stands still: %s", error)
                away = True
            except RuntimeError:  # the executor is shut down with the console
                return
            await asyncio.sleep(AWAY_S if away else 0 if full else PERIOD_S)

    async def step(self) -> bool:
        """Take the next piece of the log; return whether there may be more at once."""
        loop = asyncio.get_running_loop()
        read, names = await loop.run_in_executor(self._executor, self._read)
        state = self._state()
        for place, (at, event) in enumerate(read.events):
            if place and place % AT_ONCE == 0:
                await asyncio.sleep(0)
            name = names[str(event["run"]), int(event["gen"])].get(_of_map(names, event))
            state.note(event, name, counts=self._begun is not None and at > self._begun)
        self._settle(len(read.events))
        full = self._after is not None and read.until > self._after
        self._after = read.until
        return full

    def _settle(self, events: int) -> None:
        """Take what is kept of events from the collector, which stops every thread for 0.1 s to look through 13,000 tasks. Tasks have no
        cycles: one that is let go of is freed all the same.
        """
        self._unsettled += events
        if self._unsettled >= SETTLED_EACH:
            self._unsettled = 0
            gc.collect(1)  # so that garbage of just now does not stay
            gc.freeze()

    def _read(self) -> tuple[Piece, Mapping[tuple[str, int], Mapping[str, str]]]:
        """Return what the list of tasks shows of the next piece; count what of it happened since this feed began."""
        if self._after is None or self._begun is None:
            self._begun = newest_but(self._engine, 0)
            self._after = newest_but(self._engine, LOOKED_BACK)
        read = piece_after(self._engine, self._after, PIECE, COUNTED | LISTED)
        listed = Piece(tuple((at, event) for at, event in read.events if event["t"] in LISTED), read.until)
        found: dict[tuple[str, int], Mapping[str, str]] = {}
        for _, event in listed.events:
            run = str(event["run"]), int(event["gen"])
            if run not in found:
                found[run] = self._tasks_of(run)
        # Last, when nothing can fail any more: a piece that is read again must not be counted again.
        self._tally.note(event for at, event in read.events if at > self._begun)
        return listed, found

    def _tasks_of(self, run: tuple[str, int]) -> Mapping[str, str]:
        if run not in self._names:
            self._names[run] = task_names(self._engine, *run)
            if len(self._names) > RUNS_KEPT:
                self._names.popitem(last=False)
        return self._names[run]


def _of_map(names: Mapping[tuple[str, int], Mapping[str, str]], event: Mapping[str, Any]) -> str:
    """The node of the graph that an event is about: an item of a map has its map's task."""
    node, known = str(event["node"]), names[str(event["run"]), int(event["gen"])]
    return node if node in known else node.rpartition(".")[0]
