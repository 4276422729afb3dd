"""The fair transport takes the place of Kombu's, also in a process that has used Kombu's before."""

from __future__ import annotations

import pytest
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES, get_transport_cls
from kombu.transport import redis as stock

from tenancy.errors import HeadgateError
from tenancy.transport import channel


@pytest.mark.parametrize("alias", ["redis", "rediss", "redis+socket"])
def test_an_alias_that_was_used_before_means_the_fair_transport_from_now_on(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSPORT_ALIASES, alias, "kombu.transport.redis:Transport")
    monkeypatch.setattr("kombu.transport._transport_cache", {})
    assert get_transport_cls(alias) is stock.Transport
    channel.install()
    assert get_transport_cls(alias) is channel.FairTransport


def test_sentinel_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSPORT_ALIASES, "sentinel", TRANSPORT_ALIASES["sentinel"])
    channel.install()
    with pytest.raises(HeadgateError, match="does not follow Redis Sentinel: name the primary"):
        Connection("sentinel://localhost:26379").default_channel  # noqa: B018 (it is what opens a connection)
