"""What a node says is captured, for it alone, redacted, the last of it; and it costs nothing to say nothing."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from celery.utils.log import get_task_logger

from orchestrator.logs.capture import Logs
from orchestrator.logs.line import LogLine, LogName
from orchestrator.logs.memory import MemorySpool
from orchestrator.logs.reading import NodeLogs
from orchestrator.objects import Directory
from orchestrator.redaction import HIDDEN
from tenancy.errors import Unavailable

RUN = "01kb0000000000000000000000"
log = logging.getLogger("their.module")


class Clock:
    now = 1_000_000

    def __call__(self) -> int:
        return self.now


class Place:
    """Logs over a directory and a spool in memory."""

    def __init__(self, path: Path, bytes_max: int = 262_144) -> None:
        self.clock, self.running = Clock(), set[LogName]()
        self.spool = MemorySpool(bytes_max, self.clock, self.running.__contains__)
        self.objects = Directory(path / "results")
        self.logs = Logs(self.spool, self.objects, bytes_max)  # type: ignore[arg-type]
        self.read = NodeLogs(self.spool, self.objects).read  # type: ignore[arg-type]

    def capture(self, node: str, task: Callable[[], object], attempt: int = 1) -> list[LogLine]:
        name = LogName(RUN, 1, node, attempt)
        with self.logs.capturing(name):
            task()
        return self.read(name)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(autouse=True)
def heard() -> None:
    log.setLevel(logging.DEBUG)


def told(lines: list[LogLine]) -> list[tuple[str, str]]:
    return [(line.level, line.text) for line in lines]


def test_records_and_prints_are_lines_with_their_level_in_their_order(place: Place) -> None:
    def task() -> None:
        log.info("read %d files", 3)
        print("half a line, ", end="")  # noqa: T201
        print("and its end\nanother")  # noqa: T201
        print("wrong", file=sys.stderr)  # noqa: T201
        sys.stdout.writelines(["a\n", "b"])
        get_task_logger("mine").warning("by Celery's logger")
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            log.exception("it broke")

    lines = place.capture("n", task)
    assert told(lines)[:6] == [
        ("INFO", "read 3 files"),
        ("stdout", "half a line, and its end"),
        ("stdout", "another"),
        ("stderr", "wrong"),
        ("stdout", "a"),
        ("WARNING", "by Celery's logger"),
    ]
    assert lines[6].text.startswith("it broke\nTraceback")
    assert lines[6].text.endswith("ZeroDivisionError: division by zero")
    assert told(lines)[7:] == [("stdout", "b")], "what ends without a line break is a line"
    assert [line.number for line in lines] == list(range(1, 9))
    assert (lines[0].logger, lines[0].node, lines[0].attempt) == ("their.module", "n", 1)


def test_nothing_is_heard_before_and_after_a_node(place: Place) -> None:
    log.warning("before")
    lines = place.capture("n", lambda: log.info("during"))
    log.warning("after")
    assert told(lines) == [("INFO", "during")]
    assert told(place.read(LogName(RUN, 1, "n", 1))) == [("INFO", "during")]


def test_a_node_that_says_nothing_leaves_nothing_and_wakes_nobody(place: Place) -> None:
    assert place.capture("n", lambda: None) == []
    assert place.objects.names(RUN) == []
    assert place.spool.names(RUN, 1) == []


def test_nodes_side_by_side_in_one_process_are_never_mixed(place: Place) -> None:
    barrier = threading.Barrier(4)

    def task(number: int) -> None:
        barrier.wait(20)
        for _ in range(200):
            log.info("I am %d", number)
            print(f"I am {number}")  # noqa: T201

    def run(number: int) -> set[str]:
        return {line.text for line in place.capture(f"n{number}", lambda: task(number))}

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [{f"I am {number}"} for number in range(4)]


def test_coroutines_and_threads_that_take_the_context_along_are_their_nodes(place: Place) -> None:
    async def aside() -> None:
        await asyncio.gather(*(asyncio.to_thread(log.info, "from a thread") for _ in range(2)))
        log.info("from a coroutine")

    def task() -> None:
        asyncio.run(aside())
        thread = threading.Thread(target=contextvars.copy_context().run, args=(log.info, "from its own thread"))
        thread.start()
        thread.join()

    said = sorted(text for _, text in told(place.capture("n", task)))
    assert said == ["from a coroutine", "from a thread", "from a thread", "from its own thread"]


def test_secrets_are_hidden_before_anything_is_kept(place: Place) -> None:
    name = LogName(RUN, 1, "n", 1)
    with place.logs.capturing(name) as captured:
        assert captured is not None
        captured.hide({"xyzzy-plugh"})
        print("the word is xyzzy-", end="")  # noqa: T201 (in two pieces)
        print("plugh")  # noqa: T201
        log.info("connecting to postgres://ann:pw@db, password=%s", "hunter22")
        print("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\nthat was it")  # noqa: T201
    stored = place.objects.read(name.object).decode()
    assert not [secret for secret in ("xyzzy", "pw@", "hunter22", "MIIE") if secret in stored]
    assert told(place.read(name)) == [
        ("stdout", f"the word is {HIDDEN}"),
        ("INFO", f"connecting to postgres://ann:{HIDDEN}@db, password={HIDDEN}"),
        ("stdout", HIDDEN),
        ("stdout", "that was it"),
    ]


def test_the_last_of_a_long_log_is_kept_and_the_numbers_say_what_is_missing(tmp_path: Path) -> None:
    place = Place(tmp_path, bytes_max=10_000)
    lines = place.capture("n", lambda: [log.info("line %d %s", number, "x" * 50) for number in range(1_000)])
    assert lines[-1].number == 1_000
    assert [line.number for line in lines] == list(range(lines[0].number, 1_001))
    size = len(place.objects.read(LogName(RUN, 1, "n", 1).object))
    assert 9_000 < size <= 10_000
    long = place.capture("m", lambda: sys.stdout.write("y" * 200_000))
    assert long[0].text.endswith("more characters"), "a line without end is cut"


def test_a_bar_of_progress_is_the_line_that_it_ends_as(place: Place) -> None:
    assert told(place.capture("n", lambda: sys.stderr.write("\r10 %\r50 %\r100 %\nline\r\n"))) == [("stderr", "100 %"), ("stderr", "line")]


def test_characters_that_no_encoding_carries_and_records_that_cannot_be_formatted_stop_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Pytest's own handlers would raise, and put into the test's report what cannot be sent from one process to another.
    monkeypatch.setattr(type(caplog.handler), "emit", lambda *_: None)

    def task() -> None:
        log.info("odd \ud800 \x00 \u2028 end")
        get_task_logger("mine").warning("%d and %d", 1)

    lines = place.capture("n", task)
    assert lines[0].text == "odd ? \x00 \u2028 end"
    assert any("not enough arguments" in line.text for line in lines[1:])


def test_what_is_said_is_seen_by_others_within_a_moment_and_the_spool_is_empty_at_the_end(place: Place) -> None:
    name = LogName(RUN, 1, "n", 1)
    with place.logs.capturing(name):
        log.info("first")
        seen = threading.Event()
        waiter = threading.Thread(target=lambda: _until(lambda: place.spool.read(name)[0], seen))
        waiter.start()
        assert seen.wait(20)
        waiter.join()
        assert told(place.read(name)) == [("INFO", "first")]
        log.info("last")
    assert place.spool.names(RUN, 1) == []
    assert told(place.read(name)) == [("INFO", "first"), ("INFO", "last")]


def _until(condition: Callable[[], object], seen: threading.Event) -> None:
    for _ in range(2_000):
        if condition():
            seen.set()
            return
        threading.Event().wait(0.01)


def test_what_could_not_be_told_at_once_is_told_when_redis_is_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    append, refused = place.spool.append, threading.Semaphore(0)

    def away_once(*given: object) -> int:
        monkeypatch.setattr(place.spool, "append", append)
        refused.release()
        raise Unavailable("Redis is away")

    monkeypatch.setattr(place.spool, "append", away_once)
    name, seen = LogName(RUN, 1, "n", 1), threading.Event()
    with place.logs.capturing(name):
        log.info("said while it was away")
        assert refused.acquire(timeout=20)
        _until(lambda: place.spool.read(name)[0], seen)
        assert seen.is_set()


class Away(Directory):
    """A store that does not answer."""

    def write(self, name: str, data: bytes) -> None:
        raise Unavailable("the store is away")


def test_where_the_store_is_away_the_spool_has_the_log_and_it_is_put_away_later(tmp_path: Path) -> None:
    place = Place(tmp_path)
    name = LogName(RUN, 1, "n", 1)
    there, place.logs.objects = place.logs.objects, Away(tmp_path / "results")
    assert told(place.capture("n", lambda: log.info("kept"))) == [("INFO", "kept")]
    place.logs.objects = there
    assert place.logs.put_away() == 0, "whoever wrote it may still be about to"
    place.clock.now += 10_001
    assert place.logs.put_away() == 1
    assert (place.spool.names(RUN, 1), told(place.read(name))) == ([], [("INFO", "kept")])


def test_what_a_killed_process_left_is_put_away_and_what_comes_later_of_the_attempt_is_added(place: Place) -> None:
    name, other = LogName(RUN, 1, "n", 1), LogName(RUN, 1, "m", 1)
    place.running |= {name, other}
    place.spool.append(name, [(40, b'{"n":1,"at":1000,"level":"INFO","logger":"x","text":"one"}\n')])
    place.spool.append(other, [(40, b'{"n":1,"at":1000,"level":"INFO","logger":"x","text":"goes on"}\n')])
    place.clock.now += 60_000
    assert place.logs.put_away() == 0, "both run, however silent"
    place.running.discard(name)
    place.clock.now += 60_000
    assert place.logs.put_away() == 1
    place.spool.append(name, [(80, b'{"n":2,"at":2000,"level":"INFO","logger":"x","text":"two"}\n')])
    assert [line.text for line in place.read(name)] == ["one", "two"]
    place.clock.now += 60_000
    assert place.logs.put_away() == 1
    assert [line.text for line in place.read(name)] == ["one", "two"]


def test_with_the_setting_at_zero_nothing_is_captured(tmp_path: Path) -> None:
    place = Place(tmp_path, bytes_max=0)
    with place.logs.capturing(LogName(RUN, 1, "n", 1)) as captured:
        log.warning("unheard")
    assert captured is None
    assert place.objects.names(RUN) == []


def test_names_of_logs_and_of_results_are_told_apart() -> None:
    name = LogName(RUN, 2, "map.3", 101)
    assert LogName.of_object(name.object) == name
    assert [LogName.of_object(f"{RUN}/1/{text}") for text in ("a.1.json", "a.log", "a.x.log", "+decision.3")] == [None] * 4


def test_nobody_reads_beside_the_logs_whatever_he_calls_a_node(place: Place) -> None:
    place.objects.write("secret.1.log", b'{"n":1,"at":5,"text":"of somebody else"}\n')
    for node in ("../../secret", f"../../{RUN}/1/../../secret", "/secret", "a/../../../secret", "\0", "", ".."):
        assert place.read(LogName(RUN, 1, node, 1)) == [], node


def test_lines_that_are_no_lines_of_ours_are_left_out(place: Place) -> None:
    name = LogName(RUN, 1, "n", 1)
    place.objects.write(name.object, b'nonsense\n{"n":1,"at":5,"text":"fine"}\n{"n":"x"}\n[]\n')
    with warnings.catch_warnings():
        assert [line.text for line in place.read(name)] == ["fine"]
