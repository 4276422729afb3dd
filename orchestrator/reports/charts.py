"""Charts as inline SVG: stacked columns over days, and bars. Every text in them is escaped here; colours are classes of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 200
LEFT, BOTTOM, TOP = 84, 24, 12
LABELS = 8
"""Days that are named below the columns, at most."""


def columns(title: str, days: Sequence[tuple[str, Mapping[str, int]]], series: Sequence[str], say: Sequence[str], scale: str) -> str:
    """Return stacked columns: days with their amounts by series.

    series: the parts in their order, of which the n-th has the class `s{n}`. say: for each day, what its tooltip says. scale: what stands
    beside the height of the highest one.
    """
    most = max((sum(max(0, amount) for amount in parts.values()) for _, parts in days), default=0) or 1
    step = (WIDTH - LEFT) / max(1, len(days))
    plot = HEIGHT - BOTTOM - TOP
    drawn = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>']
    if scale:
        drawn.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{TOP}" y2="{TOP}"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{TOP + 4}" text-anchor="end">{escape(scale)}</text>')
    every = max(1, -(-len(days) // LABELS))
    for at, ((name, parts), said) in enumerate(zip(days, say, strict=True)):
        x, y = LEFT + at * step + step * 0.12, float(HEIGHT - BOTTOM)
        boxes = []
        for number, part in enumerate(series):
            tall = plot * max(0, parts.get(part, 0)) / most
            if tall:
                y -= tall
                boxes.append(f'<rect class="s{number}" x="{x:.1f}" y="{y:.1f}" width="{min(step * 0.76, 60):.1f}" height="{tall:.1f}"/>')
        drawn.append(f"<g><title>{escape(said)}</title>{''.join(boxes)}</g>")
        if at % every == 0:
            drawn.append(f'<text x="{x + min(step * 0.38, 30):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(name)}</text>')
    return _svg(title, HEIGHT, "".join(drawn))


def bars(title: str, rows: Sequence[tuple[str, float, str]], series: int = 0) -> str:
    """Return horizontal bars: what each is, how long (less than 0 is drawn as nothing), and what stands behind it."""
    most = max((value for _, value, _ in rows), default=0) or 1
    tall, left, right = 26, 220, 130
    drawn = []
    for at, (name, value, said) in enumerate(rows):
        y, long = at * tall, (WIDTH - left - right) * max(0.0, value) / most
        drawn.append(
            f"<g><title>{escape(f'{name}: {said}')}</title>"
            f'<text x="{left - 8}" y="{y + 17}" text-anchor="end">{escape(_short(name))}</text>'
            f'<rect class="s{series}" x="{left}" y="{y + 5}" width="{max(long, 1):.1f}" height="{tall - 10}"/>'
            f'<text x="{left + max(long, 1) + 8:.1f}" y="{y + 17}">{escape(said)}</text></g>'
        )
    return _svg(title, max(tall, tall * len(rows)), "".join(drawn))


def meter(title: str, parts: Sequence[tuple[str, float]], marks: Sequence[float] = ()) -> str:
    """Return one bar of which parts (class, portion of 1) are filled; `marks` are thin lines at portions of 1."""
    x, drawn = 0.0, [f'<rect class="empty" x="0" y="0" width="{WIDTH}" height="18" rx="4"/>']
    for name, portion in parts:
        wide = min(WIDTH - x, WIDTH * max(0.0, portion))
        drawn.append(f'<rect class="{escape(name)}" x="{x:.1f}" y="0" width="{wide:.1f}" height="18" rx="4"/>')
        x += wide
    drawn += [f'<line class="mark" x1="{WIDTH * each:.1f}" x2="{WIDTH * each:.1f}" y1="0" y2="18"/>' for each in marks]
    return _svg(title, 18, "".join(drawn))


def _svg(title: str, height: int, drawn: str) -> str:
    said = escape(title)
    return f'<svg role="img" aria-label="{said}" viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="xMinYMin meet">{drawn}</svg>'


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"
