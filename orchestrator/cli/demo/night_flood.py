"""The flood night: one tenant queues a thousand nodes at the highest priority, another one node at the lowest, here and in stock Celery."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.graph import Graph
from orchestrator.store import read
from tenancy.priorities import Priority

from .board import Draw
from .scene import TENANTS, Scene
from .stock_celery import StockCelery

FLOOD = 1_000
NODE_S = 0.01
PATIENCE_S = 60.0
LOOK_S = 0.1

_HEADINGS = ("", "acme's thousand", "birch's one")
_STARTS_PER_SLOT = 4
"""So many of acme's nodes may begin in each slot before birch's: two service times, and what slots had been handed already, twice over."""


@dataclass(frozen=True)
class Wait:
    """How the one fared: seconds from being in line to beginning, and how many of the flood were done or had begun by then."""

    seconds: float
    ahead: int
    """of the flood, begun between the one's coming in line and its beginning"""
    done: int
    """of the flood, done when the one began"""


def show(scene: Scene) -> bool:
    """Play the night on one side after the other; return whether our one began when the next slots came free."""
    server, board = scene.stack.redis, scene.board
    assert server is not None, "the demo's stack has a Redis of its own"
    workers, slots = scene.workers, scene.slots
    board.say(
        f"{TENANTS[0]} queues {FLOOD:,} nodes of {NODE_S * 1000:g} ms at CRITICAL, then {TENANTS[1]} one at BATCH, on {workers} workers of "
        f"{slots} processes; then stock Celery gets the same in one queue, with as many workers, on the same Redis server."
    )
    rows = [["headgate", "", ""], ["stock Celery", "", ""]]
    with board.live() as draw:
        ours = _ours(scene, _drawing(draw, rows, 0))
        with StockCelery.running(server, workers, slots, scene.stack.log_dir) as stock:
            theirs = _stock(stock, _drawing(draw, rows, 1))
    board.say(verdict(ours, theirs))
    scene.figures["flood_night"] = {
        "flood": FLOOD,
        "headgate": _figures(ours),
        "stock_celery": _figures(theirs),
        "verdict": verdict(ours, theirs),
    }
    return ours is not None and ours.ahead <= _STARTS_PER_SLOT * workers * slots


Report = Callable[[int, Wait | None], None]
"""Told how many of the flood are done, and how the one fared once it has begun."""


def _drawing(draw: Draw, rows: list[list[str]], row: int) -> Report:
    def report(done: int, wait: Wait | None) -> None:
        one = "waits in line …" if wait is None else f"began after {wait.seconds:.2f} s, with {wait.done} of the thousand done"
        rows[row][1:] = [f"{done} of {FLOOD} done", one]
        draw(_HEADINGS, rows)

    return report


def _ours(scene: Scene, report: Report) -> Wait | None:
    engine = scene.client.engine
    flood = scene.client.submit(flood_of(FLOOD, NODE_S), tenant=TENANTS[0], priority=Priority.CRITICAL)
    one = scene.client.submit(flood_of(1, NODE_S), tenant=TENANTS[1], priority=Priority.BATCH)
    wait = None
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        (single,) = read.get_nodes(engine, one.run_id)
        nodes = read.get_nodes(engine, flood.run_id)
        done = sum(node.finished_at is not None for node in nodes)
        if wait is None and single.started_at is not None and single.queued_at is not None:
            began = [node.started_at for node in nodes if node.started_at is not None]
            wait = waited(single.queued_at, single.started_at, began, [node.finished_at for node in nodes if node.finished_at is not None])
        report(done, wait)
        if done == FLOOD:
            return wait
        time.sleep(LOOK_S)
    return wait


def _stock(stock: StockCelery, report: Report) -> Wait | None:
    queued_at = stock.submit_flood(FLOOD, NODE_S)
    wait = None
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        ended, began_at = stock.look_at_flood()
        if wait is None and began_at is not None:
            began = [when - NODE_S for when in ended]  # its results say only when a task ended
            wait = waited(queued_at, began_at, began, ended)
        report(len(ended), wait)
        if len(ended) == FLOOD:
            return wait
        time.sleep(LOOK_S)
    return wait


def waited(queued_at: float, began_at: float, flood_began: list[float], flood_ended: list[float]) -> Wait:
    """Return how the one fared; times are epoch seconds."""
    return Wait(
        seconds=max(0.0, began_at - queued_at),
        ahead=sum(queued_at < when < began_at for when in flood_began),
        done=sum(when <= began_at for when in flood_ended),
    )


def verdict(ours: Wait | None, stock: Wait | None) -> str:
    """Return in one sentence whose one waited less: won, lost, or not shown."""
    if ours is None:
        return f"lost: birch's node has not begun within {PATIENCE_S:g} s"
    mine = f"birch's node began after {ours.seconds:.2f} s, {ours.ahead} of acme's before it"
    if stock is None:
        return f"won: {mine}; in stock Celery it had not begun after {PATIENCE_S:g} s"
    word = "won" if ours.seconds < stock.seconds else "lost"
    return f"{word}: {mine}; in stock Celery after {stock.seconds:.2f} s, {stock.ahead} before it"


def _figures(wait: Wait | None) -> dict[str, Any]:
    if wait is None:
        return {"waited_s": None, "ahead": None, "flood_done": None}
    return {"waited_s": round(wait.seconds, 3), "ahead": wait.ahead, "flood_done": wait.done}


def flood_of(nodes: int, seconds: float) -> Graph:
    """Return `nodes` nodes that sleep for `seconds` each and wait for none."""
    each = [{"id": f"n-{number:04d}", "task": "synthetic.sleep", "params": {"seconds": seconds}} for number in range(1, nodes + 1)]
    return Graph.parse({"name": f"flood_of_{nodes}", "nodes": each})
