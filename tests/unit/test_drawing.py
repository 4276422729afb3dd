"""Graphs as text and as SVG: complete, well formed, and inert whatever names are in them."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.drawing.picture import COLOURS, GLYPHS, Picture, Shape
from orchestrator.drawing.svg import svg
from orchestrator.drawing.text import dot, mermaid
from orchestrator.graph import Graph

SVG = "{http://www.w3.org/2000/svg}"
SPEC = {
    "name": "drawn",
    "nodes": [
        {"id": "load", "task": "t.load"},
        *({"id": f"part-{at}", "task": "t.part", "after": ["load"]} for at in range(8)),
        {"id": "extra", "task": "t.extra", "after": ["load"], "required": False},
        {"id": "merge", "task": "t.merge", "after": [f"part-{at}" for at in range(8)]},
    ],
}


def picture(states: dict[str, str] | None = None) -> Picture:
    return Picture.of(Graph.parse(SPEC), states)


def test_dot_and_mermaid_have_every_node_and_every_edge() -> None:
    found = dot(picture())
    assert len(re.findall(r'^  "[\w-]+" \[label=', found, re.MULTILINE)) == 11
    assert len(re.findall(r" -> ", found)) == 17
    assert '  "load" -> "part-0";' in found
    assert '"extra" [label="extra\\nt.extra", style="rounded,filled,dashed"];' in found
    drawn = mermaid(picture())
    assert drawn.startswith("flowchart LR\n")
    assert len(re.findall(r" --> ", drawn)) == 17
    assert '    n9(["extra<br>t.extra"])' in drawn


def test_lanes_alike_are_one_box_with_a_count_in_svg_and_optional_nodes_are_dashed() -> None:
    root = ET.fromstring(svg(picture()))
    texts = ["".join(each.itertext()) for each in root.iter(f"{SVG}text")]
    assert "8 x part-0 .." in texts
    assert len(list(root.iter(f"{SVG}rect"))) == 4
    assert sum("stroke-dasharray" in each.attrib for each in root.iter(f"{SVG}rect")) == 1


def test_states_of_a_run_are_told_by_colour_and_by_glyph() -> None:
    states = {"load": "succeeded", **{f"part-{at}": "succeeded" for at in range(7)}, "part-7": "failed", "extra": "skipped"}
    found = picture(states)
    assert f'fillcolor="{COLOURS["failed"]}"' in dot(found)
    assert "class n8 failed" in mermaid(found)
    root = ET.fromstring(svg(found))
    parts = next(each for each in root.iter(f"{SVG}g") if "part-0" in "".join(each.itertext()))
    assert parts[1].attrib["fill"] == COLOURS["failed"]  # one that failed is not hidden among seven that did not
    assert f"{GLYPHS['failed']} 8 x part-0 .." in "".join(parts.itertext())
    assert "1 failed, 7 succeeded" in "".join(parts.itertext())


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_no_name_breaks_out_of_its_place(name: str, task: str) -> None:
    nasty = Picture(name, (Shape("a", task), Shape("b", name)), {"a": (), "b": ("a",)})
    lines = dot(nasty).splitlines()
    assert lines[-1] == "}"
    for line in re.findall(r'"((?:[^"\\]|\\.)*)"', dot(nasty)):
        assert '"' not in line.replace('\\"', "")
    assert all(re.fullmatch(r'    n\d\["[^"<>]*<br>[^"<>]*"\]', each) for each in mermaid(nasty).split("\n")[1:3])
    readable = all(character in "\t\n\r" or character >= " " for character in name + task) and "\ufffe" not in name + task
    if readable and not re.search("[\ufffe\uffff]", name + task):
        assert len(list(ET.fromstring(svg(nasty)).iter(f"{SVG}g"))) == 2


def test_markup_in_a_name_comes_out_as_text() -> None:
    found = svg(Picture("<script>alert(1)</script>", (Shape("a", "</title><script>x</script>"),), {"a": ()}))
    assert "<script>" not in found
    assert "<script>" not in mermaid(Picture("x", (Shape("a", "<script>"),), {"a": ()}))
