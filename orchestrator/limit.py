"""A limit by key: how much of something scarce, such as an API, all the tasks that use it may take together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tenancy.errors import GraphInvalid

from .graph.wording import shown

Per = Literal["fleet", "tenant"]

LIMIT_MAX = 1_000_000
"""Of `at_once` and of `per_minute`."""

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Limit:
    """What the tasks that declare it may do together, wherever they run; what is over it waits in line and takes no worker.

    key: names what is scarce, such as "openai". at_once: how many may run at a time, 1 to 1,000,000. per_minute: how many may start in
    a minute, 1 to 1,000,000, evenly spread after a first tenth of them. per: "fleet", one limit for everybody, or "tenant", one for
    each. Raises GraphInvalid where one of these is wrong, or neither number is given.
    """

    key: str
    at_once: int | None = None
    per_minute: int | None = None
    per: Per = "fleet"

    def __post_init__(self) -> None:
        if problems := tuple(self._problems()):
            raise GraphInvalid(problems)

    def __str__(self) -> str:
        numbers = {"at_once": self.at_once, "per_minute": self.per_minute}
        return ", ".join([*(f"{name}={number}" for name, number in numbers.items() if number is not None), f"per {self.per}"])

    def _problems(self) -> Iterable[str]:
        key: object = self.key
        label = f"limit {shown(key)}"
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            yield f"{label}: `key` is {shown(key)}; use 1 to 100 letters, digits, '_', '.' or '-', not starting with '.' or '-'"
        numbers: dict[str, object] = {"at_once": self.at_once, "per_minute": self.per_minute}
        for name, number in numbers.items():
            if number is not None and (type(number) is not int or not 1 <= number <= LIMIT_MAX):
                yield f"{label}: `{name}` is {shown(number)}; give a whole number from 1 to {LIMIT_MAX}"
        if self.at_once is None and self.per_minute is None:
            yield f"{label}: it limits nothing; give at_once, per_minute or both"
        if self.per not in get_args(Per):
            yield f"{label}: `per` is {shown(self.per)}; use fleet or tenant"

    def document(self) -> dict[str, Any]:
        """Return the limit as the queue keeps it."""
        said = {"key": self.key, "at_once": self.at_once, "rate": self.per_minute, "per": self.per if self.per == "tenant" else None}
        return {name: value for name, value in said.items() if value is not None}


def problems_of(limits: object) -> list[str]:
    """Return what is wrong with the limits that a task was given, one sentence each."""
    if not isinstance(limits, (tuple, list)) or not all(isinstance(limit, Limit) for limit in limits):
        return ["`limits` takes a tuple of Limit, such as (Limit('openai', at_once=8),)"]
    keys = [limit.key for limit in limits]
    return [f"the limit {key!r} is given {keys.count(key)} times; keep one" for key in dict.fromkeys(keys) if keys.count(key) > 1]
