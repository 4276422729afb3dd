"""Lua scripts: one file each, put together from their includes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("tenancy", "cost", "orchestrator", "tasks")
"""From the lowest folder to the highest: a script includes from its own folder and those below."""

_INCLUDE = re.compile(r"^-- @include (\S+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis runs it: its name (`tenancy/transport/pop`), text and SHA-1."""

    name: str
    text: str
    sha: str


@cache
def load(name: str) -> Script:
    """Return the script `name`, with every `-- @include folder/file` replaced by that file, once each.

    Raises ValueError when an include points to a higher folder, FileNotFoundError when a file is missing.
    """
    text = _expand(name, set())
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _expand(name: str, seen: set[str]) -> str:
    seen.add(name)

    def include(match: re.Match[str]) -> str:
        wanted = match.group(1)
        if LAYERS.index(wanted.split("/")[0]) > LAYERS.index(name.split("/")[0]):
            raise ValueError(f"{name}.lua includes {wanted}.lua from a higher folder; includes point {' <- '.join(LAYERS)}")
        return "" if wanted in seen else _expand(wanted, seen)

    return _INCLUDE.sub(include, (ROOT / f"{name}.lua").read_text())
