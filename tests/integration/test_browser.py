"""The console in a browser: the walk of an operator, behind a password and a prefix too, and names that try to be markup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import talking_tasks
from browsers import NEEDED, PATIENCE_MS, page_of
from consoles import HEADGATE, answer, opened
from letterbox import dead_letters
from playwright.sync_api import Browser, Page, expect
from running import Running, until

from cost.period import MS_PER_DAY, day_of
from orchestrator.artifacts import place
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.reports.page import page as report_page
from orchestrator.reports.period import Period
from orchestrator.reports.reporter import shown
from orchestrator.reports.tenant_report import tenant_report
from tenancy.errors import GraphInvalid, HeadgateError

pytestmark = NEEDED

HOSTILE = "<img src=x onerror=alert(1)>{{1+1}}${1+1}{% raw 1 %}<script>alert(1)</script>"
HOSTILE_TASK = talking_tasks.HOSTILE_TASK
SAID = {"reason": HOSTILE, "by": HOSTILE}


def flow(tmp_path: Path) -> Graph:
    """A run whose node `load` talks, waits for a file, and fails at its first attempt in each generation until there is a file `go`."""
    params = {"words": "load", "until": str(tmp_path / "on"), "needs": str(tmp_path / "go"), "api_key": "open-sesame"}
    spend = {"task": "synthetic.spend", "params": {"category": "llm", "micros": 300_000}, "estimate": {"llm": 300_000}}
    nodes = [
        {"id": "fetch", **spend},
        {"id": "load", "task": "talk.say", "params": params, "attempts": 1, "after": ["fetch"]},
        {"id": "report", **spend, "after": ["load"]},
    ]
    return Graph.parse({"name": "walk", "nodes": nodes})


def walk(page: Page, url: str, stack: Running, tenant: str, tmp_path: Path) -> None:
    """Submit a run, watch it run with what its node says, see it fail, look why, run it again, and see what it cost its tenant."""
    run = stack.client.submit(flow(tmp_path), tenant=tenant)
    page.goto(f"{url}/runs?tenant={tenant}")
    page.get_by_role("link", name=run.run_id).first.click()
    head = page.locator(".hg-run-head")
    expect(head).to_contain_text("running", timeout=PATIENCE_MS)
    box = page.get_by_role("button", name=re.compile("^load, talk.say: running"))
    expect(box).to_be_visible(timeout=PATIENCE_MS)
    box.click()
    drawer = page.get_by_role("dialog", name="load")
    log = drawer.get_by_role("log")
    expect(log).to_contain_text("load: to stderr", timeout=PATIENCE_MS)
    expect(log).not_to_contain_text("and more")
    expect(log).to_contain_text("load: printed (hidden)")
    expect(drawer).to_contain_text("It goes on.")
    page.keyboard.press("Escape")
    (tmp_path / "on").touch()
    expect(head).to_contain_text("failed", timeout=PATIENCE_MS)
    expect(page.get_by_role("button", name=re.compile("^load, talk.say: failed"))).to_be_visible(timeout=PATIENCE_MS)
    page.get_by_role("button", name="First failure").click()
    expect(drawer).to_contain_text("FileNotFoundError")
    expect(drawer.get_by_label("Traceback")).to_contain_text("Traceback")
    expect(log.locator(".hg-line")).to_have_text(
        [
            re.compile(r"WARNING\s*load: logged by \d+ at attempt 1$"),
            re.compile(r"stdout\s*load: printed \(hidden\)$"),
            re.compile(r"stderr\s*load: to stderr$"),
            re.compile(r"stdout\s*load: and more$"),
        ]
    )
    expect(drawer).not_to_contain_text("It goes on.")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    page.goto(f"{url}/tenant/{tenant}")
    settled = page.locator(".hg-figures > div", has_text="Settled").locator("dd")
    expect(settled).to_have_text(re.compile(r"^0\.30"), timeout=PATIENCE_MS)
    (tmp_path / "go").touch()
    page.goto(f"{url}/run/{run.run_id}")
    page.get_by_role("button", name="Rerun from failed").click()
    page.get_by_label("Reason").fill("the file is there")
    page.get_by_role("dialog").get_by_role("button", name="Rerun from failed").click()
    expect(head).to_contain_text("succeeded", timeout=PATIENCE_MS)
    expect(page.get_by_label("Generation")).to_have_value("2")
    page.get_by_role("tab", name="Timeline").click()
    expect(page.locator("canvas.hg-timeline")).to_have_attribute("aria-label", re.compile("Timeline of [23] nodes"), timeout=PATIENCE_MS)
    page.get_by_role("tab", name="Events").click()
    expect(page.locator("#events-table")).to_contain_text("run.ended")
    page.get_by_role("tab", name="Nodes").click()
    expect(page.locator("#nodes-table tbody tr")).to_have_count(3)
    page.goto(f"{url}/tenant/{tenant}")
    expect(settled).to_have_text(re.compile(r"^0\.60"), timeout=PATIENCE_MS)


def test_an_operator_watches_a_run_fail_sees_why_runs_it_again_and_sees_the_budget_move(
    stack: Running, console: str, browser: Browser, tmp_path: Path
) -> None:
    stack.client.tenants.create("walk-one", limit_per_day_micros=2_000_000)
    page, wrong = page_of(browser)
    walk(page, console, stack, "walk-one", tmp_path)
    page.goto(f"{console}/runs?tenant=walk-one")
    page.get_by_role("button", name=re.compile("succeeded 1")).click()
    expect(page).to_have_url(re.compile("state=succeeded"))
    page.go_back()
    expect(page).not_to_have_url(re.compile("state="))
    assert wrong == []
    page.context.close()


def test_the_same_walk_behind_a_password_and_a_prefix(stack: Running, browser: Browser, tmp_path: Path) -> None:
    stack.client.tenants.create("walk-two", limit_per_day_micros=2_000_000)
    with opened(stack.client.settings, [*HEADGATE, "--basic-auth=ann:secret", "--url-prefix=ops"]) as url:
        page, wrong = page_of(browser, http_credentials={"username": "ann", "password": "secret"})
        walk(page, url, stack, "walk-two", tmp_path)
        assert answer(f"{url}/run/{'0' * 26}/log?id=load")[0] == 401, "nobody else reads what a node says"
        assert wrong == []
        page.context.close()


def hostile_run(stack: Running, tenant: str) -> RunHandle:
    """A run of which everything that a user may word freely is hostile; its node `n` talks, `f` fails, and `own` has a hostile task."""
    client = stack.client
    given: dict[str, Any] = {"labels": {HOSTILE: HOSTILE}}
    nodes = [
        {"id": "n", "task": "talk.say", "params": {"words": HOSTILE}, **given},
        {"id": "f", "task": "talk.say", "params": {"words": HOSTILE, "fails": 9}, "attempts": 1, **given},
        {"id": "own", "task": HOSTILE_TASK, "params": {"given": {HOSTILE: HOSTILE}}},
    ]
    run = client.submit(Graph.parse({"name": "hostile", "nodes": nodes, **given}), tenant=tenant, key=HOSTILE).wait(60)
    with pytest.raises(GraphInvalid):
        client.submit(Graph.parse({"name": "hostile", "nodes": [{"id": "n", "task": f"nobodys {HOSTILE}"}]}), tenant=tenant)
    waits = {"id": "w", "task": "synthetic.sleep", "params": {"seconds": 600}}
    client.submit(Graph.parse({"name": "hostile", "nodes": [waits]}), tenant=tenant).cancel(now=True, **SAID)
    daily = Graph.parse({"name": "hostile", "nodes": [{"id": "n", "task": HOSTILE_TASK, "params": {"given": HOSTILE}}]})
    client.schedules.create("hostile", daily, tenant=tenant, cron="0 3 * * *", labels={HOSTILE: HOSTILE}, **SAID)
    client.prices.set(f"hostile-{tenant}", client.prices.in_force().texts(), tenant=tenant, **SAID)
    client.ledger.adjust(tenant, 1_000, "llm", id=HOSTILE[:150], **SAID)
    client.tenants.update(tenant, webhook='http://127.0.0.1:9/"><img/src=x/onerror=alert(1)>{{1+1}}', **SAID)
    return run


def test_names_that_try_to_be_markup_or_templates_come_out_as_text_on_every_page(stack: Running, console: str, browser: Browser) -> None:
    client, tenant = stack.client, "hostile-names"
    client.tenants.create(tenant, name=HOSTILE)
    run = hostile_run(stack, tenant)
    assert run.outcome == "failed"
    page, wrong = page_of(browser)

    def inert(where: str) -> None:
        assert page.locator("img[src=x]").count() == 0, where
        assert page.locator("main script, article script, dialog script").count() == 0, where

    client.pause(f"tenant:{tenant}", **SAID)
    try:
        for path, shows in (
            (f"/runs?tenant={tenant}", HOSTILE),
            (f"/run/{run.run_id}?node=f", f"{HOSTILE}: attempt 1 fails"),
            (f"/run/{run.run_id}?node=own", HOSTILE_TASK),
            (f"/run/{run.run_id}?tab=Nodes", HOSTILE_TASK),
            (f"/run/{run.run_id}?tab=Events", HOSTILE),
            (f"/run/{run.run_id}?tab=Decisions", ""),
            (f"/run/{run.run_id}?tab=JSON", HOSTILE),
            (f"/tenants?q={tenant}", HOSTILE),
            (f"/tenant/{tenant}", HOSTILE),
            ("/queues", ""),
            ("/schedules", "hostile"),
            (f"/tasks?search={run.run_id}", ""),
            (f"/task/{run.run_id}.1.own", HOSTILE_TASK),
            (f"/task/{run.run_id}.1.f", ""),
            ("/broker", ""),
        ):
            page.goto(console + path)
            if page.locator("#hg-page").count():
                page.wait_for_function("document.querySelector('#hg-page table, .hg-box, .hg-empty')")
                page.evaluate("document.querySelectorAll('#hg-page details').forEach((each) => { each.open = true; })")
            if shows:
                expect(page.locator("body")).to_contain_text(shows, timeout=PATIENCE_MS)
            inert(path)
        page.goto(f"{console}/run/{run.run_id}?node=n")
        expect(page.locator(".hg-run-head")).to_contain_text(HOSTILE)
        expect(page.get_by_role("log")).to_contain_text(f"{HOSTILE}: to stderr", timeout=PATIENCE_MS)
        assert page.get_by_role("log").locator("img, script").count() == 0
        page.goto(f"{console}/tenant/{tenant}")
        audit = page.get_by_role("region", name="Audit")
        page.locator("summary", has_text="Who did what").click()
        expect(audit).to_contain_text(HOSTILE)
        page.goto(f"{console}/runs?q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&label=%7B%7B1%7D%7D")
        expect(page.locator("#runs-table")).to_contain_text("No run fits.")
        today = day_of(client.kernel.link.now_ms())
        page.set_content(report_page(shown(tenant_report(client.engine, tenant, Period.of_day(today), (today + 1) * MS_PER_DAY))))
        expect(page.locator("h1")).to_contain_text(HOSTILE)
        inert("the tenant's report")
        assert wrong == []
    finally:
        client.resume(f"tenant:{tenant}", reason="test")
        client.schedules.delete("hostile", tenant=tenant)
        page.context.close()


@pytest.mark.parametrize("name", [HOSTILE, "../../etc/passwd", "..", "a/b", "{{1+1}}", "x\0", "%2e%2e%2f", "x\n<b>"])
def test_names_that_have_a_form_are_refused_in_any_other_and_leave_nothing_behind(stack: Running, name: str) -> None:
    client = stack.client
    node = {"id": "n", "task": "synthetic.noop"}
    for graph in (
        {"name": name, "nodes": [node]},
        {"name": "g", "nodes": [{**node, "id": name}]},
        {"name": "g", "pool": name, "nodes": [node]},
    ):
        with pytest.raises(GraphInvalid):
            client.submit(Graph.parse(graph))
    good = Graph.parse({"name": "g", "nodes": [node]})
    for attempt in (
        lambda: client.tenants.create(name),
        lambda: client.tenants.create("hostile-pool", pool=name),
        lambda: client.tenants.create("hostile-hook", webhook=name),
        lambda: client.submit(good, tenant=name),
        lambda: client.schedules.create(name, good, cron="0 3 * * *"),
        lambda: client.schedules.create("fits", good, cron="0 3 * * *", timezone=name),
        lambda: client.prices.set(name, {"llm/token": "20"}, tenant="default"),
        lambda: client.prices.set("fits", {name: "20"}, tenant="default"),
        lambda: client.ledger.adjust("default", 1, name),
        lambda: client.run(name),
    ):
        with pytest.raises(HeadgateError) as refused:
            attempt()
        assert "\n" not in str(refused.value) or isinstance(refused.value, GraphInvalid)
    assert not {"hostile-pool", "hostile-hook", name} & {each.id for each in client.tenants.list()}
    assert client.schedules.list("default") == ()
    assert not [each for each in client.prices.list() if each.table.version in (name, "fits")]


def test_whatever_names_say_artifacts_are_in_their_folder(stack: Running) -> None:
    tenant = "hostile-files"
    stack.client.tenants.create(tenant, name="../../../up")
    node = {"id": "n", "task": HOSTILE_TASK, "params": {"given": "../../up"}, "labels": {"../up": "../../up"}}
    run = stack.client.submit(Graph.parse({"name": "up", "nodes": [node], "labels": {"../up": "/up"}}), tenant=tenant, key="../../up").wait(
        60
    )
    root = stack.client.settings.resolved_artifacts_dir()
    until(place.concurrency_report(root, run.run_id, 1).exists, 60)
    until(place.event_log(root, "up", run.run_id, 1).exists, 60)
    below = [path.relative_to(root) for path in root.rglob("*")]
    odd = [path for path in below if not all(re.fullmatch(r"[\w.@%~-]+", part) and part not in (".", "..") for part in path.parts)]
    assert odd == []
    beside = {path.name for path in root.parent.iterdir()}
    assert not [name for name in beside if "up" in name.split(".")[0].split("-")]


def test_an_operator_sends_one_letter_again_drops_another_and_sees_that_beat_lives(stack: Running, console: str, browser: Browser) -> None:
    page, wrong = page_of(browser)
    with dead_letters(stack) as dead:
        page.goto(f"{console}/queues")
        rows = page.locator("#letters-table tbody tr", has_text="letters.")
        expect(rows).to_have_count(3, timeout=PATIENCE_MS)
        page.get_by_role("button", name=f"Send letter {dead[0]} again").click()
        page.get_by_label("Reason").fill("the disk is back")
        page.get_by_role("dialog").get_by_role("button", name="Send again").click()
        expect(page.locator("#toast-container")).to_contain_text("1 is back in line", timeout=PATIENCE_MS)
        expect(rows).to_have_count(2, timeout=PATIENCE_MS)
        page.get_by_role("button", name=f"Drop letter {dead[1]}").focus()
        page.keyboard.press("Enter")
        page.get_by_label("Reason").press("Enter")
        expect(rows).to_have_count(1, timeout=PATIENCE_MS)
    page.goto(f"{console}/schedules")
    sweep = page.locator("#beat-table tbody tr", has_text="headgate.sweep")
    expect(sweep).to_contain_text(re.compile("in time|late"), timeout=PATIENCE_MS)
    assert wrong == []
    page.context.close()
