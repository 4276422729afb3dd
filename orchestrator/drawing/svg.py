"""A picture as SVG, by our own layout: lanes alike are one lane of boxes with a count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from orchestrator.drawing.layout import HEIGHT, WIDTH, Box, Edge, lay_out
from orchestrator.drawing.picture import COLOURS, GLYPHS, Picture, Shape

MARGIN = 20.0
CHARACTERS = 24
"""Of a line in a box; the whole is its title, which browsers show."""
CURVE = 30.0
FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def svg(picture: Picture) -> str:
    """Return a whole file, for light and dark surroundings. Optional nodes are dashed."""
    by_id = {shape.id: shape for shape in picture.shapes}
    laid = lay_out(picture.parents, {shape.id: (shape.task, shape.required) for shape in picture.shapes})
    width, height = laid.width + 2 * MARGIN, laid.height + 2 * MARGIN
    shown = f"{-MARGIN:g} {-MARGIN:g} {width:g} {height:g}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" role="img" viewBox="{shown}" {FONT}>',
        f"<title>{escape(picture.name)}</title>",
        "<style>path{fill:none;stroke:#868e96}rect{stroke:#495057}.t{fill:#495057;font-size:10px}</style>",
        *(f'<path d="{_path(edge, laid.boxes)}"/>' for edge in laid.edges),
        *(_box(box, [by_id[node] for node in box.members]) for box in laid.boxes),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _path(edge: Edge, boxes: Sequence[Box]) -> str:
    """Return the curve of an edge, through the heights at which it passes the layers between."""
    source, target = boxes[edge.source], boxes[edge.target]
    x, y = source.x + WIDTH, source.y + HEIGHT / 2
    found = [f"M{x:g} {y:g}"]
    step = (target.x - source.x) / (len(edge.bends) + 1)
    stops = [(source.x + step * (at + 1) + WIDTH / 2, bend + HEIGHT / 2) for at, bend in enumerate(edge.bends)]
    for next_x, next_y in [*stops, (target.x, target.y + HEIGHT / 2)]:
        found.append(f"C{x + CURVE:g} {y:g} {next_x - CURVE:g} {next_y:g} {next_x:g} {next_y:g}")
        x, y = next_x, next_y
    return " ".join(found)


def _box(box: Box, shapes: Sequence[Shape]) -> str:
    first = shapes[0]
    states = Counter(shape.state for shape in shapes if shape.state is not None)
    state = _told(states)
    fill = COLOURS.get(state or "", "#ffffff")
    dashed = "" if first.required else ' stroke-dasharray="4 3"'
    glyph = GLYPHS.get(state or "", "")
    name = first.id if len(shapes) == 1 else f"{len(shapes)} x {first.id} .."
    title = "\n".join([*(shape.id for shape in shapes[:20]), *(["..."] if len(shapes) > 20 else []), f"task {first.task}"])
    if states:
        title += "\n" + ", ".join(f"{count} {each}" for each, count in sorted(states.items()))
    middle = box.x + WIDTH / 2
    size = f'x="{box.x:g}" y="{box.y:g}" width="{WIDTH:g}" height="{HEIGHT:g}"'
    return (
        f'<g><title>{escape(title)}</title><rect {size} rx="5" fill="{fill}"{dashed}/>'
        f'<text x="{middle:g}" y="{box.y + 16:g}" text-anchor="middle">{escape(_short(f"{glyph} {name}".strip()))}</text>'
        f'<text class="t" x="{middle:g}" y="{box.y + 29:g}" text-anchor="middle">{escape(_short(first.task))}</text></g>'
    )


def _told(states: Counter[str]) -> str | None:
    """Return the state that a box of several shows: what went wrong before what goes on, before what is done."""
    order = ("failed", "timed_out", "running", "due", "upstream_failed", "pending", "cancelled", "skipped", "succeeded")
    return next((each for each in order if states[each]), None)


def _short(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
