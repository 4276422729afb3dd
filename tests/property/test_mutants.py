"""Mistakes that could be made in the money are noticed: each mutant of the scripts, and of a rebuild, is caught."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from clock import moved_clock
from ledger_pair import TENANT, Pair

from orchestrator.embedded import RedisServer
from orchestrator.rebuild import Keys, tenant_keys
from orchestrator.recovery import _Guarded
from tenancy import keys as names
from tenancy import link as link_module
from tenancy import lua
from tenancy.link import Link

pytestmark = pytest.mark.property

SEEDS = 25
STEPS = 50

MUTANTS = {
    "a settlement that comes twice is charged twice": ("if r.state == 'settled' or r.state == 'waste' then", "if false then"),
    "a reservation is settled and never released": ("count_reserved(purse, part.day, -part.amount)", ""),
    "what exceeds the room is not looked at": ("if excess > free - short then", "if false then"),
    "what exceeds the run's own limit is not looked at": ("if excess > math.max(0, budget - promised) - short then", "if false then"),
    "what is settled can be void afterwards": ("if r.state ~= 'open' then return 'conflict' end", ""),
    "what is not spent never returns to the hold": ("elseif unfinished then to_hold = aside - total end", "end"),
    "a cost beyond the reservation is not paid by the hold": ("to_hold = -math.min(total - aside, purse.hold)", "to_hold = 0"),
    "the month is forgotten": (
        "return {book_of(tenant, int(day)), book_of(tenant, 'm' .. month_of(day))}",
        "return {book_of(tenant, int(day))}",
    ),
    "the limit of the month is not looked at": ("if most - exposed < limit - exposure then", "if false then"),
    "the hold is given to whoever comes first": ("math.max(0, purse.hold - needed))", "purse.hold)"),
    "a node that starts is still needed": ("purse.needed - (floor or 0)", "purse.needed"),
    "a node that is tried again is not needed": ("if answer == 'settled' then need_again(node, attempt) end", ""),
    "a node whose worker died is not needed": ("count_needed(need_of(node, ctl_of(node)))\n  return redis", "return redis"),
    "exposure forgets what was reserved yesterday": ("local promised = (row[3] or 0) + (row[4] or 0)", "local promised = row[3] or 0"),
    "an extension is booked on the day of its reservation": ("if last.day == DAY then", "if true then"),
    "an extension takes no money": ("count_reserved(purse, DAY, more)", ""),
    "a cost over midnight is booked on one day": ("or rest\n      if fits", "or rest\n      fits = rest\n      if fits"),
    "what a void execution spends is settled as if it were open": ("local waste = r.state ~= 'open'", "local waste = false"),
    "the end of a run keeps its hold": ("count_held(purse, -hold)", ""),
    "what is settled is written before it is charged": ("  put_back(rg, purse)\n  r.state, r.actual", "  r.state, r.actual"),
    "a run is held beyond the room": ("hold = math.min(hold, (room(tenant)))", ""),
}
"""What is wrong, the text of the scripts and what stands there instead."""


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    server = RedisServer(tmp_path_factory.mktemp("mutants"))
    server.start()
    with moved_clock():
        link = Link(server.client_url)
        yield link
        link.close()
    server.stop()


@contextmanager
def mutated(old: str, new: str) -> Iterator[list[str]]:
    """Inside the block every script that has `old` has `new` instead; yields the names of those that were called."""
    plain: Callable[[str], lua.Script] = link_module.load
    hit: list[str] = []

    def load(name: str) -> lua.Script:
        text = plain(name).text
        if old in text:
            hit.append(name)
            text = text.replace(old, new)
        return lua.Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    link_module.load = load  # type: ignore[assignment]
    try:
        yield hit
    finally:
        link_module.load = plain


def caught(link: Link, seed: int) -> bool:
    try:
        Pair(link, seed).drive(STEPS)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("wrong", MUTANTS)
def test_a_mutant_of_the_scripts_is_caught(link: Link, wrong: str) -> None:
    with mutated(*MUTANTS[wrong]) as hit:
        found = any(caught(link, seed) for seed in range(SEEDS))
    assert hit, "no script has the text that this mutant changes"
    assert found, f"nobody noticed that {wrong}"


def rebuilt_twice(link: Link, write: Callable[[_Guarded, Keys], None]) -> dict[str, Any]:
    """A recovery that died after it had written, and is done again: the tenant's day as it is then."""
    link.client.flushall()
    link.client.hset(names.EPOCH, "rebuild", "ours")
    charged = [{"tenant": TENANT, "day": 20_000, "kind": "settle", "category": "llm", "amount": 30}]
    keys = tenant_keys({TENANT: {"limit_day": "100"}}, [], charged)
    for _ in range(2):
        write(_Guarded(link.client, "ours", lambda: None), keys)
    return dict(link.client.hgetall(f"hg1:spent:{TENANT}:20000"))  # type: ignore[arg-type]


def test_a_rebuild_that_adds_instead_of_setting_is_caught(link: Link) -> None:
    def add(writer: _Guarded, keys: Keys) -> None:
        for key, fields in keys.hashes.items():
            for name, value in fields.items():
                if name not in ("limit_day",):
                    writer.run(lambda pipe, key=key, name=name, value=value: pipe.hincrby(key, name, int(value)))  # type: ignore[misc]

    right = {"settled": "30", "reserved": "0", "waste": "0", "c:llm": "30"}
    assert rebuilt_twice(link, _Guarded.write) == right
    assert rebuilt_twice(link, add) != right


def test_what_is_not_mutated_is_not_caught(link: Link) -> None:
    assert not any(caught(link, seed) for seed in range(SEEDS))
