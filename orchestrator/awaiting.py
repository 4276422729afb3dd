"""Calls that asyncio awaits: the client's own, run in threads, so that there is one implementation of each.

Cancelling the task that awaits a call ends the awaiting at once, and never undoes what the call does: a call whose turn had not come
is not made, one that was made goes on in its thread to its end. Whether a submission that was given up is on record is found out as after
Unavailable, by submitting it again with the same key. What only waits for something (`RunHandle.await_`, `Client.abackfill`) notices
within half a second, and ends.

At most `CALLS` calls and `WAITS` waits of a process are at work at once; the next ones take their turn.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import cache, wraps
from threading import Event
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

CALLS = 32
"""Calls of a process that are at work at once."""
WAITS = 256
"""Waits of a process at once: each has a thread and a connection to Redis for as long as it lasts."""

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")

_given_up: ContextVar[Event | None] = ContextVar("given_up", default=None)
_END = object()


def given_up() -> bool:
    """Return whether nobody awaits any more what this thread does. What waits long asks this, and ends."""
    asked = _given_up.get()
    return asked is not None and asked.is_set()


def awaitable(method: Callable[Concatenate[S, P], R], *, waits: bool = False) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Return the method as a coroutine: the same arguments, answer and errors. waits: it may take as long as a run does."""

    @wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await _run(lambda: method(self, *args, **kwargs), "wait" if waits else "call")

    call.__doc__ = f"As `{method.__name__}`, awaited.\n\n{method.__doc__ or ''}"
    return call


def iterable(method: Callable[Concatenate[S, P], Iterator[R]]) -> Callable[Concatenate[S, P], AsyncIterator[R]]:
    """Return a method that yields as one whose answers come by `async for`; what it waits for, it waits for in a thread."""

    @wraps(method)
    async def each(self: S, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        iterator: Iterator[Any] = iter(await _run(lambda: method(self, *args, **kwargs), "call"))
        # Only a thread may close it: its last steps may talk to Redis, and it may be in the middle of one.
        try:
            while (found := await _run(lambda: next(iterator, _END), "wait")) is not _END:
                yield cast("R", found)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                _threads("call").submit(_close, close)

    each.__doc__ = f"As `{method.__name__}`, by `async for`.\n\n{method.__doc__ or ''}"
    return each


async def _run(call: Callable[[], R], kind: str) -> R:
    asked, context = Event(), copy_context()
    context.run(_given_up.set, asked)
    future: Future[R] = _threads(kind).submit(context.run, call)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        asked.set()
        raise


def _close(close: Callable[[], None]) -> None:
    """Close a generator that may still be at its last step, which ends soon: nobody waits for it."""
    pause = Event()
    while True:
        try:
            close()
        except ValueError:  # "generator already executing"
            pause.wait(0.05)
        else:
            return


@cache
def _threads(kind: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WAITS if kind == "wait" else CALLS, f"headgate-{kind}")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of the threads
