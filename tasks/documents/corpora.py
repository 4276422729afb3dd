"""Real text that is on every machine: the READMEs and docstrings of installed packages."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final, NamedTuple

from .formats import docstring_parts

_BYTES_MAX: Final = 300_000
_CHARACTERS_MAX: Final = 10_000

# Of one docstring: the beginning says what a thing is, long lists of parameters follow.
_PART_MAX: Final = 1_200


_NOT_DOCUMENTATION: Final = frozenset(
    {"tests", "test", "testing", "conftest", "_vendor", "externals", "v1", "deprecated", "f2py", "distutils"}
)


class Corpus(NamedTuple):
    """A corpus of the demo: whose text it is, and what is asked of it."""

    name: str
    packages: tuple[str, ...]
    questions: tuple[str, ...]


CORPORA: Final = (
    Corpus(
        "queues",
        ("celery", "kombu"),
        (
            "What happens when a task is retried?",
            "How is a rate limit set for a task?",
            "Which exchange types route messages to queues?",
        ),
    ),
    Corpus(
        "models",
        ("pydantic", "sqlmodel", "sqlalchemy"),
        (
            "What is a SQLModel class based on?",
            "What happens to pending objects when a session is flushed?",
            "How is JSON schema generated for a model?",
        ),
    ),
    Corpus(
        "numbers",
        ("scikit-learn", "numpy"),
        (
            "How does a random forest control over-fitting?",
            "How does K-Fold split data into train and test sets?",
            "What does the QR factorization of a matrix return?",
        ),
    ),
)
"""Three corpora, and three questions that each of them answers."""


def installed_corpus(packages: Sequence[str], folder: str | Path, limit: int = 40) -> int:
    """Write what `packages` say about themselves into `folder`, one file per module, and return the number of files.

    Per package the README and the modules with the most docstrings, at most `limit` files over all packages in equal parts,
    each cut at 10,000 characters. Nothing is imported; the same installation gives the same files.
    Raises importlib.metadata.PackageNotFoundError for a package that is not installed, ValueError for a limit below the
    number of packages.
    """
    if not packages or limit < len(packages):
        raise ValueError(f"limit must be at least the number of packages ({len(packages)}), and is {limit}")
    written = 0
    for position, package in enumerate(packages):
        share = (limit - written) // (len(packages) - position)
        target = Path(folder) / package
        target.mkdir(parents=True, exist_ok=True)
        for name, text in _texts(distribution(package), share):
            (target / name).write_text(text[:_CHARACTERS_MAX], encoding="utf-8")
            written += 1
    return written


def _texts(package: Distribution, limit: int) -> list[tuple[str, str]]:
    _, _, description = (package.read_text("METADATA") or "").partition("\n\n")
    texts = [("README.md", description)] if description.strip() else []
    for module, data in _modules(package):
        if len(texts) >= limit:
            break
        try:
            text = "\n\n".join(_beginning(part) for part in docstring_parts(data))
        except (SyntaxError, ValueError):
            continue
        if len(text) > 500:
            texts.append((f"{module}.txt", f"{module}\n\n{text}"))
    return texts


def _beginning(part: str) -> str:
    if len(part) <= _PART_MAX:
        return part
    return part[: max(part.rfind("\n\n", 0, _PART_MAX), part.rfind(".\n", 0, _PART_MAX) + 1, _PART_MAX // 2)]


def _modules(package: Distribution) -> list[tuple[str, bytes]]:
    """The modules, those with the most docstrings first: counted by their quotes, since parsing all takes seconds."""
    found = []
    for file in package.files or ():
        parts = file.with_suffix("").parts
        hidden = any(part.startswith(".") or part in _NOT_DOCUMENTATION for part in parts)
        if file.suffix != ".py" or hidden:
            continue
        path = Path(str(file.locate()))
        if path.is_file() and path.stat().st_size <= _BYTES_MAX:
            data = path.read_bytes()
            name = ".".join(part for part in parts if part != "__init__")
            found.append((-data.count(b'"""'), name, data))
    return [(name, data) for _, name, data in sorted(found)]
