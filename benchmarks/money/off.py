"""Loaded by a worker as a module of tasks: nodes run without money. Nothing is set aside at the gate, and no signal settles."""

from __future__ import annotations

import hashlib
from functools import cache

from orchestrator.settlement import NodeSettlement
from tenancy import link as link_module
from tenancy import lua

_RESERVE = "local function reserve("
_load = lua.load


@cache
def _without_reserve(name: str) -> lua.Script:
    script = _load(name)
    if not name.endswith("/begin"):
        return script
    assert _RESERVE in script.text
    text = script.text.replace(_RESERVE, "local function reserve() return true, 0 end\nlocal function not_called(")
    return lua.Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


link_module.load = _without_reserve  # type: ignore[assignment]
NodeSettlement.settle = lambda *_: None  # type: ignore[method-assign, assignment]
