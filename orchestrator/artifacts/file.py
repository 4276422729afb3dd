"""Writing an artifact: all of it, or nothing; only its owner may read it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

FOLDER_MODE, FILE_MODE = 0o700, 0o600
"""Artifacts have results and costs of tenants: nobody but the user that the platform runs as reads them."""


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` to `path`, over what may be there; a reader sees the old file or the new one. Raises OSError."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as `write_json` does."""
    with replacing(path) as file:
        file.write(text)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[IO[str]]:
    """Give a file that stands in the place of `path` once the block is left, and is gone if it raises. Raises OSError.

    durable: whether it is on the disk before it gets its name.
    """
    make_folder(path.parent)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    try:
        number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE)
        with os.fdopen(number, "w", encoding="utf-8", errors="surrogatepass", newline="\n") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and what is missing above it, for the owner alone; what is there stays as it is. Raises OSError."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=FOLDER_MODE, exist_ok=True)
