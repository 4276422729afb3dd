"""What is no amount of money is refused wherever a person or a program may give one, before anything is sent."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Graph, GraphInvalid
from orchestrator.client import Client
from orchestrator.settings import Settings
from tenancy.policy import Policy

pytestmark = pytest.mark.unit

NUMBERS = [math.nan, math.inf, -math.inf, -1, 2**53, 1.5, 0.06, True, Decimal(1)]
TEXTS = ["0x10", "1e3", "nan", "-1", "9" * 5_000, "1" + "0" * 5_000]
SENSELESS = [*NUMBERS, *TEXTS]


@pytest.mark.parametrize("amount", SENSELESS, ids=lambda amount: str(amount)[:12])
def test_a_budget_that_is_no_amount_is_refused_in_one_short_sentence(amount: Any, tmp_path: Path) -> None:
    client = Client(Settings(home=tmp_path))  # no stack: nothing is asked of one
    with pytest.raises((ValueError, TypeError)) as refused:
        client.submit(Graph.parse({"name": "g", "nodes": [{"id": "a", "task": "synthetic.noop"}]}), budget=amount)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("amount", SENSELESS, ids=lambda amount: str(amount)[:12])
def test_an_estimate_and_a_limit_that_are_no_amounts_are_refused(amount: Any) -> None:
    for field in ("estimate", "max_cost"):
        value = {"llm": amount} if field == "estimate" else amount
        with pytest.raises((GraphInvalid, ValueError)) as refused:
            Graph.parse({"name": "g", "nodes": [{"id": "a", "task": "synthetic.noop", field: value}]})
        assert len(str(refused.value)) < 500
    with pytest.raises((ValueError, TypeError)):
        Policy(limit_per_day_micros=amount)
