"""What the console rests on in Flower, and what it makes of queues' lengths."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import flower
import flower.command
import flower.urls
import pytest
from flower.app import Flower, rewrite_handler
from flower.utils.broker import RedisBase
from kombu.transport.redis import Channel

from orchestrator.web import entry
from orchestrator.web.console import HANDLERS, HERE, Console
from orchestrator.web.overlay import NAVBAR, SPLICES, Overlay
from orchestrator.web.queues import Length, Ordinary, lengths, ordinary_names
from tenancy.priorities import Priority

FLOWERS = Path(flower.urls.settings["template_path"])

# -- what an upgrade of Flower may change ---------------------------------------------------------------------------------


def test_flower_is_of_the_version_that_the_console_was_made_for() -> None:
    assert flower.__version__.startswith("2.2.")


def test_flowers_command_looks_its_application_up_by_a_name_of_its_module() -> None:
    command = inspect.unwrap(flower.command.flower.callback)
    assert command.__globals__ is vars(flower.command)
    assert "Flower" in command.__code__.co_names
    assert "Flower(capp=app, options=options, **settings)" in inspect.getsource(command)
    assert "start_http_server" in command.__code__.co_names


def test_flower_takes_what_the_console_overrides_and_calls() -> None:
    assert list(inspect.signature(Flower.__init__).parameters)[:3] == ["self", "options", "capp"]
    assert list(inspect.signature(Flower.start_http_server).parameters) == ["self"]
    assert list(inspect.signature(rewrite_handler).parameters) == ["handler", "url_prefix"]
    assert "template_path" in flower.urls.settings


REPLACED = {"/tasks", "/broker", "/api/queues/length", "/metrics"}
"""Pages of Flower's that we replace."""


def test_pages_of_flowers_that_we_replace_are_there_and_no_other_is_hidden_by_ours() -> None:
    theirs = {(getattr(each, "regex", None) and each.regex.pattern.rstrip("$")) or each[0] for each in flower.urls.handlers}
    ours = [pattern for pattern, _ in HANDLERS]
    assert theirs >= REPLACED
    # Flower's script takes every path that begins with /tasks or /workers for its own page.
    assert not [pattern for pattern in ours if pattern.startswith(("/tasks", "/workers")) and pattern not in REPLACED]
    hidden = {path for path in theirs for pattern in ours if re.fullmatch(pattern, path.replace("(.+)", "x"))}
    assert hidden == REPLACED


def test_our_pages_are_in_the_navigation_of_every_page_and_the_banner_is_below_it() -> None:
    navbar = (FLOWERS / "navbar.html").read_text()
    for anchor, _ in SPLICES[NAVBAR]:
        assert anchor in navbar, "Flower's navbar has no such place any more"
    application = SimpleNamespace(
        navigation=[("runs", "/ops/runs", "Runs")], prefix="/ops", asset=lambda name: f"/ops/{name}", options=SimpleNamespace(auth=None)
    )
    told = {
        "active_tab": "runs",
        "handler": SimpleNamespace(application=application),
        "reverse_url": lambda name: f"/{name}",
        "static_url": str,
    }
    page = Overlay(HERE, FLOWERS).load(NAVBAR).generate(**told, current_user=None).decode()
    assert re.search(r'<a class="nav-link active"\s+href="/ops/runs" aria-current="page">Runs</a>', page)
    assert page.index("</nav>") < page.index('id="hg-banner"')


def test_what_our_templates_extend_and_call_is_there() -> None:
    base = (FLOWERS / "base.html").read_text()
    assert all(f"{{% block {name} %}}" in base for name in ("title", "navbar", "container", "extra_scripts"))
    assert "active_tab == 'broker'" in (FLOWERS / "navbar.html").read_text()
    style = (FLOWERS.parent / "static" / "css" / "flower.css").read_text()
    classes = ("page-section", "page-header", "page-eyebrow", "page-description", "broker-page", "broker-table", "empty-table-message")
    assert [name for name in classes if f".{name}" not in style] == []


def test_kombu_keeps_ordinary_queues_as_flower_reads_them() -> None:
    assert (Channel.priority_steps, Channel.sep) == ([*RedisBase.DEFAULT_PRIORITY_STEPS], RedisBase.DEFAULT_SEP)


# -- which Flower a process opens -----------------------------------------------------------------------------------------


def test_a_producer_does_not_load_flower() -> None:
    code = "import sys; from orchestrator.web import entry; entry.install(); print({'flower', 'tornado'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


BUILT = """
import asyncio, sys
import flower.command
from flower.urls import settings
from celery import Celery
from orchestrator.assembly import producer_app
from orchestrator.settings import Settings
from orchestrator.web import entry
asyncio.set_event_loop(asyncio.new_event_loop())
entry.install()
from tornado.options import options
ours = flower.command.Flower(capp=producer_app(Settings.load()), options=options, **settings)
theirs = flower.command.Flower(capp=Celery(), options=options, **settings)
print(type(ours).__name__, type(theirs).__name__)
print(ours.events.enable_events, type(ours.events.state).__name__)
print(ours.settings["template_path"] != theirs.settings["template_path"], "template_loader" in theirs.settings)
"""


def test_an_app_of_ours_gets_the_console_and_any_other_app_plain_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_REDIS_URL", "redis://127.0.0.1:1/0")
    done = subprocess.run([sys.executable, "-c", BUILT], capture_output=True, text=True, check=False)
    # Celery's events of tasks stay off: they cost a worker 40 % of its speed.
    assert done.stdout == "Console Flower\nFalse TaskState\nTrue False\n", done.stderr


def test_installing_puts_ours_under_the_name_that_flowers_command_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower.command, "Flower", Flower)
    entry.install()
    assert flower.command.Flower is not Flower
    assert issubclass(Console, Flower)


# -- templates ------------------------------------------------------------------------------------------------------------


def test_a_template_of_ours_replaces_flowers_and_extends_what_it_does_not_replace(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    (theirs / "base.html").write_text("<b>{% block inner %}{% end %}</b>")
    (theirs / "page.html").write_text("their page")
    (ours / "page.html").write_text('{% extends "base.html" %}{% block inner %}{{ name }}{% end %}')
    loader = Overlay(ours, theirs)
    assert loader.load("page.html").generate(name="<i>") == b"<b>&lt;i&gt;</b>"
    with pytest.raises(FileNotFoundError):
        loader.load("none.html")


def test_every_template_of_ours_compiles_over_flowers() -> None:
    for page in HERE.glob("*.html"):
        assert Overlay(HERE, FLOWERS).load(page.name)


# -- lengths --------------------------------------------------------------------------------------------------------------


DEPTHS = {"default": {"acme|1": "3", "acme|5": "40", "beta|5": "7"}, "gpu": {"acme|5": "2"}}


def test_pools_and_ordinary_queues_come_first_and_then_the_longest_queues() -> None:
    found = lengths(DEPTHS, {"system": 4}, "", 3)
    assert found.whole == (Length("pool.default", 50, "default"), Length("pool.gpu", 2, "gpu"), Length("system", 4))
    assert [(each.name, each.messages, each.pool) for each in found.tenants] == [
        ("t.acme.normal", 40, "default"),
        ("t.beta.normal", 7, "default"),
        ("t.acme.critical", 3, "default"),
    ]
    assert (found.found, found.left_out, found.messages) == (4, 1, 52)


@pytest.mark.parametrize(
    ("search", "whole", "tenants"),
    [
        ("acme", [], ["t.acme.normal", "t.acme.critical", "t.acme.normal"]),
        (" T.ACME.crit ", [], ["t.acme.critical"]),
        ("gpu", ["pool.gpu"], ["t.acme.normal"]),
        ("syst", ["system"], []),
        ("nothing", [], []),
    ],
)
def test_a_search_finds_tenants_levels_queues_and_pools(search: str, whole: list[str], tenants: list[str]) -> None:
    found = lengths(DEPTHS, {"system": 4}, search, 500)
    assert [each.name for each in found.whole] == whole
    assert [each.name for each in found.tenants] == tenants
    assert found.left_out == 0


def test_a_search_finds_what_a_full_page_leaves_out() -> None:
    many = {"default": {f"tenant-{each:04}|{int(Priority.LOW)}": "9" for each in range(5_000)} | {"small|5": "1"}}
    assert lengths(many, {}, "", 500).left_out == 4_501
    assert [each.name for each in lengths(many, {}, "small", 500).tenants] == ["t.small.normal"]


def test_ordinary_queues_are_those_of_no_pool_and_no_tenant() -> None:
    assert ordinary_names(["system", "pool.gpu", "t.acme.high", "mail", "t.acme.other"]) == ("mail", "system", "t.acme.other")
    assert Ordinary(("mail",), (0, 3), "|").lists("mail") == ("mail", "mail|3")
