"""What the drawer of a node reads of its log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from orchestrator.logs.line import LogName
from orchestrator.logs.reading import NodeLogs
from orchestrator.store.read import RunView
from orchestrator.store.run_nodes import node_standing
from orchestrator.web.run import OfRun


class RunLog(OfRun):
    """GET /run/{id}/log?id=: lines of the log of a node's `attempt`, the newest unless said, behind the line `after`.

    `over` says that no more will come of this attempt; `missing` how many lines before the first one were not kept.
    """

    what = "log of a node"

    def telling(self) -> Callable[[Engine, RunView], Any]:
        """Return what reads it."""
        node, asked, after = self.text("id", 500), self.number("attempt"), self.number("after") or 0
        if node is None:
            raise ValueError("name a node by its id")
        logs: NodeLogs = self.application.node_logs

        def tell(engine: Engine, run: RunView) -> dict[str, Any]:
            # Before the lines: what has ended has said all that it will.
            outcome, newest = node_standing(engine, run.run_id, run.generation, node)
            attempt = asked or newest
            lines = [line for line in logs.read(LogName(run.run_id, run.generation, node, attempt)) if line.number > after]
            return {
                "attempt": attempt,
                "over": outcome is not None or attempt < newest or run.status in ("ended", "refused"),
                "missing": lines[0].number - after - 1 if lines else 0,
                "lines": [[line.number, line.at, line.level, line.logger, line.text] for line in lines],
            }

        return tell
