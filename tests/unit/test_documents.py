from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cost.meter import Execution, metering
from cost.prices import UsageLine
from orchestrator.registry import registry
from tasks.documents import (
    CORPORA,
    answer,
    embed,
    embed_hashed,
    evaluate,
    index,
    installed_corpus,
    load,
    rag_project,
    report,
    retrieve,
    split,
)
from tasks.documents.vectors import decoded, encoded, questions_as_vectors, vectors_of

pytestmark = pytest.mark.unit


def metered(task: Any, *args: Any, **params: Any) -> tuple[Any, tuple[UsageLine, ...], int]:
    """The result, having passed through JSON as between nodes, the lines of usage, and their cost without CPU."""
    with metering(Execution("01hq0000000000000000000000", 1, "node", 1, "acme")) as usage:
        result = task(*args, **params)
    assert usage.warnings == ()
    return json.loads(json.dumps(result, allow_nan=False)), usage.lines, sum(usage.by_category().values())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    installed_corpus(["celery", "kombu"], folder, limit=20)
    return folder


@pytest.fixture(scope="module")
def chunks(corpus: Path) -> list[dict[str, Any]]:
    return split(load(str(corpus)))


@pytest.fixture(scope="module")
def indexes(chunks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {task.definition.name: metered(index, chunks, task(chunks))[0] for task in (embed, embed_hashed)}


def pdf(text: str) -> bytes:
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return out + b"xref\n0 6\n0000000000 65535 f \n%strailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (table, len(out))


def test_text_markdown_html_pdf_and_docstrings_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain lock")
    (tmp_path / "b.md").write_text("# Marked lock")
    (tmp_path / "c.html").write_text("<html><script>var hidden</script><body><h1>Hyper</h1><p>lock</p></body></html>")
    (tmp_path / "d.pdf").write_bytes(pdf("Portable lock"))
    (tmp_path / "e.py").write_text('"""Module lock."""\nclass C:\n    """Class lock."""\n    def _f(self):\n        """hidden"""\n')
    (tmp_path / "f.bin").write_bytes(b"\0\1")
    (tmp_path / ".g.txt").write_text("hidden")
    documents, usage, _ = metered(load, str(tmp_path))
    assert [(d["source"], d["text"]) for d in documents] == [
        ("a.txt", "plain lock"),
        ("b.md", "# Marked lock"),
        ("c.html", "Hyper\nlock"),
        ("d.pdf", "Portable lock"),
        ("e.py", "Module lock.\n\nC:\nClass lock."),
    ]
    assert [(line.category, line.unit, line.quantity) for line in usage] == [
        ("storage", "character", sum(len(d["text"]) for d in documents))
    ]


def test_broken_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4 broken")
    (tmp_path / "b.py").write_text("def (")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9 \0 \xed\xa0\x80")
    documents, _, _ = metered(load, str(tmp_path))
    assert [d["source"] for d in documents] == ["c.txt"]
    assert "\0" not in documents[0]["text"]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a.txt").write_text("open")
    (inside / "b.txt").symlink_to(tmp_path / "secret.txt")
    assert [d["source"] for d in load(str(inside))] == ["a.txt"]


def test_a_folder_with_nothing_to_read_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        load(str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"it holds no such file \(.*\.pdf"):
        load(str(tmp_path))
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(ValueError, match="1 files there are empty or broken"):
        load(str(tmp_path))


def test_documents_and_characters_are_bounded(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("x" * 100)
    assert len(load(str(tmp_path), limit=2)) == 2
    assert [len(d["text"]) for d in load(str(tmp_path), characters_max=150)] == [100, 50]


@pytest.mark.parametrize(("size", "overlap"), [(40, 0), (40, 10), (41, 20), (500, 100)])
def test_chunks_cover_the_document_and_stay_below_the_size(size: int, overlap: int) -> None:
    text = "One sentence here. " * 20 + "x" * 300 + "\n\nA last paragraph."
    chunks = split([{"source": "a", "text": text}], size=size, overlap=overlap)
    assert all(len(chunk["text"]) <= size for chunk in chunks)
    covered = {start + i for start, length in ((c["start"], size) for c in chunks) for i in range(length)}
    assert covered >= set(range(len(text)))
    assert chunks[-1]["text"].endswith("A last paragraph.")


def test_an_overlap_that_would_not_advance_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        split([], size=100, overlap=50)


@pytest.mark.parametrize("kind", ["documents.embed", "documents.embed_hashed"])
def test_known_items_are_found_among_the_first_five(indexes: dict[str, dict[str, Any]], kind: str) -> None:
    result, usage, _ = metered(evaluate, indexes[kind])
    assert result["questions"] == 60
    assert result["recall"] > 0.8
    assert 0.6 < result["mrr"] <= result["recall"]
    assert {line.unit: int(line.quantity) for line in usage} == {"query": 60, "rerank": 60 * 20}
    assert result == evaluate(indexes[kind])


def test_the_hashed_variant_is_cheaper_and_smaller(chunks: list[dict[str, Any]]) -> None:
    full, _, full_micros = metered(embed, chunks)
    cheap, _, cheap_micros = metered(embed_hashed, chunks)
    assert cheap_micros * 5 < full_micros
    assert len(json.dumps(cheap)) * 2 < len(json.dumps(full))


def test_reranking_finds_more_than_the_plain_search(indexes: dict[str, dict[str, Any]]) -> None:
    found = indexes["documents.embed_hashed"]
    assert evaluate(found)["mrr"] > evaluate(found, rerank=False)["mrr"]


@pytest.mark.parametrize("task", [embed, embed_hashed])
def test_a_question_is_embedded_as_the_chunks_were(chunks: list[dict[str, Any]], task: Any) -> None:
    embedding = metered(task, chunks)[0]
    rows = vectors_of(embedding)
    asked = questions_as_vectors(embedding, [chunk["text"] for chunk in chunks[:20]])
    cosines = np.asarray((rows[:20].multiply(asked) if hasattr(rows, "multiply") else rows[:20] * asked).sum(axis=1))
    assert np.allclose(cosines, 1, atol=0.02)
    assert not questions_as_vectors(embedding, [""]).any()


def test_embedding_twice_gives_the_same_bytes(chunks: list[dict[str, Any]]) -> None:
    assert json.dumps(embed(chunks)) == json.dumps(embed(chunks))


@pytest.mark.parametrize("task", [embed, embed_hashed])
def test_a_corpus_of_one_chunk_can_be_searched_and_one_without_words_is_refused(task: Any) -> None:
    one = split([{"source": "a", "text": "Headgates let water into a canal."}])
    found = retrieve(index(one, task(one)), ["What do headgates do?"])
    assert [hit["source"] for hit in found[0]["hits"]] == ["a"]
    with pytest.raises(ValueError, match="no words"):
        task([{"source": "a", "start": 0, "text": "..."}])


def test_vectors_of_other_chunks_are_refused(chunks: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="do not belong"):
        index(chunks[1:], embed_hashed(chunks))


def test_a_matrix_survives_json() -> None:
    matrix = np.array([[0.5, -1.25], [3.0, 0.0]])
    assert (decoded(json.loads(json.dumps(encoded(matrix)))) == matrix).all()


def test_an_answer_is_a_sentence_of_the_passages_and_names_its_sources(indexes: dict[str, dict[str, Any]]) -> None:
    found = retrieve(indexes["documents.embed"], ["Which exchange types route messages to queues?"])
    (best,), three, three_micros = metered(answer, found)
    assert "routes the messages" in best["answer"]
    assert best["source"] == "kombu/README.md"
    assert best["source"] in best["sources"]
    assert [(line.category, line.unit) for line in three] == [("llm", "token")]
    assert metered(answer, found, candidates=1)[2] * 2 < three_micros


def test_no_hits_give_an_empty_answer() -> None:
    assert answer([{"question": "Why?", "hits": []}])[0]["answer"] == ""
    assert answer([]) == []


def test_a_report_is_made_of_what_there_is(indexes: dict[str, dict[str, Any]]) -> None:
    whole = report([], {"recall": 1.0}, indexes["documents.embed"])
    assert (whole["embedding"], whole["documents"]) == ("svd", 20)
    assert report() == {"answers": [], "evaluation": None, "chunks": None, "documents": None, "embedding": None}


def test_the_corpus_of_installed_packages_is_the_same_each_time(corpus: Path, tmp_path: Path) -> None:
    assert installed_corpus(["celery", "kombu"], tmp_path, limit=20) == 20
    files = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert files == {path.relative_to(corpus): path.read_text() for path in corpus.rglob("*.*") if path.is_file()}
    assert {len(corpus.questions) for corpus in CORPORA} == {3}
    with pytest.raises(ValueError, match="at least the number of packages"):
        installed_corpus(["celery", "kombu"], tmp_path, limit=1)


def test_the_project_costs_about_what_it_declares(tmp_path: Path) -> None:
    first = CORPORA[1]
    installed_corpus(first.packages, tmp_path)
    nodes = {node.id: node for node in rag_project(str(tmp_path), list(first.questions)).resolved(registry).nodes}
    assert list(nodes) == ["load", "split", "embed", "index", "retrieve", "answer", "evaluate", "report"]
    assert [id_ for id_, node in nodes.items() if not node.required] == ["evaluate"]
    documents, _, loading = metered(load, str(tmp_path))
    chunks, _, splitting = metered(split, documents)
    vectors, _, embedding = metered(embed, chunks)
    found = index(chunks, vectors)
    passages, _, retrieving = metered(retrieve, found, list(first.questions))
    _, _, answering = metered(answer, passages)
    _, _, evaluating = metered(evaluate, found)
    spent = {"load": loading, "split": splitting, "embed": embedding, "retrieve": retrieving, "answer": answering, "evaluate": evaluating}
    for id_, micros in spent.items():
        declared = sum(amount for category, amount in nodes[id_].estimate.items() if category != "compute")
        assert 0.5 * declared <= micros <= 1.5 * declared, id_


def test_the_project_can_be_planned_down_by_more_than_half() -> None:
    nodes = rag_project("docs", ["Why?"]).resolved(registry).nodes
    full = sum(sum(node.estimate.values()) for node in nodes)
    cheapest = [
        min([sum(v.estimate.values()) for v in node.variants], default=sum(node.estimate.values())) for node in nodes if node.required
    ]
    assert sum(cheapest) * 2 < full
    assert {variant.kind for node in nodes for variant in node.variants} == {"variant", "retrieval", "generation"}
