from __future__ import annotations

import subprocess
import sys

import pytest

from orchestrator.cli.demo.board import PlainBoard
from orchestrator.cli.demo.night_join import Story, verdict
from orchestrator.cli.demo.our_side import join_of
from orchestrator.cli.demo.side import Side, View, victim, worker_of
from orchestrator.cli.demo.stock_celery import PEER


class Nobody:
    name = "nobody"

    def submit(self, members: int, seconds: float) -> None: ...
    def look(self, now: float) -> View:
        return View(0)

    def kill(self, worker: int) -> int:
        return 0


NOBODY: Side = Nobody()


def story(killed_at: float | None, joined_at: float | None) -> Story:
    return Story(NOBODY, 10.0, View(20, joined_at=joined_at), killed_at)


@pytest.mark.parametrize(
    ("ours", "stock", "word"),
    [
        (story(100.0, 105.0), story(100.0, None), "won: the join ran 5.0 s after the kill, stock Celery's had not run after 10 s"),
        (story(100.0, 105.0), story(100.0, 106.0), "won: "),
        (story(100.0, 105.0), story(100.0, 102.0), "lost: the join ran 5.0 s after the kill, stock Celery's after 2.0 s"),
        (story(100.0, 105.0), story(100.0, 105.0), "lost: "),
        (story(100.0, None), story(100.0, None), "lost: the join has not run"),
        (story(None, 99.0), story(100.0, None), "not shown"),
        (story(100.0, 105.0), story(None, 99.0), "not shown"),
    ],
)
def test_what_is_not_won_is_called_lost(ours: Story, stock: Story, word: str) -> None:
    assert verdict(ours, stock).startswith(word)


def test_the_victim_holds_members_that_have_just_begun() -> None:
    view = View(4, {1: {"a": 10.0, "b": 10.1}, 2: {"c": 9.0, "d": 10.1}, 3: {"e": 9.0}})
    assert victim(view, now=10.2, age_max_s=0.5) == 1
    assert victim(view, now=12.0, age_max_s=0.5) is None
    assert victim(View(4), now=10.0, age_max_s=0.5) is None


def test_among_equal_victims_it_is_worker_2() -> None:
    assert victim(View(4, {1: {"a": 10.0}, 2: {"b": 10.0}, 3: {"c": 10.0}}), now=10.2, age_max_s=0.5) == 2
    assert worker_of("w12@some.host") == 12


def test_the_join_of_the_night_waits_for_all_members_and_for_nothing_else() -> None:
    graph = join_of(20, 1.0)
    parents = graph.parents()
    assert len(parents.pop("join")) == 20
    assert not any(parents.values())


def test_stock_celery_imports_nothing_of_ours() -> None:
    program = "import sys, stock_app; print([name for name in sys.modules if name.partition('.')[0] in sys.argv[1:]])"
    environment = {"PYTHONPATH": str(PEER), "STOCK_REDIS_URL": "redis://127.0.0.1:1/0"}
    argv = [sys.executable, "-P", "-c", program, "orchestrator", "tenancy", "cost", "tasks", "headgate_tasks"]
    said = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_off_a_terminal_a_moving_table_is_printed_once_as_it_was_last() -> None:
    lines: list[str] = []
    board = PlainBoard(lines.append)
    with board.live() as draw:
        draw(("tenant", "done"), [("acme", "1")])
        draw(("tenant", "done"), [("acme", "2")])
    assert lines == ["tenant  done", "acme    2"]
