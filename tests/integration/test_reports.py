"""Reports: to the micro what the ledger has at the position they state; each made and sent once; what was missed is made up for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ahead
import pytest
import redis
from click.testing import CliRunner
from pydantic import TypeAdapter
from running import Running, let_go, producer, until
from sqlalchemy import select, tuple_

from cost.period import MS_PER_DAY, day_of, name_of
from orchestrator.artifacts import place
from orchestrator.artifacts.schema import MODELS
from orchestrator.cli import main
from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.recorder.projection import Entry, project
from orchestrator.reports.period import DELAY_MS, Period
from orchestrator.reports.platform_report import platform_report
from orchestrator.reports.reporter import Made, Reporter
from orchestrator.reports.tenant_report import tenant_report
from orchestrator.settings import Settings
from orchestrator.store import report_rows as rows
from orchestrator.store import tables as t
from orchestrator.store.ledger import CHARGES
from orchestrator.store.position import Position

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.timeout(240)


def pays(micros: int, name: str = "costly", **labels: str) -> Graph:
    spend = {"id": "pays", "task": "synthetic.spend", "params": {"category": "llm", "micros": micros}, "estimate": {"llm": micros}}
    return Graph.parse({"name": name, "labels": labels, "nodes": [spend]})


def charged_at(stack: Running, position: str, tenant: str, day: int) -> Counter[str]:
    """What a tenant was charged in a day by the events up to a position alone."""
    up_to = tuple_(t.event.c.epoch, t.event.c.seq) <= tuple_(*Position.parse(position))
    with stack.client.engine.connect() as connection:
        log = connection.execute(select(t.event.c.epoch, t.event.c.seq, t.event.c.data).where(up_to)).all()
    entries = {row["id"]: row for row in project([Entry(Position(row.epoch, row.seq), row.data) for row in log]).ledger}
    found: Counter[str] = Counter()
    for row in entries.values():
        if (row["tenant"], row["day"]) == (tenant, day) and row["kind"] in CHARGES:
            found[row["category"]] += row["amount"]
    return +found


def reporter(stack: Running, now_ms: int) -> Reporter:
    return Reporter(stack.client.kernel.link, stack.client.engine, stack.client.settings, clock=lambda: now_ms)


def made_about(stack: Running, day: int, tenant: str) -> dict[str, Any] | None:
    """The report of a tenant about a day, None where it has none; when those of all are made."""
    maker = reporter(stack, (day + 1) * MS_PER_DAY + DELAY_MS)
    until(lambda: maker.tick() and name_of(day) in rows.periods_made(stack.client.engine, "platform"), 120)
    return rows.report_body(stack.client.engine, f"tenant:{tenant}|{name_of(day)}")


def test_totals_are_those_of_the_ledger_at_the_stated_position_while_money_moves(stack: Running) -> None:
    tenant = "rep-moving"
    stack.client.tenants.create(tenant)
    for run in [stack.client.submit(pays(1_001, team=name), tenant=tenant) for name in ("red", "red", "blue")]:
        run.wait(60)
    stop = threading.Event()

    def book() -> None:
        while not stop.is_set():
            stack.client.ledger.adjust(tenant, 17, "other")

    thread = threading.Thread(target=book)
    thread.start()
    try:
        today = day_of(stack.client.kernel.link.now_ms())
        made = [tenant_report(stack.client.engine, tenant, Period.of_day(today), (today + 1) * MS_PER_DAY) for _ in range(5)]
        whole = platform_report(stack.client.engine, Period.of_day(today), (today + 1) * MS_PER_DAY)
    finally:
        stop.set()
        thread.join()
    for each in made:
        expected = charged_at(stack, each["position"], tenant, today)
        assert each["breakdown"] == dict(expected)
        assert each["budget"]["used"] == expected.total()
        labels = each["labels"]["team"]
        assert sum(labels.values()) == expected.total()
        assert labels["red"] == sum(top["cost"] for top in each["top"] if top["graph"]) - labels["blue"]
    (told,) = (each for each in whole["tenants"] if each["tenant_id"] == tenant)
    assert told["used"] == charged_at(stack, whole["position"], tenant, today).total()
    assert sum(each["used"] for each in whole["tenants"]) == sum(whole["used"].values())
    assert (made[0]["runs"]["outcomes"]["succeeded"], made[0]["complete"]) == (3, True)


def test_two_beats_make_a_report_once_and_what_settles_later_is_in_the_next_one(stack: Running) -> None:
    tenant = "rep-late"
    stack.client.tenants.create(tenant, webhook="http://127.0.0.1:9/", webhook_reports=True)
    stack.client.submit(pays(900), tenant=tenant).wait(60)
    today = day_of(stack.client.kernel.link.now_ms())
    first = (today + 1) * MS_PER_DAY + DELAY_MS

    made, makers = [Made(), Made()], [reporter(stack, first), reporter(stack, first)]

    def beat(number: int) -> None:
        while "platform" not in rows.scopes_made(stack.client.engine, name_of(today)):  # a pass ends after 5 s, done or not
            makers[number].make(made[number])

    beats = [threading.Thread(target=beat, args=(number,)) for number in (0, 1)]
    for each in beats:
        each.start()
    for each in beats:
        each.join()
    kept = rows.scopes_made(stack.client.engine, name_of(today))
    assert f"tenant:{tenant}" in kept
    assert made[0].reports + made[1].reports == len(kept), "each was kept once"
    with stack.client.engine.connect() as connection:
        notices = select(t.notice.c.channel).where(t.notice.c.key == f"report.tenant:{tenant}|{name_of(today)}")
        assert sorted(connection.execute(notices).scalars()) == ["hook", "webhook"]
    body = rows.report_body(stack.client.engine, f"tenant:{tenant}|{name_of(today)}")
    assert body is not None
    used = body["budget"]["used"]
    assert (used, body["late"]) == (charged_at(stack, body["position"], tenant, today).total(), [])

    stack.client.ledger.adjust(tenant, 250, "retrieval", day=name_of(today), reason="it came late")
    stack.client.ledger.adjust(tenant, -100, "llm", day=name_of(today), reason="a refund")
    following = made_about(stack, today + 1, tenant)
    assert following is not None
    assert following["late"] == [{"period": name_of(today), "micros": 150, "by": {"llm": -100, "retrieval": 250}}]
    assert following["budget"]["used"] == 0, "it is not counted in the day that it is late for"
    now = charged_at(stack, following["position"], tenant, today).total()
    assert used + sum(each["micros"] for each in following["late"]) == now, "what was told adds up to the ledger"
    again = made_about(stack, today + 2, tenant)
    assert again is None, "nothing happened, and what was late is told once"


def test_files_are_made_of_what_is_kept_whenever_they_can_be_written(stack: Running, tmp_path: Path) -> None:
    tenant = "rep-files"
    stack.client.tenants.create(tenant, name="<b>Files</b>")
    stack.client.submit(pays(700, name="x-y.z"), tenant=tenant).wait(60)
    later = stack.client.kernel.link.now_ms() // MS_PER_DAY + 10  # days that no other test makes reports about
    maker = reporter(stack, 0)
    today = Period.of_day(day_of(stack.client.kernel.link.now_ms()))
    report = tenant_report(stack.client.engine, tenant, today, today.end_ms)
    future = Period.of_day(later)
    assert maker.keep(f"tenant:{tenant}", future, {**report, "period": future.name}) is True
    assert maker.keep(f"tenant:{tenant}", future, {**report, "period": future.name}) is False

    blocked = tmp_path / "disk"
    blocked.write_text("not a folder")
    settings = stack.client.settings.model_copy(update={"artifacts_dir": blocked / "artifacts"})
    writer = Reporter(stack.client.kernel.link, stack.client.engine, settings)
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        writer.write(Made())
    blocked.unlink()
    blocked.mkdir()
    made = Made()
    while not place.cost_report(blocked / "artifacts", tenant, future.name).exists():
        writer.write(made)
    path = place.cost_report(blocked / "artifacts", tenant, future.name)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.with_suffix(".html"), path.parent)] == [0o600, 0o600, 0o700]
    TypeAdapter(MODELS["cost_report"]).validate_json(path.read_text(), strict=True)
    assert json.loads(path.read_text())["budget"] == report["budget"]
    page = path.with_suffix(".html").read_text()
    assert "&lt;b&gt;Files&lt;/b&gt;" in page
    assert "<b>Files" not in page


def test_the_command_prints_what_the_ledger_has(stack: Running, tmp_path: Path) -> None:
    tenant = "rep-command"
    stack.client.tenants.create(tenant)
    for team, micros in (("red", 600), ("blue", 400)):
        stack.client.submit(pays(micros, team=team), tenant=tenant).wait(60)

    def headgate(*words: str) -> Any:
        with stack.client.settings.in_force():
            done = CliRunner().invoke(main, ["report", *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    found = json.loads(headgate("--tenant", tenant, "--by", "team", "--json"))
    usage = stack.client.tenants.usage(tenant)
    until(lambda: json.loads(headgate("--tenant", tenant, "--json"))["budget"]["used"] == usage.settled_micros)
    assert found["breakdown"] == dict(usage.by_category_micros)
    assert found["labels"]["team"]["red"] > found["labels"]["team"]["blue"] >= 400
    assert sum(found["labels"]["team"].values()) == found["budget"]["used"]
    text = headgate("--tenant", tenant, "--by", "team")
    assert "red" in text
    assert "stands at" in text
    month = name_of(day_of(stack.client.kernel.link.now_ms()))[:7]
    whole = json.loads(headgate("--month", month, "--json"))
    TypeAdapter(MODELS["platform_report"]).validate_json(json.dumps(whole), strict=True)
    page = tmp_path / "report.html"
    assert headgate("--month", month, "--html", str(page)) == ""
    assert page.read_text().startswith("<!doctype html>")
    with stack.client.settings.in_force():
        assert CliRunner().invoke(main, ["report", "--day", "2026-13-01"]).exit_code == 2
        assert CliRunner().invoke(main, ["report", "--tenant", "nobody"]).exit_code == 2
        assert CliRunner().invoke(main, ["report", "--by", "team"]).exit_code == 2


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The URL of an endpoint, and what it was sent."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_yesterdays_report_is_made_and_sent_once_after_an_outage_over_midnight_and_over_a_folder_that_takes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = Path(tempfile.mkdtemp(prefix="hg"))
    places: Sequence[str] = [str(ahead.SITE), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    settings = Settings(home=home, reports_interval_s=1.0, webhook_secret="a secret of 16 or more")
    try:
        with ExitStack() as opened:
            (url, got), (url_of_all, got_of_all) = (opened.enter_context(receiver()) for _ in range(2))
            opened.enter_context(ahead.installed())
            stack = opened.enter_context(Stack(settings.model_copy(update={"reports_webhook": url_of_all}), 1, 1, (), console=False))
            client = producer(Settings(home=home, redis_url=stack.redis_url))
            with redis.Redis.from_url(stack.client_url, decode_responses=True) as connection:
                client.tenants.create("night", webhook=url, webhook_reports=True)
                # A folder that takes nothing: the run does not notice, and is written about later.
                root = settings.resolved_artifacts_dir()
                until(place.queue_state(root).exists)
                root.rename(home / "away")
                root.write_text("not a folder")
                run = client.submit(pays(800), tenant="night").wait(60)
                assert run.outcome == "succeeded"
                root.unlink()
                (home / "away").rename(root)
                today = day_of(ahead.now_ms(connection))
                # Beat is away when the day ends, and until the next morning.
                beat = stack.pids()["beat"]
                os.kill(beat, signal.SIGSTOP)
                ahead.jump(connection, (today + 1) * MS_PER_DAY + 9 * 3_600_000)
                os.kill(beat, signal.SIGCONT)
                name = f"tenant:night|{name_of(today)}"
                body = until(lambda: rows.report_body(client.engine, name), 60)
                assert body["budget"]["used"] >= 800
                until(place.cost_report(root, "night", name_of(today)).exists, 30)
                until(place.platform_report(root, name_of(today), "html").exists, 30)
                until(lambda: got, 60)
                # Another day ends: by then whatever would have been sent twice has been.
                client.submit(pays(100), tenant="night").wait(60)
                ahead.jump(connection, (today + 2) * MS_PER_DAY + DELAY_MS)
                until(lambda: len({each["key"] for each in got}) == 2, 60)
                assert [each["key"] for each in got] == [f"report.tenant:night|{name_of(day)}" for day in (today, today + 1)]
                assert got[0]["report"]["budget"] == body["budget"]
                days = [f"report.platform|{name_of(day)}" for day in (today, today + 1)]
                until(lambda: {each["key"] for each in got_of_all} >= {*days}, 60)
                assert [each["key"] for each in got_of_all if each["key"] in days] == days, "the platform's are sent, each once"
                assert (got_of_all[0]["tenant"], got_of_all[0]["report"]["period"]) == ("", name_of(today))
                until(place.concurrency_report(root, run.run_id, 1).exists, 60)
                until(place.event_log(root, "costly", run.run_id, 1).exists, 60)
            let_go(client)
    finally:
        Settings.forget()
        shutil.rmtree(home, ignore_errors=True)
