"""Pages of docs/ as tests run them: a block of a shell session, taken apart."""

from __future__ import annotations


def commands(block: str) -> list[tuple[str, list[str]]]:
    """Return each command of a block with the beginnings of lines that the page shows of its output."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found
