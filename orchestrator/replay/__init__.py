"""Replay: what the log of a run says anew, from nothing but the log, against what is on record."""

from .replay import Replay, replay_file, replay_run
from .run_log import RunLog
from .tampering import tampering

__all__ = ["Replay", "RunLog", "replay_file", "replay_run", "tampering"]
