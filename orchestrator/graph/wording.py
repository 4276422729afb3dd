"""How a problem shows the offending value and names the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Collection

_SHOWN_MAX = 60
_WORD_MAX = 100


def shown(value: object) -> str:
    """Return `value` as a short piece of a sentence; never raises and never prints much."""
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN_MAX else repr(value[:_SHOWN_MAX])[:-1] + f"...' ({len(value)} characters)"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 200:  # str() of an int of over 4,300 digits raises
        return "a whole number of more than 60 digits"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return f"a Python {type(value).__name__}"


def counted(n: int, noun: str) -> str:
    """Return "1 node", "2 nodes", "10,000 nodes"."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


class Suggestions:
    """Finds the nearest known word, within a budget of comparisons so that a graph full of typos stays linear."""

    def __init__(self, comparisons: int = 200_000) -> None:
        self._left = comparisons

    def near(self, word: object, known: Collection[str]) -> str | None:
        """Return the known word that is most like `word`, or None."""
        if not isinstance(word, str) or len(word) > _WORD_MAX or len(known) > self._left:
            return None
        self._left -= len(known)
        folded = {each.casefold(): each for each in known}
        found = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
        return folded[found[0]] if found else None

    def did_you_mean(self, word: object, known: Collection[str], otherwise: str) -> str:
        """Return "did you mean 'x'?", or `otherwise` where nothing known is near."""
        near = self.near(word, known)
        return f"did you mean {near!r}?" if near is not None else otherwise
