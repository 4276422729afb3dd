"""The kinds of files that can be read, and how text comes out of each."""

from __future__ import annotations

import ast
import io
import warnings
from collections.abc import Callable
from typing import Final

BYTES_MAX: Final = 20_000_000


def plain(data: bytes) -> str:
    """Text, Markdown, reStructuredText: as it stands; bytes that are no UTF-8 are replaced."""
    return data.decode("utf-8-sig", errors="replace")


def html(data: bytes) -> str:
    """The text that a reader of the page sees."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(data, "html.parser")
    for hidden in soup(["script", "style", "noscript", "template"]):
        hidden.decompose()
    return soup.get_text("\n", strip=True)


def pdf(data: bytes) -> str:
    """The text of all pages; empty for a scan. Raises pypdf's errors for a broken file."""
    from pypdf import PdfReader

    return "\n\n".join(page.extract_text() for page in PdfReader(io.BytesIO(data)).pages)


def docstrings(data: bytes) -> str:
    """The docstrings of a Python module as one text."""
    return "\n\n".join(docstring_parts(data))


def docstring_parts(data: bytes) -> list[str]:
    """The docstring of a Python module and those of its public names, each under what it documents; nothing is imported or run.

    Raises SyntaxError or ValueError for what is no Python module.
    """
    with warnings.catch_warnings():
        # Old escape sequences in somebody else's code are not our reader's business.
        warnings.simplefilter("ignore")
        tree = ast.parse(data)
    parts = [ast.get_docstring(tree) or ""]
    _collect(tree, "", parts)
    return [part for part in parts if part]


def _collect(node: ast.AST, prefix: str, parts: list[str]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{prefix}{child.name}"
            if not child.name.startswith("_") and (text := ast.get_docstring(child)):
                parts.append(f"{name}:\n{text}")
            if isinstance(child, ast.ClassDef):
                _collect(child, f"{name}.", parts)


READERS: Final[dict[str, Callable[[bytes], str]]] = {
    ".txt": plain,
    ".md": plain,
    ".markdown": plain,
    ".rst": plain,
    ".html": html,
    ".htm": html,
    ".pdf": pdf,
    ".py": docstrings,
}
"""How to read a file, by its suffix in lower case."""
