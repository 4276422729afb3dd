"""A webhook: one signed POST. Of the standard library alone: http.client follows no redirects, and nothing more is needed than that."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import socket
from urllib.parse import urlsplit

from tenancy.errors import HeadgateError

STEP_TIMEOUT_S = 5.0
"""For connecting, and for each piece of the answer; whoever waits for all of it has a deadline of its own."""

SIGNATURE, KEY = "Headgate-Signature", "Headgate-Key"


class NotDelivered(HeadgateError):
    """The channel did not take the notice; it is tried again."""


def sign(secret: str, at_s: int, body: bytes) -> str:
    """Return the header that proves who sent `body`, and when: HMAC-SHA256 of time, a dot and the body."""
    proof = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={proof}"


def host_of(url: str) -> str:
    """Return host and port of a URL, as they stand in it."""
    return urlsplit(url).netloc.lower()


class Post:
    """A POST under way, which another thread may cut off."""

    def __init__(self, url: str, key: str, body: str, secret: str, now_s: int) -> None:
        found = urlsplit(url)
        kind = http.client.HTTPSConnection if found.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(found.hostname or "", found.port, timeout=STEP_TIMEOUT_S)
        self._target = (found.path or "/") + (f"?{found.query}" if found.query else "")
        self._body = body.encode()
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": "headgate",
            KEY: key,
            SIGNATURE: sign(secret, now_s, self._body),
        }

    def send(self) -> None:
        """Send it and wait for the answer's first lines. Raises NotDelivered unless that says 2xx."""
        try:
            self._connection.request("POST", self._target, self._body, self._headers)
            status = self._connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
        finally:
            self._connection.close()
        if not 200 <= status < 300:
            raise NotDelivered(f"the answer was {status}")

    def cut_off(self) -> None:
        """End it: `send` raises in its own thread. Connecting is left to its timeout."""
        if (connected := self._connection.sock) is not None:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
