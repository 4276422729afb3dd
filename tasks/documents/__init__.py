"""Documents: a retrieval project over any folder of text, Markdown, HTML or PDF, from files to answers with sources."""

from __future__ import annotations

from .answers import answer, report
from .chunks import split
from .corpora import CORPORA, Corpus, installed_corpus
from .corpus import load
from .evaluation import evaluate
from .index import index, retrieve
from .project import rag_project
from .vectors import embed, embed_hashed

__all__ = [
    "CORPORA",
    "Corpus",
    "answer",
    "embed",
    "embed_hashed",
    "evaluate",
    "index",
    "installed_corpus",
    "load",
    "rag_project",
    "report",
    "retrieve",
    "split",
]
