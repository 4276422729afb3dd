"""The recorder of a seed: the real one, with its points; `python -m benchmarks.chaos.recorder_points`."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.chaos.points import of_environment
from orchestrator.recorder import loop
from orchestrator.recorder.__main__ import main

_apply = loop.apply


def apply_at_points(*args: Any) -> Any:
    """Commit a batch."""
    return of_environment("recorder").around("commit", lambda: _apply(*args))


if __name__ == "__main__":
    loop.apply = apply_at_points
    sys.exit(main())
