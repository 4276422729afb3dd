"""A link to Redis that runs scripts behind the epoch fence."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from tenancy.errors import Fenced, Unavailable
from tenancy.lua import load

Argument = str | int | bytes

CONNECTIONS_MAX = 3
"""Of one thread: its own for scripts, one for reads, one that may be subscribed to something."""


def _note_server(connection: AbstractConnection) -> None:
    """Read the server's run id on each new connection: after a restart it is another one, which knows no script either."""
    connection.on_connect()
    connection.send_command("INFO", "server")
    info = connection.read_response()
    lines = (info.decode() if isinstance(info, bytes) else str(info)).splitlines()
    connection.headgate_server = next(line[7:] for line in lines if line.startswith("run_id:"))  # type: ignore[attr-defined]
    connection.headgate_scripts = set()  # type: ignore[attr-defined]


def _pack(*arguments: Argument) -> bytes:
    """Return a command as Redis reads it; redis-py's own packing also takes floats and memory views, at three times the CPU."""
    raw = [each if isinstance(each, bytes) else str(each).encode() for each in arguments]
    return b"*%d\r\n%b" % (len(raw), b"".join([b"$%d\r\n%b\r\n" % (len(each), each) for each in raw]))


def _fit(connection: AbstractConnection) -> bool:
    """Return whether nothing can be read: what can is the connection's end, or an answer that nobody waits for. Nothing was sent yet."""
    try:
        return not connection.can_read()
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        return False


class Link:
    """Scripts over one Redis connection for each thread and process.

    A command is never repeated by the client: a lost reply surfaces as Unavailable, and the caller decides, since only it
    knows that the script is idempotent. `server` is what scripts are told; None means the server's own run id.

    :param url: what redis-py understands: redis://, rediss:// or unix://.
    """

    def __init__(self, url: str, *, server: str | None = None, timeout_s: float = 10.0) -> None:
        options = redis.connection.parse_url(url)
        options.setdefault("socket_timeout", timeout_s)
        self._open(url, options, server)

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> Link:
        """Return a link by the options of a redis-py connection, `connection_class` among them; `name` is for messages."""
        link = cls.__new__(cls)
        link._open(name, options, None)
        return link

    def _open(self, url: str, options: Mapping[str, Any], server: str | None) -> None:
        self.url = url
        self.server = server
        self._options = dict(options)
        self._local = threading.local()

    @property
    def client(self) -> redis.Redis:
        """The redis-py client of this thread, for commands that are no scripts."""
        local = self._local
        if getattr(local, "pid", None) != os.getpid():
            local.pid = os.getpid()
            local.held = None
            local.client = redis.Redis(
                connection_pool=redis.ConnectionPool(
                    **{
                        **self._options,
                        "max_connections": CONNECTIONS_MAX,
                        "decode_responses": True,
                        "retry": Retry(NoBackoff(), 0),
                        "redis_connect_func": _note_server,
                    }
                )
            )
        client: redis.Redis = local.client
        return client

    def call(self, name: str, *arguments: Argument) -> Any:
        """Run the script `name` with the server id and `arguments`; return what it returns.

        Raises Fenced when the epoch is bound to another server run, Unavailable when Redis cannot be reached or the reply was lost.
        """
        return self.batch([(name, arguments)])[0]

    def server_id(self) -> str:
        """The run id of the server that this thread is connected to; connects if need be. Raises Unavailable."""
        return self.server or str(self._with_connection(lambda connection: connection.headgate_server))

    @staticmethod
    def prepared(name: str) -> str:
        """The SHA-1 of the script `name`."""
        return load(name).sha

    def prepare(self, name: str) -> str:
        """Make sure that the server knows the script `name`, for use in somebody's pipeline; return its SHA-1."""
        script = load(name)

        def teach(connection: Any) -> str:
            connection.send_command("SCRIPT", "LOAD", script.text)
            return str(connection.read_response())

        return str(self._with_connection(teach))

    def batch(self, calls: Sequence[tuple[str, Sequence[Argument]]]) -> list[Any]:
        """Run several scripts in one round trip; like `call` for each, and raises for the first that failed."""
        replies: list[Any] = self._with_connection(lambda connection: self._exchange(connection, calls))
        for reply in replies:
            if isinstance(reply, redis.ResponseError):
                if str(reply).startswith("FENCED"):
                    raise Fenced("Redis was restarted; work goes on when the recorder has opened the next epoch") from reply
                raise reply
        return replies

    def read(self, *command: Argument) -> Any:
        """Run one plain Redis command that may be repeated (a read). Raises Unavailable."""
        try:
            return self.client.execute_command(*command)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise self._unavailable(error) from error

    def read_at_once(self, *commands: Sequence[Argument]) -> list[Any]:
        """Run plain Redis reads at one moment: nothing changes between them. Raises Unavailable."""
        try:
            with self.client.pipeline(transaction=True) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return pipe.execute()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise self._unavailable(error) from error

    def now_ms(self) -> int:
        """Return Redis's time in milliseconds. Raises Unavailable."""
        seconds, micros = self.read("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(f"Redis at {self.url} did not answer ({error}); nothing is lost, try again when it is back")

    def _with_connection(self, use: Callable[[Any], Any]) -> Any:
        try:
            connection = self._held()
            try:
                return use(connection)
            except BaseException:
                # A reply may still be on its way: nobody must read it as the answer to another command.
                self._let_go()
                raise
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise self._unavailable(error) from error

    def _held(self) -> Any:
        """Return this thread's connection for scripts: connected, and with nothing left to read.

        It is kept: taking it from the pool and giving it back for each call costs as much CPU as the call.
        """
        pool, local = self.client.connection_pool, self._local
        if local.held is not None and not _fit(local.held):
            self._let_go()
        if local.held is None:
            local.held = pool.get_connection()
        return local.held

    def _let_go(self) -> None:
        connection, self._local.held = self._local.held, None
        connection.disconnect()
        self.client.connection_pool.release(connection)

    def _exchange(self, connection: Any, calls: Sequence[tuple[str, Sequence[Argument]]]) -> list[Any]:
        server = self.server or connection.headgate_server
        scripts = [load(name) for name, _ in calls]
        commands = [_pack("EVALSHA", script.sha, 0, server, *arguments) for script, (_, arguments) in zip(scripts, calls, strict=True)]
        # One of several that the server does not know would run after those that follow it: they are taught before. One alone is
        # sent as a whole once the server says that it does not know it.
        known = connection.headgate_scripts
        unknown = {script.sha: script for script in scripts if script.sha not in known} if len(calls) > 1 else {}
        lessons = [_pack("SCRIPT", "LOAD", script.text) for script in unknown.values()]
        packed = [*lessons, *commands]
        connection.send_packed_command(packed if len(packed) == 1 else [b"".join(packed)])
        for _ in lessons:
            connection.read_response()
        replies = [self._read(connection) for _ in calls]
        for at, reply in enumerate(replies):
            if isinstance(reply, redis.exceptions.NoScriptError):
                connection.send_command("EVAL", scripts[at].text, 0, server, *calls[at][1])
                replies[at] = self._read(connection)
        known.update(script.sha for script in scripts)
        return replies

    @staticmethod
    def _read(connection: Any) -> Any:
        try:
            return connection.read_response()
        except redis.ResponseError as error:
            return error

    def close(self) -> None:
        """Close this thread's connection."""
        if getattr(self._local, "pid", None) == os.getpid():
            self._local.client.connection_pool.disconnect()
            self._local.pid = None
