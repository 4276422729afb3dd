"""A policy promises only what acts, and a change of it says what was before."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from tenancy.policy import ACTS, Policy

IGNORED = {
    "share_learning": True,
}


def test_every_field_either_acts_or_is_refused() -> None:
    assert sorted([*ACTS, *IGNORED]) == sorted(Policy.model_fields)
    for name, value in IGNORED.items():
        assert Policy(**{name: value}).not_yet() == [f"the field {name!r} of a policy is not yet supported; leave it out"]
        with pytest.raises(ValueError, match=f"{name!r} of a policy is not yet supported"):
            Policy().evolve({name: value})
    assert Policy(weight=3, max_running_nodes=2, max_concurrent_runs=1, limit_per_day_micros=0).not_yet() == []
    assert Policy(strict=False, warn_percent=70).not_yet() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wieght": 3}, "a policy has no field 'wieght'; the nearest is 'weight'"),
        ({"weight": 0}, "weight: Input should be greater than or equal to 1"),
        ({"weight": 2.0}, "weight: Input should be a valid integer"),
        ({"weight": None}, "weight: Input should be a valid integer"),
        ({"limit_per_day_micros": 2**53}, "limit_per_day_micros: Input should be less than or equal to 9007199254740991"),
        ({"submissions_per_minute": 0}, "submissions_per_minute: Input should be greater than or equal to 1"),
        ({"max_waiting_runs": -1}, "max_waiting_runs: Input should be greater than or equal to 0"),
        ({"warn_percent": 90}, "critical_percent: levels must rise, and 90 is not above warn_percent, which is 90"),
        ({"exceeded_percent": 85}, "exceeded_percent: levels must rise, and 85 is not above critical_percent, which is 90"),
        ({"warn_percent": 0}, "warn_percent: Input should be greater than or equal to 1"),
        ({"on_warning": "explode"}, "on_warning: Input should be 'notify', 'hold', 'suspend' or 'suspend_now'"),
        ({"webhook": "ftp://example.org"}, "webhook: write it as http://host/path or https://host/path"),
        ({"webhook": "https://"}, "webhook: write it as http://host/path or https://host/path"),
        ({"webhook": "http://[broken"}, "webhook: write it as http://host/path or https://host/path"),
        ({"webhook": "http://host/a b"}, "webhook: write it as http://host/path or https://host/path"),
        ({"webhook": "http://host/a\r\nX: y"}, "webhook: write it as http://host/path or https://host/path"),
        ({"webhook": "http://host:99999/"}, "webhook: write it as http://host/path or https://host/path"),
        ({"webhook": "https://me:secret@host/"}, "webhook: leave user and password out: what is sent is signed"),
        ({"pool": "a|b"}, "pool: String should match pattern"),
        ({"pool": "gpu\n"}, "pool: String should match pattern"),
        ({"default_priority": "URGENT"}, "default_priority: Input should be 'CRITICAL', 'HIGH', 'NORMAL', 'LOW' or 'BATCH'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_the_name_of_its_field(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        Policy().evolve(changes)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_a_change_says_what_was_before_and_null_clears_what_may_be_empty() -> None:
    pinned = Policy(pool="gpu", weight=2, max_running_nodes=3)
    freed = pinned.evolve({"pool": None, "max_running_nodes": None, "weight": 2})
    assert pinned.differs(freed) == {"max_running_nodes": (3, None), "pool": ("gpu", None)}
    assert freed.differs(freed.evolve({})) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["share_learning=true"], "the field 'share_learning' of a policy is not yet supported; leave it out"),
        (["wieght=3"], "a policy has no field 'wieght'; the nearest is 'weight'"),
        (["--limit-per-month", "3"], "No such option"),
    ],
)
@pytest.mark.parametrize("verb", ["create", "set"])
def test_the_command_refuses_what_would_be_ignored(verb: str, words: list[str], said: str) -> None:
    done = CliRunner().invoke(main, ["tenant", verb, "acme", *words])
    assert done.exit_code == 2
    assert said in done.stderr
