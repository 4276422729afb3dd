"""What the pages of the console ask for when somebody opens them, and when he clicks on what they offer."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil

from orchestrator.store.run_search import STATES

LOOP_MAX_S = 0.05
"""How long Flower's loop may be kept from others."""


@dataclass(frozen=True)
class Opening:
    """A page: its own path, what it asks for when it opens, and what each click on it asks for."""

    name: str
    path: str
    data: tuple[str, ...]
    clicks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Named:
    """What there is to look at: a large run in flight and a small one that has ended, with nodes; tenant, graph and label of many runs."""

    large: str
    large_node: str
    ended: str
    ended_node: str
    tenant: str
    graph: str
    label: str


@dataclass
class Measured:
    """Of a page, round by round, in seconds: how long it took to open, and each request of it; what the console worked for each request
    (`cpu`), and what each added to the longest that Flower's loop had somebody else wait (`loop`, see `added_s`).
    """

    opened: list[float] = field(default_factory=list)
    requests: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    loop: dict[str, list[float]] = field(default_factory=dict)


class Connection:
    """One kept connection to a console."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=120)
        self._prefix = parts.path.rstrip("/")

    def get(self, path: str) -> bytes:
        """Return what is answered. Raises RuntimeError for anything but 200."""
        self._connection.request("GET", self._prefix + path, headers={"Accept-Encoding": "gzip"})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered {answer.status}: {body[:200]!r}")
        return body

    def close(self) -> None:
        self._connection.close()


def openings(named: Named, told: Callable[[str], Any]) -> list[Opening]:
    """Return all pages of ours; `told` gives the JSON of a path, from which follow the places of later pages."""
    tenant, graph, label = named.tenant, quote(named.graph), quote(named.label)
    second = f"/runs/data?before={told('/runs/data')['after']}"
    last = f"/runs/data?before={_last_page(told)}"
    at, ended = f"/run/{named.large}", f"/run/{named.ended}"
    events = told(f"{at}/events")["after"]
    after = told("/tenants/data")["after"]
    return [
        Opening(
            "Runs",
            "/runs",
            ("/runs/data", "/runs/strips", "/console/banner"),
            (
                *(f"/runs/data?state={state}" for state in STATES),
                "/runs/data?state=failed&state=running",
                f"/runs/data?tenant={tenant}",
                f"/runs/data?tenant={tenant}&state=failed",
                "/runs/data?tenant=nobody",
                f"/runs/data?graph={graph}",
                f"/runs/data?graph={graph}&tenant={tenant}",
                f"/runs/data?label={label}",
                f"/runs/data?label={label.partition('%3D')[0]}",
                "/runs/data?label=no%3Dsuch",
                f"/runs/data?label={label}&tenant={tenant}&graph={graph}",
                f"/runs/data?label={label}&state=failed&since=7d",
                "/runs/data?q=key-99",
                "/runs/data?q=no-such-words",
                f"/runs/data?q={named.ended}",
                f"/runs/data?q=key&graph={graph}&state=failed",
                *(f"/runs/data?since={ago}" for ago in ("15m", "1h", "24h", "7d", "30d")),
                f"/runs/data?until={int(time.time()) - 15 * 86_400}",
                f"/runs/data?q=9&tenant={tenant}&graph={graph}&label={label}&state=succeeded&since=30d",
                second,
                last,
                f"/runs/strips?tenant={tenant}",
                "/runs/strips?tenant=nobody",
            ),
        ),
        *(
            Opening(
                f"Run {words}",
                path,
                (f"{path}/summary", f"{path}/graph", f"{path}/nodes", "/console/banner"),
                (
                    f"{path}/events",
                    *([f"{path}/events?after={events}"] if path == at and events else []),
                    f"{path}/decisions",
                    f"{path}/record",
                    f"{path}/node?id={quote(node)}",
                    f"{path}/log?id={quote(node)}",
                ),
            )
            for words, path, node in (("of 10,000 nodes", at, named.large_node), ("that has ended", ended, named.ended_node))
        ),
        Opening(
            "Tenants",
            "/tenants",
            ("/tenants/data", "/console/banner"),
            (f"/tenants/data?after={after}", f"/tenants/data?q={tenant[:-1]}", "/tenants/data?q=no-such-words"),
        ),
        Opening("Tenant", f"/tenant/{tenant}", (f"/tenant/{tenant}/data", "/console/banner")),
        Opening("Queues", "/queues", ("/queues/data", "/console/banner"), (f"/queues/data?tenant={tenant}", "/queues/data?pool=default")),
        Opening("Schedules", "/schedules", ("/schedules/data", "/console/banner"), (f"/schedules/data?tenant={tenant}",)),
        Opening("Broker", "/broker", ("/console/banner",), (f"/broker?search={tenant}",)),
        Opening("Tasks", "/tasks", ("/console/banner",)),
        Opening("Metrics", "/metrics", ()),
    ]


def _last_page(told: Callable[[str], Any]) -> str:
    """The cursor of the oldest page of runs, found by the time of the oldest run."""
    at = int(time.time()) - 29 * 86_400
    return str(told(f"/runs/data?until={at}")["after"])


def in_seconds(connection: Connection, path: str) -> float:
    """Return how long the console takes to answer."""
    began = time.monotonic()
    connection.get(path)
    return time.monotonic() - began


@contextmanager
def knocking(url: str) -> Iterator[list[float]]:
    """Meanwhile Flower's loop is asked again and again; gives the seconds that each answer took."""
    waited: list[float] = []
    over = threading.Event()

    def knock() -> None:
        connection = Connection(url)
        while not waited or not over.is_set():
            waited.append(in_seconds(connection, "/healthcheck"))
        connection.close()

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield waited
    finally:
        over.set()
        thread.join()


def added_s(connection: Connection, url: str, path: str, rounds: int, enough_s: float) -> float:
    """Return the seconds that a request adds to the longest wait for the loop: the least of so many rounds, fewer once it is `enough_s`.

    What others on the machine have the loop wait for is taken off: in each round it is asked for as long without the request.
    """
    least = float("inf")
    for _ in range(rounds):
        least = min(least, _added_s(connection, url, path))
        if least < enough_s:
            break
    return least


def _added_s(connection: Connection, url: str, path: str) -> float:
    with knocking(url) as waited:
        took = in_seconds(connection, path)
    with knocking(url) as idle:
        time.sleep(took)
    return max(waited) - max(idle)


def measured(url: str, pid: int, pages: Sequence[Opening], rounds: int) -> dict[str, Measured]:
    """Open every page and click on everything, so often; return what was seen by page. pid: of the console."""
    connection = Connection(url)
    found = {page.name: Measured() for page in pages}
    for _ in range(rounds):
        for page in pages:
            mine, times = found[page.name], {}
            for path in dict.fromkeys((page.path, *page.data, *page.clicks)):
                before = cpu_s(pid)
                times[path] = in_seconds(connection, path)
                mine.cpu.setdefault(path, []).append(cpu_s(pid) - before)
                mine.requests.setdefault(path, []).append(times[path])
                mine.loop.setdefault(path, []).append(_added_s(connection, url, path))
            # One after the other, where a browser asks for them at once.
            mine.opened.append(sum(times[path] for path in (page.path, *page.data)))
    connection.close()
    return found


def cpu_s(pid: int) -> float:
    """Return the seconds that a process has worked, all its threads together: what a loaded machine does not add to."""
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.is_dir():
        return float(sum(psutil.Process(pid).cpu_times()[:2]))
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


def teller(connection: Connection) -> Callable[[str], Any]:
    """Return what gives the JSON of a path."""

    def told(path: str) -> Any:
        body = connection.get(path)
        return json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)

    return told
