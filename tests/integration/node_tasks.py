"""The tasks of the integration tests, as a user's module would have them; workers load it by --tasks, tests import it."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import celery
import singles
from celery import Celery, shared_task
from celery.exceptions import SoftTimeLimitExceeded

from orchestrator import Fatal, Graph, Retryable, meter, task
from tenancy.errors import BudgetRefused

if singles.FLAG in os.environ:
    singles.install()

PATIENCE_S = 20.0


# -- tasks of a Celery project that was there before ------------------------------------------------------------------------

theirs = Celery("theirs")


class Prefixed(celery.Task):
    prefix = "their own base class"
    context = "called past it"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.context = "called through it"
        return super().__call__(*args, **kwargs)

    def named(self, text: str) -> str:
        return f"{self.prefix}: {text}"


@theirs.task(bind=True, base=Prefixed, name="theirs.based")
def based(self: Any, text: str) -> list[Any]:
    return [self.named(text), self.name, self.request.retries, self.request.id, self.context]


@theirs.task(bind=True, name="theirs.retrying", max_retries=5)
def retrying(self: Any, times: int) -> int:
    if self.request.retries < times:
        raise self.retry(exc=ConnectionError(f"not yet, {self.request.retries}"), countdown=0.05)
    return int(self.request.retries)


@theirs.task(bind=True, name="theirs.retrying_for_all", autoretry_for=(Exception,), max_retries=5)
def retrying_for_all(self: Any, times: int) -> int:
    if self.request.retries < times:
        raise self.retry(countdown=0.05)
    return int(self.request.retries)


@theirs.task(bind=True, name="theirs.autoretrying", autoretry_for=(ConnectionError,), retry_kwargs={"max_retries": 1, "countdown": 0.05})
def autoretrying(self: Any, times: int) -> int:
    if self.request.retries < times:
        raise ConnectionError(f"not yet, {self.request.retries}")
    return int(self.request.retries)


@shared_task(name="theirs.shared")
def shared(x: int, y: int) -> int:
    return x + y


adopted = {each.name: task.adopt(each) for each in (based, retrying, retrying_for_all, autoretrying, shared)}


# -- tasks of their own ------------------------------------------------------------------------------------------------------


@task
async def slowly(text: str) -> str:
    await asyncio.sleep(0.01)
    return text.upper()


@task
def odd() -> Any:
    return {1, 2}


@task
def together(parts: list[Any], rest: Any = None) -> list[Any]:
    return [parts, rest]


@task
def length(text: str) -> int:
    return len(text)


@task
def stubborn(path: str, seconds: float) -> None:
    """Goes on for `seconds` whatever it is told."""
    until = time.monotonic() + seconds
    Path(path).touch()
    while time.monotonic() < until:
        try:
            time.sleep(0.05)
        except SoftTimeLimitExceeded:
            continue


@task
def wait_for(path: str, log: str) -> int:
    """Write attempt and process into `log`, then wait until `path` exists; returns the attempt."""
    with Path(log).open("a") as lines:
        lines.write(f"{meter.attempt} {os.getpid()}\n")
    until = time.monotonic() + PATIENCE_S
    while not Path(path).exists():
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.01)
    return meter.attempt


@task
def needs(name: str, log: str, path: str = "", parts: Any = None) -> list[Any]:
    """Write `name` into `log`; fails while there is no `path`. Returns the name with what it was given."""
    with Path(log).open("a") as lines:
        lines.write(f"{name}\n")
    if path and not Path(path).exists():
        raise FileNotFoundError(path)
    return [name, parts]


@task
def until_cancelled(path: str) -> str:
    """Touch `path`, and go on until it is told to stop."""
    Path(path).touch()
    until = time.monotonic() + PATIENCE_S
    while not meter.cancelled():
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.02)
    return "told"


@task(estimate={"llm": 20})
def use(tokens: int, seconds: float) -> None:
    """Charge tokens, and the seconds that it sleeps as seconds of llm."""
    with meter.timed("llm"):
        time.sleep(seconds)
    meter.charge("llm", tokens, "token")


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task
def numbers(count: int, padding: int = 0) -> list[Any]:
    """A list of numbers, or of texts that begin with one and are that much longer."""
    return [f"{number}{'.' * padding}" if padding else number for number in range(count)]


@task
def double(x: Any, log: str = "", path: str = "", bad: int = -1) -> list[Any]:
    """Write the item into `log`; fails for `bad` while there is no `path`. Returns twice the item, with what is unique to it."""
    if log:
        with Path(log).open("a") as lines:
            lines.write(f"{x}\n")
    if x == bad and not (path and Path(path).exists()):
        raise FileNotFoundError(path)
    return [2 * x, meter.idempotency_key.split(".", 1)[1]]


@task
def noted(name: str, log: str, needs: str = "") -> str:
    """Write a name down; fails while there is no file `needs`."""
    with Path(log).open("a") as out:
        out.write(f"{name}\n")
    if needs and not Path(needs).exists():
        raise FileNotFoundError(needs)
    return name


@task
def graph_of(spec: dict[str, Any], log: str = "") -> Any:
    """Return the graph that `spec` is, with `ref` and `item` for what begins with a $ in one; its name is written down in `log`."""
    if log:
        noted(spec["name"], log)

    def meant(value: Any, top: bool = False) -> Any:
        if isinstance(value, dict):
            inner = value.get("task") == "node_tasks.graph_of"  # its params are for the next one
            return {
                f"${key}" if len(value) == 1 and key in ("ref", "item") else key: said if inner and key == "params" else meant(said)
                for key, said in value.items()
            }
        return [meant(item) for item in value] if isinstance(value, list) else value

    return Graph.parse(meant(spec))


nameless = task(name="node_tasks.nameless")(lambda: "lambda")


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError


@task
def shout(characters: int) -> None:
    """Raise an error whose text is that long, or that has none."""
    raise RuntimeError("\ud800\x00" + "!" * characters) if characters else Speechless


@task
def say_how(fatal: bool, after_s: float | None) -> list[Any]:
    """Rule out another attempt, or ask for it twice; returns the attempt and its idempotency key."""
    if fatal:
        raise Fatal("no such account")
    if meter.attempt < 3:
        raise Retryable(f"busy at attempt {meter.attempt}", after_s=after_s)
    return [meter.attempt, meter.idempotency_key]


@task
def charge_then_wait(micros: int, path: str, log: str) -> int:
    """Charge micros that were used already, whatever the budget says to that, write into `log`, and wait until `path` exists."""
    with suppress(BudgetRefused):
        meter.charge("other", micros, "micros", used=True)
    return wait_for.function(path, log)


@task
def quality(level: str, log: str) -> str:
    """Write into `log` as what this ran, and return it."""
    with Path(log).open("a") as lines:
        lines.write(f"{level}\n")
    return level


quality_too = task(name="node_tasks.quality_too")(quality.function)
wait_for_too = task(name="node_tasks.wait_for_too")(wait_for.function)
