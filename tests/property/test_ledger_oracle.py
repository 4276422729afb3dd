"""The scripts do with money what its rules say: the simulator is the oracle of any sequence of transitions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clock import moved_clock
from ledger_pair import Pair

from orchestrator.embedded import RedisServer
from tenancy.link import Link

pytestmark = pytest.mark.property


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    server = RedisServer(tmp_path_factory.mktemp("oracle"))
    server.start()
    with moved_clock():
        link = Link(server.client_url)
        yield link
        link.close()
    server.stop()


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_any_sequence_of_transitions_answers_and_counts_as_the_rules_do(link: Link, first: int) -> None:
    for seed in range(first, first + 10):
        Pair(link, seed).drive(60)
