"""JSON in pieces says what JSON at once says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import json_pieces
from orchestrator.json_pieces import PIECE, dumps, nodes_of


@pytest.fixture(autouse=True, scope="module")
def nothing_is_small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "SMALL_BYTES", 0)
        yield


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(values)
def test_what_is_written_in_pieces_is_what_is_written_at_once(value: Any) -> None:
    assert dumps(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("length", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1])
def test_long_lists_are_written_whole(length: int) -> None:
    value = [{"id": f"n{at}", "é": [at]} for at in range(length)]
    for each in (value, {"nodes": value, 'a"': value, "after": 1}):
        assert json.loads(dumps(each)) == each


@given(st.dictionaries(st.text(), values, max_size=5), st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=8), st.booleans())
def test_nodes_are_read_wherever_they_stand(others: dict[str, Any], nodes: list[dict[str, Any]], spaced: bool) -> None:
    others.pop("nodes", None)
    others["params"] = {"nodes": [1, 2]}  # of something else
    graph = {**others, "nodes": nodes, "zone": "]"}
    text = json.dumps(graph, indent=1) if spaced else json.dumps(graph, separators=(",", ":"), ensure_ascii=False)
    assert nodes_of(text.encode("utf-8", "surrogatepass")) == nodes


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"nodes":[{}', b'{"nodes":[{} {}]}', b'{"a" 1}', b'{"nodes'])
def test_what_is_no_graph_is_an_error(text: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        nodes_of(text)
    with pytest.raises(KeyError):
        nodes_of(b'{"a":1}')
