"""The Celery app: `celery -A orchestrator.app worker|beat|flower|inspect ...` work as every Celery user expects."""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.assembly import make_app
from orchestrator.loading import SHIPPED, load_tasks
from orchestrator.settings import Settings
from orchestrator.web import entry
from tenancy.errors import HeadgateError

__all__ = ["SHIPPED", "app"]

UNAVAILABLE = 69
"""Exit code of a process that lacks a service or a setting (sysexits.h)."""


def _is_celery_command() -> bool:
    """Whether this process is `celery ...` or `python -m celery ...`."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    return (program.parent.name if program.name == "__main__.py" else program.stem) == "celery"


try:
    app = make_app()
    load_tasks(Settings.load().tasks)
    entry.install()
except HeadgateError as missing:
    if not _is_celery_command():
        raise
    # Celery prints the traceback of whatever fails here, and the one sentence that helps would be its last line.
    print(f"headgate: {missing}", file=sys.stderr)  # noqa: T201 (a command says what it needs)
    sys.exit(UNAVAILABLE)
