"""The index: chunks with their vectors, searched by cosine and, if asked, ranked again by shared words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from cost.meter import meter
from orchestrator.building import task

from .text import words
from .vectors import questions_as_vectors, vectors_of

# How many candidates per wanted passage are compared word by word.
_POOL: Final = 4


@task(name="documents.index", value=5, estimate={"compute": 2})
def index(chunks: list[dict[str, Any]], vectors: dict[str, Any]) -> dict[str, Any]:
    """Return chunks and the embedding made of them as one index. Raises ValueError where they do not belong together."""
    rows = vectors_of(vectors).shape[0]
    if rows != len(chunks):
        raise ValueError(f"{rows} vectors do not belong to {len(chunks)} chunks")
    return {"chunks": chunks, "embedding": vectors}


@task(
    name="documents.retrieve",
    value=5,
    estimate={"retrieval": 750, "compute": 60},
    variants=[
        {
            "name": "few",
            "kind": "retrieval",
            "params": {"top_k": 3, "rerank": False},
            "estimate": {"retrieval": 150, "compute": 20},
            "value": 3,
        }
    ],
)
def retrieve(index: dict[str, Any], questions: list[str], top_k: int = 5, rerank: bool = True) -> list[dict[str, Any]]:
    """Return {question, hits: [{chunk, source, text, score}]} per question, best hits first.

    top_k: 1 to 100 passages per question. rerank: compare four times as many with the question word by word.
    """
    return [
        {"question": question, "hits": [_hit(index["chunks"], chunk, score) for chunk, score in ranked]}
        for question, ranked in zip(questions, search(index, questions, top_k, rerank=rerank), strict=True)
    ]


def _hit(chunks: list[dict[str, Any]], chunk: int, score: float) -> dict[str, Any]:
    return {"chunk": chunk, "source": chunks[chunk]["source"], "text": chunks[chunk]["text"], "score": round(score, 4)}


def search(index: dict[str, Any], questions: Sequence[str], top_k: int, *, rerank: bool) -> list[list[tuple[int, float]]]:
    """Return (chunk number, score from 0 to 2) for each question, best first, ties by number; charged per question.

    Raises ValueError for top_k outside 1 to 100.
    """
    if not 1 <= top_k <= 100:
        raise ValueError(f"top_k must be from 1 to 100, and is {top_k}")
    meter.charge("retrieval", len(questions), "query")
    if not questions:
        return []
    # Transposed twice because the matrix of vectors may be sparse, and a sparse one must stand on the left.
    cosines = np.asarray((vectors_of(index["embedding"]) @ questions_as_vectors(index["embedding"], questions).T).T)
    wanted = top_k * _POOL if rerank else top_k
    ranked = [[(int(chunk), float(row[chunk])) for chunk in np.argsort(-row, kind="stable")[:wanted]] for row in cosines]
    if not rerank:
        return ranked
    meter.charge("retrieval", sum(len(candidates) for candidates in ranked), "rerank")
    present = [frozenset(words(chunk["text"])) for chunk in index["chunks"]]
    frequency = Counter(word for chunk_words in present for word in chunk_words)
    return [_reranked(question, candidates, present, frequency)[:top_k] for question, candidates in zip(questions, ranked, strict=True)]


def _reranked(
    question: str, candidates: list[tuple[int, float]], present: list[frozenset[str]], frequency: Counter[str]
) -> list[tuple[int, float]]:
    """Add to each cosine the share of the question's words, weighted by rarity, that the chunk holds."""
    weights = {word: math.log(1 + len(present) / (1 + frequency[word])) for word in words(question)}
    total = sum(weights.values()) or 1.0
    scored = [(chunk, cosine + sum(w for word, w in weights.items() if word in present[chunk]) / total) for chunk, cosine in candidates]
    return sorted(scored, key=lambda hit: (-hit[1], hit[0]))
