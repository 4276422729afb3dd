"""The scripts of money by themselves: the calendar, amounts that are none, categories."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest
import redis
from redis.exceptions import ResponseError

from cost.period import day_of, first_of_month_before, month_ends_ms, month_of, name_of
from orchestrator.embedded import RedisServer
from tenancy import lua

FIRST, LAST = date(1970, 1, 1), date(2100, 12, 31)
MOST = 2**53 - 1


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    server = RedisServer(tmp_path_factory.mktemp("scripts"))
    server.start()
    with redis.Redis.from_url(server.client_url, decode_responses=True) as connection:
        yield connection
    server.stop()


def test_the_scripts_know_the_month_of_each_day_until_2100(client: redis.Redis) -> None:
    days = (LAST - FIRST).days
    ask = f"local found = {{}} for day = 0, {days} do found[day + 1] = {{month_of(day), next_month(day)}} end return found"
    found = client.eval(lua.load("cost/period").text + ask, 0)
    assert isinstance(found, list)
    start = FIRST.toordinal()
    for day, (month, next_month) in enumerate(found):
        told = date.fromordinal(start + day)
        assert month == told.year * 100 + told.month == month_of(day), told
        after = date(told.year + told.month // 12, told.month % 12 + 1, 1)
        assert next_month == after.toordinal() - start == month_ends_ms(day) // 86_400_000, told
    assert len(found) == days + 1


def test_days_have_names_and_rebuilt_months_are_whole() -> None:
    leap = day_of(1_709_164_800_000)
    assert (name_of(leap), month_of(leap)) == ("2024-02-29", 202402)
    assert name_of(first_of_month_before(leap)) == "2024-01-01"
    assert name_of(first_of_month_before(leap - 59)) == "2023-12-01"


def cats(client: redis.Redis, text: str) -> list[str]:
    """What the scripts read of a usage: its text, sorted, and its sum."""
    body = lua.load("cost/ledger").text + "local _, total, written = read_cats(ARGV[1]) return {written, int(total)}"
    head = "local NOW = 0 local function int(n) return string.format('%.0f', n + 0) end local function emit() end\n"
    found = client.eval(head + body, 0, text)
    assert isinstance(found, list)
    return [str(part) for part in found]


@pytest.mark.parametrize("amount", ["0x10", "1e3", "nan", "inf", "-1", "+1", " 1", "1.5", "", str(MOST + 1), "9" * 5_000])
def test_what_is_no_amount_is_refused_in_the_script(client: redis.Redis, amount: str) -> None:
    with pytest.raises(ResponseError, match="AMOUNT"):
        cats(client, f"llm={amount}")


@pytest.mark.parametrize("text", ["llm", "=1", "llm=1,llm=2", f"llm={MOST},compute=1"])
def test_what_is_no_usage_is_refused_in_the_script(client: redis.Redis, text: str) -> None:
    with pytest.raises(ResponseError, match="AMOUNT"):
        cats(client, text)


def test_usage_is_read_by_known_categories_in_one_order(client: redis.Redis) -> None:
    assert cats(client, "llm=30,compute=12") == cats(client, "compute=12,llm=30,storage=0") == ["compute=12,llm=30", "42"]
    assert cats(client, "gpu=5,other=1") == ["other=6", "6"]
    assert cats(client, "") == ["", "0"]
    assert cats(client, f"llm={MOST}") == [f"llm={MOST}", str(MOST)]
