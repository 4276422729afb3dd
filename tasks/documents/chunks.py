"""Chunks: documents cut into overlapping passages."""

from __future__ import annotations

from typing import Any

from cost.meter import meter
from orchestrator.building import task


@task(name="documents.split", value=5, estimate={"storage": 750, "compute": 10})
def split(documents: list[dict[str, Any]], size: int = 800, overlap: int = 100, limit: int = 1000) -> list[dict[str, Any]]:
    """Return passages of at most `size` characters as {source, start, text}; neighbours share up to `overlap` characters.

    Cuts at the end of a paragraph, line, sentence or word where there is one in the second half of a passage. limit: at most so
    many passages. Raises ValueError unless 0 <= overlap < size / 2.
    """
    if not 0 <= 2 * overlap < size:
        raise ValueError(f"overlap must be from 0 to less than half of size ({size}), and is {overlap}")
    chunks: list[dict[str, Any]] = []
    for document in documents:
        text, start = document["text"], 0
        while start < len(text) and len(chunks) < limit:
            end = _cut(text, start, size)
            passage = text[start:end].strip()
            if passage:
                chunks.append({"source": document["source"], "start": start, "text": passage})
                meter.charge("storage", len(passage), "character")
            if end >= len(text):
                break
            start = max(text.find(" ", end - overlap, end) + 1, end - overlap)
    return chunks


def _cut(text: str, start: int, size: int) -> int:
    end = start + size
    if end >= len(text):
        return len(text)
    for mark in ("\n\n", "\n", ". ", " "):
        found = text.rfind(mark, start + size // 2, end)
        if found >= 0:
            return found + len(mark)
    return end
