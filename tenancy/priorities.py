"""The five priorities of work inside one tenant."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """Order of work inside one tenant; the lower number goes first."""

    CRITICAL = 1
    HIGH = 3
    NORMAL = 5
    LOW = 7
    BATCH = 9

    @classmethod
    def parse(cls, value: object) -> Priority:
        """Return the priority named or numbered by `value`; whatever is unknown is NORMAL."""
        if isinstance(value, str) and value.upper() in cls.__members__:
            return cls[value.upper()]
        if isinstance(value, int) and not isinstance(value, bool) and value in cls._value2member_map_:
            return cls(value)
        return cls.NORMAL
