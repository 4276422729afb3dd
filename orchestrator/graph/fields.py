"""The types of a graph's fields, and what each of them takes, in words."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from cost.money import CATEGORIES, MICROS_MAX
from tenancy.priorities import Priority
from tenancy.queues import POOL_PATTERN, POOL_REMEDY

from .condition import TEXT_MAX, VALUES_MAX, Condition
from .limits import NODES_CEILING

VALUE_MAX = 10**9
TIMEOUT_MAX_S = 7 * 86_400
ATTEMPTS_MAX = 20
LABELS_MAX = 64
MAX_PARALLEL_MAX = NODES_CEILING

ID_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
#: C0, DEL, C1, line and paragraph separators, and halves of surrogate pairs, which no UTF-8 text can hold.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Category = Literal["llm", "retrieval", "storage", "compute", "other"]
Kind = Literal["generation", "retrieval", "variant"]
OnFailure = Literal["finish", "stop"]

ITEMS_MAX = 10_000

JOIN_PATTERN = r"^(all_succeeded|all_done|at_least\([1-9][0-9]{0,5}\))$"


def printable(text: str) -> str:
    """Return `text`; raise ValueError where it holds a control character or half a surrogate pair."""
    if _UNPRINTABLE.search(text):
        raise ValueError("control character")
    return text


def listed(value: Any) -> Any:
    """Return a JSON list as a tuple; strict tuples take nothing else."""
    return tuple(value) if type(value) is list else value


def _priority(value: Any) -> Any:
    return Priority[value] if isinstance(value, str) and value in Priority.__members__ else value


def _object(value: Any) -> Any:
    # What stands inside is looked at by `inspect_params`, which says more than a type error would.
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return dict(value)


def _mapped(value: Any) -> Any:
    # What stands inside is looked at as params are.
    if value is None or type(value) is list or (isinstance(value, dict) and isinstance(value.get("$ref"), str)):
        return value
    raise ValueError("neither a list nor a reference")


def _total(estimate: dict[Category, int]) -> dict[Category, int]:
    if sum(estimate.values()) > MICROS_MAX:
        raise ValueError("too much in all")
    return estimate


def least_of(join: str) -> int | None:
    """Return n of the join `at_least(n)`, None for the others."""
    return int(join[len("at_least(") : -1]) if join.startswith("at_least(") else None


_SCALAR = {"type": ["string", "number", "boolean", "null"], "maxLength": TEXT_MAX}
_WHEN = {
    "type": "object",
    "properties": {
        "$ref": {"type": "string", "minLength": 1},
        "equals": _SCALAR,
        "not_equals": _SCALAR,
        "in": {"type": "array", "minItems": 1, "maxItems": VALUES_MAX, "items": _SCALAR},
    },
    "required": ["$ref"],
    "minProperties": 2,
    "maxProperties": 2,
    "additionalProperties": False,
}

Identifier = Annotated[str, Field(pattern=ID_PATTERN)]
TaskName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]
Micros = Annotated[int, Field(ge=0, le=MICROS_MAX)]
Estimate = Annotated[dict[Category, Micros], AfterValidator(_total)]
Value = Annotated[int, Field(ge=0, le=VALUE_MAX)]
TimeoutS = Annotated[int, Field(ge=1, le=TIMEOUT_MAX_S)]
Attempts = Annotated[int, Field(ge=1, le=ATTEMPTS_MAX)]
MaxParallel = Annotated[int, Field(ge=1, le=MAX_PARALLEL_MAX)]
Join = Annotated[str, Field(pattern=JOIN_PATTERN)]
When = Annotated[
    Condition,
    PlainValidator(Condition.of),
    PlainSerializer(Condition.spec),
    WithJsonSchema(_WHEN),
]
Mapped = Annotated[
    Any,
    PlainValidator(_mapped),
    WithJsonSchema({"type": ["array", "object", "null"]}),
]
Items = Annotated[int, Field(ge=1, le=ITEMS_MAX)]
PoolName = Annotated[str, Field(pattern=f"^{POOL_PATTERN}$")]
Params = Annotated[dict[str, Any], PlainValidator(_object)]
Parents = Annotated[tuple[Identifier, ...], BeforeValidator(listed)]
_LabelName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]
_LabelText = Annotated[str, Field(max_length=500), AfterValidator(printable)]
Labels = Annotated[dict[_LabelName, _LabelText], Field(max_length=LABELS_MAX)]
PriorityName = Annotated[
    Priority,
    BeforeValidator(_priority),
    PlainSerializer(lambda priority: priority.name, return_type=str),
    WithJsonSchema({"type": "string", "enum": list(Priority.__members__)}),
]

_IDENTIFIER = "use 1 to 100 letters, digits, '_', '.' or '-', not starting with '.' or '-'"

#: What each field takes; the remedy of every problem with it.
REMEDIES = {
    "name": _IDENTIFIER,
    "nodes": "give a list of at least one node",
    "id": _IDENTIFIER,
    "task": "give a task's name, 1 to 200 characters without control characters",
    "params": "give an object of parameters by name",
    "after": "give a list of node ids",
    "required": "give true or false",
    "value": f"give a whole number from 0 to {VALUE_MAX}",
    "estimate": f"give whole micros from 0 to {MICROS_MAX} (also in all) for each of llm, retrieval, storage, compute, other",
    "max_cost": f"give whole micros from 0 to {MICROS_MAX}",
    "variants": "give a list of variants, each with name, kind, estimate and value",
    "kind": "use generation, retrieval or variant",
    "priority": "use CRITICAL, HIGH, NORMAL, LOW or BATCH",
    "timeout_s": f"give whole seconds from 1 to {TIMEOUT_MAX_S}",
    "attempts": f"give a whole number from 1 to {ATTEMPTS_MAX}",
    "join": "use all_succeeded, all_done or at_least(n)",
    "when": f"give a $ref and one of equals, not_equals (a text of at most {TEXT_MAX:,} characters, a number, true, false or null) or in "
    f"(a list of 1 to {VALUES_MAX} of these)",
    "map": "give a list, or a reference to a node that returns one",
    "max_items": f"give a whole number from 1 to {ITEMS_MAX}",
    "expected_items": f"give a whole number from 1 to {ITEMS_MAX}",
    "on_failure": "use finish or stop",
    "pool": POOL_REMEDY,
    "max_parallel": f"give a whole number from 1 to {MAX_PARALLEL_MAX}, or null",
    "labels": f"give at most {LABELS_MAX} texts by name, names to 100 and texts to 500 characters, without control characters",
}

#: Where a field takes words from a short list, the words, so that a near one can be named.
WORDS: dict[str, tuple[str, ...]] = {
    "kind": ("generation", "retrieval", "variant"),
    "priority": tuple(Priority.__members__),
    "join": ("all_succeeded", "all_done", "at_least(1)"),
    "on_failure": ("finish", "stop"),
    "estimate": CATEGORIES,
}
