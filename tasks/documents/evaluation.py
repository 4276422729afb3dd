"""Evaluation: known-item retrieval on questions made from the corpus itself."""

from __future__ import annotations

import random
from typing import Any, Final

from orchestrator.building import task

from .index import search
from .text import sentences, words

_WORDS_MIN: Final = 6


@task(
    name="documents.evaluate",
    value=3,
    estimate={"retrieval": 15_000, "compute": 100},
    variants=[
        {"name": "plain", "kind": "retrieval", "params": {"rerank": False}, "estimate": {"retrieval": 3_000, "compute": 40}, "value": 2}
    ],
)
def evaluate(index: dict[str, Any], questions_max: int = 60, top_k: int = 5, rerank: bool = True, seed: int = 1) -> dict[str, Any]:
    """Return {questions, top_k, recall, mrr}: how often, and how high, a passage is found from half the words of a sentence of it.

    recall is the share of questions whose passage is among the first `top_k`; mrr the mean of 1 / rank, 0 where it is not. A
    neighbour that overlaps far enough to hold the same sentence counts as the passage. With the same index and seed the questions
    are the same. recall and mrr are null where no sentence is long enough to ask for.
    """
    asked = _questions(index["chunks"], questions_max, random.Random(seed))
    results = search(index, [question for question, _ in asked], top_k, rerank=rerank)
    texts = [" ".join(chunk["text"].split()) for chunk in index["chunks"]]
    ranks = [
        next((rank for rank, (chunk, _) in enumerate(hits, start=1) if sentence in texts[chunk]), None)
        for (_, sentence), hits in zip(asked, results, strict=True)
    ]
    if not ranks:
        return {"questions": 0, "top_k": top_k, "recall": None, "mrr": None}
    found = [rank for rank in ranks if rank is not None]
    recall, mrr = len(found) / len(ranks), sum(1 / rank for rank in found) / len(ranks)
    return {"questions": len(ranks), "top_k": top_k, "recall": round(recall, 4), "mrr": round(mrr, 4)}


def _questions(chunks: list[dict[str, Any]], count: int, chance: random.Random) -> list[tuple[str, str]]:
    """Return (question, sentence it was made from), at most one per chunk."""
    made: list[tuple[str, str]] = []
    for number in chance.sample(range(len(chunks)), len(chunks)):
        if len(made) == count:
            break
        # The first and last sentences of a passage are often cut.
        long_enough = [line for line in sentences(chunks[number]["text"])[1:-1] if len(set(words(line))) >= _WORDS_MIN]
        if long_enough:
            sentence = chance.choice(long_enough)
            known = sorted(set(words(sentence)))
            made.append((" ".join(chance.sample(known, max(3, len(known) // 2))), sentence))
    return made
