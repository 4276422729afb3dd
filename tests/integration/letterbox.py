"""Dead letters as three workers leave them that died with each, in a pool that no worker serves: what is in line there stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from running import Running, until

POOL = "letterbox"


@contextmanager
def dead_letters(stack: Running) -> Iterator[list[str]]:
    """Give the tags of three; nothing is left of them afterwards."""
    link = stack.client.kernel.link

    def put(task: str) -> str:
        return str(link.call("tenancy/transport/put", "{}", "default", 5, POOL, 0, "", 0, 0, "", task, "[]"))

    tags = [put(f"letters.{name}") for name in ("first", "second", "third")]
    for number in range(3):
        inc = f"doomed-{tags[0]}-{number}"
        info = {"name": inc, "host": "nowhere", "pid": 1, "pools": [POOL], "slots": 3, "tasks": []}
        link.call("tenancy/transport/enroll", inc, 60_000, json.dumps(info))
        assert {next(iter(link.call("tenancy/transport/pop", inc, POOL, 1_000))) for _ in tags} == set(tags)
        link.client.zadd("hg1:incarnations", {inc: 0})  # so the sweep takes it for dead
        until(lambda inc=inc: link.read("ZSCORE", "hg1:incarnations", inc) is None, 60)  # type: ignore[misc]
    try:
        yield tags
    finally:
        link.call("tenancy/transport/letters", "discard", *tags)
        link.call("tenancy/transport/remove", "tag", *tags)
