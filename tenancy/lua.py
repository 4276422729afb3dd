"""Lua scripts: one file each, put together from what they need of their includes.

Redis runs a script from its first line at each call, so every function in it is made anew each time: a script is given those alone that
it can reach. A file begins a function with `local function name(` in the first column and ends it with `end` there, or on the same line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("tenancy", "cost", "orchestrator", "tasks")
"""From the lowest folder to the highest: a script includes from its own folder and those below."""

_INCLUDE = re.compile(r"^-- @include (\S+)\s*$", re.MULTILINE)
_FUNCTION = re.compile(r"^local function (\w+)\((?:.* end|.*\n(?:.*\n)*?end)\n", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)
_NAME = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis runs it: its name (`tenancy/transport/pop`), text and SHA-1."""

    name: str
    text: str
    sha: str


@cache
def load(name: str) -> Script:
    """Return the script `name`, with every `-- @include folder/file` replaced by what is needed of that file, once each.

    Raises ValueError when an include points to a higher folder, FileNotFoundError when a file is missing.
    """
    own = {match[1] for match in _FUNCTION.finditer(_read(name))}
    text = _needed(_expand(name, set()), own)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _needed(text: str, own: Collection[str]) -> str:
    """Return a script without comments of whole lines, and without the functions that neither are its `own` nor can be reached."""
    text = _COMMENT.sub("", text)
    functions: dict[str, str] = {}
    for match in _FUNCTION.finditer(text):
        functions[match[1]] = functions.get(match[1], "") + match[0]
    reached = set(own)
    waiting = [_FUNCTION.sub("", text), *(functions[name] for name in own)]
    while waiting:
        for name in _NAME.findall(waiting.pop()):
            if name in functions and name not in reached:
                reached.add(name)
                waiting.append(functions[name])
    return _FUNCTION.sub(lambda match: match[0] if match[1] in reached else "", text)


def _read(name: str) -> str:
    return (ROOT / f"{name}.lua").read_text()


def _expand(name: str, seen: set[str]) -> str:
    """Return a file with its includes in their places, without those that are `seen`."""
    seen.add(name)

    def include(match: re.Match[str]) -> str:
        wanted = match.group(1)
        if LAYERS.index(wanted.split("/")[0]) > LAYERS.index(name.split("/")[0]):
            raise ValueError(f"{name}.lua includes {wanted}.lua from a higher folder; includes point {' <- '.join(LAYERS)}")
        return "" if wanted in seen else _expand(wanted, seen)

    return _INCLUDE.sub(include, _read(name))
