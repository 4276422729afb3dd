"""Dead letters sent again and dropped from the Queues page; beat and its entries on the page of schedules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from consoles import HEADGATE, answer, opened, post, told
from letterbox import dead_letters
from running import Running, until

from orchestrator.graph import Graph
from orchestrator.store import read
from tenancy.transport.letters import letters


@pytest.fixture
def dead(stack: Running) -> Iterator[list[str]]:
    """The tags of three dead letters."""
    with dead_letters(stack) as tags:
        yield tags


def test_dead_letters_are_sent_again_and_dropped_and_who_and_why_is_on_record(stack: Running, console: str, dead: list[str]) -> None:
    first, second, third = dead
    shown = {letter["tag"]: letter for letter in told(f"{console}/queues/data")["letters"]}
    assert shown.keys() >= set(dead)
    assert len(shown[first]["deaths"]) == 3
    assert post(f"{console}/queues/discard", {"tags": [first], "reason": "not wanted"}) == (200, {"said": "1 is forgotten"})
    assert post(f"{console}/queues/requeue", {"tags": [second], "reason": "it was the disk"}) == (200, {"said": "1 is back in line"})
    assert {letter["tag"] for letter in told(f"{console}/queues/data")["letters"]} & set(dead) == {third}
    status, said = post(f"{console}/queues/requeue", {"tags": [third, first], "reason": "again"})
    assert (status, "there is no dead letter" in said["error"]) == (404, True)
    assert third in {letter.tag for letter in letters(stack.client.kernel.link)}, "nothing is done where one is not there"
    lines = until(lambda: [line for line in read.audit(stack.client.engine) if line.reason in ("not wanted", "it was the disk")][1:])
    assert (lines[-1].action, lines[-1].actor) == ("letters.requeue", "console")


@pytest.mark.parametrize("tags", ["all", [], [1], ["x"] * 101, None])
def test_letters_that_are_not_named_are_refused_in_one_sentence(tags: Any, console: str) -> None:
    status, said = post(f"{console}/queues/discard", {"tags": tags})
    assert (status, said["error"]) == (400, "name 1 to 100 dead letters by their tags")


def test_nothing_is_done_to_letters_for_another_site_or_in_a_console_that_is_read_only(
    stack: Running, console: str, dead: list[str]
) -> None:
    url = f"{console}/queues/discard"
    assert post(url, {"tags": dead}, token=None)[0] == 403
    assert post(url, {"tags": dead}, Sec_Fetch_Site="cross-site")[0] == 403
    assert answer(url)[0] == 405
    with opened(stack.client.settings, [*HEADGATE, "--read-only"]) as closed:
        assert post(f"{closed}/queues/discard", {"tags": dead})[0] == 403
    assert {letter.tag for letter in letters(stack.client.kernel.link)} >= set(dead)


def test_each_entry_of_beat_says_when_it_was_carried_out_by_whom_and_what_came_of_it(stack: Running, console: str) -> None:
    def entries() -> dict[str, dict[str, Any]]:
        return {entry["name"]: entry for entry in told(f"{console}/schedules/data")["beat"]["entries"]}

    often = ("sweep", "cost-agent", "notify", "schedules", "logs")
    first = until(lambda: (found := entries()) and all(found[name]["last"] for name in often) and found, 60)
    assert first.keys() == stack.app.conf.beat_schedule.keys()
    assert first["sweep"]["last"]["ok"]
    assert first["sweep"]["every_s"] == stack.client.settings.sweep_interval_s
    assert "@" in first["sweep"]["last"]["worker"]
    beat = told(f"{console}/schedules/data")["beat"]
    assert f"gen{stack.stack.pids()['beat']}@" in first["sweep"]["last"]["beat"]
    assert first["sweep"]["last"]["beat"] in {each["name"] for each in beat["beats"]}
    until(lambda: entries()["sweep"]["last"]["at"] > first["sweep"]["last"]["at"], 60)
    # Governing a run that somebody asks for is no tick of beat's.
    before = entries()["cost-agent"]["last"]["beat"]
    run = stack.client.submit(Graph.parse({"name": "g", "nodes": [{"id": "n", "task": "synthetic.noop"}]})).wait(30)
    assert run.outcome == "succeeded"
    assert entries()["cost-agent"]["last"]["beat"] == before
