"""Tasks that write down when and where they ran, for the tests of pools, limits and caps."""

from __future__ import annotations

import os
import time
from pathlib import Path

from orchestrator import Limit, task
from orchestrator.settings import Settings

PATIENCE_S = 30.0


def held(log: str, seconds: float, until: str = "") -> str:
    """Wait for a file, sleep, then add a line with start, end and process to the log; returns the pools that this worker serves."""
    started = time.monotonic()
    if until:
        await_file(until)
    time.sleep(seconds)
    line = f"{started} {time.monotonic()} {os.getpid()}\n".encode()
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)
    finally:
        os.close(file)
    return ",".join(Settings.load().pools)


free = task(name="slots.free")(held)
pinned = task(name="slots.pinned", pool="gpu")(held)
two = task(name="slots.two", limits=(Limit("two", at_once=2),), expected_s=0.2)(held)
often = task(name="slots.often", limits=(Limit("often", per_minute=30),))(held)
each = task(name="slots.each", limits=(Limit("each", at_once=1, per="tenant"),))(held)
alone = task(name="slots.alone", limits=(Limit("alone", at_once=1),))(held)


@task(name="slots.wait", limits=(Limit("waiting", at_once=1),))
def wait(path: str, begun: str) -> int:
    """Say in a file of its own that it has begun, then wait for another file; returns its process."""
    with Path(begun).open("a") as file:
        file.write(f"{os.getpid()}\n")
    await_file(path)
    return os.getpid()


def await_file(path: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.05)
