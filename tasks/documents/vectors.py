"""Vectors: passages and questions as numbers, by TF-IDF and SVD, or by hashing, which is cheaper and finds less.

Between nodes everything is JSON, so matrices travel as base64 of 16-bit floats with their shape. An embedding carries what
embedding a question the same way takes: vocabulary, weights and components, or the number of hash buckets.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cost.meter import meter
from orchestrator.building import task

from .text import words

Matrix = NDArray[np.float32]

_SEED: Final = 20
_HASHED: Final = 512


@task(
    name="documents.embed",
    value=5,
    estimate={"retrieval": 11_000, "compute": 400},
    variants=[
        {
            "name": "hashed",
            "kind": "variant",
            "task": "documents.embed_hashed",
            "estimate": {"retrieval": 1_100, "compute": 300},
            "value": 3,
        }
    ],
)
def embed(chunks: list[dict[str, Any]], dimensions: int = 64, vocabulary_max: int = 3000) -> dict[str, Any]:
    """Return one vector per chunk by TF-IDF and truncated SVD (latent semantic analysis), the same on every run.

    dimensions: 2 to 512, fewer where the corpus is smaller. vocabulary_max: how many of the most frequent words count.
    Raises ValueError where the chunks hold no words.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    _check(chunks)
    vectorizer = TfidfVectorizer(analyzer=words, sublinear_tf=True, max_features=vocabulary_max, dtype=np.float32)
    # One thread: workers share the cores already, and sums in another order would differ in the last bits.
    # All chunks alike have no variance, and the share of it that is explained, which nobody asked for, is 0 / 0.
    with threadpool_limits(limits=1), np.errstate(divide="ignore", invalid="ignore"):
        weighted = vectorizer.fit_transform(chunk["text"] for chunk in chunks)
        rank = max(1, min(dimensions, min(weighted.shape) - 1))
        svd = TruncatedSVD(n_components=rank, random_state=_SEED).fit(weighted)
        vectors = _unit(weighted @ svd.components_.T)
    meter.charge("retrieval", len(chunks), "vector")
    return {
        "kind": "svd",
        "vectors": encoded(vectors),
        "vocabulary": [str(word) for word in vectorizer.get_feature_names_out()],
        "idf": encoded(vectorizer.idf_.reshape(1, -1)),
        "components": encoded(svd.components_),
    }


@task(name="documents.embed_hashed", value=3, estimate={"retrieval": 1_100, "compute": 300})
def embed_hashed(chunks: list[dict[str, Any]], buckets: int = _HASHED) -> dict[str, Any]:
    """Return one vector per chunk by hashing its words into `buckets` (16 to 65,536); nothing is learned from the corpus.

    Raises ValueError where the chunks hold no words.
    """
    _check(chunks)
    sparse = _hashed([chunk["text"] for chunk in chunks], buckets)
    meter.charge("retrieval", len(chunks), "sparse_vector")
    return {
        "kind": "hashed",
        "buckets": buckets,
        "rows": encoded(sparse.indptr.reshape(1, -1), "<u4"),
        "columns": encoded(sparse.indices.reshape(1, -1), "<u2"),
        "weights": encoded(sparse.data.reshape(1, -1)),
    }


def vectors_of(embedding: dict[str, Any]) -> Any:
    """Return the matrix of an embedding, a row of length 1 per chunk: dense, or sparse where it was hashed."""
    if embedding["kind"] == "svd":
        return decoded(embedding["vectors"])
    from scipy.sparse import csr_matrix

    rows, columns = (decoded(embedding[key], kind)[0].astype(np.int32) for key, kind in (("rows", "<u4"), ("columns", "<u2")))
    return csr_matrix((decoded(embedding["weights"])[0], columns, rows), shape=(len(rows) - 1, embedding["buckets"]))


def questions_as_vectors(embedding: dict[str, Any], questions: Sequence[str]) -> Matrix:
    """Return a row of length 1 per question, or of zeros where it shares no word with the corpus, embedded as the chunks were."""
    if embedding["kind"] == "hashed":
        dense: Matrix = _hashed(questions, embedding["buckets"]).toarray()
        return dense
    column = {word: index for index, word in enumerate(embedding["vocabulary"])}
    idf, components = decoded(embedding["idf"])[0], decoded(embedding["components"])
    weighted = np.zeros((len(questions), len(column)), dtype=np.float32)
    for row, question in enumerate(questions):
        for word, count in Counter(words(question)).items():
            if word in column:
                weighted[row, column[word]] = (1 + math.log(count)) * idf[column[word]]
    return _unit(_unit(weighted) @ components.T)


def encoded(matrix: Any, kind: str = "<f2") -> dict[str, Any]:
    """Return a matrix as JSON: its shape, and base64 of its numbers in row order."""
    array = np.ascontiguousarray(matrix, dtype=kind)
    return {"shape": list(array.shape), "base64": base64.b64encode(array.tobytes()).decode("ascii")}


def decoded(value: dict[str, Any], kind: str = "<f2") -> Matrix:
    """Return the matrix that `encoded` made JSON of. Raises ValueError where shape and content differ."""
    array = np.frombuffer(base64.b64decode(value["base64"]), dtype=kind).reshape(value["shape"])
    return array.astype(np.float32)


def _hashed(texts: Sequence[str], buckets: int) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    if not 16 <= buckets <= 65_536:
        raise ValueError(f"buckets must be from 16 to 65536, and is {buckets}")
    return HashingVectorizer(analyzer=words, n_features=buckets, alternate_sign=False, dtype=np.float32).transform(texts)


def _unit(matrix: Any) -> Matrix:
    array: Matrix = np.asarray(matrix, dtype=np.float32)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    unit: Matrix = (array / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit


def _check(chunks: list[dict[str, Any]]) -> None:
    if not any(words(chunk["text"]) for chunk in chunks):
        raise ValueError(f"there are no words in these {len(chunks)} chunks to make vectors of")
