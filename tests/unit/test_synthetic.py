from __future__ import annotations

import time

import pytest

from cost.meter import Execution, metering
from tasks.synthetic import burn, emit, fail, noop, sleep, spend

pytestmark = pytest.mark.unit


def attempt(number: int) -> Execution:
    return Execution("01hq0000000000000000000000", 1, "node", number, "acme")


def test_a_noop_takes_any_inputs_and_charges_nothing() -> None:
    with metering(attempt(1)) as usage:
        noop([1, None, {"a": 2}])
    assert usage.by_category() == {}


def test_sleep_waits_without_a_cpu_and_burn_uses_one() -> None:
    wall, cpu = time.monotonic(), time.thread_time()
    sleep(0.05)
    assert time.monotonic() - wall >= 0.05
    assert time.thread_time() - cpu < 0.04
    burn(0.05)
    assert time.thread_time() - cpu >= 0.05


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 100_000])
def test_senseless_durations_are_refused(seconds: float) -> None:
    for task in (sleep, burn):
        with pytest.raises(ValueError, match="seconds must be"):
            task(seconds)


def test_fail_fails_as_often_as_asked_and_then_succeeds() -> None:
    for number in (1, 2):
        with metering(attempt(number)), pytest.raises(RuntimeError, match=f"attempt {number} fails"):
            fail(times=2)
    with metering(attempt(3)):
        assert fail(times=2) == 3


def test_spend_charges_what_it_is_told() -> None:
    with metering(attempt(1)) as usage:
        assert spend("llm", 700) == 700
    assert usage.by_category() == {"llm": 700}


def test_emit_returns_so_many_bytes() -> None:
    assert len(emit(bytes=1000).encode()) == 1000
    with pytest.raises(ValueError, match="bytes must be"):
        emit(bytes=-1)
