"""A link to Redis that runs scripts behind the epoch fence."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from tenancy.errors import Fenced, Unavailable
from tenancy.lua import load

Argument = str | int | bytes


def _note_server(connection: AbstractConnection) -> None:
    """Read the server's run id on each new connection: after a restart it is another one."""
    connection.on_connect()
    connection.send_command("INFO", "server")
    info = connection.read_response()
    lines = (info.decode() if isinstance(info, bytes) else str(info)).splitlines()
    connection.headgate_server = next(line[7:] for line in lines if line.startswith("run_id:"))  # type: ignore[attr-defined]


class Link:
    """Scripts over one Redis connection for each thread and process.

    A command is never repeated by the client: a lost reply surfaces as Unavailable, and the caller decides, since only it
    knows that the script is idempotent. `server` is what scripts are told; None means the server's own run id.

    :param url: what redis-py understands: redis://, rediss:// or unix://.
    """

    def __init__(self, url: str, *, server: str | None = None, timeout_s: float = 10.0) -> None:
        self.url = url
        self.server = server
        self.timeout_s = timeout_s
        self._local = threading.local()

    @property
    def client(self) -> redis.Redis:
        """The redis-py client of this thread, for commands that are no scripts."""
        local = self._local
        if getattr(local, "pid", None) != os.getpid():
            local.pid = os.getpid()
            local.client = redis.Redis.from_url(
                self.url,
                single_connection_client=False,
                max_connections=2,
                decode_responses=True,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=self.timeout_s,
                redis_connect_func=_note_server,
            )
        client: redis.Redis = local.client
        return client

    def call(self, name: str, *arguments: Argument) -> Any:
        """Run the script `name` with the server id and `arguments`; return what it returns.

        Raises Fenced when the epoch is bound to another server run, Unavailable when Redis cannot be reached or the reply was lost.
        """
        return self.batch([(name, arguments)])[0]

    def batch(self, calls: Sequence[tuple[str, Sequence[Argument]]]) -> list[Any]:
        """Run several scripts in one round trip; like `call` for each, and raises for the first that failed."""
        pool = self.client.connection_pool
        try:
            connection = pool.get_connection()
            try:
                replies = self._exchange(connection, calls)
            finally:
                pool.release(connection)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise Unavailable(f"Redis at {self.url} did not answer ({error}); nothing is lost, try again when it is back") from error
        for reply in replies:
            if isinstance(reply, redis.ResponseError):
                if str(reply).startswith("FENCED"):
                    raise Fenced("Redis was restarted; work goes on when the recorder has opened the next epoch") from reply
                raise reply
        return replies

    def _exchange(self, connection: Any, calls: Sequence[tuple[str, Sequence[Argument]]]) -> list[Any]:
        server = self.server or connection.headgate_server
        scripts = [load(name) for name, _ in calls]
        commands = [("EVALSHA", script.sha, 0, server, *arguments) for script, (_, arguments) in zip(scripts, calls, strict=True)]
        connection.send_packed_command(connection.pack_commands(commands))
        replies = [self._read(connection) for _ in calls]
        for at, reply in enumerate(replies):
            if isinstance(reply, redis.exceptions.NoScriptError):
                connection.send_command("EVAL", scripts[at].text, 0, server, *calls[at][1])
                replies[at] = self._read(connection)
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
            self._local.client.close()
            self._local.pid = None
