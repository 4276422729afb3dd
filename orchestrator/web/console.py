"""The console: a Flower whose pages of ours are found before Flower's own."""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import Any

from flower.app import Flower
from sqlalchemy import Engine
from tornado.web import StaticFileHandler, url

from orchestrator.assembly import HeadgateApp
from orchestrator.client import Client
from orchestrator.log_context import of_process
from orchestrator.log_format import dress
from orchestrator.logs.reading import NodeLogs
from orchestrator.metrics.exposition import Exposition
from orchestrator.metrics.tally import Tally
from orchestrator.store.engine import open_engine
from orchestrator.web.acts import RunsAct
from orchestrator.web.banner import BannerData
from orchestrator.web.broker import BrokerPage, QueueLengths
from orchestrator.web.drawings import Drawings
from orchestrator.web.entry import Announce
from orchestrator.web.feed import Feed
from orchestrator.web.metrics_page import Metrics, TenantMetrics
from orchestrator.web.overlay import Overlay
from orchestrator.web.queues_page import LettersAct, QueuesData, QueuesPage
from orchestrator.web.run import (
    RUN,
    RunDecisions,
    RunEvents,
    RunGraph,
    RunNode,
    RunNodes,
    RunPage,
    RunRecord,
    RunSummary,
)
from orchestrator.web.run_log import RunLog
from orchestrator.web.runs import RunsData, RunsPage, StripsData
from orchestrator.web.schedules_page import SchedulesData, SchedulesPage
from orchestrator.web.task_state import TaskState
from orchestrator.web.tasks_page import TasksPage
from orchestrator.web.tenants import TENANT, TenantAct, TenantData, TenantPage, TenantsData, TenantsPage
from tenancy.link import Link

HERE = Path(__file__).resolve().parent

HANDLERS: tuple[tuple[str, type], ...] = (
    (r"/runs", RunsPage),
    (r"/runs/data", RunsData),
    (r"/runs/strips", StripsData),
    (r"/runs/(cancel|rerun|pause|resume|approve)", RunsAct),
    (RUN, RunPage),
    (RUN + "/summary", RunSummary),
    (RUN + "/graph", RunGraph),
    (RUN + "/nodes", RunNodes),
    (RUN + "/node", RunNode),
    (RUN + "/log", RunLog),
    (RUN + "/events", RunEvents),
    (RUN + "/decisions", RunDecisions),
    (RUN + "/record", RunRecord),
    (r"/tenants", TenantsPage),
    (r"/tenants/data", TenantsData),
    (TENANT, TenantPage),
    (TENANT + "/data", TenantData),
    (TENANT + "/(pause|resume)", TenantAct),
    (r"/queues", QueuesPage),
    (r"/queues/data", QueuesData),
    (r"/queues/(requeue|discard)", LettersAct),
    (r"/schedules", SchedulesPage),
    (r"/schedules/data", SchedulesData),
    (r"/console/banner", BannerData),
    (r"/tasks", TasksPage),
    (r"/broker", BrokerPage),
    (r"/api/queues/length", QueueLengths),
    (r"/metrics", Metrics),
    (r"/metrics/tenants", TenantMetrics),
)
"""Our pages; the public API lies under /api, as Flower's does. Paths of new ones must not begin with /tasks or /workers."""

NAVIGATION = (
    ("runs", "/runs", "Runs"),
    ("tenants", "/tenants", "Tenants"),
    ("queues", "/queues", "Queues"),
    ("schedules", "/schedules", "Schedules"),
)
"""Name, path and label of our pages in the navigation."""

SWITCH_S = 0.0005
"""How long the loop's thread waits at most for a thread of the executor to let it go on. It does so at every system call: with Python's
5 ms an answer took 100 ms while a page read the lengths of 25,000 queues."""


class Asset(StaticFileHandler):
    """A file of ours, which is asked for anew each time and mostly found unchanged: it must be of the version of its page."""

    def set_extra_headers(self, _path: str) -> None:
        """Have it asked for anew."""
        self.set_header("Cache-Control", "no-cache")


class Console(Flower):
    """Flower for an app of Headgate's.

    `announce` is told the console's URL once it listens; everything else is Flower's.
    """

    def __init__(self, *, capp: HeadgateApp, announce: Announce | None = None, **given: Any) -> None:
        # Tornado keeps one loader for each template_path: with Flower's own path a plain Flower in this process would get ours.
        under = Path(given.pop("template_path"))
        super().__init__(capp=capp, **given, template_path=str(HERE), template_loader=Overlay(HERE, under))
        self.link: Link = capp.headgate_kernel.link
        self.engine: Engine = open_engine(capp.headgate_settings.resolved_database_url())
        self.client = Client(capp.headgate_settings)
        self.node_logs = NodeLogs(capp.headgate_kernel.logs.spool, capp.headgate_kernel.logs.objects)
        self.drawings = Drawings(capp.headgate_settings.home / "drawings")
        # Celery's events of tasks, which take 40 % of a worker's speed, are not switched on: the log tells what nodes do.
        self.events.enable_events = False
        self.events.state = TaskState(max_tasks_in_memory=self.options.max_tasks, max_workers_in_memory=self.options.max_workers)
        tally = Tally()
        self.exposition = Exposition(self.link, self.engine, tally)
        self.feed = Feed(self.engine, self.executor, lambda: self.events.state, tally)
        self._announce = announce
        own = (self.options.url_prefix or "").strip("/")
        self.prefix = f"/{own}" if own else ""
        self.navigation = [(name, self.prefix + path, label) for name, path, label in NAVIGATION]
        routes = [url(self.prefix + pattern, handler) for pattern, handler in HANDLERS]
        routes.append(url(self.asset("(.*)"), Asset, {"path": str(HERE / "static")}))
        self.add_handlers(r".*", routes)

    def asset(self, name: str) -> str:
        """Return the path of a file of ours."""
        return f"{self.prefix}/static/headgate/{name}"

    def start(self) -> None:
        """Serve until the loop is stopped."""
        sys.setswitchinterval(SWITCH_S)
        # What has been imported stays: looked through by every full collection, it would keep the loop for a tenth of a second.
        gc.collect()
        gc.freeze()
        if self.capp.headgate_settings.log_format == "json":  # else as Flower writes, whose options say how
            of_process(service="console")
            dress(logging.getLogger().handlers, "json")
        self.io_loop.add_callback(self.feed.run, lambda: self.started)
        super().start()

    def start_http_server(self) -> int | None:
        """Listen; return the port, or None on a unix socket."""
        port: int | None = super().start_http_server()
        if self._announce is not None:
            self._announce(self._url(port))
        return port

    def _url(self, port: int | None) -> str:
        if port is None:
            return f"unix:{self.options.unix_socket}"
        prefix = (self.options.url_prefix or "").strip("/")
        scheme = "https" if self.ssl_options else "http"
        return f"{scheme}://{self.options.address or '127.0.0.1'}:{port}/{prefix}{'/' if prefix else ''}"
