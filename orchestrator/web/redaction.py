"""Values that look like secrets, by their names: pages show that there is one, and not which."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "(hidden)"
DEPTH_MAX = 50

_SECRET = re.compile(
    r"pass(word|wd|phrase|code)?$|pwd$|secret|token$|api[_-]?key|private[_-]?key|access[_-]?key|credential|authorization|cookie|^auth$|session[_-]?id",
    re.I,
)
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@", re.I)


def redacted(value: Any, depth: int = 0) -> Any:
    """Return JSON values with what stands under a secret's name hidden, and passwords in URLs."""
    if depth > DEPTH_MAX:
        return "…"
    if isinstance(value, dict):
        return {
            key: HIDDEN if _SECRET.search(str(key)) and each not in (None, "", [], {}) else redacted(each, depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redacted(each, depth + 1) for each in value]
    return _IN_URL.sub(rf"\1:{HIDDEN}@", value) if isinstance(value, str) and "://" in value else value
