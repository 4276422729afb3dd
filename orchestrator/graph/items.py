"""The item in params: `{"$item": true}`, for which each node of a map has its own value."""

from __future__ import annotations

from typing import Any, Final

KEY: Final = "$item"


def is_item(value: Any) -> bool:
    """Say whether a value stands for the item."""
    return isinstance(value, dict) and KEY in value


def takes_item(value: Any) -> bool:
    """Say whether the item stands anywhere inside a value."""
    if isinstance(value, dict):
        return KEY in value or any(takes_item(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(takes_item(item) for item in value)
