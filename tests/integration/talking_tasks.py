"""Tasks that log and print, for the tests of nodes' logs."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from orchestrator import meter, task

PATIENCE_S = 30.0
HOSTILE_TASK = "talk.<img src=x onerror=alert(1)>{{1+1}}"
"""A name that a user may give a task."""
log = logging.getLogger(__name__)


@task(name="talk.say")
def say(words: str, until: str = "", fails: int = 0, api_key: str = "", needs: str = "") -> str:
    """Log, print and print to stderr, then wait for a file; fails at the first attempts, and while there is no file that it needs."""
    log.warning("%s: logged by %d at attempt %d", words, os.getpid(), meter.attempt)
    print(f"{words}: printed {api_key}")  # noqa: T201
    sys.stderr.write(f"{words}: to stderr\n")
    if until:
        wait_for(until)
    print(f"{words}: and more")  # noqa: T201
    if meter.attempt <= fails:
        raise ValueError(f"{words}: attempt {meter.attempt} fails")
    if needs and not Path(needs).exists():
        raise FileNotFoundError(needs)
    return words


@task(name="talk.chatter")
def chatter(words: str, times: int) -> int:
    """Say the same again and again, in pieces, with time between for whoever runs beside."""
    for number in range(times):
        print(f"{words} ", end="")  # noqa: T201
        time.sleep(0.005)
        print(number)  # noqa: T201
        log.warning("%s %d", words, number)
    return times


@task(name=HOSTILE_TASK)
def own(given: object) -> object:
    """Return what it is given."""
    return given


@task(name="talk.nothing")
def nothing() -> None:
    """Say nothing."""


def wait_for(path: str) -> None:
    """Return once there is a file."""
    until = time.monotonic() + PATIENCE_S
    while not Path(path).exists():
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.01)
