"""What usage costs: a versioned table of micros per unit, and the one place where fractions are rounded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from numbers import Integral, Real
from types import MappingProxyType
from typing import Final

from .money import MICROS_MAX, normalise_category, shown

MICROS: Final = "micros"
"""The unit that is money already: one of it costs one micro."""

WALL: Final = "wall_second"
"""The unit of elapsed time: measured everywhere, and free where a table has no price for it."""

VERSION_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
PRICES_MAX: Final = 1_000
"""Prices that one table may have."""

Quantity = int | float | Decimal

# Quantities are kept to 10^-12, so that the largest one and the smallest step fit with room for sums and prices.
_STEP: Final = Decimal("1E-12")
_PRICE = re.compile(r"[0-9]{1,16}(\.[0-9]{1,12})?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}/[A-Za-z0-9_.-]{1,64}", re.ASCII)
EXACT: Final = Context(prec=80)


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What one execution used of one unit; `quantity` is not rounded to micros yet."""

    category: str
    unit: str
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Micros per unit by (category, unit), and the version that every entry of the ledger carries."""

    version: str
    prices: Mapping[tuple[str, str], Decimal]

    def __post_init__(self) -> None:
        if not self.version:
            raise ValueError("a price table needs a version")
        for (category, unit), micros in self.prices.items():
            if not micros.is_finite() or not 0 <= micros <= MICROS_MAX:
                raise ValueError(f"the price of {category}/{unit} must be a finite Decimal from 0 to 2^53-1 micros")
        if ("compute", "second") not in self.prices:
            raise ValueError(f"price table {self.version} needs compute/second, which every node is charged for")
        object.__setattr__(self, "prices", MappingProxyType(dict(self.prices)))

    @classmethod
    def of(cls, version: object, prices: object) -> PriceTable:
        """Return the table of prices in micros as people write them: `{"llm/token": "20"}`.

        A price is a text of digits with at most twelve decimals, so that it is the number that was written; a number of JSON or TOML
        may have been a float on the way. A version has 1 to 64 letters, digits, `.`, `_` and `-`. At most 1,000 prices.
        Raises ValueError with one sentence.
        """
        if not isinstance(version, str) or not re.fullmatch(VERSION_PATTERN, version):
            raise ValueError(f"the version of a price table is 1 to 64 letters, digits, '.', '_' and '-', not {shown(version)}")
        if not isinstance(prices, Mapping) or not 0 < len(prices) <= PRICES_MAX:
            raise ValueError(f'the prices of table {version} are 1 to {PRICES_MAX} of "category/unit": "micros"')
        read: dict[tuple[str, str], Decimal] = {}
        for name, micros in prices.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ValueError(f"{shown(name)} is not category/unit, such as llm/token")
            category, _, unit = name.partition("/")
            if unit == MICROS:
                raise ValueError(f"{name} has no price: {MICROS} are money already")
            if not isinstance(micros, str) or not _PRICE.fullmatch(micros):
                raise ValueError(
                    f'the price of {name} is a text of digits with at most twelve decimals, such as "0.002", not {shown(micros)}'
                )
            read[category, unit] = Decimal(micros)
        return cls(version, read)

    def texts(self) -> dict[str, str]:
        """Return the prices as `of` takes them, sorted; equal tables give equal texts."""
        return {f"{category}/{unit}": _plain(micros) for (category, unit), micros in sorted(self.prices.items())}

    def price(self, category: str, quantity: Quantity, unit: str) -> Decimal:
        """Return what `quantity` of `unit` costs, in micros, exactly.

        The unit "micros" books the quantity itself. Raises ValueError for a quantity out of range, or for a unit
        without a price in this table.
        """
        return EXACT.multiply(check_quantity(quantity), self._per_unit(category, unit))

    def _per_unit(self, category: str, unit: str) -> Decimal:
        if unit == MICROS:
            return Decimal(1)
        # An unknown category is booked as "other", but a table may still have a price for it under its own name.
        for name in (category, normalise_category(category)[0]):
            if (name, unit) in self.prices:
                return self.prices[name, unit]
        if unit == WALL:
            return Decimal(0)
        known = ", ".join(sorted(f"{c}/{u}" for c, u in self.prices))
        raise ValueError(f"price table {self.version} has no price for {category}/{unit}; it has {known}, and {MICROS}")


def check_quantity(value: object) -> Decimal:
    """Return `value`, a finite number from 0 to 2^53-1, as a Decimal, to the nearest 10^-12.

    Floats are taken as they print, since quantities (CPU seconds) are measured and money is not involved yet.
    Raises ValueError for NaN, infinities, negative or larger numbers, and for anything that is no number.
    """
    if isinstance(value, Decimal):
        exact = value
    elif isinstance(value, bool):
        exact = Decimal("NaN")
    elif isinstance(value, Integral):
        exact = Decimal(int(value)) if 0 <= int(value) <= MICROS_MAX else Decimal("NaN")
    elif isinstance(value, Real) and math.isfinite(value):
        exact = Decimal(repr(float(value)))
    else:
        exact = Decimal("NaN")
    if not exact.is_finite() or not 0 <= exact <= MICROS_MAX:
        raise ValueError("a quantity must be a finite number from 0 to 2^53-1")
    return exact.quantize(_STEP, rounding=ROUND_HALF_EVEN, context=EXACT).copy_abs()


def settle_micros(lines: Iterable[UsageLine], table: PriceTable) -> dict[str, int]:
    """Return the micros to settle by category: each line priced exactly, then rounded once, half-even.

    A category may be 0; categories without a line are absent. Raises ValueError where `price` does.
    """
    return _rounded(lines, table, ROUND_HALF_EVEN)


def reserve_micros(lines: Iterable[UsageLine], table: PriceTable) -> dict[str, int]:
    """Return the micros to reserve by category: as `settle_micros`, each line rounded up."""
    return _rounded(lines, table, ROUND_CEILING)


def _rounded(lines: Iterable[UsageLine], table: PriceTable, rounding: str) -> dict[str, int]:
    amounts: dict[str, int] = {}
    for line in lines:
        exact = table.price(line.category, line.quantity, line.unit)
        category, _ = normalise_category(line.category)
        amounts[category] = amounts.get(category, 0) + int(exact.to_integral_value(rounding=rounding, context=EXACT))
    return amounts


LINES_CHARS_MAX: Final = 4_000
"""The longest text of usage that goes on record; an execution with more units than fit cannot be repriced."""


def write_lines(lines: Iterable[UsageLine]) -> str:
    """Return usage as it goes on record: JSON of [category, unit, quantity as text], without zeroes; '' for more than 4,000 characters."""
    rows = [[line.category, line.unit, _plain(line.quantity)] for line in lines if line.quantity]
    text = json.dumps(rows, separators=(",", ":"))
    return text if len(text) <= LINES_CHARS_MAX else ""


def read_lines(text: str) -> list[UsageLine]:
    """Return what `write_lines` wrote. Raises ValueError for anything else."""
    try:
        return [UsageLine(str(category), str(unit), check_quantity(Decimal(quantity))) for category, unit, quantity in json.loads(text)]
    except (TypeError, ArithmeticError) as error:
        raise ValueError(f"{shown(text)} is no usage by unit") from error


def _plain(micros: Decimal) -> str:
    text = format(micros, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


DEFAULT_PRICES: Final = PriceTable.of(
    "1",
    {
        "llm/token": "20",
        "compute/second": "1000",  # of CPU; every node is charged for what it used
        "compute/wall_second": "0",  # waiting is recorded, and free unless a table says otherwise
        "storage/byte": "0.002",
        "storage/character": "0.002",
        "retrieval/query": "50",
        "retrieval/rerank": "10",  # one passage compared with one question
        "retrieval/vector": "20",
        "retrieval/sparse_vector": "2",
    },
)
"""The prices of a tenant that has none of its own."""
