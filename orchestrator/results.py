"""Results by reference: small ones as JSON in Redis, large ones as objects in a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.objects import Objects, open_objects
from orchestrator.settings import Settings
from tenancy.errors import HeadgateError, Unavailable

OBJECT_MARK = "@"
"""First character of a reference to an object; no JSON text starts with it."""


class NotStorable(HeadgateError):
    """The value is not JSON: a task returns text, numbers, lists and objects with text keys."""


@dataclass(frozen=True, slots=True)
class ResultStore:
    """Encodes results for Redis and reads them back.

    :param objects: where large results live; shared by all workers.
    :param inline_bytes: results up to this many bytes of JSON stay inline.
    :param ttl_s: how long objects are kept after the end of their run, for the sentence that says that one is gone.
    """

    objects: Objects
    inline_bytes: int
    ttl_s: float = 7 * 86_400.0

    def encode(self, value: Any, run_id: str, generation: int, node_id: str, attempt: int) -> str:
        """Return the text that stands for `value`; a large one is written to an object whose path carries the attempt.

        Raises NotStorable for a value that is no JSON, Unavailable when the object could not be written.
        """
        try:
            text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise NotStorable(f"node {node_id!r} returned a value that is not JSON: {error}") from error
        return self.keep(f"{run_id}/{generation}/{node_id}.{attempt}.json", text)

    def keep(self, name: str, text: str) -> str:
        """Return what stands for a JSON text: itself, or where it is large the object `name`, which then holds it. Raises Unavailable."""
        if len(text) <= self.inline_bytes:
            return text
        self.objects.write(name, text.encode())
        return OBJECT_MARK + name

    def decode(self, text: str) -> Any:
        """Return the value that `encode` gave `text` for. Raises Unavailable when its object is gone."""
        if not text.startswith(OBJECT_MARK):
            return json.loads(text)
        try:
            return json.loads(self.objects.read(text[1:]))
        except KeyError:
            days = f"{self.ttl_s / 86_400:g} days"
            raise Unavailable(
                f"the object {text[1:]} of a result is not in {self.objects.url}: it was kept for {days} after the end "
                "of its run (HEADGATE_RESULT_TTL_S), or workers and readers name different stores (HEADGATE_RESULTS_URL)"
            ) from None

    def decode_all(self, texts: Mapping[str, str | None]) -> dict[str, Any]:
        """Return the values by node id; nodes without a result are absent."""
        return {node: self.decode(text) for node, text in texts.items() if text is not None}


def result_store(settings: Settings) -> ResultStore:
    """Return the store of results that these settings lead to."""
    return ResultStore(open_objects(settings.resolved_results_url()), settings.result_inline_bytes, settings.result_ttl_s)
