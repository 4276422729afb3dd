"""A policy promises only what acts."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.recorder.requests import create_tenant, decide, policy_fields
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.policy import ACTS, Policy

IGNORED = {
    "limit_per_month_micros": 5,
    "default_priority": "HIGH",
    "warn_percent": 10,
    "critical_percent": 10,
    "exceeded_percent": 10,
    "on_runs_limit": "reject",
    "on_budget_limit": "hold",
    "admit": "full",
    "enforcement": "off",
    "strict": True,
    "can_fork": True,
    "share_learning": True,
}


def test_every_field_either_acts_or_is_refused() -> None:
    assert sorted([*ACTS, *IGNORED]) == sorted(Policy.model_fields)
    for name, value in IGNORED.items():
        assert Policy(**{name: value}).not_yet() == [f"the field {name!r} of a policy is not yet supported; leave it out"]
    assert Policy(weight=3, max_running_nodes=2, max_concurrent_runs=1, limit_per_day_micros=0).not_yet() == []
    assert Policy(strict=False, warn_percent=80).not_yet() == []


def test_a_tenant_with_a_field_that_would_be_ignored_is_not_created() -> None:
    engine = open_engine("sqlite://", writer=True)
    create_tables(engine)
    event = {"t": "request.tenant", "request": "r1", "at": 1, "tenant": "acme", "policy": '{"strict": true, "weight": 2}'}
    with engine.begin() as connection:
        answer = decide(connection, [event], {})["r1"]
        assert answer["status"] == "invalid"
        assert answer["reason"] == "the field 'strict' of a policy is not yet supported; leave it out"
        assert policy_fields(connection) == {}


def test_what_acts_is_written_where_the_scripts_read_it() -> None:
    engine = open_engine("sqlite://", writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        create_tenant(connection, "acme", "Acme", Policy(weight=3, max_running_nodes=7), 1, actor="test")
        create_tenant(connection, "plain", "Plain", Policy(), 1, actor="test")
        written = policy_fields(connection)
    assert (written["acme"]["weight"], written["acme"]["max_running_nodes"]) == ("3", "7")
    assert (written["plain"]["weight"], written["plain"]["max_running_nodes"]) == ("1", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["enforcement=observe"], "the field 'enforcement' of a policy is not yet supported; leave it out"),
        (["wieght=3"], "a policy has no field 'wieght'; the nearest is 'weight'"),
        (["--limit-per-month", "3"], "No such option"),
    ],
)
def test_the_command_refuses_what_would_be_ignored(words: list[str], said: str) -> None:
    done = CliRunner().invoke(main, ["tenant", "create", "acme", *words])
    assert done.exit_code == 2
    assert said in done.stderr
