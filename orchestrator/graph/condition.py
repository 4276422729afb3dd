"""The condition of a node: it runs only if the result of another node is, or is not, one of a few plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

VALUES_MAX: Final = 100
"""Values that `in` may list."""

TEXT_MAX: Final = 1_000
"""Characters of a text that a result is compared with."""

_SAID_MAX: Final = 60
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1

Operator = Literal["equals", "not_equals", "in"]
Scalar = str | int | float | bool | None

OPERATORS: Final[tuple[Operator, ...]] = ("equals", "not_equals", "in")


@dataclass(frozen=True, slots=True)
class Condition:
    """`{"$ref": node, "equals": value}`, or with `not_equals`, or with `in` and a list of values.

    A node whose condition does not hold is not taken; nor is one whose `ref` ended without a result. values: texts of at most 1,000
    characters, finite numbers, true, false or null; one for equals and not_equals, 1 to 100 for in. Numbers are equal whether or not they
    are written with a point; true is not 1.
    """

    ref: str
    operator: Operator
    values: tuple[Scalar, ...]

    @classmethod
    def of(cls, said: object) -> Condition:
        """Return the condition that `said`, an object as in JSON, states. Raises ValueError where it states none."""
        if isinstance(said, Condition):
            return said
        if not isinstance(said, Mapping) or len(said) != 2 or not isinstance(said.get("$ref"), str):
            raise ValueError("not a condition")
        operator = next((name for name in OPERATORS if name in said), None)
        if operator is None:
            raise ValueError("no comparison")
        given = said[operator]
        values = given if operator == "in" else [given]
        if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= VALUES_MAX or not all(map(_is_scalar, values)):
            raise ValueError("nothing to compare with")
        return cls(str(said["$ref"]), operator, tuple(values))

    def spec(self) -> dict[str, Any]:
        """Return the condition as JSON has it."""
        return {"$ref": self.ref, self.operator: list(self.values) if self.operator == "in" else self.values[0]}

    def document(self) -> dict[str, Any]:
        """Return what state compares: `ref`, the JSON `texts` of the values, `unless` for not_equals, and `why` it did not hold."""
        texts = list(dict.fromkeys(text for value in self.values for text in _texts(value)))
        said = ", ".join(_said(value) for value in self.values[:3]) + (", ..." if len(self.values) > 3 else "")
        verb = {"equals": "is not", "not_equals": "is", "in": "is none of"}[self.operator]
        found: dict[str, Any] = {"ref": self.ref, "texts": texts, "why": f"{self.ref} {verb} {said}"}
        return found | {"unless": True} if self.operator == "not_equals" else found


def holds(document: Mapping[str, Any], text: str | None) -> bool:
    """Say whether the condition in `document` holds for a result's inline JSON text; None is no result. The twin of the script's."""
    return text is not None and (text in document["texts"]) != bool(document.get("unless"))


def _is_scalar(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= TEXT_MAX and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, float):
        return value - value == 0  # neither infinite nor NaN
    return value is None or isinstance(value, bool) or (type(value) is int and _INT_MIN <= value <= _INT_MAX)


def _texts(value: Scalar) -> list[str]:
    """The texts that results have, as `ResultStore.encode` writes them."""
    values: list[Scalar] = [value]
    if type(value) in (int, float):
        number = cast("float", value)
        other = float(number) if type(number) is int else int(number) if number.is_integer() else number
        values += [other] if other == number else []
        values += [-0.0, 0] if number == 0 else []
    return [json.dumps(each) for each in values]


def _said(value: Scalar) -> str:
    text = json.dumps(value, ensure_ascii=not (isinstance(value, str) and value.isprintable()))
    return text if len(text) <= _SAID_MAX else text[: _SAID_MAX - 4] + '..."'
