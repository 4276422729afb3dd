"""The console: a Flower whose pages of ours are found before Flower's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from flower.app import Flower, rewrite_handler

from orchestrator.assembly import HeadgateApp
from orchestrator.web.broker import BrokerPage, QueueLengths
from orchestrator.web.entry import Announce
from orchestrator.web.overlay import Overlay
from tenancy.link import Link

HERE = Path(__file__).resolve().parent

HANDLERS: tuple[tuple[str, type], ...] = (
    (r"/broker", BrokerPage),
    (r"/api/queues/length", QueueLengths),
)
"""Our pages; the public API lies under /api, as Flower's does. Paths must not begin with /tasks or /workers."""

SWITCH_S = 0.0005
"""How long the loop's thread waits at most for a thread of the executor to let it go on. It does so at every system call: with Python's
5 ms an answer took 100 ms while a page read the lengths of 25,000 queues."""


class Console(Flower):
    """Flower for an app of Headgate's.

    `announce` is told the console's URL once it listens; everything else is Flower's.
    """

    def __init__(self, *, capp: HeadgateApp, announce: Announce | None = None, **given: Any) -> None:
        # Tornado keeps one loader for each template_path: with Flower's own path a plain Flower in this process would get ours.
        under = Path(given.pop("template_path"))
        super().__init__(capp=capp, **given, template_path=str(HERE), template_loader=Overlay(HERE, under))
        self.link: Link = capp.headgate_kernel.link
        self._announce = announce
        prefix = self.options.url_prefix
        self.add_handlers(r".*", [rewrite_handler(each, prefix) if prefix else each for each in HANDLERS])

    def start(self) -> None:
        """Serve until the loop is stopped."""
        sys.setswitchinterval(SWITCH_S)
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
