"""Sums of amounts: whole numbers on every database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast, func


def total(column: Any) -> ColumnElement[int]:
    """Return the sum of a column of whole numbers as one, less than 2^63; PostgreSQL's own is a decimal, which JSON does not know."""
    return cast(func.sum(column), BigInteger)
