"""Notifications of levels: rows that the recorder leaves in SQL, delivered by webhook, log and a hook in Python."""

from .notice import Notice, notice_rows
from .notifier import Notifier

__all__ = ["Notice", "Notifier", "notice_rows"]
