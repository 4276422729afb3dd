"""The two spellings of one Redis: Kombu's and redis-py's."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

_HOST_SCHEMES = ("redis://", "rediss://")
_SOCKET_SCHEMES = ("redis+socket", "socket", "unix")


def check_redis_url(url: str) -> None:
    """Raise ValueError, one sentence of what is taken, if `url` is no URL of a Redis."""
    try:
        parts = urlsplit(url)
        socket = parts.scheme in _SOCKET_SCHEMES
        fits = len(parts.path) > 1 if socket else url.startswith(_HOST_SCHEMES) and (parts.port or 6379) > 0
    except ValueError:  # a port that is no number
        fits = False
    if not fits:
        raise ValueError("write redis://host:6379/0, rediss://host:6379/0, unix:///path/to/socket?db=0 or redis+socket:///path/to/socket")


def for_kombu(url: str) -> str:
    """Return `url` as Kombu and Celery read it: a unix socket is `redis+socket:///path?virtual_host=0`."""
    return _spelt(url, "redis+socket", "virtual_host")


def for_client(url: str) -> str:
    """Return `url` as redis-py reads it: a unix socket is `unix:///path?db=0`."""
    return _spelt(url, "unix", "db")


def _spelt(url: str, scheme: str, database: str) -> str:
    """Return the URL of a unix socket with this scheme and this name for its database; any other URL as it is."""
    parts = urlsplit(url)
    if parts.scheme not in _SOCKET_SCHEMES:
        return url
    query = dict(parse_qsl(parts.query))
    db = query.pop("virtual_host", query.pop("db", "0"))
    return f"{scheme}://{_authority(parts.netloc)}{parts.path}?{urlencode({database: db, **query})}"


def _authority(netloc: str) -> str:
    return netloc if "@" in netloc else ""
