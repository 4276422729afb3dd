"""Notifications of levels and of decisions: rows that the recorder leaves in SQL, delivered by webhook, log and a hook in Python."""

from .notice import Notice, decision_notices, notice_rows
from .notifier import Notifier

__all__ = ["Notice", "Notifier", "decision_notices", "notice_rows"]
