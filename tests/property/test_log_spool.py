"""The spool's scripts and the plain model answer the same, whatever is called in whatever order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clock import NOW_KEY, moved_clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.embedded.redis_server import RedisServer
from orchestrator.logs.line import LogName, encode
from orchestrator.logs.memory import MemorySpool
from orchestrator.logs.spool import KEPT_MS, Spool
from tenancy.errors import Fenced
from tenancy.link import Link

SERVER = "server-1"
START_MS = 1_798_675_200_000
BYTES_MAX = 400
NAMES = [LogName("01kb0000000000000000000000", 1, node, attempt) for node in ("a", "a.1", "b-2") for attempt in (1, 2)]


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    server = RedisServer(tmp_path_factory.mktemp("spool"))
    server.start()
    with moved_clock():
        yield Link(server.client_url, server=SERVER)
    server.stop()


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    one = st.tuples(
        st.sampled_from(["say", "say", "say", "again", "idle", "drop", "drop early", "start", "stop", "die", "wait"]),
        st.integers(0, len(NAMES) - 1),
        st.integers(1, 150),
        st.integers(1, 3),
    )
    return draw(st.lists(one, max_size=40))


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps())
def test_scripts_and_model_agree(link: Link, given_steps: list[tuple[str, int, int, int]]) -> None:
    client = link.client
    client.flushall()
    client.hset("hg1:epoch", mapping={"epoch": 1, "server": SERVER, "seq": 0})
    now = START_MS
    running: set[LogName] = set()
    alive = True
    client.zadd("hg1:incarnations", {"w1": now})
    spool = Spool(link, BYTES_MAX)
    model = MemorySpool(BYTES_MAX, lambda: now, lambda name: alive and name in running)
    ends = dict.fromkeys(NAMES, (0, 0))
    last: dict[LogName, list[tuple[int, bytes]]] = {}
    for kind, which, size, count in given_steps:
        client.set(NOW_KEY, now)
        name = NAMES[which]
        key = f"hg1:lease:{name.run_id}.{name.generation}"
        if kind == "say":
            number, end = ends[name]
            pieces = []
            for _ in range(count):
                number += 1
                line = encode(number, now, "INFO", "x", "y" * size)
                end += len(line)
                pieces.append((end, line))
            ends[name], last[name] = (number, end), pieces
            assert spool.append(name, pieces) == model.append(name, pieces) == end
        elif kind == "again" and name in last:
            assert spool.append(name, last[name]) == model.append(name, last[name])
        elif kind == "idle":
            assert spool.idle(20, count) == model.idle(20, count)
        elif kind in ("drop", "drop early"):
            end = ends[name][1] if kind == "drop" else max(0, ends[name][1] - size)
            assert spool.drop(name, end) == model.drop(name, end)
        elif kind == "start":
            running.difference_update([other for other in NAMES if other.node == name.node])
            running.add(name)
            client.hset(key, name.node, f"{name.attempt}|w1|m1|1|{now}")
        elif kind == "stop":
            running.difference_update([other for other in NAMES if other.node == name.node])
            client.hdel(key, name.node)
        elif kind == "die":
            alive = not alive
            client.zadd("hg1:incarnations", {"w1": now}) if alive else client.zrem("hg1:incarnations", "w1")
        elif kind == "wait":
            now += size
        assert sorted(spool.names(name.run_id, 1)) == sorted(model.names(name.run_id, 1))
        for each in NAMES:
            assert spool.read(each) == model.read(each)
    for name in NAMES:
        lines, position = spool.read(name)
        if lines:
            assert 0 < client.pttl(f"hg1:log:{name.run_id}.1:{name.node}:{name.attempt}") <= KEPT_MS
            assert spool.read(name, position) == ([], position)
            assert lines[-1].number == ends[name][0], "what is there is the last that was said"


def test_between_epochs_nothing_is_taken(link: Link) -> None:
    link.client.flushall()
    link.client.hset("hg1:epoch", mapping={"epoch": 1, "server": "another", "seq": 0})
    with pytest.raises(Fenced):
        Spool(link, BYTES_MAX).append(NAMES[0], [(3, b"{}\n")])
    assert not link.client.exists("hg1:logs")
