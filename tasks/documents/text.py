"""Plain text: its words and its sentences, the same for documents and for questions."""

from __future__ import annotations

import re
from typing import Final

_WORD = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"'(])|\n\s*\n|\n(?=\s*[-*#>])")

STOP_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """
        a about after all also an and any are as at be been but by can could did do does each for from had has have how i if in into
        is it its just may me more most my no not of on one only or other our out over same should so some such than that the their
        them then there these they this those to too up us use used using was we were what when where which while who why will with
        would you your
        """,
    )
)


def words(text: str) -> list[str]:
    """Return the content words of `text` in lower case, plurals as singulars, without stop words."""
    found = (word for word in _WORD.findall(text.lower()) if len(word) > 1 and word not in STOP_WORDS)
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in found]


def sentences(text: str) -> list[str]:
    """Return the sentences, list items and headings of `text`, each on one line."""
    return [line for part in _SENTENCE_END.split(text) if (line := " ".join(part.split()))]


def word_count(text: str) -> int:
    """Return the number of words of any kind: what the llm category is charged for, one token a word."""
    return len(text.split())
