"""Amounts of money: whole micro-units from 0 to 2^53-1, parsed from and shown as decimal units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

MICROS_PER_UNIT: Final = 1_000_000

# Amounts pass through Lua and JSON, whose numbers are doubles: above this, neighbours are equal there.
MICROS_MAX: Final = 2**53 - 1

CATEGORIES: Final = ("llm", "retrieval", "storage", "compute", "other")

_UNITS = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,6}))?", re.ASCII)


def shown(value: object) -> str:
    """Return a value as a message shows it, at most 40 characters."""
    # A hostile amount may have thousands of digits, and repr() of a huge int raises: never echo it whole.
    if isinstance(value, int) and not isinstance(value, bool):
        return f"an integer of {value.bit_length()} bits" if value.bit_length() > 128 else repr(value)
    text = repr(value[:60]) if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def check_micros(value: object, name: str = "amount") -> int:
    """Return `value` if it is an amount in micros: an int from 0 to 2^53-1.

    `name` is what the error calls it. Raises ValueError for anything else, also for floats, booleans and strings.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number of micros, not {shown(value)}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, and is {shown(value)}")
    if value > MICROS_MAX:
        raise ValueError(f"{name} must be at most {MICROS_MAX} micros, and is {shown(value)}")
    return int(value)


def parse_units(text: str | Decimal) -> int:
    """Return the micros of an amount that a person typed in units: "0.06" is 60,000.

    Digits with at most six decimals, nothing else: no sign, exponent, separator or blank. A float is refused
    because it is not the amount that was typed, and an int because it could be meant as micros.
    Raises ValueError naming the value.
    """
    if isinstance(text, Decimal):
        text = _plain(text)
    if not isinstance(text, str):
        raise ValueError(f'an amount in units is a text such as "0.06", not {shown(text)}')
    match = _UNITS.fullmatch(text)
    if match is None:
        raise ValueError(f'{shown(text)} is not an amount in units: write digits with at most six decimals, such as "0.06"')
    whole, decimals = match.group(1), match.group(2) or ""
    return check_micros(int(whole) * MICROS_PER_UNIT + int(decimals.ljust(6, "0")), "amount")


def _plain(value: Decimal) -> str:
    # Fixed notation of Decimal("1E+999999") would fill the memory, so look at the exponent first.
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or not -6 <= exponent <= 0:
        raise ValueError(f"{shown(value)} is not an amount in units: digits with at most six decimals, no exponent")
    return format(value, "f")


def format_units(micros: int, decimals_min: int = 0) -> str:
    """Return `micros` in units with as many decimals as it needs, at least `decimals_min` (0..6): 60,000 is "0.06"."""
    whole, rest = divmod(check_micros(micros), MICROS_PER_UNIT)
    decimals = f"{rest:06d}".rstrip("0").ljust(decimals_min, "0")
    return f"{whole}.{decimals}" if decimals else str(whole)


def normalise_category(name: str) -> tuple[str, bool]:
    """Return the category that `name` is booked under, and whether that deserves a warning (unknown: "other")."""
    return (name, False) if name in CATEGORIES else ("other", True)


def write_cats(micros: Mapping[str, int]) -> str:
    """Return amounts by category as the scripts read them, `compute=12,llm=30000`: sorted, without zeroes."""
    return ",".join(f"{category}={amount}" for category, amount in sorted(micros.items()) if amount)


def split_largest_remainder(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Split `total` in proportion to `weights` so that the parts add up exactly (largest remainder method).

    Ties go to the key that sorts first; if every weight is 0 the parts are as equal as can be.
    Raises ValueError for no weights, or for an amount out of range.
    """
    check_micros(total, "total")
    if not weights:
        raise ValueError("there is nothing to split over")
    parts = {key: check_micros(weight, f"weight of {key}") for key, weight in weights.items()}
    whole = sum(parts.values())
    if whole == 0:
        parts, whole = dict.fromkeys(parts, 1), len(parts)
    shares = {key: total * weight // whole for key, weight in parts.items()}
    by_remainder = sorted(parts, key=lambda key: (-(total * parts[key] % whole), key))
    for key in by_remainder[: total - sum(shares.values())]:
        shares[key] += 1
    return shares
