"""Every script and the whole queue on each kind of server that can be found: Redis 6.2 to 8 and Valkey."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from clock import moved_clock
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from servers import LISTED, servers
from test_transport import SERVER, Twins

from orchestrator.embedded.redis_server import RedisServer
from tenancy.link import Link
from tenancy.lua import LAYERS, ROOT, load

KINDS = ("redis-6", "redis-7", "redis-8", "valkey-8", "valkey-9")
FOUND = servers()
SCRIPTS = sorted(
    str(path.relative_to(ROOT).with_suffix("")) for folder in LAYERS for path in (ROOT / folder).glob("**/*.lua") if path.stem != "kernel"
)
NEWER = re.compile(
    r"""'(?:EXPIRETIME|PEXPIRETIME|LMPOP|BLMPOP|ZMPOP|BZMPOP|SINTERCARD|ZINTERCARD|FCALL|FUNCTION|SPUBLISH|LCS|WAITAOF|"""
    r"""HP?EXPIRE(?:AT|TIME)?|HP?TTL|HPERSIST|HGETDEL|HGETEX|HSETEX|XACKDEL|XDELEX|MSETEX|DELEX|DIGEST)'"""
    r"""|'P?EXPIRE(?:AT)?',[^)]*'(?:NX|XX|GT|LT)'|acl_check_cmd"""
)
"""Commands and options that came after 6.2, in 7.0 to 8.4."""


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if request.param not in FOUND:
        pytest.skip(f"there is no {request.param} here; name its binary in {LISTED}")
    found = RedisServer(tmp_path_factory.mktemp(request.param), FOUND[request.param])
    found.start()
    yield found
    found.stop()


def test_every_script_is_understood(server: RedisServer) -> None:
    link = Link(server.client_url)
    assert [link.prepare(name) for name in SCRIPTS] == [load(name).sha for name in SCRIPTS]
    link.close()


def test_the_queue_keeps_its_promises(server: RedisServer) -> None:
    with moved_clock():
        Twins.link = Link(server.client_url, server=SERVER)
        # The long run is that of test_transport.py, on one server: here only servers can differ.
        run_state_machine_as_test(Twins, settings=settings(max_examples=15, stateful_step_count=30, deadline=None, print_blob=True))
        Twins.link.close()


def test_no_script_calls_what_redis_6_2_does_not_have() -> None:
    assert {name: found for name in SCRIPTS if (found := NEWER.findall(load(name).text))} == {}
