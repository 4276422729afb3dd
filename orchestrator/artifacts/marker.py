"""How far artifacts are written: a file among them, so that it is as old as they are, and true wherever the writer died."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.artifacts.file import FILE_MODE, make_folder, write_json
from orchestrator.artifacts.place import EXECUTION
from orchestrator.store.position import START, Position

NAME = ".written.json"


@dataclass
class Marker:
    """Everything about runs that ended up to `position` is written.

    until, lengths: what is being written now, up to where in the log, and how long (bytes) the files were that lines are added to. Whoever
    finds these set cuts the files back and does that piece again, so that no line is there twice.
    """

    root: Path
    position: Position = START
    until: Position | None = None
    lengths: dict[str, int] = field(default_factory=dict)
    moved: bool = False

    @classmethod
    def read(cls, root: Path) -> Marker:
        """Return the marker of a folder; that of the beginning where there is none that reads. Raises OSError."""
        try:
            said = json.loads((root / NAME).read_text(encoding="utf-8"))
            until = None if said["until"] is None else Position.parse(said["until"])
            lengths = {str(name): int(length) for name, length in said["lengths"].items()}
            return cls(root, Position.parse(said["position"]), until, lengths, moved=until is not None)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return cls(root)

    def done(self, position: Position) -> None:
        """Note that everything up to there is written, or has nothing to be written; `write` keeps it."""
        self.position, self.until, self.lengths, self.moved = position, None, {}, True

    def write(self) -> None:
        """Keep it. Raises OSError."""
        until = None if self.until is None else str(self.until)
        write_json(self.root / NAME, {"position": str(self.position), "until": until, "lengths": self.lengths})

    def begin(self, until: Position, files: Iterable[Path]) -> None:
        """Say that lines are added to `files` next, for what ended up to `until`. Raises OSError."""
        self.until = until
        self.lengths = {path.name: path.stat().st_size if path.exists() else 0 for path in files}
        self.write()

    def cut_back(self) -> None:
        """Take away the lines of a piece that was not finished. Raises OSError."""
        for name, length in self.lengths.items():
            path = self.root / EXECUTION / Path(name).name
            if path.exists() and path.stat().st_size > length:
                os.truncate(path, length)


def add_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a file, on the disk when this returns. Raises OSError."""
    make_folder(path.parent)
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, FILE_MODE)
    with os.fdopen(number, "a", encoding="utf-8", errors="surrogatepass", newline="\n") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
