"""The recorder moves the event log from Redis into SQL, and answers requests once they are durable."""

from .ask import Kind, append_request, await_answer

__all__ = ["Kind", "append_request", "await_answer"]
