"""Celery's beat, told to end: between two ticks, and not in the middle of one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.beat import Service


def end_between_ticks(sender: Service | None = None, **_: Any) -> None:
    """Have SIGTERM and SIGINT end this beat after its tick; told a second time it ends at once. For the signal `beat_init`.

    Stock Celery 5.7 closes the schedule in the handler and raises SystemExit wherever beat is. While it sends a message that may be in
    redis-py, whose cleanup turns it into another error; beat takes that for a message that could not be sent, goes on, and dies of
    its closed schedule.
    """
    if sender is None or threading.current_thread() is not threading.main_thread():
        return

    def told(_number: int, frame: FrameType | None) -> None:
        sleeps = frame is not None and frame.f_code is type(sender).start.__code__
        if sleeps or sender._is_shutdown.is_set():
            raise SystemExit
        sender._is_shutdown.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
