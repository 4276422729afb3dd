"""Workers of the bare app: real processes over any Redis, without recorder, state or stack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pool_tasks
import redis
from pools import Note, read_notes
from running import until

from tenancy import keys

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FLAGS = ("--prefetch-multiplier=1", "--without-gossip", "--without-mingle", "--loglevel=INFO")
PUBLISH = """
import json, sys
from bare_app import app
for args, headers in json.loads(sys.argv[1]):
    app.send_task("pools.note", args=args, headers=headers)
"""


def open_epoch(client: redis.Redis, number: int = 1) -> None:
    """Bind the scripts to this start of the server, as the recorder does where there is one."""
    server: Any = client.info("server")
    client.hset(keys.EPOCH, mapping={"epoch": number, "server": server["run_id"], "seq": 0})


@dataclass(frozen=True)
class Bare:
    """The app over the Redis at `broker` (as Kombu reads it), with its files in `place`."""

    broker: str
    place: Path
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "HEADGATE_"))}
        given = {"BARE_BROKER": self.broker, "BARE_OPTIONS": json.dumps(self.options), pool_tasks.NOTES: str(self.place / "notes.jsonl")}
        return {**kept, **given, "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]), "PYTHONUNBUFFERED": "1"}

    def publish(self, *messages: tuple[str, float], **headers: Any) -> None:
        """Publish messages (label, seconds) with these headers, from one process."""
        argv = [sys.executable, "-c", PUBLISH, json.dumps([[message, headers] for message in messages])]
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def notes(self, what: str = "began") -> list[Note]:
        """What was written down so far."""
        return [note for note in read_notes(self.place / "notes.jsonl") if note.what == what]

    @contextmanager
    def worker(self, name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker, ready when it is given out."""
        log = self.place / f"{name}.log"
        argv = [sys.executable, "-P", "-m", "celery", "-A", "bare_app", "worker", "-n", f"{name}@%h", *options, *FLAGS]
        with log.open("wb") as out:
            process = subprocess.Popen(argv, env=self.environment, stdout=out, stderr=out, cwd=self.place, start_new_session=True)
        try:
            until(lambda: process.poll() is not None or " ready." in log.read_text(), 40)
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
