"""Values that look like secrets: pages and logs show that there is one, and not which."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

HIDDEN = "(hidden)"
DEPTH_MAX = 50

SECRET_CHARS_MIN: Final = 4
"""A value that is shorter is hidden under its name only: it would be found inside ordinary words."""

_SECRET = re.compile(
    r"pass(word|wd|phrase|code)?$|pwd$|secret|token$|api[_-]?key|private[_-]?key|access[_-]?key|credential|authorization|cookie|^auth$|session[_-]?id",
    re.I,
)
# Lengths are bounded where a text without end would otherwise be searched again from each of its characters.
_IN_URL = re.compile(r"([a-z][a-z0-9+.-]{0,20}://[^\s/:@]{0,200}):[^\s/@]+@", re.I)
_NAMED = re.compile(
    r"""((?:passw(?:or)?d|passphrase|passcode|pwd|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|credentials?|authorization|cookie
    |session[_-]?id)(?:[_-]\w{1,20})?["']?\s{0,3}(?:=>|[:=])\s{0,3})
    ("[^"]*"|'[^']*'|(?:(?:bearer|basic|token)\s+)?[^\s,;&"')}\]]+)""",
    re.I | re.X,
)
_SCHEME = re.compile(r"\b(bearer)\s+[\w.~+/-]{8,}=*", re.I)
_LOOKS_LIKE_A_KEY = re.compile(
    r"""\b(?:sk-[\w-]{16,}|(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abeoprs]-[\w-]{10,}|hf_\w{30,}
    |AIza[\w-]{35}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})""",
    re.X,
)
# What a match has in it somewhere: looking for these first spares most lines the search, at a tenth of its time.
_NAMES = (
    "passw",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "token",
    "api",
    "private",
    "access",
    "credential",
    "authorization",
    "cookie",
    "session",
)
_MARKS = ("sk-", "AKIA", "ASIA", "gh", "glpat-", "xox", "hf_", "AIza", "eyJ")
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----")
_KEY_ENDS = re.compile(r"-----END [A-Z ]{0,40}PRIVATE KEY-----")


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


def redacted_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text with what looks like a secret hidden.

    That is each of `secrets`; what follows a secret's name and a `:` or `=`; passwords in URLs; bearer tokens; and what is formed like
    the keys of known services, like a JSON web token or a private key in PEM.
    """
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _IN_URL.sub(rf"\1:{HIDDEN}@", text)
    if "-----BEGIN" in text:
        text = _without_keys(text)
    lower = text.lower()
    if any(name in lower for name in _NAMES):
        text = _NAMED.sub(rf"\1{HIDDEN}", text)
    if "bearer" in lower:
        text = _SCHEME.sub(rf"\1 {HIDDEN}", text)
    return _LOOKS_LIKE_A_KEY.sub(HIDDEN, text) if any(mark in text for mark in _MARKS) else text


def secrets_in(value: Any, depth: int = 0) -> set[str]:
    """Return the texts that stand under a secret's name somewhere in JSON values, as far as they are long enough to be looked for."""
    if depth > DEPTH_MAX:
        return set()
    if isinstance(value, dict):
        pieces = (_texts(each) if _SECRET.search(str(key)) else secrets_in(each, depth + 1) for key, each in value.items())
    elif isinstance(value, (list, tuple)):
        pieces = (secrets_in(each, depth + 1) for each in value)
    else:
        return set()
    return {text for piece in pieces for text in piece if len(text) >= SECRET_CHARS_MIN}


def ends_a_key(line: str) -> bool:
    """Say whether a private key in PEM ends in this line."""
    return _KEY_ENDS.search(line) is not None


def begins_a_key(line: str) -> bool:
    """Say whether a private key in PEM begins in this line, and does not end in it."""
    begun = list(_KEY_BEGINS.finditer(line))
    return bool(begun) and _KEY_ENDS.search(line, begun[-1].end()) is None


def _without_keys(text: str) -> str:
    kept, at = [], 0
    while (begun := _KEY_BEGINS.search(text, at)) is not None:
        kept += [text[at : begun.start()], HIDDEN]
        ended = _KEY_ENDS.search(text, begun.end())
        if ended is None:
            return "".join(kept)
        at = ended.end()
    return "".join([*kept, text[at:]])


def _texts(value: Any, depth: int = 0) -> set[str]:
    """Every text somewhere in a value."""
    if isinstance(value, str):
        return {value}
    if depth > DEPTH_MAX or not isinstance(value, (dict, list, tuple)):
        return set()
    return {text for each in (value.values() if isinstance(value, dict) else value) for text in _texts(each, depth + 1)}
