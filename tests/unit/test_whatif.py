"""`headgate whatif`: what less money would buy, checked by hand on the example of the README."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from test_readme import example_of_the_test

from cost.plan import NodeCost, VariantCost
from cost.whatif import ROWS_MAX, prospects
from orchestrator.cli import main
from orchestrator.settings import Settings

pytestmark = pytest.mark.unit

TABLE = """\
 budget   cost   value  given up
 0.091    0.091  31/31  nothing
 0.071    0.071  28/31  1 draft -> one candidate
 0.060    0.051  25/31  2 drafts -> one candidate
 0.031    0.031  22/31  3 drafts -> one candidate
 0.021    0.021  15/31  folklore skipped, 2 drafts -> one candidate
 < 0.021  refused: the required nodes alone cost 0.021
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "whatif_pipeline.py").write_text(example_of_the_test())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("whatif_pipeline", None)


def headgate(place: Path, *words: str) -> Result:
    with Settings(home=place).in_force():
        return CliRunner().invoke(main, ["whatif", "whatif_pipeline:article", *words])


def test_the_example_gives_up_what_matters_least(place: Path) -> None:
    shown = headgate(place, "--budget", "0.06")
    assert shown.exit_code == 0, shown.output
    table, _, curve = shown.stdout.partition("\n\n")
    assert table + "\n" == TABLE
    bars = [line.split() for line in curve.splitlines()]
    assert (bars[0][0], bars[0][-1], bars[-1][0], bars[-1][-1]) == ("0.021000", "15", "0.091000", "31")
    assert [int(bar[-1]) for bar in bars] == sorted(int(bar[-1]) for bar in bars)


def test_the_readme_shows_what_is_printed() -> None:
    assert (
        f"$ headgate whatif pipeline:article --budget 0.06\n{TABLE}```\n" in (Path(__file__).resolve().parents[2] / "README.md").read_text()
    )


def test_a_budget_has_a_row_of_its_own_in_json_too_and_nothing_is_left_behind(place: Path) -> None:
    before = sorted(place.iterdir())
    found = json.loads(headgate(place, "--budget", "0.06", "--json").stdout)
    assert [(row["budget_micros"], row["cost_micros"], row["value"]) for row in found["rows"]] == [
        (91_000, 91_000, 31),
        (71_000, 71_000, 28),
        (60_000, 51_000, 25),
        (31_000, 31_000, 22),
        (21_000, 21_000, 15),
    ]
    assert all(row["exact"] and row["bound"] == row["value"] for row in found["rows"])
    assert [(change["node"], change["change"]) for change in found["rows"][-1]["given_up"]] == [
        ("draft", "one"),
        ("draft-2", "one"),
        ("draft-3", "skip"),
    ]
    assert sorted(path for path in place.iterdir() if path.name != "__pycache__") == [path for path in before if path.name != "__pycache__"]


@pytest.mark.parametrize(
    ("budget", "row"), [("0.05", " 0.050    0.031  22/31  3 drafts -> one candidate"), ("7", " 7.000    0.091  31/31  nothing")]
)
def test_any_budget_is_planned_for(place: Path, budget: str, row: str) -> None:
    assert row in headgate(place, "--budget", budget).stdout.splitlines()


def test_below_the_floor_the_table_says_so_and_a_wrong_amount_is_one_sentence(place: Path) -> None:
    assert headgate(place, "--budget", "0.02").stdout.splitlines()[6] == TABLE.splitlines()[6]
    wrong = headgate(place, "--budget", "cheap")
    assert wrong.exit_code == 2
    assert "'cheap' is not an amount in units" in wrong.stderr


def test_a_large_graph_is_shown_at_evenly_spaced_budgets() -> None:
    nodes = [NodeCost(f"n{i:03d}", i % 2 == 0, 3 + i % 5, 100 + i, variants=(VariantCost("few", "retrieval", 40, 2),)) for i in range(200)]
    found = prospects(nodes, 15_000)
    assert len(found.rows) == ROWS_MAX + 1
    assert [row.budget for row in found.rows] == sorted((row.budget for row in found.rows), reverse=True)
    assert (found.rows[0].plan.value, found.rows[-1].plan.cost_micros) == (found.value, found.floor)
    assert all(row.plan.cost_micros <= row.budget for row in found.rows)


def test_a_graph_of_which_nothing_can_be_given_up_has_one_row() -> None:
    found = prospects([NodeCost("a", True, 1, 100)])
    assert [(row.budget, row.plan.cost_micros) for row in found.rows] == [(100, 100)]
    assert found.curve == ((100, 1),)
