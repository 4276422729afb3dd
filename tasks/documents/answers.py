"""Answers: sentences taken from the passages that were found, and the report over all of them."""

from __future__ import annotations

import re
from typing import Any

from cost.meter import meter
from orchestrator.building import task

from .text import sentences, word_count, words

_WINDOW = 2

# Prose, not code, headings or the ends of sentences that a passage cut off.
_SENTENCE = re.compile(r"[A-Z`\"'][^=>]{20,}[.!?:]$")


@task(
    name="documents.answer",
    value=10,
    estimate={"llm": 22_000, "compute": 5},
    variants=[{"name": "one", "kind": "generation", "params": {"candidates": 1}, "estimate": {"llm": 7_500, "compute": 2}, "value": 6}],
)
def answer(retrieved: list[dict[str, Any]], candidates: int = 3) -> list[dict[str, Any]]:
    """Return {question, answer, source, sources, score} per question: the best of one candidate answer per passage.

    candidates: how many passages are read for an answer (1 to 100). Charged as a generating model would be: one llm token for each
    word of the question and the passage, per candidate, and of the candidate.
    Raises ValueError outside that range.
    """
    if not 1 <= candidates <= 100:
        raise ValueError(f"candidates must be from 1 to 100, and is {candidates}")
    answers = []
    for item in retrieved:
        drafts = [_draft(item["question"], hit) for hit in item["hits"][:candidates]]
        # The first of equals: hits come best first.
        best = max(drafts, key=lambda draft: draft["score"], default={"answer": "", "source": None, "score": 0.0})
        sources = list(dict.fromkeys(hit["source"] for hit in item["hits"]))
        answers.append({"question": item["question"], **best, "sources": sources})
    return answers


def _draft(question: str, hit: dict[str, Any]) -> dict[str, Any]:
    """Return the two neighbouring sentences that share most with the question."""
    asked = frozenset(words(question))
    lines = sentences(hit["text"])
    lines = [line for line in lines if _SENTENCE.match(line)] or lines
    windows = [" ".join(lines[start : start + _WINDOW]) for start in range(max(1, len(lines) - _WINDOW + 1))]
    shared = [len(asked.intersection(words(window))) for window in windows]
    best = max(range(len(windows)), key=lambda position: (shared[position], -position))
    meter.charge("llm", word_count(question) + word_count(hit["text"]) + word_count(windows[best]), "token")
    score = shared[best] / max(1, len(asked)) + hit["score"] / 2
    return {"answer": windows[best], "source": hit["source"], "score": round(score, 4)}


@task(name="documents.report", value=2, estimate={"compute": 2})
def report(
    answers: list[dict[str, Any]] | None = None, evaluation: dict[str, Any] | None = None, index: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return {answers, evaluation, chunks, documents, embedding}: what a reader wants of a run; null for what there is not."""
    chunks = None if index is None else index["chunks"]
    return {
        "answers": answers or [],
        "evaluation": evaluation,
        "chunks": None if chunks is None else len(chunks),
        "documents": None if chunks is None else len({chunk["source"] for chunk in chunks}),
        "embedding": None if index is None else index["embedding"]["kind"],
    }
