"""A proxy before Redis that lets a command through and closes the connection instead of its reply."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Choice = Callable[[bytes, bytes], bool]
"""Whether to cut, by what was asked last on a connection and what is answered."""


class CuttingProxy:
    """Forwards connections on a unix socket; `cut` says which reply is lost next. `cuts` counts them."""

    def __init__(self, path: Path, redis_socket: Path) -> None:
        self.path, self._redis = path, redis_socket
        self.cuts = 0
        self._choice: Choice | None = None
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, choice: Choice) -> None:
        """Lose the first reply from here on that fits."""
        self._choice = choice

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._redis))
                asked = [b""]
                threading.Thread(target=self._ask, args=(client, server, asked), daemon=True).start()
                threading.Thread(target=self._answer, args=(client, server, asked), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, asked: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                asked[0] = data
                server.sendall(data)
        _end(server)

    def _answer(self, client: socket.socket, server: socket.socket, asked: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if self._is_cut(asked[0], data):
                    _end(client)
                    _end(server)
                    return
                client.sendall(data)
        _end(client)

    def _is_cut(self, asked: bytes, answered: bytes) -> bool:
        with self._lock:
            if self._choice is None or not self._choice(asked, answered):
                return False
            self._choice = None
            self.cuts += 1
            return True


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def cutting(path: Path, redis_socket: Path) -> Iterator[CuttingProxy]:
    """A proxy that listens at `path`."""
    proxy = CuttingProxy(path, redis_socket)
    try:
        yield proxy
    finally:
        proxy.close()
