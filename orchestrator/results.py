"""Results by reference: small ones as JSON in Redis, large ones as objects in a directory."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenancy.errors import HeadgateError, Unavailable

OBJECT_MARK = "@"
"""First character of a reference to an object; no JSON text starts with it."""


class NotStorable(HeadgateError):
    """The value is not JSON: a task returns text, numbers, lists and objects with text keys."""


@dataclass(frozen=True, slots=True)
class ResultStore:
    """Encodes results for Redis and reads them back.

    :param directory: where objects live; shared by all workers.
    :param inline_bytes: results up to this many bytes of JSON stay inline.
    """

    directory: Path
    inline_bytes: int

    def encode(self, value: Any, run_id: str, generation: int, node_id: str, attempt: int) -> str:
        """Return the text that stands for `value`; a large one is written to an object whose path carries the attempt.

        Raises NotStorable for a value that is no JSON.
        """
        try:
            text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise NotStorable(f"node {node_id!r} returned a value that is not JSON: {error}") from error
        if len(text) <= self.inline_bytes:
            return text
        name = f"{run_id}/{generation}/{node_id}.{attempt}.json"
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).replace(path)
        return OBJECT_MARK + name

    def decode(self, text: str) -> Any:
        """Return the value that `encode` gave `text` for. Raises Unavailable when its object is gone."""
        if not text.startswith(OBJECT_MARK):
            return json.loads(text)
        try:
            return json.loads((self.directory / text[1:]).read_text())
        except FileNotFoundError as error:
            raise Unavailable(f"the object {text[1:]} of a result is not in {self.directory}; do all workers share it?") from error

    def decode_all(self, texts: Mapping[str, str | None]) -> dict[str, Any]:
        """Return the values by node id; nodes without a result are absent."""
        return {node: self.decode(text) for node, text in texts.items() if text is not None}
