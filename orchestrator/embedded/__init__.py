"""The embedded stack: everything that runs graphs on one machine, started and ended by one process."""

from orchestrator.embedded.redis_server import RedisServer
from orchestrator.embedded.stack import Stack
from orchestrator.embedded.up import run_up

__all__ = ["RedisServer", "Stack", "run_up"]
