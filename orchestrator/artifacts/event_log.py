"""The log of a run as a file of its own: `artifacts/{graph_name}/{run_id}/events.jsonl`, from which alone the run can be replayed.

The first line says what was submitted, each line after it is an event with its link, its text byte for byte; the last one is the
sealed end of the chain, and what the record said of the run when the file was written.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from orchestrator.artifacts import place
from orchestrator.artifacts.file import replacing
from orchestrator.chain import Head, file_mac, genesis, link
from orchestrator.replay.recompute import FROM_EVENTS
from orchestrator.replay.record import read_log
from orchestrator.replay.run_log import End, RunLog, Step
from orchestrator.store import tables as t
from orchestrator.store.engine import reading
from orchestrator.store.position import START, Position
from tenancy.errors import HeadgateError, Unknown

SCHEMA_VERSION = 1

LOOKED_BACK = 10_000
"""Newest runs among which those without a whole file are looked for."""

_TAIL_BYTES = 8_192

_EVENT = re.compile(r'\{"position":"(\d+)-(\d+)","link":"([0-9a-f]*)","passed":(true|false),"event":(.*)\}', re.DOTALL)
_GRAPH = ',"graph":'
_MAC = re.compile(r'(.*),"mac":"([0-9a-f]*)"\}', re.DOTALL)


def lines(log: RunLog, key: bytes) -> Iterator[str]:
    """Yield the lines of a log's file, without their ends."""
    kept = {name: value for name, value in log.submitted.items() if name not in (*FROM_EVENTS, "spec")}
    head = _json({"schema_version": SCHEMA_VERSION, **kept})
    head = f"{head[:-1]}{_GRAPH}{'null' if log.spec is None else log.spec.decode()}}}"
    yield head
    before = genesis(key, log.run_id, log.generation)
    for step in log.steps:
        before = link(key, before, step.position, step.text) if step.passed else step.link or ""
        # A text that is no JSON of one line, which no script of ours writes, is kept as a text.
        text = step.text if _is_line(step.text) else _json({"text": step.text})
        yield f'{{"position":"{step.position}","link":"{before}","passed":{"true" if step.passed else "false"},"event":{text}}}'
    assert log.end is not None
    end = log.end.head
    foot = _json(
        {
            "events": end.events,
            "last": str(end.position),
            "link": end.link,
            "seal": log.end.seal,
            "key_id": log.end.key_id,
            "record": summary(log.rows),
        }
    )
    yield f'{foot[:-1]},"mac":"{file_mac(key, head, foot[:-1])}"}}'


def summary(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what the rows of a run come to: its columns that events decide, outcomes of nodes, and totals in micros."""
    run = rows["run"][0]
    charged: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    for entry in rows["ledger"]:
        sums[entry["kind"]] += entry["amount"]
        if entry["kind"] in ("settle", "waste") and entry["category"]:
            charged[entry["category"]] += entry["amount"]
    return {
        **{name: run[name] for name in FROM_EVENTS},
        "cost": dict(sorted(charged.items())),
        "entries": dict(sorted(Counter(entry["kind"] for entry in rows["ledger"]).items())),
        "sums": dict(sorted(sums.items())),
        "nodes": {row["node_id"]: row["outcome"] or row["state"] for row in rows["node"]},
    }


def write_log(engine: Engine, root: Path, key: bytes, run_id: str, generation: int) -> Path | None:
    """Write the log of a run that has ended, whole or not at all; None while there is nothing to write. Raises Unavailable, OSError."""
    try:
        log = read_log(reading(engine), run_id, generation, totals=True)
    except Unknown:
        return None  # an ordinary task
    if log.submitted["status"] != "ended" or log.end is None:
        return None
    path = place.event_log(root, log.submitted["graph_name"], run_id, generation)
    # Not synchronised with the disk: a file that a loss of power leaves behind half is found and written again at the next start.
    with replacing(path, durable=False) as file:
        file.writelines(f"{line}\n" for line in lines(log, key))
    return path


def missing_logs(engine: Engine, root: Path, since_ms: int = 0) -> list[tuple[str, int]]:
    """Return the runs, among the newest, that have ended and whose file is not there, or does not go to the end of their log.

    since_ms: those that ended before then need none any more.
    """
    ended = select(t.run.c.run_id, t.run.c.generation, t.run.c.graph_name, t.chain.c.events)
    joined = ended.join(t.chain, (t.chain.c.run_id == t.run.c.run_id) & (t.chain.c.generation == t.run.c.generation))
    newest = (
        joined.where(t.run.c.status == "ended", t.run.c.finished_at >= since_ms).order_by(t.run.c.submitted_at.desc()).limit(LOOKED_BACK)
    )
    with reading(engine).connect() as connection:
        rows = connection.execute(newest).all()
    return [
        (row.run_id, row.generation)
        for row in rows
        if _events_in(place.event_log(root, row.graph_name, row.run_id, row.generation)) != row.events
    ]


def _events_in(path: Path) -> int | None:
    """Return how many events a file says at its end that it has; None where it does not."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            found = re.search(rb'\n\{"events": ?(\d+),[^\n]*\n\Z', file.read())
    except OSError:
        return None
    return None if found is None else int(found[1])


def files_in(place: Path) -> list[Path]:
    """Return the logs at a place: a file, the folder of a run, or a folder above such folders. Raises HeadgateError where there is none."""
    found = [place] if place.is_file() else sorted(place.rglob("events*.jsonl"))
    if not found:
        raise HeadgateError(f"there is no events.jsonl in {place}; name the folder of a run, such as artifacts/GRAPH/RUN")
    return found


def earlier_files(path: Path, generation: int) -> list[Path]:
    """Return the logs of earlier generations that lie beside a log, oldest first."""
    names = ["events.jsonl" if number == 1 else f"events.{number}.jsonl" for number in range(1, generation)]
    return [path.with_name(name) for name in names if path.with_name(name) != path and path.with_name(name).exists()]


def read_file(path: Path, key: bytes | None) -> tuple[RunLog, dict[str, Any]]:
    """Return the log in a file, and what the record said of the run; `problems` are the lines that are not as they were written.

    key: what the first and the last line are checked with, None where there is none. Raises HeadgateError where nothing can be read.
    """
    with path.open(encoding="utf-8", errors="surrogatepass", newline="\n") as file:
        texts = file.read().split("\n")
    problems: list[str] = []
    try:
        header = json.loads(texts[0])
        run_id, generation = str(header.pop("run_id")), int(header.pop("generation"))
        header.pop("schema_version")
        graph = header.pop("graph")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HeadgateError(f"{path} is not the log of a run: its first line does not say whose it is") from None
    spec = None if graph is None else texts[0].partition(_GRAPH)[2][:-1].encode("utf-8", "surrogatepass")
    body = texts[1:-1] if texts[-1] == "" else texts[1:]
    if texts[-1] != "":
        problems.append("the last line is cut")
    end: End | None = None
    record: dict[str, Any] = {}
    foot = _MAC.fullmatch(body[-1]) if body else None
    if foot is None:
        problems.append("the last line, the end of the chain, is missing")
    else:
        body.pop()
        end, record = _foot(foot[1] + "}")
        if key is not None and foot[2] != file_mac(key, texts[0], foot[1]):
            problems.append("the first or the last line was changed, or is sealed with another key")
    steps = []
    for number, text in enumerate(body, 2):
        found = _EVENT.fullmatch(text)
        if found is None:
            problems.append(f"line {number} is not an event as it was written: {text[:100]!r}")
            continue
        steps.append(Step(Position(int(found[1]), int(found[2])), _text(found[5]), found[3] or None, found[4] == "true"))
    submitted = {**dict.fromkeys(t.run.c.keys()), **{name: value for name, value in header.items() if name in t.run.c}}
    return RunLog(run_id, generation, submitted | {"run_id": run_id, "generation": generation}, spec, steps, end, (), problems), record


def _foot(text: str) -> tuple[End | None, dict[str, Any]]:
    try:
        said = json.loads(text)
        head = Head(int(said["events"]), Position.parse(said["last"]), str(said["link"]))
        return End(head, str(said["seal"]), str(said["key_id"])), dict(said["record"])
    except (ValueError, KeyError, TypeError):
        return End(Head(0, START, ""), "", ""), {}


def _is_line(text: str) -> bool:
    return text.startswith("{") and "\n" not in text and not text.startswith('{"text":')


def _text(kept: str) -> str:
    if kept.startswith('{"text":'):
        try:
            return str(json.loads(kept)["text"])
        except (ValueError, KeyError):
            return kept
    return kept


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
