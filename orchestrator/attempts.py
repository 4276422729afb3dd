"""What a task raises to say whether another attempt makes sense."""

from __future__ import annotations

from typing import Final

from tenancy.errors import HeadgateError

AFTER_MAX_S: Final = 7 * 86_400
"""The longest that a task may ask to wait for its next attempt."""


class Retryable(HeadgateError):
    """The attempt failed, and another one may succeed: the node is tried again while it has attempts left.

    message: what went wrong. after_s: seconds until the next attempt, 0 to 604800; None is the usual delay, which grows with each failure.
    Raises ValueError for a delay out of range.
    """

    def __init__(self, message: str = "", after_s: float | None = None) -> None:
        if after_s is not None and not 0 <= after_s <= AFTER_MAX_S:
            raise ValueError(f"after_s is {after_s}; give seconds from 0 to {AFTER_MAX_S}, or None")
        super().__init__(message)
        self.after_s = after_s

    def __reduce__(self) -> tuple[type[Retryable], tuple[str, float | None]]:
        return type(self), (str(self), self.after_s)


class Fatal(HeadgateError):
    """The attempt failed, and no other one will succeed: the node fails at once, whatever attempts it has left."""
