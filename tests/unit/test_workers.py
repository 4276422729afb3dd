"""What `headgate workers` decides before it tells anybody."""

from __future__ import annotations

import pytest

from orchestrator.cli.workers import find
from orchestrator.control import spread
from tenancy.errors import HeadgateError, Unknown
from tenancy.transport.fleet import WorkerView


def worker(name: str, worker_id: str = "") -> WorkerView:
    return WorkerView(worker_id or name, name, "here", 1, ("default",), 2, 0, 0.0, 0.0, ())


LIVE = [worker("w1@here"), worker("w2@here"), worker("batch@there")]


def test_slots_are_spread_as_evenly_as_can_be() -> None:
    assert spread(7, ["b", "a", "c"]) == {"a": 3, "b": 2, "c": 2}
    assert spread(3, ["b", "a", "c"]) == {"a": 1, "b": 1, "c": 1}
    with pytest.raises(HeadgateError, match="2 slots are too few for 3 workers"):
        spread(2, ["b", "a", "c"])


def test_a_worker_is_found_by_its_name_or_the_part_before_the_host() -> None:
    assert find("w2@here", LIVE).name == "w2@here"
    assert find("batch", LIVE).name == "batch@there"


def test_an_unknown_worker_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(Unknown, match="there is no live worker 'bacth'; the nearest is 'batch@there'"):
        find("bacth", LIVE)


def test_a_name_of_several_is_answered_with_their_ids() -> None:
    with pytest.raises(Unknown, match="several workers: x, y; name one of these"):
        find("w", [worker("w@a", "x"), worker("w@b", "y")])
