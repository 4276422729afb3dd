"""Events that are not part of a transition: requests to the recorder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tenancy.link import Link


def append(link: Link, event: Mapping[str, Any]) -> None:
    """Append `event` (with its type under `t`) to the log; its time and id are Redis's."""
    link.call("tenancy/log", json.dumps(event))
