"""The project: all tasks of the family as one graph, from a folder to answers with sources."""

from __future__ import annotations

from orchestrator.building import dag, with_default

from .answers import answer, report
from .chunks import split
from .corpus import load
from .evaluation import evaluate
from .index import index, retrieve
from .vectors import embed


@dag(name="rag_project")
def rag_project(folder: str, questions: list[str], limit: int = 200, candidates: int = 3, top_k: int = 5) -> None:
    """Answer `questions` from the files in `folder`.

    The evaluation is optional; embed, retrieve, answer and evaluate have cheaper variants.
    """
    chunks = split(load(folder, limit=limit))
    found = index(chunks, embed(chunks))
    answers = answer(retrieve(found, questions, top_k=top_k), candidates=candidates)
    evaluation = evaluate.options(required=False)(found)
    report(answers, with_default(evaluation, None), found)
