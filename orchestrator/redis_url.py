"""The two spellings of one Redis: Kombu's and redis-py's."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

_SOCKET_SCHEMES = ("redis+socket", "socket", "unix")


def for_kombu(url: str) -> str:
    """Return `url` as Kombu and Celery read it: a unix socket is `redis+socket:///path?virtual_host=0`."""
    parts = urlsplit(url)
    if parts.scheme not in _SOCKET_SCHEMES:
        return url
    query = dict(parse_qsl(parts.query))
    db = query.pop("virtual_host", query.pop("db", "0"))
    return f"redis+socket://{_authority(parts.netloc)}{parts.path}?{urlencode({'virtual_host': db, **query})}"


def for_client(url: str) -> str:
    """Return `url` as redis-py reads it: a unix socket is `unix:///path?db=0`."""
    parts = urlsplit(url)
    if parts.scheme not in _SOCKET_SCHEMES:
        return url
    query = dict(parse_qsl(parts.query))
    db = query.pop("virtual_host", query.pop("db", "0"))
    return f"unix://{_authority(parts.netloc)}{parts.path}?{urlencode({'db': db, **query})}"


def _authority(netloc: str) -> str:
    return netloc if "@" in netloc else ""
