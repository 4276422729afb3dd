"""A recorded run as its submission loaded it: the same spec compiled by the same code gives the same rows."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from orchestrator.graph import Graph, Limits
from orchestrator.graph.limits import BYTES_CEILING, EDGES_CEILING, NODES_CEILING, PARAMS_BYTES_CEILING
from orchestrator.rebuild import Loaded, LoadRow
from orchestrator.settings import Settings
from orchestrator.submission import Submission
from tenancy.priorities import Priority

# What was admitted under yesterday's limits is still a run today.
_ADMITTED = Limits(nodes=NODES_CEILING, edges=EDGES_CEILING, bytes_max=BYTES_CEILING, params_bytes=PARAMS_BYTES_CEILING)


def load_rows(run: Mapping[str, Any], settings: Settings) -> Loaded:
    """Return what the scripts `load` were given for `run`, a row of the record with its spec and hold.

    Raises ValueError if the record has no spec of it, GraphInvalid if this version cannot read it.
    """
    submission = recorded_submission(run, settings)
    down = submission.planned_down(int(run["hold"] or 0))
    pieces = submission.rows(down.choices if down else {})
    nodes = [LoadRow(*row[:5], str(row[5])) for piece in pieces for row in piece]
    fragments = {str(index): text for piece in submission.fragments() for index, text in piece.items()}
    return Loaded(nodes, fragments, submission.want(run["budget"]))


def asked(run: Mapping[str, Any], settings: Settings) -> Mapping[str, Any]:
    """Return what `admit` was asked for `run`. Raises as `load_rows`."""
    return recorded_submission(run, settings).want(run["budget"])


def recorded_submission(run: Mapping[str, Any], settings: Settings) -> Submission:
    """Return the submission of `run`, a row of the record. Raises as `load_rows`."""
    if run["spec"] is None:
        raise ValueError(f"the record holds no graph of run {run['run_id']}")
    graph = Graph.parse(zlib.decompress(run["spec"]), _ADMITTED)
    learned, terms = json.loads(run["learned"] or "{}"), {"strict": bool(run["strict"]), "full": bool(run["full"])}
    adopts, becomes = json.loads(run["adopts"] or "{}"), json.loads(run["becomes"] or "{}")
    return Submission.of(graph, settings, Priority.parse(run["priority"]), learned, **terms, adopts=adopts, becomes=becomes)
