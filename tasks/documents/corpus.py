"""The corpus: what is read from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cost.meter import meter
from orchestrator.building import task

from .formats import BYTES_MAX, READERS


@task(name="documents.load", value=5, estimate={"storage": 650, "compute": 60})
def load(folder: str, limit: int = 200, characters_max: int = 400_000) -> list[dict[str, Any]]:
    """Return the documents in `folder` and below it as {source, text}, in the order of their paths.

    Reads text, Markdown, reStructuredText, HTML, PDF and the docstrings of Python files; hidden files, and links out of the
    folder, are passed over. limit: at most so many documents. characters_max: of all of them together; the last one is cut.
    A file that is broken or holds no text is left out. Raises ValueError where nothing is left.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise ValueError(f"there is no folder {folder!r} (looked for {root})")
    documents: list[dict[str, Any]] = []
    unread, room = 0, characters_max
    for path in sorted(root.rglob("*")):
        if len(documents) >= limit or room <= 0:
            break
        relative = path.relative_to(root)
        readable = path.suffix.lower() in READERS and not any(part.startswith(".") for part in relative.parts)
        if not readable or not path.resolve().is_relative_to(root) or not path.is_file():
            continue
        text = _text(path)[:room]
        meter.charge("storage", len(text), "character")
        if text:
            documents.append({"source": relative.as_posix(), "text": text})
            room -= len(text)
        else:
            unread += 1
    if not documents:
        kinds = ", ".join(sorted(READERS))
        found = f"{unread} files there are empty or broken" if unread else "it holds no such file"
        raise ValueError(f"nothing to read in {folder!r}: {found} ({kinds} are read)")
    return documents


def _text(path: Path) -> str:
    from pypdf.errors import PyPdfError

    try:
        if path.stat().st_size > BYTES_MAX:
            return ""
        text = READERS[path.suffix.lower()](path.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError, PyPdfError):
        return ""
    # Lone surrogates and NUL bytes have no place in JSON or in a database.
    return text.encode("utf-8", errors="replace").decode("utf-8").replace("\0", "").strip()
