"""A picture as text for programs that lay it out themselves: Graphviz's dot, Mermaid."""

from __future__ import annotations

from orchestrator.drawing.picture import COLOURS, Picture, label


def dot(picture: Picture) -> str:
    """Return it for Graphviz (https://graphviz.org/doc/info/lang.html). Optional nodes are dashed."""
    lines = [f"digraph {_quoted(picture.name)} {{", "  rankdir=LR;", '  node [shape=box, style="rounded,filled", fillcolor="#ffffff"];']
    for shape in picture.shapes:
        # In a label a backslash begins an escape of Graphviz's own, so lines are joined after they are quoted.
        text = _quoted("\0".join(filter(None, label(shape)))).replace("\0", "\\n")
        style = "" if shape.required else ', style="rounded,filled,dashed"'
        fill = COLOURS.get(shape.state or "")
        colour = f', fillcolor="{fill}"' if fill else ""
        lines.append(f"  {_quoted(shape.id)} [label={text}{style}{colour}];")
    lines += [f"  {_quoted(parent)} -> {_quoted(child)};" for parent, child in picture.edges()]
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(picture: Picture) -> str:
    """Return it for Mermaid (https://mermaid.js.org/syntax/flowchart.html), as pages of GitHub and GitLab draw it."""
    number = {shape.id: f"n{at}" for at, shape in enumerate(picture.shapes)}
    lines = ["flowchart LR"]
    for shape in picture.shapes:
        text = "<br>".join(_entities(line) for line in label(shape) if line)
        opening, closing = ("[", "]") if shape.required else ("([", "])")
        lines.append(f'    {number[shape.id]}{opening}"{text}"{closing}')
    lines += [f"    {number[parent]} --> {number[child]}" for parent, child in picture.edges()]
    used = sorted({shape.state for shape in picture.shapes if shape.state in COLOURS and shape.state is not None})
    lines += [f"    classDef {state} fill:{COLOURS[state]},color:#000" for state in used]
    for state in used:
        lines.append(f"    class {','.join(number[shape.id] for shape in picture.shapes if shape.state == state)} {state}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _entities(text: str) -> str:
    return text.replace("\n", " ").translate(_ENTITIES)


_ENTITIES = str.maketrans({"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;"})
