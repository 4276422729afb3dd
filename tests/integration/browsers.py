"""A browser as tests use it: a page that remembers what went wrong on it, and measures of how accessible it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 30_000
NEEDED = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: on Debian, apt-get install chromium")

OURS = "#hg-page, #hg-banner, dialog"
"""What of a page of the console is not Flower's."""

_MEASURE = (Path(__file__).parent / "accessibility.js").read_text()

_NAMED = frozenset(
    {"button", "link", "textbox", "searchbox", "combobox", "listbox", "checkbox", "radio", "switch", "slider", "spinbutton", "menuitem"}
    | {"tab", "tabpanel", "tablist", "option", "img", "image", "region", "dialog", "log", "DisclosureTriangle"}
)
"""Roles of which each must be called something."""

_OVER_ALL = frozenset({"RootWebArea"})


def page_of(browser: Browser, **given: Any) -> tuple[Page, list[str]]:
    """A page, and what went wrong on it so far."""
    page = browser.new_context(viewport={"width": 1400, "height": 900}, **given).new_page()
    page.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    return page, wrong


def barriers(page: Page, within: str = OURS) -> list[str]:
    """What keeps people out of a page as it is drawn now: one sentence each."""
    found = page.evaluate(_MEASURE, within)
    assert found["texts"], f"{page.url} shows no text"
    return [*found["wrong"], *nameless(page)]


def nameless(page: Page) -> list[str]:
    """What of a page can be used, or is a part of it, and is called nothing: by the tree that Chromium gives to screen readers."""
    session = page.context.new_cdp_session(page)
    try:
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    finally:
        session.detach()
    found = []
    for node in nodes:
        role = node.get("role", {}).get("value", "")
        name = str(node.get("name", {}).get("value", "")).strip()
        focusable = any(each["name"] == "focusable" and each["value"].get("value") for each in node.get("properties", ()))
        if node.get("ignored") or name or role in _OVER_ALL or not (focusable or role in _NAMED):
            continue
        found.append(f"something that is a {role} has no name, node {node.get('backendDOMNodeId')}")
    return found
