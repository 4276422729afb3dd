"""The console in a browser: the walk of an operator, behind a password and a prefix too, and names that try to be markup."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from consoles import HEADGATE, answer, opened
from playwright.sync_api import Browser, Page, expect, sync_playwright
from running import Running

from orchestrator.graph import Graph

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 30_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: on Debian, apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def page_of(browser: Browser, **given: Any) -> tuple[Page, list[str]]:
    """A page, and what went wrong on it so far."""
    page = browser.new_context(viewport={"width": 1400, "height": 900}, **given).new_page()
    page.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    return page, wrong


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


def test_names_that_try_to_be_markup_or_templates_come_out_as_text_on_every_page(stack: Running, console: str, browser: Browser) -> None:
    hostile = "<img src=x onerror=alert(1)>{{1+1}}${1+1}<script>alert(1)</script>"
    client, tenant = stack.client, "hostile-names"
    client.tenants.create(tenant, name=hostile)
    nodes = [{"id": "n", "task": "talk.say", "params": {"words": hostile}, "labels": {"note": hostile}}]
    run = client.submit(Graph.parse({"name": "hostile", "nodes": nodes, "labels": {"note": hostile}}), tenant=tenant, key=hostile).wait(30)
    page, wrong = page_of(browser)
    client.pause(f"tenant:{tenant}", reason=hostile, by=hostile)
    try:
        for path in (
            f"/runs?tenant={tenant}",
            f"/run/{run.run_id}?node=n",
            f"/tenants?q={tenant}",
            f"/tenant/{tenant}",
            "/queues",
            "/schedules",
        ):
            page.goto(console + path)
            page.wait_for_function("document.querySelector('#hg-page table, .hg-box, .hg-empty')")
            assert page.locator("img[src=x]").count() == 0, path
            assert page.locator("main script").count() == 0, path
        page.goto(f"{console}/run/{run.run_id}?node=n")
        expect(page.locator(".hg-run-head")).to_contain_text(hostile)
        expect(page.get_by_role("log")).to_contain_text(f"{hostile}: to stderr", timeout=PATIENCE_MS)
        assert page.get_by_role("log").locator("img, script").count() == 0
        page.goto(f"{console}/runs?q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&label=%7B%7B1%7D%7D")
        expect(page.locator("#runs-table")).to_contain_text("No run fits.")
        assert wrong == []
    finally:
        client.resume(f"tenant:{tenant}", reason="test")
        page.context.close()
