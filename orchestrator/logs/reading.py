"""Reading the logs of nodes: from the spool while an attempt runs, from the store of objects when it is over."""

from __future__ import annotations

from typing import Final

from orchestrator.logs.line import LogLine, LogName, decode, merged
from orchestrator.logs.spool import Spool
from orchestrator.objects import Objects, open_objects
from orchestrator.settings import Settings
from tenancy.errors import HeadgateError, Unavailable
from tenancy.link import Link

CHARS_MAX: Final = 64 * 1024 * 1024
"""Of the logs that are read at once."""


class NodeLogs:
    """What nodes said.

    :param spool: None where there is no Redis to ask. Then, and while it does not answer, there are the logs of attempts that are over.
    """

    def __init__(self, spool: Spool | None, objects: Objects) -> None:
        self._spool = spool
        self._objects = objects

    def running(self, run_id: str, generation: int) -> list[LogName]:
        """Return the attempts whose log is still in the spool: they run, or nobody has put it away yet."""
        try:
            return self._spool.names(run_id, generation) if self._spool is not None else []
        except Unavailable:
            return []

    def kept(self, run_id: str, generation: int) -> list[LogName]:
        """Return the attempts whose log was put away. Raises Unavailable."""
        found = filter(None, map(LogName.of_object, self._objects.names(run_id)))
        return [name for name in found if name.generation == generation]

    def read(self, name: LogName) -> list[LogLine]:
        """Return what an attempt said so far, oldest first: the last of it; empty where nothing is known. Raises Unavailable."""
        if not name.could_be():
            return []
        try:
            spooled = self._spool.read(name)[0] if self._spool is not None else []
        except Unavailable:
            spooled = []
        try:  # after the spool: what is put away meanwhile is in one of them
            kept = decode(name, self._objects.read(name.object))
        except KeyError:
            kept = []
        return merged(kept, spooled)


class LogReader:
    """Reads the logs of one generation of a run, of all its nodes or one, of all attempts or one; each line once."""

    def __init__(self, logs: NodeLogs, run_id: str, generation: int, node: str | None = None, attempt: int | None = None) -> None:
        self.missing = 0
        """Lines that were not kept, of what was read so far."""
        self._logs = logs
        self._of = run_id, generation
        self._node, self._attempt = node, attempt
        self._read: dict[LogName, int] = {}
        self._done: set[LogName] = set()

    def more(self) -> list[LogLine]:
        """Return the lines that came since the last call, by their time. Raises Unavailable, HeadgateError where they are too many."""
        found: list[LogLine] = []
        chars = 0
        running = set(self._logs.running(*self._of))
        for name in sorted({*running, *self._logs.kept(*self._of)} - self._done):
            if self._node not in (None, name.node) or self._attempt not in (None, name.attempt):
                continue
            last = self._read.get(name, 0)
            lines = [line for line in self._logs.read(name) if line.number > last]
            if lines:
                self.missing += lines[0].number - last - 1
                self._read[name] = lines[-1].number
            chars += sum(len(line.text) for line in lines)
            if chars > CHARS_MAX:
                raise HeadgateError(f"the logs of run {name.run_id} are more than {CHARS_MAX >> 20} MB: name a node of it")
            found += lines
            if name not in running:
                self._done.add(name)
        return sorted(found, key=lambda line: (line.at, line.node, line.attempt, line.number))


def node_logs(settings: Settings) -> NodeLogs:
    """Return the logs of nodes that these settings lead to; without a stack those of attempts that are over."""
    try:
        spool = Spool(Link(settings.resolved_client_url()), settings.node_log_bytes)
    except Unavailable:
        spool = None
    return NodeLogs(spool, open_objects(settings.resolved_results_url()))
