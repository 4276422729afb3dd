from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from orchestrator.cli.demo import check_then_charge
from orchestrator.cli.demo.night_bill import CLAIMANTS, COST, LIMIT, Bill, claim_of, verdict

KEPT = Bill(done=10, refused=22, spent=LIMIT, most=LIMIT)
OVERSPENT = Bill(done=32, refused=0, spent=32 * COST, most=32 * COST)


@pytest.mark.parametrize(
    ("ours", "recipe", "said"),
    [
        (KEPT, OVERSPENT, "won: headgate spent 0.100000 of 0.100000; check-then-charge 0.320000 of 0.100000, 0.220000 too much"),
        (KEPT, KEPT, "not shown: "),
        (OVERSPENT, OVERSPENT, "lost: headgate spent 0.320000 of 0.100000, 0.220000 too much"),
        (Bill(10, 22, LIMIT, LIMIT + COST), OVERSPENT, "lost: headgate spent 0.100000 of 0.100000, 0.010000 too much"),
    ],
)
def test_a_budget_that_was_passed_even_for_a_moment_is_lost(ours: Bill, recipe: Bill, said: str) -> None:
    assert verdict(ours, recipe).startswith(said)


def test_the_budget_is_for_fewer_than_want_it() -> None:
    assert LIMIT // COST < CLAIMANTS
    assert LIMIT % COST == 0


def test_a_claim_reserves_what_it_spends() -> None:
    work, bill = claim_of(COST, 0.2).nodes
    assert sum(work.estimate.values()) + sum(bill.estimate.values()) == COST
    assert bill.params["micros"] == bill.estimate["llm"]
    assert min(work.estimate["compute"], bill.estimate["compute"]) > 0, "CPU time costs too"


def test_the_page_shows_the_recipe_as_it_runs() -> None:
    page = (Path(check_then_charge.__file__).parents[3] / "docs" / "money.md").read_text()
    assert inspect.getsource(check_then_charge.claim) in page
