"""What may stand in `params`: plain JSON of bounded size and depth, with well-formed references inside."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from .items import KEY as ITEM
from .limits import DEPTH_MAX, Limits
from .nested import INPUT
from .references import MISSING, Path, Reference, printed
from .scheduled import KEY, WORDS, is_scheduled
from .wording import Suggestions, shown

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
_SPECIAL = ("$ref", "$secret", INPUT, ITEM)
#: "$defs" or "$gt" are data; a reference written wrongly must not silently become data, too.
_MISSPELT = ("$ref", "$reff", "$reference", "$secret")


def inspect_params(
    params: Mapping[str, Any], limits: Limits, words: Suggestions, *, mapped: bool = False
) -> tuple[list[Reference], list[str]]:
    """Return the well-formed references in `params` and a sentence for each thing that may not stand there.

    mapped: whether the item of a map may stand in them.

    Never recurses and never visits more values than the bytes that the limit allows, so that neither depth, cycles nor one
    list shared a million times in plain Python values can hurt.
    """
    found: list[Reference] = []
    problems: list[str] = []
    if any(special in params for special in (*_SPECIAL, KEY)):
        return found, ["`params` is itself a reference; give an object of parameters by name, with references as their values"]
    stack: list[tuple[Path, Any, bool, bool]] = [((), params, False, True)]
    left = limits.params_bytes + 1
    while stack:
        path, value, in_list, literal_ok = stack.pop()
        left -= 1
        if left < 0:
            return found, [*problems, _too_large(limits)]
        kind = type(value)
        if kind is str or kind is bool or value is None:
            continue
        if kind is int:
            if not INT_MIN <= value <= INT_MAX:
                problems.append(f"`{printed(path)}` is {shown(value)}; use whole numbers of at most 64 bits")
        elif kind is float:
            if not math.isfinite(value):
                problems.append(f"`{printed(path)}` is {value}; give a finite number or null")
        elif kind is dict or kind is list or kind is tuple:
            if len(path) >= DEPTH_MAX:
                problems.append(f"`{printed(path[:4])}` is nested deeper than {DEPTH_MAX}; flatten it")
            elif kind is not dict:
                if len(value) > left:
                    return found, [*problems, _too_large(limits)]
                stack.extend(((*path, i), value[i], True, literal_ok) for i in range(len(value) - 1, -1, -1))
            elif mapped and path and len(value) == 1 and value.get(ITEM) is True:
                continue
            elif path and any(special in value for special in _SPECIAL):
                reference = _special(path, value, in_list, literal_ok, mapped, problems)
                if reference is not None:
                    found.append(reference)
                    if reference.default is not MISSING:
                        stack.append(((*path, "default"), reference.default, False, False))
            elif path and is_scheduled(value):
                problems += _scheduled(path, value)
            else:
                _keys(path, value, problems, words)
                names = sorted((key for key in value if type(key) is str), reverse=True)
                stack.extend(((*path, key), value[key], False, literal_ok) for key in names)
        else:
            problems.append(f"`{printed(path)}` is {shown(value)}; give JSON values: text, numbers, true, false, null, lists, objects")
    return found, problems or _size(params, limits)


def _special(path: Path, value: dict[str, Any], in_list: bool, literal_ok: bool, mapped: bool, problems: list[str]) -> Reference | None:
    where = f"`{printed(path)}`"
    if "$secret" in value:
        problems.append(f"{where}: `$secret` is reserved and not yet supported; leave it out")
    elif INPUT in value:
        problems.append(f"{where}: {INPUT} stands for a parameter of a sub-graph, and this node is in none; give a value")
    elif ITEM in value:
        remedy = 'write {"$item": true}, alone' if mapped else "this node has no map, in whose params alone it may stand"
        problems.append(f"{where}: {ITEM} stands for the item of a map; {remedy}")
    elif not literal_ok:
        problems.append(f"{where}: a default holds a reference; give a literal value")
    elif extra := [key for key in value if key not in ("$ref", "default")]:
        problems.append(f"{where}: a reference holds {shown(extra[0])} beside $ref; it takes $ref and default, nothing else")
    elif not isinstance(value["$ref"], str):
        problems.append(f"{where}: $ref is {shown(value['$ref'])}; give a node's id")
    else:
        return Reference(value["$ref"], path, in_list, value.get("default", MISSING))
    return None


def _scheduled(path: Path, value: dict[Any, Any]) -> list[str]:
    if len(value) == 1 and value[KEY] in WORDS:
        return []
    return [f"`{printed(path)}` is {shown(value)}; {KEY} stands alone and is {' or '.join(WORDS)}"]


def _keys(path: Path, value: dict[Any, Any], problems: list[str], words: Suggestions) -> None:
    where = f" in `{printed(path)}`" if path else ""
    for key in value:
        if type(key) is not str:
            problems.append(f"the name {shown(key)}{where} is not a text; use texts as names")
        elif not key.isprintable():
            problems.append(f"the name {shown(key)}{where} holds control characters; leave them out")
        elif key.casefold().rstrip("s") in _MISSPELT:
            near = words.did_you_mean(key.casefold(), _SPECIAL, "use $ref")
            problems.append(f"unknown name {shown(key)}{where}; {near}")


def _size(params: Mapping[str, Any], limits: Limits) -> list[str]:
    try:
        size = len(json.dumps(params, separators=(",", ":"), ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return ["`params` hold half a surrogate pair, which no UTF-8 text can hold; repair the text"]
    return [_too_large(limits, size)] if size > limits.params_bytes else []


def _too_large(limits: Limits, size: int | None = None) -> str:
    of = f" of {size:,} bytes" if size is not None else ""
    return f"`params`{of} are larger than the limit of {limits.params_bytes:,} bytes; pass the name of a file, or another node's result"
