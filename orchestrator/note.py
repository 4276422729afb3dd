"""A line of the audit for what operators do to queues and workers, and for backfills, which no script of ours tells."""

from __future__ import annotations

import getpass
import json
from typing import Any

from tenancy.link import Link
from tenancy.log import append


def note(link: Link, action: str, target: str, by: str | None, reason: str, *, tenant: str | None = None, **said: Any) -> None:
    """Append what is about to be done, so that it is on record also where whoever does it dies on the way.

    action: such as `workers.scaled`. by: None is the user of this process. tenant: whose line it is too. said: plain values.
    """
    event = {"t": "control.called", "action": action, "target": target, "by": by or getpass.getuser(), "reason": reason}
    append(link, {**event, **({"tenant": tenant} if tenant else {}), "said": json.dumps(said)})
