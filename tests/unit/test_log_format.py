"""Lines of the platform's own log say what they are about, for people and as JSON."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from celery import Celery
from celery.signals import after_setup_logger, after_setup_task_logger

from orchestrator.log_context import about, known
from orchestrator.log_format import Style, dress, dress_celery, formatter

RUN = "01kb0000000000000000000000"


class Log:
    """A logger of its own, and what came of it."""

    def __init__(self, style: Style) -> None:
        self.stream = io.StringIO()
        self.logger = logging.getLogger("headgate.test")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        self.logger.handlers[:] = [logging.StreamHandler(self.stream)]
        dress(self.logger.handlers, style)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def json(self) -> dict[str, Any]:
        (line,) = self.lines
        found: dict[str, Any] = json.loads(line)
        return found


def test_json_is_one_object_a_line_with_what_it_is_about() -> None:
    log = Log("json")
    with about(tenant="acme", run=RUN), about(node="load"):
        log.logger.warning("read %d of %s\nand more", 3, "é")
    line = log.json()
    assert {name: line[name] for name in ("event", "level", "logger", "tenant", "run", "node")} == {
        "event": "read 3 of é\nand more",
        "level": "warning",
        "logger": "headgate.test",
        "tenant": "acme",
        "run": RUN,
        "node": "load",
    }
    assert line["timestamp"].endswith("Z")
    assert line["pid"] > 0
    assert known() == {}, "after the block it is about nothing"


def test_a_line_for_people_has_time_level_message_and_what_it_is_about_and_no_colours_in_a_file() -> None:
    log = Log("console")
    with about(run=RUN):
        log.logger.info("it went %s", "well")
    (line,) = log.lines
    assert line[10:].startswith(" ")
    assert "it went well" in line
    assert f"run={RUN}" in line
    assert "\x1b" not in line


@pytest.mark.parametrize("style", ["console", "json"])
def test_an_error_has_its_traceback_and_never_the_values_of_variables(style: Style) -> None:
    log = Log(style)

    def fails(password: str) -> None:
        raise ValueError("broken")

    try:
        fails("hunter" + "22")
    except ValueError:
        log.logger.exception("it broke")
    text = log.stream.getvalue()
    assert "ValueError: broken" in text
    assert "hunter22" not in text
    if style == "json":
        assert log.json()["exception"].startswith("Traceback")


def test_one_line_may_say_itself_what_it_is_about_and_other_extras_are_left_out() -> None:
    log = Log("json")
    with about(tenant="acme"):
        log.logger.info("x", extra={"tenant": "beta", "decision": "d1", "data_of_mine": "secret"})
    line = log.json()
    assert (line["tenant"], line["decision"]) == ("beta", "d1")
    assert "secret" not in str(line)


def test_what_celery_says_of_a_task_is_about_its_node_without_arguments_and_results() -> None:
    log = Log("json")
    said = {"id": f"{RUN}.2.map.3", "name": "talk.say", "args": "('hunter22',)", "return_value": "hunter22"}
    log.logger.info("Task %(name)s[%(id)s] succeeded", said, extra={"data": said})
    line = log.json()
    assert (line["run"], line["generation"], line["node"]) == (RUN, 2, "map.3")
    assert line["event"] == f"Task talk.say[{RUN}.2.map.3] succeeded"
    assert "hunter22" not in str(line)


def test_a_line_of_an_ordinary_task_names_the_task() -> None:
    log = Log("json")
    app = Celery("theirs", set_as_current=False)

    @app.task(name="theirs.work")  # type: ignore[untyped-decorator]
    def work() -> None:
        log.logger.info("at work")

    work.apply(task_id="abc").get()
    assert (log.json()["task"], log.json()["task_id"]) == ("theirs.work", "abc")


@pytest.fixture
def receivers() -> Iterator[None]:
    before = [list(signal.receivers) for signal in (after_setup_logger, after_setup_task_logger)]
    yield
    for signal, kept in zip((after_setup_logger, after_setup_task_logger), before, strict=True):
        signal.receivers = kept
        signal.sender_receivers_cache.clear()


@pytest.mark.parametrize(
    ("style", "format_", "ours"), [("console", None, True), ("console", "%(message)s!", False), ("json", "%(message)s!", True)]
)
def test_a_format_of_your_own_stays_where_lines_are_for_people(receivers: None, style: Style, format_: str | None, ours: bool) -> None:
    app = Celery("theirs", set_as_current=False)
    dress_celery(style)
    logger = logging.getLogger("headgate.theirs")
    logger.handlers[:] = [logging.StreamHandler(sys.stderr)]
    stock = logger.handlers[0].formatter
    after_setup_logger.send(
        sender=None, logger=logger, loglevel=20, logfile=None, format=format_ or app.conf.worker_log_format, colorize=False
    )
    assert (logger.handlers[0].formatter is not stock) == ours


@pytest.mark.parametrize(
    ("message", "arguments", "level", "extra"),
    [
        ("Task %s succeeded in %ss: %s", ("synthetic.noop[x]", 0.01, "'headgate'"), logging.INFO, {}),
        ("said of a task", (), logging.INFO, {"data": {"id": f"{RUN}.1.load", "name": "t"}}),
        ("said of an ordinary one", (), logging.INFO, {"data": {"id": "3fa85f64-5717", "name": "my.task"}}),
        ("a node", (), logging.WARNING, {"run": RUN, "generation": 2, "node": "load.3", "attempt": 1, "tenant": "acme"}),
        ('two\nlines and "quotes"', (), logging.CRITICAL, {"run": ""}),
        ("what needs quotes", (), logging.ERROR, {"node": "a b", "tenant": "x='1'"}),
        ("what is no text", (), logging.DEBUG, {"node": None, "attempt": True, "run": ["r"]}),
        ("100 %", (), 25, {"schedule": "daily:é"}),
    ],
)
def test_a_plain_line_is_what_structlog_makes_of_it(
    message: str, arguments: tuple[Any, ...], level: int, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, slow = formatter("console"), formatter("console")
    monkeypatch.setattr(type(slow), "format", structlog.stdlib.ProcessorFormatter.format)
    with about(tenant="acme", node="load"):
        record = logging.getLogger("headgate.some").makeRecord("headgate.some", level, __file__, 1, message, arguments, None, None, extra)
        expected = slow.format(record)[len("2026-11-22 12:00:00") :]
        monkeypatch.undo()
        line = quick.format(record)
    assert line[len("2026-11-22 12:00:00") :] == expected
    assert time.strptime(line[: len("2026-11-22 12:00:00")], "%Y-%m-%d %H:%M:%S")
