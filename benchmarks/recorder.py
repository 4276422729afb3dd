"""Events per second that the recorder moves from a real Redis into SQLite (WAL, synchronous FULL), four events a node."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from orchestrator.embedded import RedisServer
from orchestrator.log_key import log_key
from orchestrator.recorder.__main__ import first_start
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.store.engine import open_engine
from tenancy.link import Link

NODES = 8_000
RUN = {"tenant": "default", "run": "01j00000000000000000000000", "gen": 1}


def node_events(node: str) -> list[dict[str, Any]]:
    money = {"reserved": "1000", "day": 20000, "by": "signal", "kind": "settle"}
    return [
        {"t": "node.due", "nodes": [node]},
        {"t": "node.began", "node": node, "attempt": 1, "inc": "i", "worker": "w@h", "amount": "1000", "day": 20000, "verdict": ""},
        {"t": "node.ended", "node": node, "attempt": 1, "outcome": "succeeded", "result": json.dumps("x" * 200)},
        {"t": "money.settled", "node": node, "attempt": 1, "amount": "30", "cats": {"llm": "20", "compute": "10"}, **money},
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory) / "redis")
        server.start()
        try:
            settings = Settings(home=Path(directory) / "home", redis_url=server.url)
            engine = open_engine(settings.resolved_database_url(), writer=True)
            first_start(engine, 0, log_key(settings))
            recorder = Recorder(Link(server.client_url), engine, settings)
            recorder.prepare()
            while recorder.step(None):
                pass
            admitted = {"t": "run.admitted", "graph": "g", "total": NODES, "estimate": "1", "floor": "1", "hold": "1", "budget": ""}
            events = [admitted, {"t": "run.started"}, *(event for at in range(NODES) for event in node_events(f"node-{at}"))]
            now = int(time.time() * 1000)
            with recorder.link.client.pipeline(transaction=False) as pipe:
                for seq, event in enumerate(events, start=2):
                    pipe.xadd("hg1:events", {"e": json.dumps({"at": now, **RUN, **event})}, id=f"1-{seq}")
                pipe.execute()
            started, cpu, batches = time.perf_counter(), time.process_time(), []
            while True:
                before = time.perf_counter()
                if not recorder.step(None):
                    break
                batches.append(1000 * (time.perf_counter() - before))
            seconds = time.perf_counter() - started
            print(
                f"{len(events)} events in {seconds:.2f} s: {len(events) / seconds:.0f} events/s, {time.process_time() - cpu:.2f} s of CPU"
            )
            print(f"a batch of at most 1000: median {sorted(batches)[len(batches) // 2]:.0f} ms, longest {max(batches):.0f} ms")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
