from __future__ import annotations

import pytest

from orchestrator.cli.demo.night_flood import Wait, flood_of, verdict, waited


def test_the_wait_counts_what_of_the_flood_went_before() -> None:
    wait = waited(100.0, 101.0, flood_began=[99.0, 100.5, 100.9, 101.5], flood_ended=[99.5, 100.6, 101.0])
    assert wait == Wait(seconds=1.0, ahead=2, done=3)


@pytest.mark.parametrize(
    ("ours", "stock", "said"),
    [
        (
            Wait(0.1, 3, 40),
            Wait(3.0, 1000, 1000),
            "won: birch's node began after 0.10 s, 3 of acme's before it; in stock Celery after 3.00 s",
        ),
        (Wait(3.0, 900, 900), Wait(0.5, 10, 10), "lost: "),
        (Wait(0.1, 3, 40), None, "won: "),
        (None, Wait(3.0, 1000, 1000), "lost: birch's node has not begun"),
    ],
)
def test_who_waited_longer_has_lost(ours: Wait | None, stock: Wait | None, said: str) -> None:
    assert verdict(ours, stock).startswith(said)


def test_the_nodes_of_the_flood_wait_for_none() -> None:
    graph = flood_of(1000, 0.01)
    assert len(graph.nodes) == 1000
    assert not any(graph.parents().values())
