"""A hook: a function of the operator's, named in the settings, called with the payload."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .webhook import NotDelivered


def find_hook(name: str) -> Callable[[dict[str, Any]], object]:
    """Return the function that `module:function` names. Raises NotDelivered when there is none."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:
        raise NotDelivered(f"HEADGATE_NOTIFY={name}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise NotDelivered(f"HEADGATE_NOTIFY={name} is no function")
    call: Callable[[dict[str, Any]], object] = found
    return call


def call_hook(name: str, payload: dict[str, Any]) -> None:
    """Call the hook. Raises NotDelivered with whatever it raised."""
    hook = find_hook(name)
    try:
        hook(payload)
    except Exception as error:
        raise NotDelivered(f"{name} raised {type(error).__name__}: {error}") from error
