"""Every page of ours for people who use a keyboard, a screen reader, or need contrast; by day and by night, measured in Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from browsers import NEEDED, OURS, PATIENCE_MS, barriers, page_of
from playwright.sync_api import Browser, Locator, Page, expect
from running import Running

from cost.period import MS_PER_DAY, day_of
from orchestrator.graph import Graph
from orchestrator.reports.page import page as report_page
from orchestrator.reports.period import Period
from orchestrator.reports.platform_report import platform_report
from orchestrator.reports.reporter import shown
from orchestrator.reports.tenant_report import tenant_report

pytestmark = [NEEDED, pytest.mark.timeout(300)]

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
TABS = ("Graph", "Timeline", "Nodes", "Events", "Decisions", "JSON")
TENANT = "open-to-all"


@dataclass(frozen=True)
class Shown:
    """What the pages are about: a run that failed, of a tenant that is paused and has spent most of its budget, with a schedule."""

    run: str
    url: str


@pytest.fixture(scope="module")
def about(stack: Running, console: str) -> Iterator[Shown]:
    client = stack.client
    client.tenants.create(TENANT, name="Open to all", limit_per_day_micros=1_000, enforcement="observe")
    spend = {"id": "pays", "task": "synthetic.spend", "params": {"category": "llm", "micros": 900}, "estimate": {"llm": 900}}
    fails = {"id": "fails", "task": "synthetic.fail", "params": {"times": 9}, "attempts": 2, "after": ["pays"]}
    says = {"id": "says", "task": "talk.say", "params": {"words": "says"}, "after": ["pays"], "required": False}
    graph = {
        "name": "seen",
        "labels": {"team": "red"},
        "nodes": [spend, fails, says, {"id": "last", "task": "synthetic.noop", "after": ["fails"]}],
    }
    run = client.submit(Graph.parse(graph), tenant=TENANT, key="a-key").wait(60)
    client.submit(Graph.parse({"name": "seen", "nodes": [{"id": "a", "task": "synthetic.noop"}]}), tenant=TENANT).wait(60)
    client.schedules.create(
        "nightly", Graph.parse({"name": "seen", "nodes": [{"id": "a", "task": "synthetic.noop"}]}), tenant=TENANT, cron="0 3 * * *"
    )
    client.pause(f"tenant:{TENANT}", reason="to be seen")
    try:
        yield Shown(run.run_id, console)
    finally:
        client.resume(f"tenant:{TENANT}", reason="test")
        client.schedules.delete("nightly", tenant=TENANT)


def drawn(page: Page, url: str) -> None:
    """Open a page of ours, and wait until it shows what it is about."""
    page.goto(url)
    page.wait_for_function("document.querySelector('#hg-page table, .hg-box, .hg-empty') && document.querySelector('#hg-banner p')")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_of_ours_can_be_read_and_says_what_its_parts_are(about: Shown, browser: Browser, scheme: Scheme) -> None:
    page, wrong = page_of(browser, color_scheme=scheme, reduced_motion="reduce")
    found: dict[str, list[str]] = {}
    for path in (f"/runs?tenant={TENANT}", f"/tenants?q={TENANT}", f"/tenant/{TENANT}", "/queues", "/schedules"):
        drawn(page, about.url + path)
        assert page.locator("html").get_attribute("data-bs-theme") == scheme
        page.evaluate("document.querySelectorAll('#hg-page details').forEach((each) => { each.open = true; })")
        found[path] = barriers(page)
    drawn(page, f"{about.url}/runs?tenant={TENANT}")
    page.get_by_role("checkbox", name=re.compile("^Choose run")).first.check()
    page.get_by_role("region", name="Chosen runs").get_by_role("button", name=re.compile("Cancel")).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    found["asking for a reason"] = barriers(page)
    for tab in TABS:
        drawn(page, f"{about.url}/run/{about.run}?tab={tab}")
        expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
        found[f"tab {tab}"] = barriers(page)
    drawn(page, f"{about.url}/run/{about.run}?node=fails")
    expect(page.get_by_role("dialog", name="fails")).to_contain_text("Attempts", timeout=PATIENCE_MS)
    found["drawer"] = barriers(page)
    told = [f"{place}: {each}" for place, problems in found.items() for each in problems]
    assert not told, "\n".join(told)
    assert wrong == []
    page.context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_reports_can_be_read_and_say_what_their_parts_are(stack: Running, about: Shown, browser: Browser, scheme: Scheme) -> None:
    today = day_of(stack.client.kernel.link.now_ms())
    period, end = Period.of_day(today), (today + 1) * MS_PER_DAY
    bodies = [tenant_report(stack.client.engine, TENANT, period, end), platform_report(stack.client.engine, period, end)]
    page, wrong = page_of(browser, color_scheme=scheme)
    for body in bodies:
        page.set_content(report_page(shown(body)))
        assert not (told := barriers(page, "body")), "\n".join(told)
    assert wrong == []
    page.context.close()


LOOK = """(element) => [element, ...element.children].map((each) => {
  const {outline, boxShadow, borderColor, backgroundColor, strokeWidth, strokeDasharray} = getComputedStyle(each);
  return [outline, boxShadow, borderColor, backgroundColor, strokeWidth, strokeDasharray].join('; ');
}).join('\\n')"""
"""How an element looks, as far as having the focus may change it."""

CONTROLS = f"""() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]')]
  .filter((each) => each.closest('{OURS}') && !each.disabled && each.tabIndex >= 0 && each.checkVisibility())
  .map((each, at) => {{
    each.dataset.stop = at;
    return ({LOOK})(each);
  }})"""
"""How each control of ours looks, in the order of the page, each numbered."""


@pytest.mark.parametrize(
    "path", ["/runs?tenant=" + TENANT, "/run/{run}", "/tenants?q=" + TENANT, "/tenant/" + TENANT, "/queues", "/schedules"]
)
def test_the_tab_key_reaches_every_control_and_it_is_seen_where_the_focus_is(about: Shown, browser: Browser, path: str) -> None:
    page, wrong = page_of(browser, reduced_motion="reduce")
    drawn(page, about.url + path.format(run=about.run))
    # Pages that ask again draw their tables anew; they do not while this looks.
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true}); document.dispatchEvent(new Event('visibilitychange'))")
    plain: list[str] = page.evaluate(CONTROLS)
    assert plain
    reached: set[int] = set()
    unseen: list[str] = []
    page.locator("body").press("Tab")
    for _ in range(len(plain) + 60):
        at = page.evaluate("document.activeElement.dataset.stop ?? null")
        if at is not None:
            if int(at) in reached:
                break
            reached.add(int(at))
            if page.evaluate(f"({LOOK})(document.activeElement)") == plain[int(at)]:
                unseen.append(page.evaluate("document.activeElement.outerHTML.slice(0, 120)"))
        page.keyboard.press("Tab")
    missed = [
        page.locator(f"[data-stop='{at}']").evaluate("(each) => each.outerHTML.slice(0, 120)")
        for at in range(len(plain))
        if at not in reached
    ]
    assert (missed, unseen) == ([], [])
    assert wrong == []
    page.context.close()


def test_filters_tabs_graph_drawer_and_dialogs_are_operated_by_keyboard_alone(about: Shown, browser: Browser) -> None:
    page, wrong = page_of(browser, reduced_motion="reduce")
    press: Callable[[str], Any] = page.keyboard.press

    def to(place: Locator) -> None:
        """Go on by Tab until it has the focus."""
        place.wait_for()
        for _ in range(120):
            if place.evaluate("(each) => each === document.activeElement"):
                return
            press("Tab")
        raise AssertionError(f"{place} was not reached")

    drawn(page, f"{about.url}/runs")
    to(page.get_by_label("Tenant"))
    page.keyboard.type(TENANT)
    press("Enter")
    expect(page).to_have_url(re.compile(f"tenant={TENANT}"))
    to(page.get_by_role("button", name=re.compile("^failed 1")))
    press("Space")
    expect(page).to_have_url(re.compile("state=failed"))
    expect(page.locator("#runs-table tbody tr")).to_have_count(1)
    focused = page.locator(":focus")
    expect(focused).to_have_attribute("data-state", "failed")
    to(page.get_by_role("checkbox", name=f"Choose run {about.run}"))
    press("Space")
    page.locator("body").press("Control+Home")
    to(page.get_by_role("region", name="Chosen runs").get_by_role("button", name=re.compile("Cancel")))
    press("Enter")
    expect(page.get_by_label("Reason")).to_be_focused()
    press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    to(page.get_by_role("link", name=about.run).first)
    press("Enter")
    expect(page).to_have_url(re.compile(f"/run/{about.run}"))
    page.wait_for_selector(".hg-box")

    to(page.get_by_role("tab", name="Graph"))
    press("ArrowRight")
    expect(page.get_by_role("tab", name="Timeline")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Timeline")).to_be_visible()
    press("ArrowLeft")
    to(page.get_by_role("button", name=re.compile("^fails, synthetic.fail: failed")))
    press("Enter")
    drawer = page.get_by_role("dialog", name="fails")
    expect(drawer).to_contain_text("Attempts")
    assert drawer.evaluate("(each) => each.contains(document.activeElement)"), "the focus goes to what opened"
    to(drawer.get_by_role("button", name="Close"))
    press("Enter")
    expect(drawer).to_be_hidden()
    expect(page.get_by_role("button", name=re.compile("^fails, synthetic.fail"))).to_be_focused()
    press("Space")
    expect(drawer).to_be_visible()
    press("Escape")
    expect(drawer).to_be_hidden()
    before = page.locator(".hg-svg > g").get_attribute("transform")
    to(page.get_by_role("group", name=re.compile("^Graph of the run")))
    press("ArrowRight")
    press("+")
    assert page.locator(".hg-svg > g").get_attribute("transform") != before
    assert wrong == []
    page.context.close()
