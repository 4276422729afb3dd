"""What a worker of a seed loads beside its tasks: its points."""

from __future__ import annotations

from benchmarks.chaos.points import of_environment

of_environment("worker").install()
