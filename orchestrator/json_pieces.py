"""JSON written and read in pieces: the interpreter's own does megabytes in one call, and no other thread gets its turn meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.decoder import WHITESPACE, scanstring  # type: ignore[attr-defined]
from typing import Any

PIECE = 500
"""Items of a list that are written at once."""
SMALL_BYTES = 200_000
"""What is shorter is read at once, in a third of the time."""

_decoder = json.JSONDecoder()


def dumps(value: Any) -> bytes:
    """Return what `json.dumps` would, compact and in UTF-8; long lists in a mapping, or by themselves, are written in pieces."""
    return b"".join(_written(value))


def _written(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        yield b"{"
        for number, (name, each) in enumerate(value.items()):
            yield b"," if number else b""
            if isinstance(each, list) and len(each) > PIECE:
                yield _at_once({name: 0})[1:-2]
                yield from _written(each)
            else:
                yield _at_once({name: each})[1:-1]
        yield b"}"
    elif isinstance(value, list) and len(value) > PIECE:
        yield b"["
        for first in range(0, len(value), PIECE):
            yield b"," if first else b""
            yield _at_once(value[first : first + PIECE])[1:-1]
        yield b"]"
    else:
        yield _at_once(value)


def _at_once(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def nodes_of(graph: bytes) -> list[dict[str, Any]]:
    """Return the list `nodes` of a graph's JSON, read node by node. Raises ValueError for what is no JSON, KeyError without nodes."""
    if len(graph) < SMALL_BYTES:
        return list(json.loads(graph)["nodes"])
    text = graph.decode()
    at = _after(text, 0, "{")
    while True:
        name, at = scanstring(text, _after(text, at, '"'))
        at = _skip(text, _after(text, at, ":"))
        if name == "nodes" and text[at : at + 1] == "[":
            return _items(text, at + 1)
        _, at = _decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            raise KeyError("nodes")
        at = _after(text, at, ",")


def _items(text: str, at: int) -> list[Any]:
    found: list[Any] = []
    scan = _decoder.scan_once  # type: ignore[attr-defined]
    first = _skip(text, at)
    if text[first : first + 1] == "]":
        return found
    while True:
        try:
            item, at = scan(text, at)
        except StopIteration:
            item, at = _decoder.raw_decode(text, _skip(text, at))  # or it says what is wrong
        found.append(item)
        # As graphs are kept, there is no space between.
        mark = text[at : at + 1]
        if mark not in (",", "]"):
            at = _skip(text, at)
            mark = text[at : at + 1]
        if mark == "]":
            return found
        if mark != ",":
            raise ValueError(f"there is no comma at character {at}")
        at += 1


def _skip(text: str, at: int) -> int:
    found = WHITESPACE.match(text, at)
    return int(found.end())


def _after(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"there is no {mark} at character {at}")
    return at + 1
