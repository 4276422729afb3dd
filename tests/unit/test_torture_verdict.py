"""The verdict over a torture: what each promise's breach looks like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.torture.verdict import Evidence, Execution, Kill, read, times, violations

FIRST = Execution("m1", "host.10.aa", "t1", 1, 11, began=1_000)
SECOND = Execution("m1", "host.20.bb", "t1", 2, 21, began=6_000, ended=6_100)
GROUP = Kill("group", 1_500, 10, "w1")
GOOD = Evidence(
    published=frozenset({"m1"}),
    nodes={},
    executions=[FIRST, SECOND],
    kills=[GROUP],
    deaths={"host.10.aa": 5_400},
    retired={},
    letters={},
    leftovers={},
    two_owners=[],
)


def test_a_killed_execution_that_ran_again_is_as_promised() -> None:
    assert violations(GOOD) == []
    assert times(GOOD) == {"back": [3_900], "group": [4_500], "child": []}


def test_a_child_that_was_killed_is_timed_by_itself() -> None:
    seen = replace(GOOD, kills=[Kill("child", 1_500, 11, "w1")], deaths={})
    assert violations(seen) == []
    assert times(seen)["child"] == [4_500]


def test_a_worker_killed_after_its_child_did_not_end_the_child_once_more() -> None:
    seen = replace(GOOD, kills=[replace(GROUP, at=5_200), Kill("child", 1_500, 11, "w1")])
    assert times(seen) == {"back": [200], "group": [], "child": [4_500]}


LETTER = {"reason": "three workers died", "deaths": [{"inc": "host.10.aa"}] * 2}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"published": frozenset({"m1", "m2"})}, "lost"),
        ({"executions": [FIRST]}, "lost"),
        ({"kills": []}, "unexplained"),
        ({"executions": [replace(FIRST, ended=6_050), SECOND], "deaths": {}, "kills": []}, "two owners"),
        ({"two_owners": ["t1"]}, "two owners"),
        ({"leftovers": {"hg1:held:tenant:acme": 1}}, "left over"),
        ({"letters": {"m1": LETTER}}, "poison"),
        ({"nodes": {"r.n": "failed"}}, "poison"),
        ({"nodes": {"r.n": ""}}, "lost"),
        ({"nodes": {"r.n": "succeeded"}}, "lost"),
    ],
)
def test_each_breach_is_named(changes: dict[str, Any], word: str) -> None:
    broken = replace(GOOD, **changes)
    if not broken.deaths or "kills" in changes:
        broken = replace(broken, deaths={})
    assert [sentence.partition(":")[0] for sentence in violations(broken)] == [word]


def test_an_execution_that_went_on_after_its_worker_was_declared_dead_is_fenced_and_no_breach() -> None:
    assert violations(replace(GOOD, executions=[replace(FIRST, ended=6_050), SECOND], kills=[])) == []


def test_a_worker_that_was_declared_dead_may_begin_late_what_it_holds_no_more() -> None:
    late = replace(FIRST, began=6_050, ended=6_400)
    assert violations(replace(GOOD, executions=[SECOND, late], kills=[])) == []
    assert [each.partition(":")[0] for each in violations(replace(GOOD, executions=[SECOND, late], kills=[], deaths={}))] == ["two owners"]


def test_a_worker_that_gave_back_what_it_still_ran_is_a_breach_and_the_sentence_says_so() -> None:
    (sentence,) = violations(
        replace(GOOD, executions=[replace(FIRST, ended=6_050), SECOND], kills=[], deaths={}, retired={"host.10.aa": 5_900})
    )
    assert sentence.endswith(
        "50 ms before it had ended by host.10.aa, 5000 ms after it had begun there; that worker retired -100 ms after the second began"
    )


def test_a_letter_with_three_real_deaths_is_right() -> None:
    letter = {"reason": "three workers died", "deaths": [{"inc": "host.10.aa"}] * 3}
    assert violations(replace(GOOD, letters={"m1": letter})) == []


def test_lines_become_executions_and_one_without_an_end_was_killed() -> None:
    line = {"id": "m1", "inc": "host.10.aa", "tag": "t1", "number": 1, "pid": 11}
    lines = [{"what": "began", "at": 5, **line}, {"what": "began", "at": 1, **line, "id": "m0"}, {"what": "ended", "at": 7, **line}]
    assert [(each.id, each.began, each.ended) for each in read(lines)] == [("m0", 1, None), ("m1", 5, 7)]
