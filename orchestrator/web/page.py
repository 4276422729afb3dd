"""What our pages have in common: they are Flower's handlers, read in a thread of its executor, and change nothing unless they say so."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import urlparse

import redis
from flower.views import BaseHandler
from sqlalchemy.exc import OperationalError
from tornado import web

from orchestrator.json_pieces import dumps
from tenancy.errors import HeadgateError, Unavailable, Unknown

UNREACHABLE = (redis.ConnectionError, redis.TimeoutError, Unavailable, OperationalError)
"""What says that Redis or the database is away, and not that something is wrong."""

ZIPPED_FROM = 8_192
"""Bytes from which an answer is compressed, for who takes it so."""

BODY_MAX = 65_536
"""Bytes of what a page sends to have something done."""


class Page(BaseHandler):
    """A page of ours: it answers only whom Flower's settings let in, and its work is done in a thread."""

    async def ask(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Return what `function` returns, called in a thread. Raises HTTPError: 404 for Unknown, 409 for what is refused, 503."""

        def told() -> Any:
            try:
                return function(*args)
            except UNREACHABLE:
                raise
            except HeadgateError as error:
                return error

        answer = await self.application.blocking_runner.run(what, "the record", told, connection_errors=UNREACHABLE)
        if isinstance(answer, Unknown):
            raise web.HTTPError(404, "%s", answer)
        if isinstance(answer, HeadgateError):
            raise web.HTTPError(409, "%s", answer)
        return answer

    def who(self) -> str:
        """Return whom the audit names: the user that Flower let in, or "console" where it lets everybody in."""
        if self.application.options.auth and isinstance(self.current_user, str):
            return self.current_user
        if self.application.options.basic_auth:
            words = self.request.headers.get("Authorization", "").split()
            return b64decode(words[-1]).decode().partition(":")[0] or "console"
        return "console"


class Shell(Page):
    """A page that its script fills; `tab` names it in the navigation, `script` is a file of `static`."""

    title: ClassVar[str]
    tab: ClassVar[str]
    script: ClassVar[str]

    @web.authenticated
    async def get(self, *path: str) -> None:
        """Render the page."""
        facts = await self.facts(*path)
        options = self.application.options
        self.render(
            "shell.html",
            heading=str(facts.pop("title", self.title)),
            tab=self.tab,
            script=self.application.asset(self.script),
            read_only=bool(options.read_only),
            facts=facts,
        )

    async def facts(self, *_: str) -> dict[str, Any]:
        """Return what the script finds in the page's data attributes; `title` stands for the class's."""
        return {}


class Data(Page):
    """JSON that a page reads."""

    what: ClassVar[str] = "page"

    @web.authenticated
    async def get(self, *path: str) -> None:
        """Answer what `reading` returns."""
        try:
            read = self.reading(*path)
        except ValueError as error:
            raise web.HTTPError(400, "%s", error) from error
        zips = "gzip" in self.request.headers.get("Accept-Encoding", "")
        body, zipped = await self.ask(self.what, encoded, read, zips)
        self.give(body, zipped)

    def reading(self, *path: str) -> Callable[[], Any]:
        """Return what is called in a thread, and returns plain values. Raises ValueError for arguments that do not fit."""
        raise NotImplementedError

    def give(self, body: bytes, zipped: bool) -> None:
        """Answer JSON, which nobody keeps without asking again."""
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Vary", "Accept-Encoding")
        if zipped:
            self.set_header("Content-Encoding", "gzip")
        self.finish(body)

    def text(self, name: str, longest: int = 200) -> str | None:
        """Return an argument as it was typed, None where it is missing or empty. Raises ValueError for one that is too long."""
        value = str(self.get_argument(name, "", escape=False))
        if len(value) > longest:
            raise ValueError(f"{name} is longer than {longest} characters")
        return value or None

    def number(self, name: str) -> int | None:
        """Return an argument as a whole number from 0, None where it is missing. Raises ValueError."""
        text = self.text(name, 20)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"{name} is a whole number, not {text!r}")
        return int(text)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say in one sentence what is wrong, as JSON."""
        if status_code == 401:
            super().write_error(status_code, **kwargs)
            return
        error = kwargs.get("exc_info", (None, None, None))[1]
        said = error.get_message() if isinstance(error, web.HTTPError) else ""
        self.set_status(status_code)
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(json.dumps({"error": said or _SAID.get(status_code, "something went wrong; the console's log says what")}))


_SAID: Mapping[int, str] = {
    403: "this was not asked by a page of this console; load the page again",
    404: "there is no such page",
    503: "Redis or the database does not answer; nothing is lost, and this goes on when it is back",
}


class Act(Data):
    """Does something that a page asks for by POST, with JSON: never in a console that is read-only, and never for another site."""

    async def get(self, *_: str) -> None:
        """Refuse: reading changes nothing."""
        raise web.HTTPError(405)

    def prepare(self) -> None:
        """Refuse where the console is read-only, and what is too large."""
        if self.application.options.read_only:
            raise web.HTTPError(403, "this console is read-only")
        if len(self.request.body) > BODY_MAX:
            raise web.HTTPError(413)

    def check_xsrf_cookie(self) -> None:
        """Let nobody pass but our pages, also where Flower asks for no name: its own check would let them."""
        site, origin = self.request.headers.get("Sec-Fetch-Site"), self.request.headers.get("Origin")
        if (site and site != "same-origin") or (origin and urlparse(origin).netloc != self.request.host):
            raise web.HTTPError(403, "this was asked by a page of another site")
        web.RequestHandler.check_xsrf_cookie(self)

    @web.authenticated
    async def post(self, *path: str) -> None:
        """Do it, and answer what came of it."""
        try:
            asked = json.loads(self.request.body or b"{}")
            if not isinstance(asked, dict):
                raise ValueError("send a JSON object")
            act = self.acting(asked, *path)
        except ValueError as error:
            raise web.HTTPError(400, "%s", error) from error
        body, _ = await self.ask(self.what, encoded, act, False)
        self.give(body, zipped=False)

    def acting(self, asked: Mapping[str, Any], *path: str) -> Callable[[], Any]:
        """Return what is called in a thread. Raises ValueError for what cannot be asked."""
        raise NotImplementedError


def encoded(read: Callable[[], Any], zips: bool) -> tuple[bytes, bool]:
    """Return as JSON what `read` returns, and whether it is compressed."""
    body = dumps(read())
    if not zips or len(body) < ZIPPED_FROM:
        return body, False
    return gzip.compress(body, 1, mtime=0), True
