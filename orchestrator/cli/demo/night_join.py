"""The join night: a worker that holds members of a join is killed, here and beside it in stock Celery."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .board import Board
from .our_side import OurSide
from .scene import Scene
from .side import Side, View, victim
from .stock_celery import StockCelery

MEMBERS = 20
MEMBER_S = 1.0
PATIENCE_S = 10.0
"""How long after its kill stock Celery is watched; what has not happened by then is called that."""
OUR_PATIENCE_S = 30.0
LOOK_S = 0.05

_DONE_BEFORE = 4
"""So many members have ended before the kill: the join is well under way."""
_AGE_MAX_S = MEMBER_S / 2
_HEADINGS = ("", "members done", "worker killed", "join")


@dataclass
class Story:
    """What has happened to a side so far. Times are epoch seconds."""

    side: Side
    patience_s: float
    view: View = field(default_factory=lambda: View(0))
    killed_at: float | None = None
    worker: int | None = None
    over: bool = False

    @property
    def recovery_s(self) -> float | None:
        """Seconds from the kill to the join, None if the join has not begun."""
        if self.killed_at is None or self.view.joined_at is None:
            return None
        return max(0.0, self.view.joined_at - self.killed_at)


def show(scene: Scene) -> bool:
    """Play the night on both sides at once; return whether our join ran, and every member once the night was over."""
    server, board = scene.stack.redis, scene.board
    assert server is not None, "the demo's stack has a Redis of its own"
    workers, slots = scene.workers, scene.slots
    board.say(
        f"{MEMBERS} members of {MEMBER_S:g} s and their join, on {workers} workers of {slots} processes each, here and on stock Celery "
        "with late acknowledgement, reject on worker lost and its default visibility timeout, on the same Redis server."
    )
    with StockCelery.running(server, workers, slots, scene.stack.log_dir) as stock:
        ours = OurSide(scene)
        stories = (Story(ours, OUR_PATIENCE_S), Story(stock, PATIENCE_S))
        for story in reversed(stories):  # stock Celery's submission is a process that has yet to start
            story.side.submit(MEMBERS, MEMBER_S)
        with board.live() as draw:
            while not all(story.over for story in stories):
                now = time.time()
                for story in stories:
                    if not story.over:
                        _advance(story, board)
                draw(_HEADINGS, [_row(story, now) for story in stories])
                time.sleep(LOOK_S)
        executions = ours.executions()
        _conclude(board, stories, stock.visibility_timeout_s, executions)
    scene.figures["join_night"] = {
        "members": MEMBERS,
        "headgate": {**_figures(stories[0]), "executions": executions},
        "stock_celery": {**_figures(stories[1]), "visibility_timeout_s": stock.visibility_timeout_s},
        "verdict": verdict(*stories),
    }
    return stories[0].recovery_s is not None and stories[0].view.done == MEMBERS


def _advance(story: Story, board: Board) -> None:
    """Look at a side, and kill its worker when the moment has come."""
    now = time.time()
    story.view = story.side.look(now)
    if story.killed_at is None:
        chosen = victim(story.view, now, _AGE_MAX_S) if story.view.done >= _DONE_BEFORE else None
        if chosen is not None:
            story.killed_at, story.worker = time.time(), chosen
            pid = story.side.kill(chosen)
            held = ", ".join(sorted(story.view.running[chosen]))
            board.say(f"{story.side.name}: worker {chosen} killed (pid {pid}), which held {held}; a new one starts")
        elif story.view.joined_at is not None:
            story.over = True  # it was done before a worker could be caught with a member
    elif story.view.joined_at is not None:
        story.over = True
        board.step(f"{story.side.name}: the join ran {story.recovery_s:.1f} s after the kill")
    elif now - story.killed_at > story.patience_s:
        story.over = True


def _row(story: Story, now: float) -> list[str]:
    killed = "" if story.worker is None else f"worker {story.worker} !"
    if story.recovery_s is not None:
        join = f"ran {story.recovery_s:.1f} s after the kill ✓"
    elif story.killed_at is None:
        join = "waits for its members …"
    elif story.over:
        join = f"still waiting after {story.patience_s:g} s ✗"
    else:
        join = f"waits, {max(0.0, now - story.killed_at):.1f} s since the kill …"
    return [story.side.name, f"{story.view.done} of {MEMBERS}", killed, join]


def _figures(story: Story) -> dict[str, Any]:
    """Return a side as data; `join_after_kill_s` is None where the join was not seen within `watched_s` of the kill."""
    recovery_s = None if story.recovery_s is None else round(story.recovery_s, 3)
    return {
        "members_done": story.view.done,
        "worker_killed": story.worker,
        "join_after_kill_s": recovery_s,
        "watched_s": story.patience_s,
    }


def _conclude(board: Board, stories: Sequence[Story], visibility_timeout_s: float, executions: int) -> None:
    ours, stock = stories
    board.say(f"headgate: {ours.view.done} of {MEMBERS} members done, in {executions} executions")
    if stock.killed_at is not None and stock.recovery_s is None:
        waits = f"still waiting after {stock.patience_s:g} s, {stock.view.done} of {MEMBERS} members done"
        board.say(f"stock Celery: {waits}; its default redelivers after {_spoken(visibility_timeout_s)}")
    board.say(verdict(ours, stock))


def verdict(ours: Story, stock: Story) -> str:
    """Return in one sentence who was faster from the kill to the join: won, lost, or not shown."""
    if ours.killed_at is None or stock.killed_at is None:
        return "not shown: a join was done before a worker could be caught with one of its members"
    mine, theirs = ours.recovery_s, stock.recovery_s
    if mine is None:
        return f"lost: the join has not run within {ours.patience_s:g} s of the kill"
    if theirs is None:
        return f"won: the join ran {mine:.1f} s after the kill, stock Celery's had not run after {stock.patience_s:g} s"
    word = "won" if mine < theirs else "lost"
    return f"{word}: the join ran {mine:.1f} s after the kill, stock Celery's after {theirs:.1f} s"


def _spoken(seconds: float) -> str:
    if seconds == 3600:
        return "an hour"
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} s"
